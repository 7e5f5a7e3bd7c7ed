"""MultivariateHuber and the loss: density, moments, samples, gradients, and TFP's conventions."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from random_parameters import random_parameters

from tfhuber.distributions.elliptical import MultivariateHuber
from tfhuber.distributions.likelihood import negative_log_likelihood
from tfhuber.distributions.radial import Huber
from tfhuber.linalg.spd import spd_matrix, symmetric_to_vector

DELTAS = [0.1, 0.5, 1.0, 2.0, 10.0]


def rho(r, delta):
    return np.where(r <= delta, r**2 / 2, delta * (r - delta / 2))


def lattice(d, points, extent):
    axis = (np.arange(points) + 0.5) / points * 2 * extent - extent
    grid = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d)
    return grid, (2 * extent / points) ** d


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("delta", DELTAS)
def test_density_integrates_to_one_and_has_the_stated_moments(d, delta):
    """By the midpoint rule over the ball's cube, in coordinates that undo A; relative error 1e-3.

    The substitution u = s sinh(t) spreads a lattice over both the centre and the exponential tails.
    """
    loc, factor = random_parameters(d, seed=d)
    dist = MultivariateHuber(loc, factor, delta)
    t, cell = lattice(d, {1: 4000, 2: 400, 3: 90}[d], np.arcsinh(30 / min(delta, 1)))
    whitened = np.sinh(t)
    volume = cell * np.prod(np.cosh(t), axis=-1) / np.linalg.det(factor)
    y = loc + whitened @ np.linalg.inv(factor)
    weight = dist.prob(y).numpy() * volume
    assert weight.sum() == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(weight @ y, dist.mean(), atol=2e-3)
    covariance = np.einsum("n,ni,nj->ij", weight, y - loc, y - loc)
    scale = np.abs(covariance).max()
    np.testing.assert_allclose(dist.covariance(), covariance, atol=3e-3 * scale)
    occupied = weight > 0
    entropy = -np.sum(weight[occupied] * dist.log_prob(y[occupied]))
    assert float(dist.entropy()) == pytest.approx(entropy, rel=3e-3, abs=3e-3)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_prob_is_the_papers_formula(d, dtype):
    loc, factor = random_parameters(d, batch=(5,), dtype=dtype)
    y = np.random.default_rng(1).normal(size=(7, 1, d)).astype(dtype) * 3
    dist = MultivariateHuber(loc, factor, 1.3)
    assert dist.dtype == dtype
    r = np.linalg.norm(np.einsum("nij,mnj->mni", factor, y - loc), axis=-1)
    expected = np.linalg.slogdet(factor)[1] - rho(r, 1.3) - Huber(1.3).log_normalizer(d)
    tolerance = {"float32": 3e-5, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(dist.log_prob(y), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(dist.prob(y), np.exp(expected), rtol=tolerance * 10)
    np.testing.assert_allclose(dist.radius(y), r, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_natural_and_loc_forms_agree(d):
    loc, factor = random_parameters(d, batch=(6,))
    log_det = np.linalg.slogdet(factor)[1]
    nu = np.einsum("nij,nj->ni", factor, loc)
    by_loc = MultivariateHuber(loc, factor, 0.8)
    by_nu = MultivariateHuber.from_natural(nu, factor, 0.8)
    with_log_det = MultivariateHuber.from_natural(nu, factor, 0.8, log_det=log_det)
    y = np.random.default_rng(2).normal(size=(6, d))
    for dist in (by_nu, with_log_det):
        np.testing.assert_allclose(dist.log_prob(y), by_loc.log_prob(y), rtol=1e-10)
        for statistic in ("mean", "mode", "covariance", "variance", "stddev", "entropy"):
            answer, expected = getattr(dist, statistic)(), getattr(by_loc, statistic)()
            np.testing.assert_allclose(answer, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(dist.loc, loc, rtol=1e-9)
        sample, expected = dist.sample(3, seed=(1, 2)), by_loc.sample(3, seed=(1, 2))
        np.testing.assert_allclose(sample, expected, rtol=1e-8)
    np.testing.assert_allclose(by_loc.nu, nu, rtol=1e-12)
    np.testing.assert_allclose(by_loc.log_det, log_det, rtol=1e-9, atol=1e-12)


def test_a_given_log_det_keeps_what_the_matrix_has_lost():
    raw = tf.constant([[-300.0, 0.0, -400.0]])
    factor, log_det = spd_matrix(raw)
    dist = MultivariateHuber.from_natural(tf.zeros([1, 2]), factor, 1.0, log_det=log_det)
    log_prob = dist.log_prob(tf.zeros([1, 2]))
    np.testing.assert_allclose(log_prob, [-702.0 - np.log(10.0941)], rtol=1e-6)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("delta", [0.2, 1.0, 5.0])
def test_samples_agree_with_log_prob_and_moments(d, delta):
    """20,000 samples: radii by Kolmogorov and Smirnov, moments and entropy within 5 errors."""
    loc, factor = random_parameters(d, seed=5)
    dist = MultivariateHuber(loc, factor, delta)
    y = dist.sample(20_000, seed=(3, d)).numpy()
    assert scipy.stats.kstest(dist.radial_cdf(y), "uniform").pvalue > 1e-3
    direction = (y - loc) @ factor
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    error = 5 / np.sqrt(len(y))
    np.testing.assert_allclose(direction.mean(0), 0, atol=error / np.sqrt(d))
    np.testing.assert_allclose(direction.T @ direction / len(y), np.eye(d) / d, atol=error)
    centred = y - y.mean(0)
    outer = centred[:, :, None] * centred[:, None, :]
    np.testing.assert_allclose(dist.covariance(), outer.mean(0), atol=(error * outer.std(0)).max())
    log_prob = dist.log_prob(y).numpy()
    assert abs(-log_prob.mean() - dist.entropy()) < error * log_prob.std()


@pytest.mark.parametrize("delta", [2, np.float32(2), np.float64(2), "tensor"])
def test_a_number_for_delta_leaves_the_dtype_alone(delta):
    delta = tf.constant(2.0) if isinstance(delta, str) else delta
    loc, factor = random_parameters(2, dtype="float32")
    dist = MultivariateHuber(loc, factor, delta)
    assert dist.dtype == dist.delta.dtype == dist.covariance().dtype == tf.float32
    assert dist.sample(2, seed=1).dtype == dist.log_prob(loc).dtype == tf.float32


def test_sampling_is_reproducible():
    loc, factor = random_parameters(2, batch=(4,), dtype="float32")
    dist = MultivariateHuber(loc, factor)
    assert dist.sample([3, 2], seed=1).shape == (3, 2, 4, 2)
    stateless = dist.sample(5, seed=tf.constant([1, 2]))
    np.testing.assert_array_equal(stateless, dist.sample(5, seed=tf.constant([1, 2])))
    assert np.any(stateless != dist.sample(5, seed=tf.constant([1, 3])))
    tf.random.set_seed(0)
    first = dist.sample(5, seed=9)
    tf.random.set_seed(0)
    np.testing.assert_array_equal(first, dist.sample(5, seed=9))
    graph = tf.function(lambda: dist.sample(5, seed=tf.constant([1, 2])))()
    np.testing.assert_allclose(graph, stateless, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("delta", [0.3, 1.0, 40.0])
def test_samples_are_reparameterised(delta):
    """The samples of one seed move with all parameters, by central differences; with loc one to one."""
    loc, factor = random_parameters(2)
    parameters = [tf.constant(loc), tf.constant(factor), tf.constant(delta, tf.float64)]

    def loss(loc, factor, delta):
        sample = MultivariateHuber(loc, factor, delta).sample(50, seed=(1, 2))
        return tf.reduce_mean(tf.reduce_sum(tf.square(sample - [0.3, -1.0]), axis=-1))

    with tf.GradientTape() as tape:
        tape.watch(parameters)
        value = loss(*parameters)
    gradients = tape.gradient(value, parameters)
    mean = tf.reduce_mean(MultivariateHuber(*parameters).sample(50, seed=(1, 2)), axis=0)
    np.testing.assert_allclose(gradients[0], 2 * (mean - [0.3, -1.0]), rtol=1e-12)
    for n, parameter in enumerate(parameters):
        direction = np.random.default_rng(n).normal(size=parameter.shape)
        high, low = (
            loss(*parameters[:n], parameter + step * direction, *parameters[n + 1 :])
            for step in (1e-6, -1e-6)
        )
        slope = np.sum(gradients[n] * direction)
        np.testing.assert_allclose(slope, (high - low) / 2e-6, rtol=1e-6, atol=1e-8)


def test_ellipses_hold_their_probability():
    loc, factor = random_parameters(2, batch=(3,))
    dist = MultivariateHuber(loc, factor, 1.0)
    angle = np.linspace(0, 2 * np.pi, 7)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)[:, None, :]
    for probability in (0.5, 0.9, 0.95):
        radius = float(dist.radius_quantile(probability))
        on_ellipse = loc + radius * np.einsum("nij,mnj->mni", np.linalg.inv(factor), circle)
        np.testing.assert_allclose(dist.radial_cdf(on_ellipse), probability, rtol=1e-10)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_gaussian_limit(d):
    loc, factor = random_parameters(d, seed=6)
    covariance = np.linalg.inv(factor @ factor)
    gauss = scipy.stats.multivariate_normal(loc, covariance)
    dist = MultivariateHuber(loc, factor, 1e3)
    y = np.random.default_rng(7).normal(size=(20, d)) * 3
    np.testing.assert_allclose(dist.log_prob(y), gauss.logpdf(y), rtol=1e-10)
    np.testing.assert_allclose(dist.covariance(), covariance, rtol=1e-9)
    assert float(dist.entropy()) == pytest.approx(gauss.entropy(), rel=1e-10)


def test_laplace_limit():
    """With A = I / delta, a small delta gives the density of exp(-|y|) in two dimensions."""
    delta = 1e-5
    dist = MultivariateHuber(np.zeros(2), np.eye(2) / delta, delta)
    y = np.random.default_rng(8).normal(size=(20, 2)) * 3
    expected = -np.linalg.norm(y, axis=-1) - np.log(2 * np.pi)
    np.testing.assert_allclose(dist.log_prob(y), expected, rtol=1e-6)
    np.testing.assert_allclose(dist.covariance(), 3 * np.eye(2), rtol=1e-6)


@pytest.mark.parametrize("d", [2, 3])
def test_rotation_equivariance(d):
    """Rotating the point, nu and B by Q rotates A and leaves the loss alone."""
    rng = np.random.default_rng(9)
    q, _ = np.linalg.qr(rng.normal(size=(d, d)))
    b = rng.normal(size=(30, d, d))
    b = b + np.swapaxes(b, -1, -2)
    y, nu = rng.normal(size=(2, 30, d)) * 2

    def loss(y, nu, b):
        return negative_log_likelihood(y, nu, *spd_matrix(symmetric_to_vector(b)), Huber(1.0))

    rotated = loss(y @ q.T, nu @ q.T, q @ b @ q.T)
    np.testing.assert_allclose(rotated, loss(y, nu, b), rtol=1e-10)


def loss_and_gradients(raw, y, delta, theta=1.0):
    d = y.shape[-1]
    raw, y = tf.convert_to_tensor(raw), tf.convert_to_tensor(y)
    with tf.GradientTape() as tape:
        tape.watch(raw)
        nu, vector = raw[..., :d], raw[..., d:]
        loss = negative_log_likelihood(y, nu, *spd_matrix(vector, theta), Huber(delta))
    gradient = tape.gradient(loss, raw).numpy()
    return loss.numpy(), gradient[..., :d], gradient[..., d:]


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("delta", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_stay_within_the_papers_bounds(d, delta, dtype):
    """Supplement C: |dL/dnu| <= delta, |dL/dv| <= delta |y| + sqrt(d) / theta, wherever raw is.

    2,000 raw outputs of magnitudes from 1e-3 to 1e6 per case, and labels up to 10.
    """
    theta = 0.5
    rng = np.random.default_rng(10)
    size = d + d * (d + 1) // 2
    raw = rng.normal(size=(2000, size))
    raw *= 10 ** rng.uniform(-3, 6, size=(2000, 1)) / np.abs(raw).max(axis=-1, keepdims=True)
    y = rng.uniform(-10, 10, size=(2000, d))
    loss, d_nu, d_vector = loss_and_gradients(raw.astype(dtype), y.astype(dtype), delta, theta)
    assert np.all(np.isfinite(loss))
    assert np.all(np.isfinite(d_nu)) and np.all(np.isfinite(d_vector))
    slack = 1 + {"float32": 1e-3, "float64": 1e-9}[dtype]
    assert np.all(np.linalg.norm(d_nu, axis=-1) <= delta * slack)
    bound = delta * np.linalg.norm(y, axis=-1) + np.sqrt(d) / theta
    assert np.all(np.linalg.norm(d_vector, axis=-1) <= bound * slack)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("case", ["centre", "knee", "inside", "outside"])
def test_gradient_against_central_differences(d, case):
    """At equal eigenvalues, which is where a head starts, and elsewhere; r = 0 and r = delta too."""
    delta = 0.75
    rng = np.random.default_rng(11)
    y = rng.normal(size=d)
    for vector in (symmetric_to_vector(0.4 * np.eye(d)).numpy(), rng.normal(size=d * (d + 1) // 2)):
        factor = spd_matrix(vector)[0].numpy()
        direction = np.eye(d)[0]
        distance = {"centre": 0.0, "knee": delta, "inside": 0.3, "outside": 5.0}[case]
        raw = np.concatenate([factor @ y - distance * direction, vector])
        _, d_nu, d_vector = loss_and_gradients(raw, y, delta)
        numeric = []
        for n in range(raw.size):
            step = 1e-6 * np.eye(raw.size)[n]
            high, low = (loss_and_gradients(raw + s, y, delta)[0] for s in (step, -step))
            numeric.append((high - low) / 2e-6)
        np.testing.assert_allclose(np.concatenate([d_nu, d_vector]), numeric, atol=2e-6)
        if case == "centre":
            np.testing.assert_allclose(d_nu, 0, atol=1e-15)


def test_radius_has_a_finite_gradient_at_the_centre():
    point = tf.constant([1.0, 2.0])
    dist = MultivariateHuber(point, np.eye(2, dtype="f4"))
    with tf.GradientTape() as tape:
        tape.watch(point)
        radius = dist.radius(point)
    np.testing.assert_array_equal(tape.gradient(radius, point), [0.0, 0.0])
    assert np.isnan(dist.radius([np.nan, 0.0]))


def test_nan_is_never_hidden():
    loc, factor = random_parameters(2, batch=(3,))
    loc[1, 0] = np.nan
    log_prob = MultivariateHuber(loc, factor).log_prob(np.zeros(2))
    np.testing.assert_array_equal(np.isnan(log_prob), [False, True, False])
