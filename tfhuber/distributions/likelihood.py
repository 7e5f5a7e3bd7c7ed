"""The loss of eq. 6 and the radius |A y - nu| that it depends on, finite wherever the radius is."""

from collections.abc import Sequence

import tensorflow as tf

from tfhuber.distributions.energy import RadialEnergy, far_radius
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
    residual = _residual(y, nu, precision_factor)
    if energy.degree == 2:
        return energy.energy(_squared_length(residual)) - log_det
    shrunk, grow = _shrunk(residual)
    return energy.energy(_squared_length(shrunk)) * grow - log_det


def residual_length(y: tf.Tensor, nu: tf.Tensor, precision_factor: tf.Tensor) -> tf.Tensor:
    """Compute |A y - nu| [...], with a gradient that is defined as 0 where the length is 0."""
    shrunk, grow = _shrunk(_residual(y, nu, precision_factor))
    squared = _squared_length(shrunk)
    is_positive = squared > 0
    return tf.where(is_positive, tf.sqrt(tf.where(is_positive, squared, 1)), squared) * grow


def _residual(y: tf.Tensor, nu: tf.Tensor, precision_factor: tf.Tensor) -> Sequence[tf.Tensor]:
    """Compute A y - nu: both elements [...] where d = 2, else one tensor [..., d]."""
    if precision_factor.shape[-1] != 2:
        return [small_matrix.matvec(precision_factor, y) - nu]
    m_00, m_01, m_10, m_11 = small_matrix.elements_2x2(precision_factor)
    (y_0, y_1), (nu_0, nu_1) = (small_matrix.deinterleave(x, 2) for x in (y, nu))
    return [m_00 * y_0 + m_01 * y_1 - nu_0, m_10 * y_0 + m_11 * y_1 - nu_1]


def _shrunk(residual: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Return the residual divided by a factor, and the factor [...].

    It is 1 for residuals up to `far_radius`; longer ones come back to about that length, so that their
    squares are finite. The true length, or an energy proportional to it, is the factor times theirs.
    """
    far = far_radius(residual[0].dtype)
    sizes = [tf.abs(x) for x in residual]
    largest = tf.maximum(*sizes) if len(sizes) == 2 else tf.reduce_max(sizes[0], axis=-1)
    # What a length is divided and multiplied by has no part in its derivative.
    size = tf.stop_gradient(tf.maximum(largest, far))
    shrink = far / size if len(residual) == 2 else (far / size)[..., tf.newaxis]
    return [x * shrink for x in residual], size / far


def _squared_length(residual: Sequence[tf.Tensor]) -> tf.Tensor:
    if len(residual) == 1:
        return tf.reduce_sum(residual[0] * residual[0], axis=-1)
    return residual[0] * residual[0] + residual[1] * residual[1]
