"""Fusion of several views against scipy's minimiser, closed forms and sampling."""

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from benchmarks import fusion as benchmark
from tfhuber.distributions.fusion import fuse, mean_fusion
from tfhuber.distributions.radial import Charbonnier, Gauss, Huber, Laplace

FAMILIES = [Huber(1.0), Huber(1e-2), Gauss(), Laplace(), Charbonnier()]


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


@pytest.mark.parametrize(
    "case", [*benchmark.random_cases(4), *benchmark.hard_cases()], ids=lambda case: case[0]
)
def test_every_family_matches_scipy_also_where_it_is_hard(case):
    distance, excess = benchmark.compare(*case[1:])
    assert distance < 1e-5 and excess < 1e-11


@pytest.mark.parametrize("energy", FAMILIES, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sum_never_rises_from_step_to_step(energy, dtype):
    """For views 0.1 to 1,000 apart, up to the rounding of the answer to its dtype."""
    distance = 10.0 ** np.random.default_rng(3).uniform(-1, 3, size=(1, 40, 1))
    loc, factor = (x.astype(dtype) for x in random_views(3, 40, 2, seed=3, spread=distance))
    sums, rounding = [], []
    for iterations in range(9):
        y = fuse(loc, factor, energy, max_iterations=iterations)[0].numpy()
        assert y.dtype == dtype
        exact = [x.astype(np.float64) for x in (y, loc, factor)]
        residual = np.einsum("vnij,vnj->vni", exact[2], exact[0] - exact[1])
        sums.append(energy.energy(np.sum(residual**2, -1)).numpy().sum(0))
        # The slope of rho is at most the radius itself, that of A's longest axis at most 5.
        steepest = 5 * np.linalg.norm(residual, axis=-1).clip(1).sum(0)
        rounding.append(steepest * np.abs(y).max(-1) * np.finfo(dtype).eps)
    assert np.all(np.diff(sums, axis=0) <= 2 * np.array(rounding[1:]))
    assert np.all(sums[-1] <= sums[0])


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
    # A view's own root-mean-square distance is sqrt(2 * 3.0765), so a millionth of that counts.
    weight = 1e-6 * np.sqrt(2 * 3.0765)
    np.testing.assert_allclose(fused_factor, np.sqrt(2 + weight) * np.eye(2), rtol=1e-8)

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
@pytest.mark.parametrize("energy", FAMILIES, ids=repr)
def test_the_bound_on_iterations_is_not_felt(views, energy):
    """200 points of views from 0.1 to 1,000 apart: 1,000 iterations reach no lower than 30."""
    distance = 10.0 ** np.random.default_rng(6).uniform(-1, 3, size=(1, 200, 1))
    loc, factor = random_views(views, 200, 2, seed=7, spread=distance)
    sums = []
    for iterations in (30, 1000):
        y = fuse(loc, factor, energy, max_iterations=iterations, tolerance=1e-9)[0].numpy()
        residual = np.einsum("vnij,vnj->vni", factor, y - loc)
        sums.append(energy.energy(np.sum(residual**2, -1)).numpy().sum(0))
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_laplaces_point_of_two_views_is_the_surer_one(d):
    """It lies exactly on a view, where the slope of the sum jumps and Weiszfeld's weight is infinite."""
    loc, _ = random_views(2, 20, d, seed=8)
    factor = np.array([1.2, 1.0])[:, None, None, None] * np.broadcast_to(np.eye(d), (2, 20, d, d))
    fused, fused_factor = fuse(loc, factor, Laplace())
    np.testing.assert_array_equal(fused, loc[0])
    assert np.all(np.isfinite(fused_factor)) and np.all(np.linalg.eigvalsh(fused_factor) >= 1.2)


def test_laplaces_point_of_a_triangle_is_fermats():
    """It sees the sides at 120 degrees; of a triangle with a wider angle it is that corner."""
    corners = np.array([[0.0, 0.0], [4.0, 0.0], [1.0, 3.0]])[:, None]
    identity = np.broadcast_to(np.eye(2), (3, 1, 2, 2))
    arms = corners[:, 0] - fuse(corners, identity, Laplace())[0].numpy()
    arms /= np.linalg.norm(arms, axis=-1, keepdims=True)
    np.testing.assert_allclose(arms @ arms.T, 1.5 * np.eye(3) - 0.5, atol=1e-6)

    corners[2, 0, 1] = 0.4
    np.testing.assert_array_equal(fuse(corners, identity, Laplace())[0], corners[2])


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_small_delta_is_laplace_and_units_do_not_count(scale):
    loc, factor = random_views(4, 30, 2, seed=9)
    expected, expected_factor = fuse(loc, factor, Laplace())
    fused, fused_factor = fuse(loc * scale, factor / scale, Laplace())
    np.testing.assert_allclose(fused / scale, expected, atol=1e-6)
    np.testing.assert_allclose(fused_factor * scale, expected_factor, rtol=1e-5)

    delta = 1e-5  # Huber's energy is delta times Laplace's of delta r
    fused, fused_factor = fuse(loc, factor / delta, Huber(delta))
    np.testing.assert_allclose(fused, expected, atol=1e-4)
    np.testing.assert_allclose(fused_factor * delta, expected_factor, rtol=1e-3)


@pytest.mark.parametrize("energy", FAMILIES, ids=repr)
def test_two_views_that_are_equally_sure_meet_in_the_middle(energy):
    loc = np.array([[[0.0, 0.0]], [[30.0, 40.0]]])
    factor = 0.7 * np.broadcast_to(np.eye(2), (2, 1, 2, 2))
    np.testing.assert_allclose(fuse(loc, factor, energy)[0], [[15, 20]], atol=1e-6)


@pytest.mark.parametrize("energy", FAMILIES, ids=repr)
def test_a_view_that_is_far_surer_comes_back(energy):
    loc, factor = random_views(2, 10, 2, seed=10)
    fused, fused_factor = fuse(loc, factor * np.array([1.0, 1e-6])[:, None, None, None], energy)
    np.testing.assert_allclose(fused, loc[0], atol=1e-5)
    np.testing.assert_allclose(fused_factor, factor[0], atol=1e-5)


@pytest.mark.parametrize("views", [2, 8])
@pytest.mark.parametrize("energy", FAMILIES, ids=repr)
def test_the_fused_covariance_is_that_of_the_point_over_samples(energy, views):
    """10,000 points of views drawn from their distributions, the axes of A from 0.5 to 2.

    Exact for Gaussians, to the noise of the samples (three standard deviations are 4 %); for the
    others too large or too small by what docs/fusion.md derives.
    """
    loc, factor = benchmark.random_views(energy, views, 10_000, seed=11, least=0.5, most=2.0)
    truth = benchmark.random_truth(10_000, seed=11)
    fused, fused_factor = (x.numpy() for x in fuse(loc, factor, energy))
    radius = np.linalg.norm(np.einsum("nij,nj->ni", fused_factor, fused - truth), axis=-1)
    ratio = np.mean(radius**2) / energy.second_moment(2)
    inside = np.mean(energy.cdf(radius, 2).numpy() < 0.9)
    if isinstance(energy, Gauss):
        assert abs(ratio - 1) < 0.04 and abs(inside - 0.9) < 0.01
    else:
        assert 0.7 < ratio < 1.35 and 0.84 < inside < 0.97


def test_mean_fusion():
    loc, factor = random_views(3, 5, 2)
    fused, fused_factor = mean_fusion(loc.astype("f4"), factor.astype("f4"))
    assert fused.dtype == fused_factor.dtype == tf.float32
    np.testing.assert_allclose(fused, loc.mean(0), rtol=1e-5, atol=1e-6)
    fused_factor = fused_factor.numpy()
    np.testing.assert_allclose(fused_factor @ fused_factor, (factor @ factor).mean(0), rtol=1e-4)
    same, same_factor = mean_fusion(np.repeat(loc[:1], 4, 0), np.repeat(factor[:1], 4, 0))
    np.testing.assert_allclose(same, loc[0])
    np.testing.assert_allclose(same_factor, factor[0], rtol=1e-9)
    with pytest.raises(ValueError, match="loc must have shape"):
        mean_fusion(loc[0, 0], factor[0, 0])


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
