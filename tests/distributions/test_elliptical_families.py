"""`Elliptical` with every radial energy: one density, its moments and samples, TFP's conventions."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tfhuber.distributions.elliptical import Elliptical, MultivariateHuber
from tfhuber.distributions.radial import Charbonnier, Gauss, Huber, Laplace

ENERGIES = [Huber(0.7), Gauss(), Laplace(), Charbonnier()]


def parameters(d):
    rng = np.random.default_rng(d)
    q, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return rng.normal(size=d), (q * rng.uniform(0.5, 3, d)) @ q.T


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("radial", ENERGIES, ids=repr)
def test_the_density_falls_with_the_radius_alone(radial, d):
    loc, factor = parameters(d)
    dist = Elliptical(loc, factor, radial)
    y = np.random.default_rng(0).normal(size=(6, d)) * 3
    r = np.linalg.norm((y - loc) @ factor, axis=-1)
    expected = np.linalg.slogdet(factor)[1] - radial.energy(r**2) - radial.log_normalizer(d)
    np.testing.assert_allclose(dist.log_prob(y), expected, rtol=1e-12)
    natural = Elliptical.from_natural(factor @ loc, factor, radial)
    np.testing.assert_allclose(natural.log_prob(y), expected, rtol=1e-11)
    np.testing.assert_allclose(natural.mean(), loc, rtol=1e-10)
    np.testing.assert_allclose(dist.radial_cdf(y), radial.cdf(r, d), rtol=1e-10)
    inverse = np.linalg.inv(factor)
    np.testing.assert_allclose(dist.covariance(), radial.kappa(d) * inverse @ inverse, rtol=1e-10)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("radial", ENERGIES, ids=repr)
def test_samples_agree_with_log_prob_and_moments(radial, d):
    """5,000 samples: radii by Kolmogorov and Smirnov, moments and entropy within 5 errors."""
    loc, factor = parameters(d)
    dist = Elliptical(loc, factor, radial)
    y = dist.sample(5_000, seed=(3, d)).numpy()
    assert scipy.stats.kstest(dist.radial_cdf(y), "uniform").pvalue > 1e-3
    error = 5 / np.sqrt(len(y))
    np.testing.assert_allclose(y.mean(0), loc, atol=error * y.std(0).max())
    centred = y - y.mean(0)
    outer = centred[:, :, None] * centred[:, None, :]
    np.testing.assert_allclose(dist.covariance(), outer.mean(0), atol=(error * outer.std(0)).max())
    log_prob = dist.log_prob(y).numpy()
    assert abs(-log_prob.mean() - dist.entropy()) < error * log_prob.std()


@pytest.mark.parametrize("radial", ENERGIES, ids=repr)
def test_the_density_in_the_plane_integrates_to_one(radial):
    """By the midpoint rule in u = sinh(t), with A undone; relative error 1e-4."""
    loc, factor = parameters(2)
    axis = (np.arange(600) + 0.5) / 600 * 2 * np.arcsinh(60) - np.arcsinh(60)
    t = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    cell = (axis[1] - axis[0]) ** 2 * np.prod(np.cosh(t), axis=-1) / np.linalg.det(factor)
    y = loc + np.sinh(t) @ np.linalg.inv(factor)
    density = Elliptical(loc, factor, radial).prob(y)
    assert np.sum(density * cell) == pytest.approx(1, abs=1e-4)


def test_gauss_is_tfps_normal():
    loc, factor = parameters(3)
    ours = Elliptical(loc, factor, Gauss())
    covariance = np.linalg.inv(factor @ factor)
    theirs = tfp.distributions.MultivariateNormalFullCovariance(loc, covariance)
    y = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(ours.log_prob(y), theirs.log_prob(y), rtol=1e-10)
    np.testing.assert_allclose(ours.entropy(), theirs.entropy(), rtol=1e-12)


def test_huber_is_multivariate_huber():
    loc, factor = parameters(2)
    ours, named = Elliptical(loc, factor, Huber(1.3)), MultivariateHuber(loc, factor, 1.3)
    y = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_array_equal(ours.log_prob(y), named.log_prob(y))
    np.testing.assert_array_equal(ours.sample(4, seed=(0, 1)), named.sample(4, seed=(0, 1)))


@pytest.mark.parametrize("radial", [Laplace(), Charbonnier()], ids=repr)
def test_it_copies_slices_and_broadcasts_as_tfps_do(radial):
    loc = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("f4")
    dist = Elliptical(loc, np.eye(2, dtype="f4"), radial)
    assert dist.batch_shape == [4, 3] and dist.event_shape == [2] and dist.dtype == tf.float32
    part = dist[1:3, 0]
    assert part.batch_shape == [2] and part.radial is radial
    np.testing.assert_array_equal(part.mean(), loc[1:3, 0])
    copy = dist.copy(radial=Gauss())
    np.testing.assert_allclose(copy.covariance()[0, 0], np.eye(2), rtol=1e-6)
    independent = tfp.distributions.Independent(dist, 2)
    assert independent.log_prob(loc).shape == []


@pytest.mark.parametrize("radial", ENERGIES, ids=repr)
def test_gradients_are_finite_at_the_centre_and_far_away(radial):
    loc, factor = (tf.constant(v, tf.float32) for v in (np.zeros((2, 2)), np.eye(2)))
    y = tf.constant([[0.0, 0.0], [1e6, -1e6]])
    with tf.GradientTape() as tape:
        tape.watch([loc, factor])
        value = Elliptical(loc, factor, radial).log_prob(y)
    assert np.all(np.isfinite(value))
    assert all(np.all(np.isfinite(g)) for g in tape.gradient(value, [loc, factor]))


def test_bad_arguments_name_themselves():
    with pytest.raises(
        ValueError, match=r"radial must be a RadialEnergy such as Gauss\(\), got None"
    ):
        Elliptical(np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="radial must be a RadialEnergy"):
        Elliptical(np.zeros(2), np.eye(2), "gauss")
    with pytest.raises(ValueError, match="precision_factor must be given"):
        Elliptical(np.zeros(2), radial=Gauss())
    with pytest.raises(ValueError, match="MultivariateHuber takes a batch of deltas"):
        Elliptical(np.zeros(2), np.eye(2), Huber(tf.constant([1.0, 2.0], tf.float64)))
    with pytest.raises(ValueError, match="exactly one of loc and nu"):
        Elliptical(np.zeros(2), np.eye(2), Gauss(), nu=np.zeros(2))
