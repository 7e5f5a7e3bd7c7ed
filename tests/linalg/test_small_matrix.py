"""Algebra of small matrices: against numpy, and where they are singular to rounding or not finite."""

import numpy as np
import pytest
import tensorflow as tf

from tfhuber.geometry import projective
from tfhuber.linalg import small_matrix
from tfhuber.linalg.spd import spd_matrix


@pytest.mark.parametrize("d", [1, 2, 3])
def test_matrix_helpers_against_numpy(d):
    vector = np.random.default_rng(9).normal(size=(6, d * (d + 1) // 2)) * 2
    matrix, log_det = spd_matrix(vector)
    array = matrix.numpy()
    other = np.random.default_rng(10).normal(size=(6, d, d))
    np.testing.assert_allclose(small_matrix.matmul(matrix, other), array @ other, rtol=1e-12)
    column = other[..., 0]
    np.testing.assert_allclose(
        small_matrix.matvec(matrix, column),
        (array @ column[..., None])[..., 0],
        rtol=1e-12,
        atol=1e-14,
    )
    np.testing.assert_allclose(small_matrix.log_determinant(matrix), np.linalg.slogdet(array)[1])
    np.testing.assert_allclose(small_matrix.inverse(matrix), np.linalg.inv(array), rtol=1e-9)
    np.testing.assert_allclose(
        small_matrix.inverse(matrix, log_det), np.linalg.inv(array), rtol=1e-9
    )
    root = small_matrix.square_root(matrix).numpy()
    np.testing.assert_allclose(root @ root, array, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matrices_singular_to_rounding_stay_finite(dtype):
    """A factor whose elements have lost its small eigenvalue still has an inverse and can be pushed."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, 2000)
    direction = np.stack([np.cos(angle), np.sin(angle)], -1)
    large = 10 ** rng.uniform(-3, 3, (2000, 1, 1))
    matrix = (large * direction[:, :, None] * direction[:, None, :]).astype(dtype)
    log_det = small_matrix.log_determinant(tf.constant(matrix))
    assert np.all(np.isfinite(log_det))
    eps = np.finfo(dtype).eps
    assert np.all(log_det <= np.log(40 * eps * large[:, 0, 0] ** 2))
    j = tf.constant(rng.normal(size=(2000, 2, 2)).astype(dtype))
    once = projective.push_precision_factor(j, tf.constant(matrix))
    twice = projective.push_precision_factor(j, once)
    for factor in (tf.constant(matrix), once, twice):
        assert np.all(np.isfinite(factor)) and np.all(np.isfinite(small_matrix.inverse(factor)))
    indefinite = small_matrix.log_determinant(tf.constant([[1.0, 1.001], [1.001, 1.0]], dtype))
    assert np.isnan(indefinite)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("eigenvalues", [[2.0] * 4, [2.0, 2.0, 0.5, 2.0], [3.0, 0.1, 1.0, 2.0]])
def test_square_root_has_a_gradient_at_equal_eigenvalues_too(d, eigenvalues):
    """Against central differences along 5 symmetric directions; TensorFlow's `eigh` has 0 there."""
    rng = np.random.default_rng(d)
    q, _ = np.linalg.qr(rng.normal(size=(d, d)))
    matrix = tf.constant((q * eigenvalues[:d]) @ q.T)
    upstream = rng.normal(size=(d, d))
    with tf.GradientTape() as tape:
        tape.watch(matrix)
        loss = tf.reduce_sum(upstream * small_matrix.square_root(matrix))
    gradient = tape.gradient(loss, matrix)
    for _ in range(5):
        direction = rng.normal(size=(d, d))
        direction += direction.T
        high, low = (
            np.sum(upstream * small_matrix.square_root(matrix + step * direction))
            for step in (1e-6, -1e-6)
        )
        assert np.sum(gradient * direction) == pytest.approx((high - low) / 2e-6, abs=1e-7)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_matrix_that_is_not_finite_has_no_root_and_spoils_no_other(d, value):
    matrix = np.tile(4 * np.eye(d), (3, 1, 1))
    matrix[1, 0, 0] = value
    root = small_matrix.square_root(tf.constant(matrix)).numpy()
    np.testing.assert_allclose(root[[0, 2]], 2 * matrix[[0, 2]] / 4, rtol=1e-14)
    assert not np.any(np.isfinite(root[1]) & (np.eye(d) > 0))
