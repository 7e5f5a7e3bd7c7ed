"""Radial energies: how fast a density falls with the distance from its centre.

An elliptical density in d dimensions is `exp(-rho(r)) / c_d` times a determinant, where `r` is a
distance. Everything that depends on `rho` alone lives here: the normaliser `c_d`, the distribution
of `r` and its moments, for every dimension. With `I_n = integral of r^n exp(-rho(r)) dr` over r > 0,

    c_d = |S^(d-1)| I_(d-1),    |S^(d-1)| = 2 pi^(d/2) / Gamma(d/2),    E[r^2] = I_(d+1) / I_(d-1).

Special functions are evaluated in float64 whatever the caller's dtype: it costs next to nothing
beside a network, and float32 would lose the tails.
"""

import abc
import math
import numbers
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.internal import samplers

__all__ = ["Huber", "RadialEnergy"]


class RadialEnergy(abc.ABC):
    """What an elliptical distribution must know about its radial energy `rho(r)`.

    A family says how its energy rises, what its integrals are, and how the radius is distributed;
    the rest follows here. The dimension `d` is a positive Python integer.
    """

    @abc.abstractmethod
    def energy(self, squared_radius: Any) -> tf.Tensor:
        """`rho` at `r = sqrt(squared_radius)`, with a gradient that is exact at 0 as well.

        Finite while the square is: for r up to 1e19 in float32 and 1e154 in float64.
        """

    @abc.abstractmethod
    def weight(self, squared_radius: Any) -> tf.Tensor:
        """`rho'(r) / r`: the weight of a residual in an iteratively reweighted least-squares step."""

    @abc.abstractmethod
    def log_integral(self, n: int) -> Any:
        """`log I_n`, the logarithm of the integral of `r^n exp(-rho(r))` over r > 0."""

    @abc.abstractmethod
    def mean_energy(self, d: int) -> Any:
        """`E[rho(r)]` in d dimensions."""

    @abc.abstractmethod
    def cdf(self, radius: Any, d: int) -> tf.Tensor:
        """Probability of a distance of at most `radius` in d dimensions."""

    @abc.abstractmethod
    def quantile(self, probability: Any, d: int) -> tf.Tensor:
        """The radius whose ball holds `probability`, from 0 to 1, in d dimensions."""

    def log_normalizer(self, d: int) -> Any:
        """`log c_d`: minus the log density at the centre, where `rho` is 0 and A the identity."""
        log_sphere = math.log(2) + _dimension(d) / 2 * math.log(math.pi) - math.lgamma(d / 2)
        return log_sphere + self.log_integral(d - 1)

    def second_moment(self, d: int) -> Any:
        """`E[r^2]`, the expected squared distance from the centre."""
        log_moment = self.log_integral(_dimension(d) + 1) - self.log_integral(d - 1)
        return tf.exp(log_moment) if tf.is_tensor(log_moment) else math.exp(log_moment)

    def kappa(self, d: int) -> Any:
        """`E[r^2] / d`: the covariance is `kappa * inv(A A)`."""
        return self.second_moment(d) / d

    def entropy(self, d: int) -> Any:
        """Differential entropy, in nats, of the distribution with A the identity."""
        return self.log_normalizer(d) + self.mean_energy(d)

    def log_prob(self, radius: Any, d: int) -> tf.Tensor:
        """Log density of the radius itself, `(d-1) log r - rho(r) - log I_(d-1)`, for r >= 0."""
        radius = tf.convert_to_tensor(radius)
        log_integral = _as(self.log_integral(_dimension(d) - 1), radius.dtype)
        jacobian = tf.math.xlogy(_as(d - 1, radius.dtype), radius)
        return jacobian - self.energy(tf.square(radius)) - log_integral

    def sample(self, shape: Any, d: int, seed: Any = None, dtype: Any = tf.float32) -> tf.Tensor:
        """Radii of the given shape, by inverting the CDF; an integer or stateless `seed` repeats."""
        probability = samplers.uniform(shape, dtype=tf.float64, seed=seed)
        return tf.cast(self.quantile(probability, d), dtype)


class Huber(RadialEnergy):
    """Huber's energy: quadratic up to `delta`, linear beyond, with a continuous slope (eq. 2).

        rho(r) = r^2 / 2                  for r <= delta
                 delta (r - delta / 2)    otherwise

    `delta` is a Python number, and what depends on it alone (`log_normalizer`, `kappa`, `entropy`, ...)
    then comes back as a Python float, exact to float64; or it is a tensor of any shape, and those come
    back as tensors of its shape and dtype, differentiable with respect to it.

    As delta grows this is the Gaussian's energy; as it falls, `rho(r) / delta` tends to Laplace's `r`.

    >>> round(Huber(1.0).kappa(2), 4)
    3.0765

    Raises:
      ValueError: `delta` is a number that is not positive and finite.
    """

    def __init__(self, delta: Any = 1.0):
        if isinstance(delta, numbers.Real):
            delta = float(delta)
            if not 0.0 < delta < math.inf:
                raise ValueError(f"delta must be positive and finite, got {delta!r}.")
        else:
            delta = tf.convert_to_tensor(delta)
            if not delta.dtype.is_floating:
                raise ValueError(f"delta must be floating point, got {delta.dtype.name}.")
        self.delta = delta

    def __repr__(self) -> str:
        return f"Huber(delta={self.delta!r})"

    def energy(self, squared_radius: Any) -> tf.Tensor:
        squared_radius = tf.convert_to_tensor(squared_radius)
        delta = self._delta(squared_radius.dtype)
        knee = tf.square(delta)
        # delta (r - delta) without cancellation. At the knee the minimum hands on the whole slope and
        # the rectifier none, so that the gradient is exact there too.
        beyond = tf.nn.relu(squared_radius - knee)
        linear = delta * (beyond / (tf.sqrt(knee + beyond) + delta))
        return tf.minimum(squared_radius, knee) / 2 + linear

    def weight(self, squared_radius: Any) -> tf.Tensor:
        squared_radius = tf.convert_to_tensor(squared_radius)
        delta = self._delta(squared_radius.dtype)
        return delta / tf.sqrt(tf.maximum(squared_radius, tf.square(delta)))

    def log_integral(self, n: int) -> Any:
        return self._evaluate(lambda delta: _log_integral(n, delta))

    def mean_energy(self, d: int) -> Any:
        # rho is r rho'/2 inside and r rho' - delta^2/2 outside; E[r rho'] = d by partial integration.
        def formula(delta: tf.Tensor) -> tf.Tensor:
            log_integral = _log_integral(_dimension(d) - 1, delta)
            inner_moment = tf.exp(_log_inner(d + 1, delta) - log_integral)
            outer_mass = tf.exp(_log_outer(d - 1, delta, delta) - log_integral)
            return d - inner_moment / 2 - tf.square(delta) / 2 * outer_mass

        return self._evaluate(formula)

    def cdf(self, radius: Any, d: int) -> tf.Tensor:
        radius = tf.convert_to_tensor(radius)
        delta, r = self._delta(tf.float64), tf.cast(radius, tf.float64)
        is_empty = r <= 0
        r = tf.clip_by_value(r, 1e-150, 1e150)  # where all logarithms have finite gradients
        log_integral = _log_integral(_dimension(d) - 1, delta)
        inside = tf.exp(_log_inner(d - 1, tf.minimum(r, delta)) - log_integral)
        beyond = tf.exp(_log_outer(d - 1, tf.maximum(r, delta), delta) - log_integral)
        probability = tf.where(r > delta, 1 - beyond, inside)
        return tf.cast(tf.where(is_empty, _double(0.0), probability), radius.dtype)

    def quantile(self, probability: Any, d: int) -> tf.Tensor:
        probability = tf.convert_to_tensor(probability)
        delta, p = self._delta(tf.float64), tf.cast(probability, tf.float64)
        log_integral = _log_integral(_dimension(d) - 1, delta)
        is_outer = p > tf.exp(_log_inner(d - 1, delta) - log_integral)
        # Each branch inverts its incomplete gamma function; 0.5 stands in where it is not taken.
        lower = p * tf.exp(log_integral - _log_inner_scale(d - 1))
        half_square = tfp.math.igammainv(_double(d / 2), tf.where(is_outer, _double(0.5), lower))
        upper = (1 - p) * tf.exp(log_integral - _log_outer_scale(d - 1, delta))
        product = tfp.math.igammacinv(_double(d), tf.where(is_outer, upper, _double(0.5)))
        radius = tf.where(is_outer, product / delta, tf.sqrt(2 * half_square))
        return tf.cast(radius, probability.dtype)

    def _delta(self, dtype: tf.DType) -> tf.Tensor:
        return _as(self.delta, dtype)

    def _evaluate(self, formula: Callable[[tf.Tensor], tf.Tensor]) -> Any:
        """`formula(delta)` in float64: a float where delta is a number, else a tensor like delta."""
        if isinstance(self.delta, float):
            with tf.init_scope():  # eagerly, even while a graph is being built
                return float(formula(self._delta(tf.float64)))
        return tf.cast(formula(self._delta(tf.float64)), self.delta.dtype)


def _log_integral(n: int, delta: tf.Tensor) -> tf.Tensor:
    """`log I_n` of Huber's energy."""
    return tfp.math.log_add_exp(_log_inner(n, delta), _log_outer(n, delta, delta))


def _log_inner(n: int, radius: tf.Tensor) -> tf.Tensor:
    """Log of the integral of `t^n exp(-t^2/2)` from 0 to `radius`: a lower incomplete gamma."""
    return _log_inner_scale(n) + _log_igamma((n + 1) / 2, tf.square(radius) / 2)


def _log_inner_scale(n: int) -> float:
    return (n - 1) / 2 * math.log(2) + math.lgamma((n + 1) / 2)


def _log_outer(n: int, radius: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Log of the integral of `t^n exp(-delta (t - delta/2))` from `radius` on.

    The upper incomplete gamma function of a whole number is a finite sum, so no tail underflows:
    Gamma(n+1, x) = n! exp(-x) (1 + x + ... + x^n / n!).
    """
    product = delta * radius
    terms = [tf.math.xlogy(_double(k), product) - math.lgamma(k + 1) for k in range(n + 1)]
    log_sum = tf.reduce_logsumexp(tf.stack(terms), axis=0)
    return _log_outer_scale(n, delta) - product + log_sum


def _log_outer_scale(n: int, delta: tf.Tensor) -> tf.Tensor:
    return math.lgamma(n + 1) + tf.square(delta) / 2 - (n + 1) * tf.math.log(delta)


def _log_igamma(a: float, x: tf.Tensor) -> tf.Tensor:
    """Log of the regularised lower incomplete gamma function, without underflow for small `x`."""
    small = 1e-3  # below, the first terms of the power series are exact to float64
    x_small, x_large = tf.minimum(x, _double(small)), tf.maximum(x, _double(small))
    series = 1 / a - x_small / (a + 1) + x_small**2 / (2 * (a + 2)) - x_small**3 / (6 * (a + 3))
    log_series = tf.math.xlogy(_double(a), x_small) + tf.math.log(series) - math.lgamma(a)
    return tf.where(x < small, log_series, tf.math.log(tf.math.igamma(_double(a), x_large)))


def _dimension(d: int) -> int:
    if not isinstance(d, numbers.Integral) or d < 1:
        raise ValueError(f"d must be a positive integer, got {d!r}.")
    return int(d)


def _double(value: float) -> tf.Tensor:
    return tf.constant(value, tf.float64)


def _as(value: Any, dtype: tf.DType) -> tf.Tensor:
    """A number or tensor as a tensor of `dtype`; `tf.cast` alone would round a number to float32."""
    return tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)
