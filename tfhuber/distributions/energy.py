"""The radial energy of an elliptical distribution: what every family shares.

With a radial energy `rho(r)` of the distance r from the centre, the density in d dimensions is
`exp(-rho(r)) / c_d` times a determinant. The normaliser `c_d`, the distribution of r and its moments
depend on `rho` alone. With `I_n = integral of r^n exp(-rho(r)) dr` over r > 0,

    c_d = |S^(d-1)| I_(d-1),    |S^(d-1)| = 2 pi^(d/2) / Gamma(d/2),    E[r^2] = I_(d+1) / I_(d-1).

Arguments are float32 or float64, and Python numbers count as float32. Special functions are evaluated
in float64 all the same: it costs next to nothing beside a network, and float32 would lose the tails.
"""

import abc
import math
import numbers
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from tfhuber.distributions.arguments import as_float

__all__ = ["RadialEnergy", "cast", "dimension", "double", "far_radius"]


class RadialEnergy(tfp.experimental.AutoCompositeTensor):
    """The radial energy `rho(r)` of a family of elliptical distributions.

    A family says how its energy rises, what its integrals are, and how the radius is distributed;
    the rest follows here. The dimension `d` is a positive Python integer. Under the decorator
    `tfp.experimental.auto_composite_tensor` an energy passes into and out of a `tf.function`.

    Attributes:
      degree: 1 for an energy that is proportional to r from `far_radius` on (as Huber's is for any delta
        far below that), 2 for one that grows like r^2.
    """

    degree = 2

    @property
    def batch_shape(self) -> tf.TensorShape:
        """The shape of the parameters: one energy for each element."""
        return tf.TensorShape([])

    @abc.abstractmethod
    def energy(self, squared_radius: Any) -> tf.Tensor:
        """Compute `rho` at `r = sqrt(squared_radius)`, with a gradient that is exact at 0 as well.

        It is finite while the square is, for r up to 1e19 in float32 and 1e154 in float64.
        """

    @abc.abstractmethod
    def weight(self, squared_radius: Any) -> tf.Tensor:
        """Compute `rho'(r) / r`, the weight of a residual in iteratively reweighted least squares."""

    @abc.abstractmethod
    def log_integral(self, n: int) -> Any:
        """Return `log I_n`, the logarithm of the integral of `r^n exp(-rho(r))` over r > 0."""

    @abc.abstractmethod
    def mean_energy(self, d: int) -> Any:
        """Return `E[rho(r)]` in d dimensions."""

    @abc.abstractmethod
    def _cdf(self, r: tf.Tensor, d: int) -> tf.Tensor:
        """`cdf` in float64, for r from 1e-150 to 1e150."""

    @abc.abstractmethod
    def _quantile(self, p: tf.Tensor, d: int) -> tf.Tensor:
        """`quantile` in float64, for 0 < p < 1."""

    def cdf(self, radius: Any, d: int) -> tf.Tensor:
        """Compute the probability of a distance of at most `radius` in d dimensions."""
        radius = as_float(radius, "radius")
        r = tf.cast(radius, tf.float64)
        # Within these bounds all logarithms have finite gradients.
        probability = self._cdf(tf.clip_by_value(r, 1e-150, 1e150), dimension(d))
        return tf.cast(tf.where(r <= 0, double(0.0), probability), radius.dtype)

    def quantile(self, probability: Any, d: int) -> tf.Tensor:
        """Compute the radius whose ball holds `probability` in d dimensions.

        It is 0 for 0, infinite for 1, and NaN for what is no probability.
        """
        probability = as_float(probability, "probability")
        p = tf.cast(probability, tf.float64)
        is_inside = (p > 0) & (p < 1)
        ends = tf.where(p == 1, double(math.inf), tf.where(p == 0, double(0.0), math.nan))
        inside = self._quantile(tf.where(is_inside, p, double(0.5)), dimension(d))
        return tf.cast(tf.where(is_inside, inside, ends), probability.dtype)

    def log_normalizer(self, d: int) -> Any:
        """Return `log c_d`: minus the log density at the centre, where `rho` is 0 and A the identity."""
        log_sphere = math.log(2) + dimension(d) / 2 * math.log(math.pi) - math.lgamma(d / 2)
        return log_sphere + self.log_integral(d - 1)

    def second_moment(self, d: int) -> Any:
        """Return `E[r^2]`, the expected squared distance from the centre."""
        log_moment = self.log_integral(dimension(d) + 1) - self.log_integral(d - 1)
        return tf.exp(log_moment) if tf.is_tensor(log_moment) else math.exp(log_moment)

    def kappa(self, d: int) -> Any:
        """Return `E[r^2] / d`: the covariance is `kappa * inv(A A)`."""
        return self.second_moment(d) / d

    def entropy(self, d: int) -> Any:
        """Return the differential entropy, in nats, of the distribution with A the identity."""
        return self.log_normalizer(d) + self.mean_energy(d)

    def log_prob(self, radius: Any, d: int) -> tf.Tensor:
        """Compute the log density of the radius itself, `(d-1) log r - rho(r) - log I_(d-1)`, r >= 0."""
        radius = as_float(radius, "radius")
        log_integral = cast(self.log_integral(dimension(d) - 1), radius.dtype)
        jacobian = tf.math.xlogy(cast(d - 1, radius.dtype), radius)
        far = far_radius(radius.dtype)
        near = self.energy(tf.square(tf.minimum(radius, far)))
        grown = near * (tf.maximum(radius, far) / far) ** self.degree
        return jacobian - grown - log_integral

    def sample(self, shape: Any, d: int, seed: Any = None, dtype: Any = tf.float32) -> tf.Tensor:
        """Draw radii of the given shape by inverting the CDF; an integer or stateless `seed` repeats."""
        seed = tfp.random.sanitize_seed(seed)
        probability = tf.random.stateless_uniform(shape, seed, dtype=tf.float64)
        return tf.cast(self.quantile(probability, d), dtype)


def far_radius(dtype: tf.DType) -> float:
    """Return a power of two, 1e18 in float32 and 1e150 in float64, whose square is well within range."""
    return 2.0**60 if dtype == tf.float32 else 2.0**500


def dimension(d: int) -> int:
    """Return `d` as an integer.

    Raises:
      ValueError: it is no positive integer.
    """
    if not isinstance(d, numbers.Integral) or d < 1:
        raise ValueError(f"d must be a positive integer, got {d!r}.")
    return int(d)


def double(value: Any) -> tf.Tensor:
    """Return a number or array as a float64 tensor."""
    return tf.constant(value, tf.float64)


def cast(value: Any, dtype: tf.DType) -> tf.Tensor:
    """Return a number or tensor as a tensor of `dtype`; `tf.cast` alone would round a number to float32."""
    return tf.constant(value, dtype) if isinstance(value, numbers.Real) else tf.cast(value, dtype)
