"""The gradient through fusion is that of the exact minimum: against central differences."""

import numpy as np
import pytest
import tensorflow as tf

from tfhuber.distributions.fusion import fuse
from tfhuber.distributions.radial import Charbonnier, Gauss, Huber, Laplace

ENERGIES = [Huber(0.8), Gauss(), Laplace(), Charbonnier()]


def random_views(views, batch, d, seed):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(views, batch, d, d)))
    eigenvalues = rng.uniform(0.5, 3.0, size=(views, batch, 1, d))
    return rng.normal(size=(views, batch, d)), (q * eigenvalues) @ np.swapaxes(q, -1, -2)


def weight_and_slope(energy, squared):
    """rho'(r) / r and its derivative with respect to r^2 (eq. 2 and 11-13)."""
    if isinstance(energy, Gauss):
        return np.ones_like(squared), np.zeros_like(squared)
    if isinstance(energy, Laplace):
        return squared**-0.5, -0.5 * squared**-1.5
    if isinstance(energy, Charbonnier):
        return (1 + squared) ** -0.5, -0.5 * (1 + squared) ** -1.5
    far = np.maximum(squared, energy.delta**2)
    return energy.delta * far**-0.5, np.where(squared < far, 0, -0.5 * energy.delta * far**-1.5)


def exact_fusion(loc, factor, energy):
    """The point to all digits and F, in numpy: `fuse` and then Newton's steps, but for points on views."""
    point = fuse(loc, factor, energy)[0].numpy()
    is_view = np.any(np.all(loc == point, axis=-1), axis=0)[:, None]
    precision = factor @ factor
    for _ in range(6):
        force = np.einsum("vnij,vnj->vni", precision, point - loc)
        squared = np.maximum(np.einsum("vni,vni->vn", force, point - loc), 1e-100)
        weight, slope = weight_and_slope(energy, squared)
        hessian = np.einsum("vn,vnij->nij", weight, precision)
        hessian += np.einsum("vn,vni,vnj->nij", 2 * slope, force, force)
        total = np.einsum("vn,vni->ni", weight, force)
        with np.errstate(all="ignore"):
            step = np.linalg.solve(
                np.where(is_view[..., None], np.eye(len(point[0])), hessian), total[..., None]
            )
        point = np.where(is_view, point, point - step[..., 0])
    typical = weight_and_slope(energy, np.array(energy.second_moment(point.shape[-1])))[0]
    square = np.einsum("vn,vnij->nij", np.minimum(weight / typical, 1), precision)
    values, vectors = np.linalg.eigh(square)
    return point, (vectors * np.sqrt(values)[:, None, :]) @ np.swapaxes(vectors, 1, 2)


def functionals(point, fused, weights):
    """A linear functional of the points and one of the factors, each [batch]."""
    of_point = tf.reduce_sum(weights[0] * point, axis=-1)
    return tf.stack([of_point, tf.reduce_sum(weights[1] * fused, axis=[-2, -1])])


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("energy", ENERGIES, ids=repr)
def test_against_central_differences(energy, views, d):
    """10 points per case, along a random direction of all locations and of all factors (symmetric).

    Laplace's points often lie on a view, which takes them along.
    """
    batch, step = 10, 1e-6
    loc, factor = random_views(views, batch, d, seed=views + d)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(batch, d)), rng.normal(size=(batch, d, d))
    turn = rng.normal(size=factor.shape)
    directions = rng.normal(size=loc.shape), turn + np.swapaxes(turn, -1, -2)
    sources = [tf.constant(loc), tf.constant(factor)]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(sources)
        values = tf.unstack(functionals(*fuse(*sources, energy), weights))
    gradients = [tape.gradient(value, sources) for value in values]
    for n, direction in enumerate(directions):
        high, low = (
            functionals(
                *exact_fusion(
                    *(
                        x + (sign * step * direction if n == m else 0)
                        for m, x in enumerate((loc, factor))
                    ),
                    energy,
                ),
                weights,
            )
            for sign in (1, -1)
        )
        axes = (0, *range(2, direction.ndim))
        slopes = [np.sum(gradient[n] * direction, axis=axes) for gradient in gradients]
        np.testing.assert_allclose(slopes, (high - low) / (2 * step), rtol=1e-6, atol=1e-6)


def test_delta_moves_the_point():
    loc, factor = random_views(3, 6, 2, seed=3)
    delta = tf.constant(0.6, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(delta)
        value = tf.reduce_sum(fuse(loc, factor, Huber(delta))[0])
    high, low = (np.sum(exact_fusion(loc, factor, Huber(x))[0]) for x in (0.600001, 0.599999))
    assert float(tape.gradient(value, delta)) == pytest.approx((high - low) / 2e-6, rel=1e-6)


def test_moving_all_views_moves_the_point_as_far():
    """Whatever the number of steps that lead to it, which their unrolled gradient depends on."""
    loc, factor = (tf.constant(x) for x in random_views(3, 20, 2, seed=4))
    for iterations in (6, 100):
        with tf.GradientTape() as tape:
            tape.watch(loc)
            point = fuse(loc, factor, Huber(0.8), max_iterations=iterations)[0]
        gradient = tape.gradient(point, loc)
        np.testing.assert_allclose(tf.reduce_sum(gradient, axis=0), 1, rtol=1e-9)


def test_in_a_graph_in_float32_and_no_second_derivatives():
    loc, factor = (tf.constant(x, tf.float32) for x in random_views(2, 8, 2, seed=5))

    def gradient(loc, factor):
        with tf.GradientTape() as tape:
            tape.watch(loc)
            point, fused = fuse(loc, factor, Huber(1.0))
            value = tf.reduce_sum(point) + tf.reduce_sum(fused)
        return tape.gradient(value, loc)

    graph = tf.function(
        gradient, input_signature=[tf.TensorSpec([2, None, 2]), tf.TensorSpec([2, None, 2, 2])]
    )
    np.testing.assert_allclose(graph(loc, factor), gradient(loc, factor), rtol=1e-5, atol=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(loc)
        value = gradient(loc, factor)
    with pytest.raises(NotImplementedError, match="fuse has no second derivatives"):
        tape.gradient(value, loc)


@pytest.mark.parametrize("energy", ENERGIES, ids=repr)
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["loc", "factor"])
def test_what_is_not_finite_stays_with_its_point(energy, d, value, where):
    loc, factor = random_views(2, 3, d, seed=6)
    expected = [x.numpy() for x in fuse(loc, factor, energy)]
    (loc if where == "loc" else factor)[(1, 1) + (0,) * (1 if where == "loc" else 2)] = value
    loc, factor = tf.constant(loc), tf.constant(factor)
    with tf.GradientTape() as tape:
        tape.watch([loc, factor])
        point, fused = fuse(loc, factor, energy)
        total = tf.reduce_sum(tf.gather(point, [0, 2])) + tf.reduce_sum(tf.gather(fused, [0, 2]))
    for found, right in zip((point.numpy(), fused.numpy()), expected, strict=True):
        assert np.all(np.isnan(found[1]))
        np.testing.assert_array_equal(found[[0, 2]], right[[0, 2]])
    assert all(np.all(np.isfinite(g)) for g in tape.gradient(total, [loc, factor]))
