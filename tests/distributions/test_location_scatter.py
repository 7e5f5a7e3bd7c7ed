"""Whatever frame distributions are taken to, log |A| comes along as exactly as it was known."""

import numpy as np
import pytest
import tensorflow as tf

from tfhuber.distributions.elliptical import Elliptical
from tfhuber.distributions.location_scatter import LocationScatter
from tfhuber.distributions.radial import Huber
from tfhuber.geometry import projective
from tfhuber.linalg.spd import spd_matrix

ENERGY = Huber(1.0)


def random_parameters(shape=(5,), dtype=np.float64, seed=0):
    """Distributions with axes of up to e^2 to 1, anywhere in a crop of 100 pixels."""
    rng = np.random.default_rng(seed)
    matrix, log_det = spd_matrix(rng.normal(1, 1, (*shape, 3)).astype(dtype))
    loc = rng.uniform(0, 99, (*shape, 2)).astype(dtype)
    return LocationScatter(tf.constant(loc), matrix, log_det)


def maps(parameters):
    """The same distributions in other frames, each with the map of points that leads there."""
    rng = np.random.default_rng(1)
    h = np.eye(3) + rng.normal(0, 0.2, (3, 3))
    h[2] = [1e-3, -5e-4, 1.0]
    dtype = parameters.loc.dtype
    h = tf.constant(h, dtype)
    mirror = tf.cast(projective.mirror_map(100), dtype)
    scale, offset = tf.constant(2.5, dtype), tf.constant([7.0, -3.0], dtype)
    yield parameters.affine(h[:2, :2], h[:2, 2]), tf.concat([h[:2], [[0, 0, 1]]], axis=0)
    yield parameters.affine(mirror[:2, :2], mirror[:2, 2]), mirror
    yield parameters.through(h), h
    yield (
        parameters.unscaled(scale, offset),
        projective.invert(tf.stack([[2.5, 0.0, 7.0], [0.0, 2.5, -3.0], [0.0, 0.0, 1.0]])),
    )


def test_maps_take_locations_factors_and_determinants_along():
    """Factors and log |A| against float64 linear algebra of NumPy's."""
    before = random_parameters()
    square = np.linalg.matrix_power(before.precision_factor, 2)
    for after, h in maps(before):
        h = tf.cast(h, tf.float64)
        np.testing.assert_allclose(after.loc, projective.apply_map(h, before.loc), rtol=1e-6)
        inverse = np.linalg.inv(projective.jacobian(h, before.loc))
        expected = inverse.swapaxes(-1, -2) @ square @ inverse
        np.testing.assert_allclose(
            np.linalg.matrix_power(after.precision_factor, 2), expected, rtol=1e-6, atol=1e-9
        )
        log_det = np.linalg.slogdet(after.precision_factor)[1]
        np.testing.assert_allclose(after.log_det, log_det, rtol=1e-9, atol=1e-9)


def test_a_density_is_the_old_one_over_the_determinant_of_the_map():
    before = random_parameters()
    points = before.loc + np.random.default_rng(2).normal(0, 3, before.loc.shape)
    old = before.distribution(ENERGY).log_prob(points)
    for after, h in list(maps(before))[:2]:  # affine: to first order is exact
        h = tf.cast(h, tf.float64)
        new = after.distribution(ENERGY).log_prob(projective.apply_map(h, points))
        np.testing.assert_allclose(new, old - np.linalg.slogdet(h[:2, :2])[1], rtol=1e-9)


@pytest.mark.parametrize("ratio", [1e2, 1e4, 1e6])
def test_log_determinants_stay_exact_where_the_matrix_has_lost_them(ratio):
    """Float32 axes of up to a million to 1, turned, against the same in float64 from end to end.

    The rounded elements of A don't tell its determinant: the log of theirs is off by 0.04 at a million.
    """
    angle = np.linspace(0.1, 1.4, 20)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    raw = (turn * [10.0, 1 + np.log(10 / ratio)]) @ turn.swapaxes(-1, -2)  # g has these eigenvalues
    vector = np.stack([raw[:, 0, 0], np.sqrt(2) * raw[:, 0, 1], raw[:, 1, 1]], -1)

    def mapped(dtype):
        matrix, log_det = spd_matrix(tf.constant(vector, dtype))
        start = LocationScatter(tf.fill([20, 2], tf.constant(50, dtype)), matrix, log_det)
        return [start, *(after for after, _ in maps(start))]

    for found, exact in zip(mapped(tf.float32), mapped(tf.float64), strict=True):
        assert found.log_det.dtype == tf.float32
        np.testing.assert_allclose(found.log_det, exact.log_det, atol=1e-5)
    start, exact = mapped(tf.float32)[0], mapped(tf.float64)[0]
    lost = np.abs(np.linalg.slogdet(tf.cast(start.precision_factor, tf.float64))[1] - exact.log_det)
    assert lost.max() > 3e-8 * ratio


def test_the_natural_location_is_solved_for():
    known = random_parameters()
    nu = np.einsum("kij,kj->ki", known.precision_factor, known.loc)
    found = LocationScatter.from_natural(tf.constant(nu), known.precision_factor, known.log_det)
    np.testing.assert_allclose(found.loc, known.loc, rtol=1e-9)
    assert found.log_det is known.log_det


def test_distributions_are_those_of_the_parameters():
    known = random_parameters((3, 4))
    plain = Elliptical(known.loc, known.precision_factor, ENERGY)
    points = known.loc + 1.0
    distribution = known.distribution(ENERGY)
    np.testing.assert_allclose(distribution.log_prob(points), plain.log_prob(points), rtol=1e-10)
    np.testing.assert_array_equal(known.covariance(ENERGY), plain.covariance())
    again = LocationScatter.from_factor(known.loc, known.precision_factor)
    np.testing.assert_allclose(again.log_det, known.log_det, rtol=1e-10)


def test_rows_and_landmarks_are_chosen_of_all_three_alike():
    known = random_parameters((3, 4))
    order = [2, 0, 3, 1]
    for found, index in (
        (known.reordered(order), (slice(None), order)),
        (known.at(1), 1),
        (known.at(slice(1, 3)), slice(1, 3)),
    ):
        for name in ("loc", "precision_factor", "log_det"):
            expected = getattr(known, name).numpy()[index]
            np.testing.assert_array_equal(getattr(found, name), expected)


def test_graphs_take_and_return_it_and_numpy_holds_it():
    known = random_parameters((3, 4))
    shifted = tf.function(lambda parameters: parameters.affine(np.eye(2), 5.0))(known)
    arrays = tf.nest.map_structure(lambda tensor: tensor.numpy(), shifted)
    assert isinstance(arrays, LocationScatter) and isinstance(arrays.log_det, np.ndarray)
    for found in (arrays, arrays.affine(np.eye(2), 0.0), arrays.through(np.eye(3))):
        np.testing.assert_allclose(found.loc, known.loc + 5, rtol=1e-12)
        np.testing.assert_allclose(found.log_det, known.log_det, rtol=1e-12)
    again = LocationScatter.from_factor(arrays.loc, arrays.precision_factor)
    np.testing.assert_allclose(again.log_det, known.log_det, rtol=1e-10)
