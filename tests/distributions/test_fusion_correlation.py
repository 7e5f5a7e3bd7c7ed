"""Views that err alike: what fusion then says of its certainty is what simulated errors show."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfhuber.distributions.fusion import fuse, mean_fusion
from tfhuber.distributions.radial import Gauss, Huber

SAMPLES = 40_000


def spd(rng, views, d):
    root = rng.normal(size=(views, d, d))
    return root @ np.swapaxes(root, -1, -2) / d + 0.3 * np.eye(d)


def correlated(rng, factor, c):
    """Locations [V, N, d] of views of the origin whose whitened errors correlate c."""
    views, d = factor.shape[:2]
    z = math.sqrt(1 - c) * rng.standard_normal((views, SAMPLES, d))
    z = z + math.sqrt(c) * rng.standard_normal((SAMPLES, d))
    return np.einsum("vij,vnj->vni", np.linalg.inv(factor), z)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize(("views", "c"), [(2, 0.5), (2, 0.94), (3, 0.7)])
def test_the_fused_covariance_is_that_of_simulated_errors(d, views, c):
    rng = np.random.default_rng((d, views))
    factor = spd(rng, views, d)
    loc = correlated(rng, factor, c)
    every = np.broadcast_to(factor[:, None], (views, SAMPLES, d, d))
    point, fused = fuse(loc, every, Gauss(), correlation=c)
    whitened = np.einsum("nij,nj->ni", fused.numpy(), point.numpy())
    # 40,000 samples: a variance of 1 to within 0.7 %, one standard error.
    np.testing.assert_allclose(np.cov(whitened.T), np.squeeze(np.eye(d)), atol=0.035)
    alone = np.einsum("nij,nj->ni", fuse(loc, every, Gauss())[1].numpy(), point.numpy())
    assert np.var(alone) > 1.2  # taken for independent, they would look surer than they are


@pytest.mark.parametrize("c", [0.0, 0.3, 0.94, 1.0])
@pytest.mark.parametrize("energy", [Gauss(), Huber(1.0)], ids=repr)
def test_views_alike_are_surer_by_what_their_correlation_leaves(c, energy):
    factor = spd(np.random.default_rng(1), 1, 2).repeat(2, 0)
    point, fused = fuse(np.full((2, 2), 3.0), factor, energy, correlation=c)
    np.testing.assert_allclose(point, [3.0, 3.0])
    np.testing.assert_allclose(fused, math.sqrt(2 / (1 + c)) * factor[0], rtol=1e-9)
    _, mean = mean_fusion(np.full((2, 2), 3.0), factor, correlation=c)
    np.testing.assert_allclose(mean, math.sqrt(2 / (1 + c)) * factor[0], rtol=1e-9)


def test_the_mean_of_correlated_errors_is_as_sure_as_it_says():
    rng = np.random.default_rng(2)
    factor = spd(rng, 1, 2).repeat(3, 0)
    point, fused = mean_fusion(
        correlated(rng, factor, 0.6), np.broadcast_to(factor[:, None], (3, SAMPLES, 2, 2)), 0.6
    )
    whitened = np.einsum("nij,nj->ni", fused.numpy(), point.numpy())
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(2), atol=0.035)


def test_without_a_correlation_all_stays_as_it_was_to_the_bit():
    rng = np.random.default_rng(3)
    loc, factor = rng.normal(size=(2, 50, 2)), spd(rng, 100, 2).reshape(2, 50, 2, 2)
    loc, factor = loc.astype(np.float32), factor.astype(np.float32)
    for now, then in (
        (fuse(loc, factor, Huber(1.0), correlation=0.0), fuse(loc, factor, Huber(1.0))),
        (mean_fusion(loc, factor, correlation=1.0), mean_fusion(loc, factor)),
    ):
        for a, b in zip(now, then, strict=True):
            assert np.array_equal(a, b)
    point = fuse(loc, factor, Huber(1.0), correlation=0.9)[0]
    assert np.array_equal(point, fuse(loc, factor, Huber(1.0))[0])


def test_its_gradient_is_that_of_differences():
    rng = np.random.default_rng(4)
    loc, factor = rng.normal(size=(2, 1, 2)), spd(rng, 2, 2)[:, None]
    value = tf.constant(loc)
    with tf.GradientTape() as tape:
        tape.watch(value)
        total = tf.reduce_sum(tf.square(fuse(value, factor, Huber(0.5), correlation=0.8)[1]))
    found = tape.gradient(total, value).numpy()
    step = 1e-6 * np.eye(4).reshape(4, 2, 1, 2)
    for i, each in enumerate(step):
        up, down = (
            np.sum(
                fuse(loc + s * each, factor, Huber(0.5), tolerance=1e-12, correlation=0.8)[
                    1
                ].numpy()
                ** 2
            )
            for s in (1, -1)
        )
        assert found.ravel()[i] == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("c", [-0.1, 1.1, math.nan])
def test_what_is_no_correlation_is_refused(c):
    views = np.zeros((2, 2)), np.tile(np.eye(2), (2, 1, 1))
    with pytest.raises(ValueError, match="correlation must be between 0 and 1"):
        fuse(*views, Gauss(), correlation=c)
    with pytest.raises(ValueError, match="correlation must be between 0 and 1"):
        mean_fusion(*views, correlation=c)
