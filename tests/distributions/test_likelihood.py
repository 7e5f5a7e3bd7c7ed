"""The loss and log_prob where |A y - nu|^2 overflows, and samples whose draws are exactly 0."""

import mpmath
import numpy as np
import pytest
import tensorflow as tf

from tfhuber.distributions.elliptical import Elliptical, MultivariateHuber
from tfhuber.distributions.likelihood import negative_log_likelihood, residual_length
from tfhuber.distributions.radial import Charbonnier, Gauss, Huber, Laplace

ENERGIES = [Huber(1.0), Huber(30.0), Laplace(), Charbonnier(), Gauss()]


def exact_energy(energy, r):
    """rho and rho' at r (eq. 2 and 11-13), in mpmath."""
    if isinstance(energy, Gauss):
        return r**2 / 2, r
    if isinstance(energy, Laplace):
        return r, mpmath.mpf(1)
    if isinstance(energy, Charbonnier):
        root = mpmath.sqrt(r**2 + 1)
        return root - 1, r / root
    return energy.delta * (r - mpmath.mpf(energy.delta) / 2), mpmath.mpf(energy.delta)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("energy", ENERGIES, ids=repr)
@pytest.mark.parametrize(
    ("dtype", "exponents"),
    [("float32", [17, 18, 19, 20, 28, 35]), ("float64", [150, 153, 155, 300])],
)
def test_far_values_and_gradients_against_mpmath(d, energy, dtype, exponents):
    """From where squares are finite to where they are not; Gauss's energy overflows there, as it must."""
    direction = np.random.default_rng(d).normal(size=d)
    points = (np.outer([10.0**e for e in exponents], direction)).astype(dtype)
    factor = np.diag([2.0, 0.5, 1.0][:d]).astype(dtype)
    y = tf.constant(points)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(y)
        loss = negative_log_likelihood(y, np.zeros(d, dtype), factor, tf.zeros([], dtype), energy)
        length = residual_length(y, np.zeros(d, dtype), factor)
    with mpmath.workdps(50):
        residuals = [[mpmath.mpf(float(x)) for x in row] for row in points @ factor]
        lengths = [mpmath.sqrt(sum(x**2 for x in row)) for row in residuals]
        exact = [exact_energy(energy, r) for r in lengths]
        slopes = [
            [float(slope * x / r) for x in row]
            for row, r, (_, slope) in zip(residuals, lengths, exact, strict=True)
        ]
        units = [[float(x / r) for x in row] for row, r in zip(residuals, lengths, strict=True)]
        largest = float(np.finfo(dtype).max)
        values = [float(value) if value < largest else np.inf for value, _ in exact]
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(loss, values, rtol=tolerance)
    np.testing.assert_allclose(tape.gradient(loss, y), slopes @ factor, rtol=tolerance)
    np.testing.assert_allclose(length, [float(r) for r in lengths], rtol=tolerance)
    np.testing.assert_allclose(tape.gradient(length, y), units @ factor, rtol=tolerance)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("energy", ENERGIES[:4], ids=repr)
def test_far_points_do_not_touch_near_ones(energy, jit_compile):
    near = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")
    far = np.array([[1e25, -1e25], [0.0, 1e36]], "float32")

    @tf.function(jit_compile=jit_compile)
    def log_prob_and_gradient(y):
        with tf.GradientTape() as tape:
            tape.watch(y)
            log_prob = Elliptical([0.5, 0.0], tf.eye(2), energy).log_prob(y)
        return log_prob, tape.gradient(log_prob, y)

    expected = log_prob_and_gradient(tf.constant(near))
    together = log_prob_and_gradient(tf.constant(np.concatenate([near, far])))
    for alone, value in zip(expected, together, strict=True):
        np.testing.assert_allclose(value[:50], alone, rtol=1e-6)
        assert np.all(np.isfinite(value[50:]))


def test_the_log_density_of_a_far_radius():
    radius = tf.constant([1e18, 1e20, 1e30])
    for energy in ENERGIES[:4]:
        log_prob = energy.log_prob(radius, 2)
        expected = [float(-exact_energy(energy, mpmath.mpf(float(r)))[0]) for r in radius]
        np.testing.assert_allclose(log_prob, expected, rtol=1e-6)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("draw", [0.0, -0.0, 1e-30])
def test_a_sample_of_a_draw_of_zero_is_a_number(d, draw, monkeypatch):
    """A float32 draw is exactly 0 once in some 10 million, and its square is for any below 1e-23."""
    normal = tf.random.stateless_normal
    monkeypatch.setattr(tf.random, "stateless_normal", lambda *a, **k: 0 * normal(*a, **k) + draw)
    dist = MultivariateHuber(np.zeros(d, "f4"), np.eye(d, dtype="f4"))
    sample = dist.sample(100, seed=(1, 2))
    assert np.all(np.isfinite(sample)) and np.all(dist.radius(sample) > 0)


def test_samples_on_a_line_have_a_random_sign():
    """10,000 samples: half of them on either side, to within 4 standard errors."""
    sample = MultivariateHuber([0.0], [[1.0]]).sample(10_000, seed=(1, 2)).numpy()
    assert abs(np.mean(sample > 0) - 0.5) < 4 * 0.5 / 100
    assert np.mean(np.abs(sample)) > 0.5
