"""Locations and precision factors of elliptical distributions, carried together from frame to frame."""

from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import tensorflow as tf

from tfhuber.distributions.elliptical import Elliptical
from tfhuber.distributions.radial import RadialEnergy
from tfhuber.geometry import projective
from tfhuber.linalg import small_matrix

__all__ = ["LocationScatter"]

Array: TypeAlias = tf.Tensor | np.ndarray

# Over which a probability is averaged; of axes as 10 to 1 it is then known to 0.003.
_DIRECTIONS = 16


@dataclass(frozen=True, eq=False)
class LocationScatter:
    """The parameters mu, A and log |A| of elliptical distributions in the plane, all in one frame.

    With a radial energy rho each is the density |A| / c_2 exp(-rho(|A (y - mu)|)) of eq. 3. The network
    knows log |A| better than A itself, whose elements are rounded (see `spd_matrix`): every map below
    brings it along, so that no likelihood computes it again.

    The three are all tensors or all NumPy arrays. `tf.nest` sees a structure of three, so that a
    `tf.function` can take and return it; methods that map it give tensors.

    >>> known = LocationScatter.from_natural(tf.zeros([1, 2]), tf.eye(2)[tf.newaxis], tf.zeros([1]))
    >>> twice = known.affine(2 * tf.eye(2), tf.constant([3.0, 4.0]))
    >>> print(twice.loc.numpy(), twice.log_det.numpy().round(4))
    [[3. 4.]] [-1.3863]

    Attributes:
      loc: [..., 2] the locations mu.
      precision_factor: [..., 2, 2] A, symmetric positive definite; the covariance is kappa inv(A A).
      log_det: [...] log |A|.
    """

    loc: Array
    precision_factor: Array
    log_det: Array

    @classmethod
    def from_natural(cls, nu: Array, precision_factor: Array, log_det: Array) -> Self:
        """Return the distributions with nu = A mu [..., 2], which is what a network predicts."""
        inverse = small_matrix.inverse(precision_factor, log_det)
        return cls(small_matrix.matvec(inverse, nu), precision_factor, log_det)

    @classmethod
    def from_factor(cls, loc: Array, precision_factor: Array) -> Self:
        """Return the distributions of which nothing but mu and A is known, as after a fusion."""
        factor = tf.convert_to_tensor(precision_factor)
        return cls(loc, precision_factor, small_matrix.log_determinant(factor))

    def affine(self, linear: Array, offset: Array) -> Self:
        """Return the distributions in the frame to which u -> linear u + offset leads.

        Args:
          linear: [..., 2, 2], invertible.
          offset: [..., 2].
        """
        return self._pushed(small_matrix.matvec(linear, self.loc) + offset, linear)

    def through(self, h: Array) -> Self:
        """Return the distributions [..., K], to first order, in the frame that `h` [..., 3, 3] maps to."""
        return self._pushed(projective.apply_map(h, self.loc), projective.jacobian(h, self.loc))

    def unscaled(self, scale: Array, offset: Array) -> Self:
        """Return the distributions in the frame that u -> scale u + offset comes from.

        It divides where inverting the map first would lose digits.

        Args:
          scale: [...], positive.
          offset: [..., 2].
        """
        return type(self)(
            (self.loc - offset) / scale[..., tf.newaxis],
            self.precision_factor * scale[..., tf.newaxis, tf.newaxis],
            self.log_det + 2 * tf.math.log(scale),
        )

    def reordered(self, order: Any) -> Self:
        """Return the distributions [..., K] with number `order[k]` in place k, for each of K places."""
        return type(self)(
            tf.gather(self.loc, order, axis=-2),
            tf.gather(self.precision_factor, order, axis=-3),
            tf.gather(self.log_det, order, axis=-1),
        )

    def at(self, index: Any) -> Self:
        """Return the distributions at an index or a slice of the first axis."""
        return tf.nest.map_structure(lambda values: values[index], self)

    def distribution(self, energy: RadialEnergy) -> Elliptical:
        """Return the distributions with that radial energy, in the same frame."""
        return Elliptical(self.loc, self.precision_factor, energy, log_det=self.log_det)

    def covariance(self, energy: RadialEnergy) -> tf.Tensor:
        """Return the covariances kappa inv(A A) [..., 2, 2] with that radial energy.

        They are computed from A alone: so does every model that was exported, and its numbers stay.
        """
        return Elliptical(self.loc, self.precision_factor, energy).covariance()

    def probability_within(self, distance: float, energy: RadialEnergy) -> tf.Tensor:
        """Return the probabilities [...] that points lie within a distance of mu, in the frame's pixels.

        A point is mu + r inv(A) u, with u uniform on the circle and independent of r: the probability is
        the mean over u of that of r <= distance / |inv(A) u|, here over directions of half a circle.
        """
        angle = np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
        factor = tf.convert_to_tensor(self.precision_factor)
        inverse = small_matrix.inverse(factor, tf.convert_to_tensor(self.log_det))
        direction = tf.constant(np.stack([np.cos(angle), np.sin(angle)]), factor.dtype)
        scale = tf.norm(tf.matmul(inverse, direction), axis=-2)
        return tf.reduce_mean(energy.cdf(distance / scale, 2), axis=-1)

    def _pushed(self, loc: tf.Tensor, jacobian: Array) -> Self:
        """Return the distributions around `loc` after a map with that Jacobian J [..., 2, 2].

        The density becomes p / |det J|, and with it |A| becomes |A| / |det J|.
        """
        jacobian, factor = map(tf.convert_to_tensor, (jacobian, self.precision_factor))
        j_00, j_01, j_10, j_11 = small_matrix.elements_2x2(jacobian)
        return type(self)(
            loc,
            projective.push_precision_factor(jacobian, factor),
            self.log_det - tf.math.log(tf.abs(j_00 * j_11 - j_01 * j_10)),
        )

    def __tf_flatten__(self) -> tuple[tuple, tuple[Array, Array, Array]]:
        return (), (self.loc, self.precision_factor, self.log_det)

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple, components: tuple[Array, Array, Array]) -> Self:
        return cls(*components)
