"""Fusion of several views against scipy's minimiser and against closed forms."""

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from tfhuber.fusion import fuse
from tfhuber.radial import Huber


def random_views(views, batch, d, seed=0, spread=1.0):
    """Locations around the origin and precision factors with eigenvalues from 0.5 to 5."""
    rng = np.random.default_rng(seed)
    loc = rng.normal(size=(views, batch, d)) * spread
    q, _ = np.linalg.qr(rng.normal(size=(views, batch, d, d)))
    eigenvalues = np.exp(rng.uniform(np.log(0.5), np.log(5.0), size=(views, batch, d)))
    return loc, (q * eigenvalues[..., None, :]) @ np.swapaxes(q, -1, -2)


def energy(y, loc, factor, delta):
    r = np.linalg.norm(np.einsum("vij,vj->vi", factor, y - loc), axis=-1)
    return np.sum(np.where(r <= delta, r**2 / 2, delta * (r - delta / 2)))


def gaussian_fusion(loc, factor):
    precision = factor @ factor
    total = precision.sum(0)
    pull = np.einsum("v...ij,v...j->...i", precision, loc)
    return np.linalg.solve(total, pull[..., None])[..., 0], total


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("delta", [1e-3, 0.1, 1.0, 10.0, 1e3])
def test_matches_scipy(d, delta):
    loc, factor = random_views(3, 6, d, seed=d, spread=2.0)
    fused, _ = fuse(loc, factor, Huber(delta))
    for n in range(loc.shape[1]):
        args = (loc[:, n], factor[:, n], delta)
        starts = [*loc[:, n], fused.numpy()[n] + 0.1]
        options = {"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000, "maxfev": 8000}
        results = [
            scipy.optimize.minimize(energy, x, args, method="Nelder-Mead", options=options)
            for x in starts
        ]
        best = min(results, key=lambda result: result.fun)
        assert energy(fused.numpy()[n], *args) <= best.fun + 1e-9 * delta
        np.testing.assert_allclose(fused[n], best.x, atol=1e-5)


@pytest.mark.parametrize("delta", [1e-3, 0.3, 1.0])
@pytest.mark.parametrize("spread", [0.1, 3.0, 300.0])
def test_never_rises_with_more_iterations(delta, spread):
    loc, factor = random_views(4, 20, 2, seed=3, spread=spread)
    energies = []
    for iterations in range(6):
        fused, _ = fuse(loc, factor, Huber(delta), max_iterations=iterations)
        energies.append(
            [energy(fused.numpy()[n], loc[:, n], factor[:, n], delta) for n in range(20)]
        )
    assert np.all(np.diff(energies, axis=0) <= 1e-12 * np.abs(energies[0]))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_gaussian_limit_is_the_precision_weighted_mean(d):
    loc, factor = random_views(3, 5, d)
    fused, fused_factor = fuse(loc, factor, Huber(1e6))
    expected, precision = gaussian_fusion(loc, factor)
    np.testing.assert_allclose(fused, expected, atol=1e-8)  # the objective is flat to float64 there
    fused_factor = fused_factor.numpy()
    np.testing.assert_allclose(fused_factor @ fused_factor, precision, rtol=1e-10)
    np.testing.assert_allclose(fused_factor, np.swapaxes(fused_factor, -1, -2), atol=1e-12)


def test_one_view_comes_back_unchanged():
    loc, factor = random_views(1, 4, 2)
    fused, fused_factor = fuse(loc, factor, Huber(1.0))
    np.testing.assert_array_equal(fused, loc[0])
    np.testing.assert_array_equal(fused_factor, factor[0])


@pytest.mark.parametrize("delta", [1e-3, 1.0, 1e3])
def test_identical_views_agree_and_are_surer_by_the_root_of_their_number(delta):
    loc, factor = random_views(1, 4, 2)
    views = 3
    fused, fused_factor = fuse(np.repeat(loc, views, 0), np.repeat(factor, views, 0), Huber(delta))
    np.testing.assert_allclose(fused, loc[0], atol=1e-12)
    np.testing.assert_allclose(fused_factor, np.sqrt(views) * factor[0], rtol=1e-9)


def test_far_apart_views_are_less_sure_and_the_outlier_is_outvoted():
    loc = np.array([[0.0, 0.0], [0.0, 0.1], [1e6, 0.0]])
    factor = np.broadcast_to(np.eye(2), (3, 2, 2))
    fused, fused_factor = fuse(loc, factor, Huber(1.0))
    # The outlier pulls with force delta = 1, which the other two balance at half a unit each.
    np.testing.assert_allclose(fused, [0.5, 0.05], atol=1e-4)
    weight = 1 / 1e6
    np.testing.assert_allclose(fused_factor, np.sqrt(2 + weight) * np.eye(2), rtol=1e-6)

    two, two_factor = fuse(loc[1:], factor[1:], Huber(1.0))
    eigenvalues = np.linalg.eigvalsh(two_factor)
    assert np.all(eigenvalues > 0) and np.all(eigenvalues < 1.01)
    assert np.all(np.isfinite(two))


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("distance", [30.0, 1e3, 1e5])
@pytest.mark.parametrize("surer", [1.001, 1.01, 1.1])
def test_of_two_far_views_that_are_almost_equally_sure_the_surer_one_wins(d, distance, surer):
    """The other one pulls with force 1, and the surer one gives way by 1 / surer^2."""
    loc = np.zeros((2, 1, d))
    loc[1, 0, 0] = distance
    factor = np.array([surer, 1.0])[:, None, None, None] * np.eye(d)
    fused, _ = fuse(loc, factor, Huber(1.0))
    np.testing.assert_allclose(fused, np.eye(d)[:1] / surer**2, atol=1e-6)


def test_a_long_curved_trough_between_two_views_is_followed_to_its_end():
    loc = np.array([[[0.0, 0.0]], [[-38.29, -17.38]]])
    factor = np.array([[[[1.11, 0.17], [0.17, 0.451]]], [[[1.13, 0.0], [0.0, 1.109]]]])
    fused, _ = fuse(loc, factor, Huber(1.0))
    args = (loc[:, 0], factor[:, 0], 1.0)
    best = scipy.optimize.minimize(energy, [-10.0, -8.0], args, method="BFGS", tol=1e-9)
    np.testing.assert_allclose(fused[0], best.x, atol=1e-3)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_bound_on_iterations_is_not_felt(views, d):
    """200 points of views from 0.1 to 1,000 apart: 1,000 iterations reach no lower than 50."""
    distance = 10.0 ** np.random.default_rng(6).uniform(-1, 3, size=(1, 200, 1))
    loc, factor = random_views(views, 200, d, seed=7, spread=distance)
    energies = []
    for iterations in (50, 1000):
        fused, _ = fuse(loc, factor, Huber(1.0), max_iterations=iterations, tolerance=1e-9)
        fused = fused.numpy()
        energies.append([energy(fused[n], loc[:, n], factor[:, n], 1.0) for n in range(200)])
    np.testing.assert_allclose(energies[0], energies[1], rtol=1e-9)


def test_float32_with_badly_conditioned_views_in_pixels():
    rng = np.random.default_rng(5)
    angle = rng.uniform(0, np.pi, size=(2, 8))
    axes = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
    q = axes.reshape(2, 8, 2, 2)
    factor = (q * [30.0, 0.003]) @ np.swapaxes(q, -1, -2)
    loc = rng.uniform(0, 2000, size=(2, 8, 2))
    fused, fused_factor = fuse(loc.astype("f4"), factor.astype("f4"), Huber(1.0))
    assert fused.dtype == fused_factor.dtype == tf.float32
    exact, _ = fuse(loc.astype("f4").astype("f8"), factor.astype("f4").astype("f8"), Huber(1.0))
    np.testing.assert_allclose(fused, exact, rtol=1e-6)


def test_graph_mode_with_unknown_batch_and_export(tmp_path):
    class Module(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([2, None, None, 2], tf.float32),
                tf.TensorSpec([2, None, None, 2, 2], tf.float32),
            ]
        )
        def __call__(self, loc, factor):
            fused, fused_factor = fuse(loc, factor, Huber(1.0))
            return {"loc": fused, "precision_factor": fused_factor}

    loc, factor = (x.astype("f4").reshape(2, 3, 4, *x.shape[2:]) for x in random_views(2, 12, 2))
    module = Module()
    tf.saved_model.save(module, tmp_path / "model")
    reloaded = tf.saved_model.load(tmp_path / "model")
    eager, eager_factor = fuse(loc, factor, Huber(1.0))
    answer = reloaded(tf.constant(loc), tf.constant(factor))
    np.testing.assert_allclose(answer["loc"], eager, rtol=1e-6)
    np.testing.assert_allclose(answer["precision_factor"], eager_factor, rtol=1e-6)


def test_nan_stays_with_its_point():
    loc, factor = random_views(2, 3, 2)
    loc[1, 1, 0] = np.nan
    fused, _ = fuse(loc, factor, Huber(1.0))
    assert np.all(np.isnan(fused[1])) and np.all(np.isfinite(fused.numpy()[[0, 2]]))


def test_shapes_are_checked():
    loc, factor = random_views(2, 3, 2)
    with pytest.raises(ValueError, match=r"precision_factor .*\(2, 3, 2\) and \(2, 3, 2\)"):
        fuse(loc, loc, Huber(1.0))
    with pytest.raises(ValueError, match="loc must have shape"):
        fuse(loc[0, 0], factor[0, 0], Huber(1.0))
