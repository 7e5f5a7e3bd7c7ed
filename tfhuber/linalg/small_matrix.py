"""Algebra of many small matrices [..., d, d], elementwise for d = 2.

On a GPU a matrix multiplication may round its factors to ten bits, which pixels and precisions
cannot bear, and calls into LAPACK for each 2 x 2 matrix are slow anywhere.
"""

import numpy as np
import tensorflow as tf

__all__ = [
    "deinterleave",
    "elements_2x2",
    "interleave",
    "inverse",
    "log_determinant",
    "matmul",
    "matvec",
    "square_root",
]


def elements_2x2(matrix: tf.Tensor) -> list[tf.Tensor]:
    """The four elements, each [...], of matrices [..., 2, 2], row by row."""
    return deinterleave(tf.reshape(matrix, tf.concat([tf.shape(matrix)[:-2], [4]], axis=0)))


def matmul(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """`x @ y` for small matrices [..., d, d], as a sum of elementwise products.

    For such sizes that is as fast, and it is exact to float32 where GPUs would round the factors of
    a matrix multiplication to ten bits.
    """
    return tf.reduce_sum(x[..., :, :, tf.newaxis] * y[..., tf.newaxis, :, :], axis=-2)


def matvec(matrix: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
    """`matrix @ vector` for [..., d, d] and [..., d], elementwise like `matmul`."""
    if matrix.shape[-1] == 2:
        m_00, m_01, m_10, m_11 = elements_2x2(matrix)
        x, y = tf.unstack(vector, axis=-1)
        return tf.stack([m_00 * x + m_01 * y, m_10 * x + m_11 * y], axis=-1)
    return tf.reduce_sum(matrix * vector[..., tf.newaxis, :], axis=-1)


def log_determinant(matrix: tf.Tensor) -> tf.Tensor:
    """Log-determinants [...] of positive definite matrices [..., d, d].

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
    """Inverses of positive definite matrices [..., d, d].

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
    """Symmetric positive definite square roots of such matrices [..., d, d].

    For d = 2 a known `log_det` makes it exact for badly conditioned matrices.
    """
    if matrix.shape[-1] == 1:
        return tf.sqrt(matrix)
    if matrix.shape[-1] == 2:  # (M + sqrt|M| I) / sqrt(tr M + 2 sqrt|M|), by Cayley and Hamilton
        if log_det is None:
            log_det = log_determinant(matrix)
        root_det = tf.exp(log_det / 2)[..., tf.newaxis, tf.newaxis]
        trace = tf.linalg.trace(matrix)[..., tf.newaxis, tf.newaxis]
        identity = tf.eye(2, dtype=matrix.dtype)
        return (matrix + root_det * identity) / tf.sqrt(trace + 2 * root_det)
    eigenvalues, v = tf.linalg.eigh(matrix)
    return matmul(v * tf.sqrt(eigenvalues)[..., tf.newaxis, :], tf.linalg.matrix_transpose(v))


def interleave(elements: list[tf.Tensor], shape: list[int]) -> tf.Tensor:
    """`elements`, each [...], side by side as [..., *shape]."""
    # Stacking along a short last axis directly is more than twice as slow on a CPU.
    flat = tf.transpose(tf.reshape(tf.stack(elements), [len(elements), -1]))
    return tf.reshape(flat, tf.concat([tf.shape(elements[0]), shape], axis=0))


@tf.custom_gradient
def deinterleave(x: tf.Tensor) -> list[tf.Tensor]:
    """The elements [...] of vectors [..., d]: `tf.unstack` with the faster way back of `interleave`."""

    def gradient(*d_elements):
        return interleave(list(d_elements), [len(d_elements)])

    return tf.unstack(x, axis=-1), gradient
