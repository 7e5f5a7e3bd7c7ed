"""The loss of eq. 6 and the radius |A y - nu| that it depends on, finite wherever the radius is."""

from collections.abc import Sequence

import tensorflow as tf

from tfhuber.distributions.radial import RadialEnergy
from tfhuber.linalg import small_matrix

__all__ = ["negative_log_likelihood", "residual_length"]


def negative_log_likelihood(
    y: tf.Tensor,
    nu: tf.Tensor,
    precision_factor: tf.Tensor,
    log_det: tf.Tensor,
    energy: RadialEnergy,
) -> tf.Tensor:
    """Compute the training loss `-log |A| + rho(|A y - nu|)` of eq. 6, without a normalising constant.

    It inverts nothing. Loss and gradients are finite wherever A y - nu is, for every family but Gauss:
    its energy r^2 / 2 is infinite in float32 for r > 2.6e19, while its gradients stay finite.

    Args:
      y: [..., d], the points, float32 or float64 as all others. The rank may be unknown statically.
      nu: [..., d], A times the location.
      precision_factor: [..., d, d], A, as `spd_matrix` gives it.
      log_det: [...], log |A|, as `spd_matrix` gives it.
      energy: rho, for example `Huber(1.0)`.

    Returns:
      [...], the common batch shape.
    """
    squared, is_far, far_length = _lengths(_residual(y, nu, precision_factor))
    near = energy.energy(tf.where(is_far, tf.ones([], squared.dtype), squared))
    return tf.where(is_far, energy.far_energy(far_length), near) - log_det


def residual_length(y: tf.Tensor, nu: tf.Tensor, precision_factor: tf.Tensor) -> tf.Tensor:
    """Compute |A y - nu| [...], with a gradient that is defined as 0 where the length is 0."""
    squared, is_far, far_length = _lengths(_residual(y, nu, precision_factor))
    is_ordinary = (squared > 0) & ~is_far
    root = tf.sqrt(tf.where(is_ordinary, squared, 1))
    return tf.where(is_far, far_length, tf.where(is_ordinary, root, squared))


def _residual(y: tf.Tensor, nu: tf.Tensor, precision_factor: tf.Tensor) -> Sequence[tf.Tensor]:
    """Compute A y - nu: both elements [...] where d = 2, else one tensor [..., d]."""
    if precision_factor.shape[-1] != 2:
        return [small_matrix.matvec(precision_factor, y) - nu]
    m_00, m_01, m_10, m_11 = small_matrix.elements_2x2(precision_factor)
    (y_0, y_1), (nu_0, nu_1) = (small_matrix.deinterleave(x, 2) for x in (y, nu))
    return [m_00 * y_0 + m_01 * y_1 - nu_0, m_10 * y_0 + m_11 * y_1 - nu_1]


def _lengths(residual: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Compute the squared length, whether that is about to overflow, and where it is, the length."""
    dtype = residual[0].dtype
    # The first power of two bounds squares that are safe to use; the second one shrinks the rest.
    largest, shrink = (2.0**120, 2.0**-66) if dtype == tf.float32 else (2.0**1000, 2.0**-520)
    squared = _dot(residual, residual)
    is_far = squared > largest
    shrunk = [x * shrink for x in residual]
    root = tf.sqrt(tf.where(is_far, _dot(shrunk, shrunk), 1))
    root = root[..., tf.newaxis] if len(residual) == 1 else root
    # The length is that along the residual's own direction, whose turning changes it by nothing.
    direction = [tf.stop_gradient(x / root) for x in shrunk]
    return squared, is_far, _dot(residual, direction)


def _dot(x: Sequence[tf.Tensor], y: Sequence[tf.Tensor]) -> tf.Tensor:
    if len(x) == 1:
        return tf.reduce_sum(x[0] * y[0], axis=-1)
    return x[0] * y[0] + x[1] * y[1]
