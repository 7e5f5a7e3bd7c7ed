"""Symmetric positive definite matrices from unconstrained vectors (eq. 7-10, supplement B).

A vector of d(d+1)/2 numbers becomes a symmetric matrix B by an isometry; a function g, positive
and increasing, is applied to the eigenvalues of B and gives A. No direction is preferred: rotating
B rotates A. The logarithm of the determinant comes along, computed from log g, so that it stays
exact where A itself underflows.

Everything is float32 or float64. A NaN or infinity in a vector makes its log-determinant
non-finite; for d >= 3, TensorFlow's `eigh` on the CPU raises `InvalidArgumentError` instead.
"""

import math
import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhuber.linalg.small_matrix import elements_2x2, first_order_only, interleave, matmul

__all__ = [
    "SPDMatrix",
    "g",
    "log_g",
    "spd_matrix",
    "symmetric_to_vector",
    "vector_to_symmetric",
]


def vector_to_symmetric(vector: Any) -> tf.Tensor:
    """Make symmetric matrices of vectors that list their lower triangles row by row (eq. 7).

    Off-diagonal elements are divided by sqrt 2, which makes the map an isometry: the norm of the
    vector is the Frobenius norm of the matrix.

    >>> print(vector_to_symmetric([1.0, 2.0**0.5, 3.0]).numpy().round(4))
    [[1. 1.]
     [1. 3.]]

    Args:
      vector: [..., d (d + 1) / 2], floating point.

    Returns:
      [..., d, d].

    Raises:
      ValueError: the last dimension is unknown or not d (d + 1) / 2 for any d.
    """
    vector = tf.convert_to_tensor(vector)
    d = _matrix_size(vector.shape[-1])
    rows, columns = np.tril_indices(d)
    scale = np.where(rows == columns, 1.0, math.sqrt(0.5))
    elements = tf.unstack(vector * tf.constant(scale, vector.dtype), axis=-1)
    position = np.empty([d, d], int)
    position[rows, columns] = position[columns, rows] = range(len(elements))
    matrix_rows = [tf.stack([elements[n] for n in row], axis=-1) for row in position]
    return tf.stack(matrix_rows, axis=-2)


def symmetric_to_vector(matrix: Any) -> tf.Tensor:
    """Invert `vector_to_symmetric`: from [..., d, d] to [..., d (d + 1) / 2].

    Only the lower triangle is read.
    """
    matrix = tf.convert_to_tensor(matrix)
    rows, columns = np.tril_indices(matrix.shape[-1])
    scale = np.where(rows == columns, 1.0, math.sqrt(2.0))
    by_row = [tf.unstack(row, axis=-1) for row in tf.unstack(matrix, axis=-2)]
    elements = [by_row[i][j] for i, j in zip(rows, columns, strict=True)]
    return tf.stack(elements, axis=-1) * tf.constant(scale, matrix.dtype)


def g(x: Any, theta: float = 1.0) -> tf.Tensor:
    """Compute `x` above `theta`, `theta exp(x / theta - 1)` below (eq. 9): positive, with slope <= 1."""
    x = tf.convert_to_tensor(x)
    return tf.where(x > theta, x, theta * tf.exp(tf.minimum(x, theta) / theta - 1))


def log_g(x: Any, theta: float = 1.0) -> tf.Tensor:
    """Compute `log g(x, theta)`; below `theta` it is the line `log theta + x / theta - 1`."""
    x = tf.convert_to_tensor(x)
    line = math.log(theta) + x / theta - 1
    return tf.where(x > theta, tf.math.log(tf.maximum(x, theta)), line)


def spd_matrix(vector: Any, theta: float = 1.0) -> tuple[tf.Tensor, tf.Tensor]:
    """Map unconstrained vectors to positive definite matrices A and their log-determinants (eq. 10).

    B = `vector_to_symmetric(vector)` = V diag(lambda) V^T gives A = V diag(g(lambda)) V^T. The
    gradient is that of eq. 38: with upstream gradients S of A (symmetrised) and l of log |A|,

        dL/dB = V ((V^T S V) * K + l diag(g'/g)) V^T,
        K_ij  = (g(lambda_i) - g(lambda_j)) / (lambda_i - lambda_j),    or g' where they are equal.

    K is computed without cancellation for eigenvalues that nearly coincide, and lies in [0, 1]; g'/g
    lies in (0, 1 / theta]. For d = 2 everything is a closed form without eigenvectors,

        A = m I + k (B - tr(B)/2 I),    m = (g(lambda_1) + g(lambda_2)) / 2,    k = K_12.

    Eigenvalues far below zero make A underflow to zero in their direction, while the log-determinant
    and all gradients stay exact and finite. So they do for vectors as large as their dtype has (up to
    1e38 in float32, 1e307 in float64). A is exactly symmetric.

    Second derivatives are available for d <= 2, at equal eigenvalues too; close to them they lose
    the digits that the eigenvalues share. For d >= 3 they raise `NotImplementedError`, because
    TensorFlow's own derivative of `eigh` is silently wrong at equal eigenvalues.

    >>> matrix, log_det = spd_matrix([2.0, 0.0, 1.0])
    >>> print(matrix.numpy(), log_det.numpy().round(4))
    [[2. 0.]
     [0. 1.]] 0.6931

    Args:
      vector: [..., d (d + 1) / 2], float32 or float64, with any batch dimensions.
      theta: where g turns from exponential to identity: the smallest reasonable eigenvalue.

    Returns:
      The matrices [..., d, d] and their log-determinants [...].

    Raises:
      ValueError: `vector` is neither float32 nor float64, its last dimension is unknown or no
        d (d + 1) / 2, or `theta` is not positive and finite.
    """
    theta = _checked_theta(theta)
    vector = tf.convert_to_tensor(vector)
    if vector.dtype not in (tf.float32, tf.float64):
        raise ValueError(f"vector must be float32 or float64, got {vector.dtype.name}.")
    d = _matrix_size(vector.shape[-1])
    if d == 1:
        return g(vector, theta)[..., tf.newaxis], log_g(vector, theta)[..., 0]
    forward_and_gradient = _spd_closed_form if d == 2 else _spd_eigh
    return tf.custom_gradient(lambda v: forward_and_gradient(v, theta))(vector)


def _spd_closed_form(vector: tf.Tensor, theta: float) -> Any:
    """Compute `spd_matrix` for d = 2 and its vector-Jacobian product, in elementwise operations.

    B = [[p + q, b], [b, p - q]] has the eigenvalues p +- h with h^2 = q^2 + b^2.
    """
    first, b, last = tf.unstack(vector, axis=-1)
    b *= math.sqrt(0.5)
    p, q = (first + last) / 2, (first - last) / 2
    # Instead of q, b and h their products with `shrink` are squared and divided; it is 1 unless a square
    # could overflow.
    large = tf.constant(2.0**60 if vector.dtype == tf.float32 else 2.0**500, vector.dtype)
    size = tf.maximum(tf.maximum(tf.abs(q), tf.abs(b)), large)
    shrink, grow = large / size, size / large
    scaled_q, scaled_b = q * shrink, b * shrink
    # The floor keeps 1/h and its derivatives finite at equal eigenvalues, far below their rounding.
    scaled_h = tf.sqrt(tf.maximum(scaled_q * scaled_q + scaled_b * scaled_b, 1e-30))
    h = scaled_h * grow
    high, low = p + h, p - h

    # g = M e and g' = e, with M = max(lambda, theta) and e = exp(min(lambda, theta) / theta - 1).
    share, curved = _divided_difference(high, low, theta)
    k = share + curved
    m_high, m_low = tf.maximum(high, theta), tf.maximum(low, theta)
    exponent_high = tf.minimum(high, theta) / theta - 1
    exponent_low = tf.minimum(low, theta) / theta - 1
    e_high, e_low = tf.exp(exponent_high), tf.exp(exponent_low)
    # M_high M_low is product * factor; the factor is 1 unless their product could overflow.
    factor = tf.where(m_high > large, m_low, 1)
    product = m_high * (m_low / factor)
    log_det = tf.math.log(product) + tf.math.log(factor) + exponent_high + exponent_low
    # m + k q and m - k q, as sums without cancellation of terms that are not negative.
    base = m_low * e_low + k * (scaled_b * scaled_b / (tf.abs(scaled_q) + scaled_h) * grow)
    first_diagonal, last_diagonal = base + 2 * k * tf.nn.relu(q), base + 2 * k * tf.nn.relu(-q)
    off_diagonal = k * b
    matrix = interleave([first_diagonal, off_diagonal, off_diagonal, last_diagonal], [2, 2])

    def gradient(d_matrix: tf.Tensor, d_log_det: tf.Tensor) -> tf.Tensor:
        g_00, g_01, g_10, g_11 = elements_2x2(d_matrix)
        # S = s_trace I + [[s_q, s_b], [s_b, -s_q]]; the gradient of B has the same three parts.
        s_trace, s_q, s_b = (g_00 + g_11) / 2, (g_00 - g_11) / 2, (g_01 + g_10) / 2
        # (q, b) = h u; what is multiplied by h is at most half the difference of g' or 1/M it comes from.
        u_q, u_b = scaled_q / scaled_h, scaled_b / scaled_h
        along = s_q * u_q + s_b * u_b
        mean_slope = (e_high + e_low) / 2
        half_difference = curved / theta * h  # (g'_high - g'_low) / 2
        # (g'/g)_high +- (g'/g)_low come from g'/g = 1/M, without cancellation.
        inverse_high, inverse_low = 1 / m_high, 1 / m_low
        d_trace = mean_slope * s_trace + half_difference * along
        d_trace += d_log_det * (inverse_high + inverse_low) / 2
        radial = half_difference * s_trace + (mean_slope - k) * along
        radial -= d_log_det * (share * h * inverse_high * inverse_low)
        d_q, d_b = k * s_q + radial * u_q, k * s_b + radial * u_b
        return interleave([d_trace + d_q, math.sqrt(2.0) * d_b, d_trace - d_q], [3])

    return (matrix, log_det), gradient


def _spd_eigh(vector: tf.Tensor, theta: float) -> Any:
    """Compute `spd_matrix` for any d and its vector-Jacobian product, by an eigendecomposition.

    Which eigenvectors are chosen among those of equal eigenvalues makes no difference.
    """
    eigenvalues, v = tf.linalg.eigh(vector_to_symmetric(vector))
    v_t = tf.linalg.matrix_transpose(v)
    matrix = matmul(v * g(eigenvalues, theta)[..., tf.newaxis, :], v_t)
    matrix = (
        matrix + tf.linalg.matrix_transpose(matrix)
    ) / 2  # the sum rounds its halves differently
    log_det = tf.reduce_sum(log_g(eigenvalues, theta), axis=-1)

    def gradient(d_matrix: tf.Tensor, d_log_det: tf.Tensor) -> tf.Tensor:
        rows, columns = eigenvalues[..., :, tf.newaxis], eigenvalues[..., tf.newaxis, :]
        high, low = tf.maximum(rows, columns), tf.minimum(rows, columns)
        k = tf.add_n(_divided_difference(high, low, theta))
        symmetric = (d_matrix + tf.linalg.matrix_transpose(d_matrix)) / 2
        inner = matmul(matmul(v_t, symmetric), v) * k
        log_det_slope = d_log_det[..., tf.newaxis] / tf.maximum(eigenvalues, theta)
        inner += tf.linalg.diag(log_det_slope)
        d_vector = symmetric_to_vector(matmul(matmul(v, inner), v_t))
        return first_order_only(d_vector, "spd_matrix for d >= 3")

    return (matrix, log_det), gradient


def _divided_difference(
    high: tf.Tensor, low: tf.Tensor, theta: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute `(g(high) - g(low)) / (high - low)`, for high >= low, as the sum of two shares in [0, 1].

    The first is the part of the interval that lies above theta, where g rises by 1; the second is the
    rest times the mean slope of g there. Both stay accurate as the interval shrinks to a point, or to
    less than its ends' rounding, and as either part of it vanishes beside the other.
    """
    clipped = tf.minimum(high, theta)
    linear = tf.maximum(high, theta) - tf.maximum(low, theta)
    curved = clipped - tf.minimum(low, theta)
    length = linear + curved
    is_above = tf.cast(low > theta, low.dtype)
    share = tf.where(length > 0, tf.math.divide_no_nan(linear, length), is_above)
    rest = tf.where(length > 0, tf.math.divide_no_nan(curved, length), 1 - is_above)
    z = tf.maximum(curved / theta, 1e-30)  # where (1 - exp(-z)) / z is 1 in every dtype
    return share, rest * tf.exp(clipped / theta - 1) * (-tf.math.expm1(-z) / z)


@keras.saving.register_keras_serializable(package="tfhuber")
class SPDMatrix(keras.layers.Layer):
    """A layer around `spd_matrix`: [..., d (d + 1) / 2] to (matrix [..., d, d], log_det [...]).

    It computes in float32 under a mixed-precision policy too; pass `dtype="float64"` for more.

    >>> matrix, log_det = SPDMatrix(theta=1.0)(tf.constant([[2.0, 0.0, 3.0]]))

    Raises:
      ValueError: `theta` is not positive and finite, or the last dimension of the input is unknown
        or not d (d + 1) / 2 for any d.
    """

    def __init__(self, theta: float = 1.0, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.theta = _checked_theta(theta)

    def call(self, vector: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return spd_matrix(vector, self.theta)

    def compute_output_shape(self, input_shape: tuple) -> tuple[tuple, tuple]:
        batch_shape, d = tuple(input_shape[:-1]), _matrix_size(input_shape[-1])
        return (*batch_shape, d, d), batch_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "theta": self.theta}


def _checked_theta(theta: float) -> float:
    if not isinstance(theta, numbers.Real) or not 0.0 < theta < math.inf:
        raise ValueError(f"theta must be a positive finite number, got {theta!r}.")
    return float(theta)


def _matrix_size(length: int | None) -> int:
    """Return d such that d (d + 1) / 2 = `length`."""
    d = 0 if length is None else (math.isqrt(8 * length + 1) - 1) // 2
    if d < 1 or d * (d + 1) // 2 != length:
        raise ValueError(
            "the last dimension must be d (d + 1) / 2 for some d >= 1 (1, 3, 6, 10, ...), "
            f"got {length}."
        )
    return d
