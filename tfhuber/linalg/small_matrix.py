"""Algebra of many small matrices [..., d, d], elementwise for d = 2.

On a GPU a matrix multiplication may round its factors to ten bits, which pixels and precisions
cannot bear, and calls into LAPACK for each 2 x 2 matrix are slow anywhere.
"""

from typing import Any

import numpy as np
import tensorflow as tf

__all__ = [
    "deinterleave",
    "elements_2x2",
    "first_order_only",
    "interleave",
    "inverse",
    "log_determinant",
    "matmul",
    "matvec",
    "square_root",
]


def elements_2x2(matrix: tf.Tensor) -> list[tf.Tensor]:
    """Return the four elements, each [...], of matrices [..., 2, 2], row by row."""
    return deinterleave(tf.reshape(matrix, tf.concat([tf.shape(matrix)[:-2], [4]], axis=0)))


def matmul(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Compute `x @ y` for small matrices [..., d, d], as a sum of elementwise products.

    For such sizes that is as fast, and it is exact to float32 where GPUs would round the factors of
    a matrix multiplication to ten bits.
    """
    return tf.reduce_sum(tf.expand_dims(x, -1) * tf.expand_dims(y, -3), axis=-2)


def matvec(matrix: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
    """Compute `matrix @ vector` for [..., d, d] and [..., d], elementwise like `matmul`."""
    if matrix.shape[-1] == 2:
        m_00, m_01, m_10, m_11 = elements_2x2(matrix)
        x, y = tf.unstack(vector, axis=-1)
        return tf.stack([m_00 * x + m_01 * y, m_10 * x + m_11 * y], axis=-1)
    return tf.reduce_sum(matrix * vector[..., tf.newaxis, :], axis=-1)


def log_determinant(matrix: tf.Tensor) -> tf.Tensor:
    """Compute the log-determinants [...] of positive definite matrices [..., d, d].

    For d = 2 a matrix that is singular to within the rounding of its elements counts as positive
    definite with the smallest determinant that they can tell. NaN where d <= 2 and the determinant is
    negative; for d >= 3 a matrix that is not positive definite raises `InvalidArgumentError` on the CPU.
    """
    if matrix.shape[-1] == 1:
        return tf.math.log(matrix[..., 0, 0])
    if matrix.shape[-1] == 2:
        m_00, m_01, m_10, m_11 = elements_2x2(matrix)
        rest = m_11 - m_01 * m_10 / m_00
        smallest = np.finfo(matrix.dtype.as_numpy_dtype).eps * m_11
        rest = tf.where(rest > -16 * smallest, tf.maximum(rest, smallest), rest)
        return tf.math.log(m_00) + tf.math.log(rest)
    return tf.linalg.logdet(matrix)


def inverse(matrix: tf.Tensor, log_det: tf.Tensor | None = None) -> tf.Tensor:
    """Compute the inverses of positive definite matrices [..., d, d].

    For d = 2 this is the adjugate over the determinant, which a known `log_det` makes exact for
    badly conditioned matrices; a singular matrix gives NaN and infinities, or for d >= 3 raises
    `InvalidArgumentError` on the CPU.
    """
    if matrix.shape[-1] == 1:
        return 1 / matrix
    if matrix.shape[-1] == 2:
        m_00, m_01, m_10, m_11 = elements_2x2(matrix)
        if log_det is None:
            log_det = log_determinant(matrix)
        scale = tf.exp(-log_det)
        adjugate = [scale * m_11, -scale * m_01, -scale * m_10, scale * m_00]
        return interleave(adjugate, [2, 2])
    return tf.linalg.inv(matrix)


def square_root(matrix: tf.Tensor, log_det: tf.Tensor | None = None) -> tf.Tensor:
    """Compute the symmetric positive definite square roots of such matrices [..., d, d].

    For d = 2 a known `log_det` makes it exact for badly conditioned matrices. A matrix with a NaN or
    an infinity has no root: NaN. For d >= 3 only first derivatives are available.
    """
    if matrix.shape[-1] == 1:
        return tf.sqrt(matrix)
    if matrix.shape[-1] == 2:  # (M + sqrt|M| I) / sqrt(tr M + 2 sqrt|M|), by Cayley and Hamilton
        if log_det is None:
            log_det = log_determinant(matrix)
        root_det = tf.exp(log_det / 2)[..., tf.newaxis, tf.newaxis]
        trace = (matrix[..., 0, 0] + matrix[..., 1, 1])[..., tf.newaxis, tf.newaxis]
        identity = tf.eye(2, dtype=matrix.dtype)
        return (matrix + root_det * identity) / tf.sqrt(trace + 2 * root_det)
    return _square_root_by_eigh(matrix)


@tf.custom_gradient
def _square_root_by_eigh(matrix: tf.Tensor) -> Any:
    """Compute square roots for any d, and the gradient, which TensorFlow's `eigh` has wrong at ties.

    From R R = M follows dR R + R dR = dM, which the eigenvectors turn into elementwise divisions.
    """
    is_finite = tf.reduce_all(tf.math.is_finite(matrix), axis=[-2, -1], keepdims=True)
    # On the CPU `eigh` raises for a whole batch that has a single NaN.
    eigenvalues, v = tf.linalg.eigh(
        tf.where(is_finite, matrix, tf.eye(matrix.shape[-1], dtype=matrix.dtype))
    )
    roots, v_t = tf.sqrt(eigenvalues), tf.linalg.matrix_transpose(v)
    root = matmul(v * roots[..., tf.newaxis, :], v_t)

    def gradient(d_root: tf.Tensor) -> tf.Tensor:
        symmetric = (d_root + tf.linalg.matrix_transpose(d_root)) / 2
        sums = roots[..., :, tf.newaxis] + roots[..., tf.newaxis, :]
        d_matrix = matmul(matmul(v, matmul(matmul(v_t, symmetric), v) / sums), v_t)
        return first_order_only(d_matrix, "square_root for d >= 3")

    return tf.where(is_finite, root, tf.constant(np.nan, matrix.dtype)), gradient


def first_order_only(gradient: tf.Tensor, function: str) -> tf.Tensor:
    """Return `gradient`, whose own derivative raises `NotImplementedError` and names the function."""

    @tf.custom_gradient
    def identity(x: tf.Tensor) -> Any:
        def second(_: tf.Tensor) -> tf.Tensor:
            raise NotImplementedError(f"{function} has no second derivatives.")

        return tf.identity(x), second

    return identity(gradient)


def interleave(elements: list[tf.Tensor], shape: list[int]) -> tf.Tensor:
    """Put `elements`, each [...], side by side as [..., *shape]."""
    # Stacking along a short last axis directly is more than twice as slow on a CPU.
    flat = tf.transpose(tf.reshape(tf.stack(elements), [len(elements), -1]))
    return tf.reshape(flat, tf.concat([tf.shape(elements[0]), shape], axis=0))


def deinterleave(x: tf.Tensor, size: int | None = None) -> list[tf.Tensor]:
    """Return the elements [...] of vectors [..., d]: `tf.unstack` with the faster way back of `interleave`.

    `size` is d, for tensors whose rank is not known statically.
    """

    @tf.custom_gradient
    def unstack(x: tf.Tensor) -> Any:
        def gradient(*d_elements: tf.Tensor) -> tf.Tensor:
            return interleave(list(d_elements), [len(d_elements)])

        return tf.unstack(x, size, axis=-1), gradient

    return unstack(x)
