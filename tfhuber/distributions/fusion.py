"""One point from several elliptical predictions of it: by maximum likelihood (supplement E), or the mean.

Views of the same point, such as an image and its mirror image, each give a location and a precision
factor in one frame. Their product is no longer of the family, but its maximum is well defined.

**The point** minimises `sum_i rho(|A_i (y - mu_i)|)` (eq. 130). Each step minimises a quadratic with the
slope of this sum at the current point, and a curvature between two: that of the majoriser of eq.
131, which lies above the sum everywhere, so that its minimum cannot lie higher than the current
point; and the Hessian, with which steps soon double the number of right digits. A step is taken
where it is lower. So the sum never rises, whatever the number of iterations.

With Laplace's energy (Weiszfeld's problem) the minimum often lies on a view, where the slope jumps;
it is then that view's location exactly. The minimum is unique but for views that pull equally
along a line: of two equally sure views far from each other any point between would do, and the
Gaussians' optimum, the middle, is taken.

**The fused precision factor** F makes `Elliptical(point, F, energy)` a summary of what the views say:

    F F = sum_i min(1, w(r_i) / w(r_rms)) A_i A_i,    w(r) = rho'(r) / r,    r_rms^2 = E[r^2].

It is the curvature of the majoriser at the point, each view's weight measured by the one it has
at its own root-mean-square distance: a view counts fully unless the point is further away than the
view expects, and then less. One view comes back as it is; V views alike give sqrt(V) A; Gaussians
give sqrt(sum_i A_i^2), which is exact. For independent views of other families in 2-D the true
covariance is 0.6 to 1.3 times `kappa inv(F F)`; docs/fusion.md has the measurements, and why
neither the Hessian nor the plain curvature will do.

**Views that err alike**, as an image and its mirror image do, are less sure together than that. With
P = F F, B_i the roots of its terms and S their sum, and c the correlation of the whitened errors z_i
of any two views, the point errs by inv(P) sum_i B_i z_i (Gaussians exactly), whose covariance is
inv(P) M inv(P) with M = (1 - c) P + c S S. So P inv(M) P takes P's place, which for V views alike is
V / (1 + (V - 1) c) A A. The point stays where it is.

**Gradients** are those of the exact minimum, not of the steps that lead to it: at the point the forces
`g = sum_i w(r_i) A_i A_i (y - mu_i)` balance, and with the Hessian H of the sum, dy = -inv(H) dg.
Those of the fused precision factor are its formula's, which include the move of the point. A view
on which Laplace's point lies takes it along. A_i counts as varying among symmetric matrices. Where
the minimum is not unique the point has no slope, and what is returned is large; where a view's
weight begins to count fully the slope is that of one side. There are no second derivatives.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfhuber.distributions.arguments import as_float
from tfhuber.distributions.energy import RadialEnergy
from tfhuber.linalg import small_matrix

__all__ = ["fuse", "mean_fusion"]

# Elements of vectors [d] and of matrices [d][d], each a tensor with one entry per point: with the
# short axis outermost, arithmetic on many points runs several times faster than on [..., d, d].
Vector = Sequence[tf.Tensor]
Matrix = Sequence[Sequence[tf.Tensor]]
Located = tuple[Vector, tf.Tensor]  # points, with the energy at each

# How much of the majoriser's curvature is added to the Hessian: next to nothing for Newton's step, which
# is enough for most points; with all of it, no step can rise.
NEWTON = (1e-9,)
DAMPINGS = (1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0)
NEWTON_STEPS = 3

# The slope of an energy such as Laplace's jumps at 0; it counts as a steep ramp up to this radius.
SMALLEST_RADIUS = 1e-8


def fuse(
    loc: Any,
    precision_factor: Any,
    energy: RadialEnergy,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
    correlation: float = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Find the maximum-likelihood point of several views and its precision factor, in their frame.

    The module's head says what is minimised, and what the precision factor means. The computation is in
    float64; results have the dtype of `loc`. It can be exported.

    >>> loc, factor = tf.constant([[0.0, 0.0], [2.0, 0.0]]), tf.eye(2, batch_shape=[2])
    >>> point, _ = fuse(loc, factor, tfhuber.distributions.radial.Huber(10.0))
    >>> print(point.numpy())
    [1. 0.]

    Args:
      loc: [V, ..., d], the views' locations, float32 or float64.
      precision_factor: [V, ..., d, d], symmetric positive definite, of the same dtype.
      energy: rho of all views and points; convex, with `rho'(r) / r` not increasing, as in `radial`.
      max_iterations: a bound; 4 are usual and 30 rare.
      tolerance: a point is done when Newton's next step would be shorter, in units of the radius.
      correlation: c of the whitened errors of any two views, a number in [0, 1].

    Returns:
      The fused locations [..., d] and precision factors [..., d, d]. NaN or infinity in any of several
      views of a point gives NaN for that point, with gradients of 0, and changes no other.

    Raises:
      ValueError: the number of views or of dimensions is not known statically, the shapes do not fit
        each other, `loc` is neither float32 nor float64, or `correlation` is out of range.
    """
    loc, precision_factor = _checked(loc, precision_factor)
    _check_correlation(correlation)
    if loc.shape[0] == 1:
        return loc[0], precision_factor[0]

    is_usable = tf.reduce_all(tf.math.is_finite(loc), axis=[0, -1], keepdims=True)
    is_usable &= tf.reduce_all(tf.math.is_finite(precision_factor), axis=[0, -2, -1])[
        ..., tf.newaxis
    ]
    d = loc.shape[-1]
    identity = tf.eye(d, dtype=loc.dtype)
    views = _Views.of(
        tf.where(is_usable, loc, 0),
        tf.where(is_usable[..., tf.newaxis], precision_factor, identity),
        energy,
    )
    y = _optimum(views, max_iterations, tolerance**2)
    precision = [x for row in views.fused_precision(y, correlation) for x in row]
    shape, nan = tf.shape(loc)[1:-1], tf.constant(math.nan, tf.float64)
    point = small_matrix.interleave([tf.reshape(x, shape) for x in y], [d])
    square = small_matrix.interleave([tf.reshape(x, shape) for x in precision], [d, d])
    point = tf.where(is_usable[0], point, nan)
    factor = tf.where(is_usable[0, ..., tf.newaxis], small_matrix.square_root(square), nan)
    point.set_shape(loc.shape[1:])
    factor.set_shape(precision_factor.shape[1:])
    return tf.cast(point, loc.dtype), tf.cast(factor, loc.dtype)


def mean_fusion(
    loc: Any, precision_factor: Any, correlation: float = 1.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the mean of several views' locations and the root of the mean of their `A A`.

    Both are in the views' frame, and as sure as one view is on average: nothing is gained from their
    number, as is right for views that err alike. With a smaller `correlation` c something is: the mean
    of A A is then multiplied by V / (1 + (V - 1) c), as the mean of V errors varies the less.

    Args:
      loc: [V, ..., d], the views' locations.
      precision_factor: [V, ..., d, d], symmetric positive definite.
      correlation: c of the whitened errors of any two views, a number in [0, 1].

    Returns:
      The fused locations [..., d] and precision factors [..., d, d].

    Raises:
      ValueError: as `fuse`.
    """
    loc, precision_factor = _checked(loc, precision_factor)
    _check_correlation(correlation)
    mean_square = tf.reduce_mean(small_matrix.matmul(precision_factor, precision_factor), axis=0)
    if correlation != 1:
        views = loc.shape[0]
        mean_square *= views / (1 + (views - 1) * correlation)
    return tf.reduce_mean(loc, axis=0), small_matrix.square_root(mean_square)


class _Views:
    """The objective of eq. 130 for N points with V views each; elements [V, N], of points [N]."""

    def __init__(self, mu: Vector, factor: Matrix, radial: RadialEnergy):
        self.mu, self.factor, self.radial = mu, factor, radial
        columns = list(zip(*factor, strict=True))
        self.precision = _symmetric(lambda i, j: _dot(factor[i], columns[j]), len(mu))

    @classmethod
    def of(cls, loc: tf.Tensor, precision_factor: tf.Tensor, radial: RadialEnergy) -> "_Views":
        """Make the views of [V, ..., d] and [V, ..., d, d]."""
        views, d = loc.shape[0], loc.shape[-1]
        rows = tf.reshape(tf.cast(loc, tf.float64), [views, -1, d])
        mu = tf.unstack(tf.transpose(rows, [2, 0, 1]))
        rows = tf.reshape(tf.cast(precision_factor, tf.float64), [views, -1, d * d])
        elements = tf.unstack(tf.transpose(rows, [2, 0, 1]))
        return cls(mu, [elements[i : i + d] for i in range(0, d * d, d)], radial)

    def map(self, function: Callable[[tf.Tensor], tf.Tensor]) -> "_Views":
        """Return the views with the function of each of their elements [V, N] in its place."""
        factor = [[function(x) for x in row] for row in self.factor]
        return _Views([function(x) for x in self.mu], factor, self.radial)

    def fixed(self) -> "_Views":
        """Return the same views, through which no gradient flows."""
        return self.map(tf.stop_gradient)

    def take(self, points: tf.Tensor) -> "_Views":
        """Return the views of some of the points, given by their indices [M]."""
        return self.map(lambda x: tf.gather(x, points, axis=1))

    def residuals(self, y: Vector) -> tuple[Vector, tf.Tensor]:
        """Compute `A (y - mu)` of each view [..., V, N] and its squared length, for y [..., N]."""
        offset = [tf.expand_dims(a, -2) - b for a, b in zip(y, self.mu, strict=True)]
        residual = [_dot(row, offset) for row in self.factor]
        return residual, _dot(residual, residual)

    def energy(self, y: Vector) -> tf.Tensor:
        """Compute the objective at y [..., N]: the views' energies, summed."""
        return tf.reduce_sum(self.radial.energy(self.residuals(y)[1]), axis=-2)

    def weight(self, squared_radius: tf.Tensor) -> tf.Tensor:
        """Compute `rho'(r) / r`, finite for every energy."""
        return self.radial.weight(tf.maximum(squared_radius, SMALLEST_RADIUS**2))

    def best_start(self) -> tuple[Vector, tf.Tensor]:
        """Find the lower of the optimum for Gaussians and a step from the lowest view, and its energy."""
        pull = [tf.reduce_sum(_dot(row, self.mu), axis=0) for row in self.precision]
        y = _solve([[tf.reduce_sum(x, axis=0) for x in row] for row in self.precision], pull)
        locations = zip(*map(tf.unstack, self.mu), strict=True)
        starts: list[Located] = [(x, self.energy(x)) for x in locations]
        lowest = functools.reduce(_lower, starts)
        # Of far views that are almost equally sure, the surer one is close to the optimum, but its own
        # location lies higher than the Gaussians' optimum, from where the way is long and almost flat.
        stepped = self.step(*lowest, NEWTON)[:2]
        # Where all between two views is equally low, rounding must not choose a view.
        return _lower((y, self.energy(y)), stepped, margin=1e-12)

    def force(self, y: Vector) -> Vector:
        """Compute the gradient of the objective at y."""
        residual, squared = self.residuals(y)
        weight = self.weight(squared)
        return [tf.reduce_sum(weight * _dot(row, residual), axis=0) for row in self.factor]

    def quadratic(self, y: Vector) -> tuple[Vector, Matrix, Matrix]:
        """Compute the gradient, the majoriser's curvature, and what must be added to it for the Hessian."""
        residual, squared = self.residuals(y)
        with tf.GradientTape() as tape:
            tape.watch(squared)
            weight = self.weight(squared)
        slope = 2 * tape.gradient(weight, squared, unconnected_gradients="zero")
        force = [_dot(row, residual) for row in self.factor]
        bend = [slope * x for x in force]
        d = len(y)
        return (
            [tf.reduce_sum(weight * x, axis=0) for x in force],
            _symmetric(lambda i, j: tf.reduce_sum(weight * self.precision[i][j], axis=0), d),
            _symmetric(lambda i, j: tf.reduce_sum(bend[i] * force[j], axis=0), d),
        )

    def step(
        self, y: Vector, energy: tf.Tensor, dampings: Sequence[float]
    ) -> tuple[Vector, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Find the lowest point of y and one step with each damping, its energy, and two facts [N].

        These are whether it is lower than y, and the gain that Newton's step promises, twice over.
        """
        gradient, curvature, bend = self.quadratic(y)
        added = 1 + tf.constant(dampings, tf.float64)[:, tf.newaxis]
        damped = _symmetric(lambda i, j: added * curvature[i][j] + bend[i][j], len(y))
        move = _solve(damped, gradient)
        promised = _dot([x[0] for x in move], gradient)
        candidates = [a - b for a, b in zip(y, move, strict=True)]
        best, columns = (y, energy), [*candidates, self.energy(candidates)]
        for *candidate, candidate_energy in zip(*map(tf.unstack, columns), strict=True):
            best = _lower(best, (candidate, candidate_energy))
        return *best, best[1] < energy, promised

    def fused_precision(self, y: Vector, correlation: float) -> Matrix:
        """Compute F F, as the module's head explains."""
        _, squared = self.residuals(y)
        typical = tf.cast(self.radial.second_moment(len(y)), tf.float64)
        count = tf.minimum(self.weight(squared) / self.weight(typical), 1)
        d = len(y)
        precision = _symmetric(lambda i, j: tf.reduce_sum(count * self.precision[i][j], 0), d)
        if not correlation:
            return precision
        root = tf.sqrt(count)
        total = _symmetric(lambda i, j: tf.reduce_sum(root * self.factor[i][j], 0), d)
        cost = _symmetric(
            lambda i, j: (
                (1 - correlation) * precision[i][j] + correlation * _dot(total[i], total[j])
            ),
            d,
        )
        columns = [_solve(cost, column) for column in precision]
        return _symmetric(lambda i, j: _dot(precision[i], columns[j]), d)


def _optimum(views: _Views, max_iterations: int, least_gain: float) -> Vector:
    """Find the minimum for each point, with the gradients of the implicit function theorem."""
    y = _minimise(views.fixed(), max_iterations, least_gain)
    y = [tf.stop_gradient(x) for x in y]

    @tf.custom_gradient
    def at_balance(*force: tf.Tensor) -> Any:
        def gradient(*d_y: tf.Tensor) -> list[tf.Tensor]:
            _, curvature, bend = views.fixed().quadratic(y)
            hessian = _symmetric(lambda i, j: (1 + 1e-12) * curvature[i][j] + bend[i][j], len(y))
            d_force = _solve(hessian, [-x for x in d_y])
            return [small_matrix.first_order_only(x, "fuse") for x in d_force]

        return [tf.identity(x) for x in y], gradient

    return at_balance(*views.force(y))


def _minimise(views: _Views, max_iterations: int, least_gain: float) -> Vector:
    """Find the minimum for each point: a few steps for all, then more for those that need them."""
    y, energy = views.best_start()

    def newton_step(
        y: Vector, energy: tf.Tensor, _: tf.Tensor
    ) -> tuple[Vector, tf.Tensor, tf.Tensor]:
        y, energy, _, promised = views.step(y, energy, NEWTON)
        return y, energy, promised

    y, energy, promised = tf.while_loop(
        lambda *_: True,
        newton_step,
        (y, energy, tf.fill(tf.shape(energy), tf.constant(math.inf, tf.float64))),
        maximum_iterations=min(NEWTON_STEPS, max_iterations),
    )

    def step(
        iteration: tf.Tensor, points: tf.Tensor, y: Vector, energy: tf.Tensor
    ) -> tuple[Any, ...]:
        part_y, part_energy = [tf.gather(x, points) for x in y], tf.gather(energy, points)
        *best, is_lower, promised = views.take(points).step(part_y, part_energy, DAMPINGS)

        def put(whole: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
            return tf.tensor_scatter_nd_update(whole, points[:, tf.newaxis], part)

        y, energy = tf.nest.map_structure(put, [y, energy], best)
        left = tf.boolean_mask(points, is_lower & (promised > least_gain))
        return iteration + 1, left, y, energy

    points = tf.where(promised > least_gain)[:, 0]
    _, _, y, _ = tf.while_loop(
        lambda iteration, points, *_: (iteration < max_iterations) & (tf.size(points) > 0),
        step,
        (NEWTON_STEPS, points, y, energy),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([None]),
            [x.shape for x in y],
            energy.shape,
        ),
    )
    return y


def _symmetric(element: Callable[[int, int], tf.Tensor], d: int) -> Matrix:
    """Make the matrix whose elements are `element(i, j)` for i <= j."""
    upper = {(i, j): element(i, j) for i in range(d) for j in range(i, d)}
    return [[upper[min(i, j), max(i, j)] for j in range(d)] for i in range(d)]


def _dot(x: Vector, y: Vector) -> tf.Tensor:
    return functools.reduce(operator.add, [a * b for a, b in zip(x, y, strict=True)])


def _solve(matrix: Matrix, vector: Vector) -> Vector:
    """Compute `inv(matrix) @ vector` for positive definite matrices, by elimination."""
    rows, x = [list(row) for row in matrix], list(vector)
    d = len(x)
    for k in range(d):
        for i in range(k + 1, d):
            ratio = rows[i][k] / rows[k][k]
            rows[i][k + 1 :] = [
                a - ratio * b for a, b in zip(rows[i][k + 1 :], rows[k][k + 1 :], strict=True)
            ]
            x[i] = x[i] - ratio * x[k]
    for k in reversed(range(d)):
        x[k] = (x[k] - sum(rows[k][j] * x[j] for j in range(k + 1, d))) / rows[k][k]
    return x


def _lower(current: Located, candidate: Located, margin: float = 0.0) -> Located:
    """Choose of two points with their energies, for each element, the one lower by a relative margin."""
    is_lower = candidate[1] < (1 - margin) * current[1]
    y = [tf.where(is_lower, a, b) for a, b in zip(candidate[0], current[0], strict=True)]
    return y, tf.where(is_lower, candidate[1], current[1])


def _check_correlation(correlation: float) -> None:
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation must be between 0 and 1, got {correlation!r}.")


def _checked(loc: Any, precision_factor: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Return both as tensors of one dtype, whose shapes fit each other."""
    loc = as_float(loc, "loc")
    precision_factor = tf.convert_to_tensor(precision_factor, dtype=loc.dtype)
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
    return loc, precision_factor
