"""The point that several independent elliptical predictions agree on best (supplement E).

Views of the same point, such as an image and its mirror image, each give a location and a precision
factor in one frame. Their product is no longer of the family, but its maximum is well defined, and
unique for a convex radial energy.
"""

import math
from typing import Any

import tensorflow as tf

from tfhuber import smallmatrix
from tfhuber.radial import RadialEnergy

__all__ = ["fuse"]


def fuse(
    loc: Any,
    precision_factor: Any,
    energy: RadialEnergy,
    max_iterations: int = 50,
    tolerance: float = 1e-6,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The maximum-likelihood point of several views and its precision factor, in the views' frame.

    The point minimises `sum_i rho(|A_i (y - mu_i)|)` (eq. 130). Each iteration minimises a quadratic
    that lies above this sum and touches it at the current point (eq. 131),

        q(y) = const + 1/2 sum_i w_i |A_i (y - mu_i)|^2,    w_i = rho'(r_i) / r_i,

    so that the sum never rises. It starts from the best of the optimum for Gaussians and one step from
    each view's own location. Newton's step, or ten times the step to the minimiser of q, replaces that
    step wherever it reaches lower.

    The fused precision factor is the root of that quadratic's curvature at the fused point,
    `sqrt(sum_i w_i A_i^2)`: positive definite always, `sqrt(sum_i A_i^2)` while the views agree to
    within the quadratic part of rho (so for Gaussians always), and smaller where they contradict each
    other. The Hessian would be singular for two far views. A single view comes back as it is.

    The computation is in float64; results have the dtype of `loc`. It can be exported.

    >>> loc, factor = tf.constant([[0.0, 0.0], [2.0, 0.0]]), tf.eye(2, batch_shape=[2])
    >>> point, _ = fuse(loc, factor, tfhuber.radial.Huber(10.0))
    >>> print(point.numpy())
    [1. 0.]

    Args:
      loc: [V, ..., d], the views' locations.
      precision_factor: [V, ..., d, d], symmetric positive definite.
      energy: rho, which all views share, for example `Huber(1.0)`.
      max_iterations: a bound; a few iterations are usual.
      tolerance: stop when no point moves further than this, in units of its own fused radius.

    Returns:
      The fused locations [..., d] and precision factors [..., d, d]. NaN in any view of a point gives
      NaN for that point.

    Raises:
      ValueError: the number of views or of dimensions is not known statically, or the shapes do not
        fit each other.
    """
    loc = tf.convert_to_tensor(loc)
    precision_factor = tf.convert_to_tensor(precision_factor, dtype=loc.dtype)
    _check_shapes(loc, precision_factor)
    if loc.shape[0] == 1:
        return loc[0], precision_factor[0]

    views = _Views(tf.cast(loc, tf.float64), tf.cast(precision_factor, tf.float64), energy)
    y, total = views.best_start()
    _, y, _ = tf.while_loop(
        lambda moved, y, total: tf.reduce_any(moved > tolerance),
        lambda moved, y, total: views.step(y, total),
        (tf.fill(tf.shape(total), tf.constant(math.inf, tf.float64)), y, total),
        maximum_iterations=max_iterations,
    )
    _, _, curvature = views.quadratic(y)
    return tf.cast(y, loc.dtype), tf.cast(smallmatrix.square_root(curvature), loc.dtype)


class _Views:
    """The objective of eq. 130 for fixed views, with its descent step."""

    def __init__(self, mu: tf.Tensor, factor: tf.Tensor, radial: RadialEnergy):
        self.mu, self.factor, self.radial = mu, factor, radial
        self.precision = smallmatrix.matmul(factor, factor)

    def residuals(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Each view's `A (y - mu)` [V, ..., d] and its squared length [V, ...]."""
        residual = smallmatrix.matvec(self.factor, y - self.mu)
        return residual, tf.reduce_sum(tf.square(residual), axis=-1)

    def energy(self, y: tf.Tensor) -> tf.Tensor:
        """The objective at y: the views' energies, summed."""
        return tf.reduce_sum(self.radial.energy(self.residuals(y)[1]), axis=0)

    def best_start(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The best of the optimum for Gaussians and one step from each view, and its energy."""
        precision = tf.reduce_sum(self.precision, axis=0)
        pull = tf.reduce_sum(smallmatrix.matvec(self.precision, self.mu), axis=0)
        y = smallmatrix.matvec(smallmatrix.inverse(precision), pull)
        best = y, self.energy(y)
        # Of far views that are almost equally sure, the surer one is close to the optimum, but its own
        # location lies higher than the Gaussians' optimum, from where the way is long and almost flat.
        for mu in tf.unstack(self.mu):
            _, *candidate = self.step(mu, self.energy(mu))
            best = _lower(best, candidate)
        return best

    def quadratic(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Gradient, Hessian, and the curvature of the quadratic that lies above the objective."""
        residual, squared = self.residuals(y)
        with tf.GradientTape() as tape:
            tape.watch(squared)
            weight = self.radial.weight(squared)
        slope = tape.gradient(weight, squared, unconnected_gradients="zero")
        force = smallmatrix.matvec(self.factor, residual)
        gradient = tf.reduce_sum(weight[..., tf.newaxis] * force, axis=0)
        curvature = tf.reduce_sum(weight[..., tf.newaxis, tf.newaxis] * self.precision, axis=0)
        outer = force[..., :, tf.newaxis] * force[..., tf.newaxis, :]
        bend = tf.reduce_sum(slope[..., tf.newaxis, tf.newaxis] * outer, axis=0)
        return gradient, curvature + 2 * bend, curvature

    def step(self, y: tf.Tensor, energy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """How far the point moves in units of its radius, the new point and its energy."""
        gradient, hessian, curvature = self.quadratic(y)
        descent = smallmatrix.matvec(smallmatrix.inverse(curvature), gradient)
        # The Hessian may be singular; what is added is far below what could slow Newton's step.
        regular = hessian + 1e-9 * curvature
        newton = smallmatrix.matvec(smallmatrix.inverse(regular), gradient)
        best = y, energy
        for move in (descent, 10 * descent, newton):
            best = _lower(best, (y - move, self.energy(y - move)))
        moved = best[0] - y
        distance = tf.sqrt(tf.reduce_sum(moved * smallmatrix.matvec(curvature, moved), axis=-1))
        return distance, *best


def _lower(current, candidate):
    """Of two points with their energies, for each element of the batch the lower one."""
    is_lower = candidate[1] < current[1]
    y = tf.where(is_lower[..., tf.newaxis], candidate[0], current[0])
    return y, tf.where(is_lower, candidate[1], current[1])


def _check_shapes(loc: tf.Tensor, precision_factor: tf.Tensor) -> None:
    shape, matrix_shape = loc.shape, precision_factor.shape
    if (
        shape.rank is None
        or shape.rank < 2
        or None in (shape[0], shape[-1])
        or not matrix_shape.is_compatible_with([*shape, shape[-1]])
    ):
        raise ValueError(
            "loc must have shape [V, ..., d] with V and d known and precision_factor "
            f"[V, ..., d, d], got {shape} and {matrix_shape}."
        )
