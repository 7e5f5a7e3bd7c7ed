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

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import special
from tensorflow_probability.python.internal import samplers

from tfhuber.distributions.incomplete_gamma import (
    log_igamma,
    log_inner,
    log_inner_scale,
    log_outer,
    log_outer_scale,
)

__all__ = ["FAMILIES", "Charbonnier", "Gauss", "Huber", "Laplace", "RadialEnergy", "radial_energy"]

FAMILIES = ("huber", "gauss", "laplace", "charbonnier")


def radial_energy(family: str, delta: Any = 1.0) -> "RadialEnergy":
    """The radial energy of that name, one of `FAMILIES`; `delta` is the knee of Huber's.

    >>> radial_energy("laplace").kappa(2)
    3.0

    Raises:
      ValueError: there is no such family, or `delta` is not positive.
    """
    if family == "huber":
        return Huber(delta)
    others = {"gauss": Gauss, "laplace": Laplace, "charbonnier": Charbonnier}
    if family not in others:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}.")
    return others[family]()


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
            inner_moment = tf.exp(log_inner(d + 1, delta) - log_integral)
            outer_mass = tf.exp(log_outer(d - 1, delta, delta) - log_integral)
            return d - inner_moment / 2 - tf.square(delta) / 2 * outer_mass

        return self._evaluate(formula)

    def cdf(self, radius: Any, d: int) -> tf.Tensor:
        delta = self._delta(tf.float64)
        log_integral = _log_integral(_dimension(d) - 1, delta)

        def probability(r):
            inside = tf.exp(log_inner(d - 1, tf.minimum(r, delta)) - log_integral)
            beyond = tf.exp(log_outer(d - 1, tf.maximum(r, delta), delta) - log_integral)
            return tf.where(r > delta, 1 - beyond, inside)

        return _cdf(probability, radius)

    def quantile(self, probability: Any, d: int) -> tf.Tensor:
        probability = tf.convert_to_tensor(probability)
        delta, p = self._delta(tf.float64), tf.cast(probability, tf.float64)
        log_integral = _log_integral(_dimension(d) - 1, delta)
        is_outer = p > tf.exp(log_inner(d - 1, delta) - log_integral)
        # Each branch inverts its incomplete gamma function; 0.5 stands in where it is not taken.
        lower = p * tf.exp(log_integral - log_inner_scale(d - 1))
        half_square = tfp.math.igammainv(_double(d / 2), tf.where(is_outer, _double(0.5), lower))
        upper = (1 - p) * tf.exp(log_integral - log_outer_scale(d - 1, delta))
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


class Gauss(RadialEnergy):
    """The Gaussian's energy `rho(r) = r^2 / 2` (eq. 11), with kappa = 1: Huber's for a large delta.

    >>> Gauss().kappa(2)
    1.0
    """

    def __repr__(self) -> str:
        return "Gauss()"

    def energy(self, squared_radius: Any) -> tf.Tensor:
        return tf.convert_to_tensor(squared_radius) / 2

    def weight(self, squared_radius: Any) -> tf.Tensor:
        return tf.ones_like(squared_radius)

    def log_integral(self, n: int) -> float:
        return log_inner_scale(n)

    def mean_energy(self, d: int) -> float:
        return _dimension(d) / 2

    def cdf(self, radius: Any, d: int) -> tf.Tensor:
        half = _dimension(d) / 2
        return _cdf(lambda r: tf.exp(log_igamma(half, tf.square(r) / 2)), radius)

    def quantile(self, probability: Any, d: int) -> tf.Tensor:
        half = _double(_dimension(d) / 2)
        return _quantile(lambda p: tf.sqrt(2 * tfp.math.igammainv(half, p)), probability)


class Laplace(RadialEnergy):
    """The multivariate Laplace energy `rho(r) = r` (eq. 12), with kappa = d + 1.

    It has no slope at 0; there the gradient is defined as 0 and the weight is huge but finite.

    >>> Laplace().kappa(2)
    3.0
    """

    def __repr__(self) -> str:
        return "Laplace()"

    def energy(self, squared_radius: Any) -> tf.Tensor:
        squared_radius = tf.convert_to_tensor(squared_radius)
        is_positive = squared_radius > 0
        root = tf.sqrt(tf.where(is_positive, squared_radius, 1))
        return tf.where(is_positive, root, squared_radius)

    def weight(self, squared_radius: Any) -> tf.Tensor:
        squared_radius = tf.convert_to_tensor(squared_radius)
        smallest = np.finfo(squared_radius.dtype.as_numpy_dtype).tiny
        return tf.math.rsqrt(tf.maximum(squared_radius, smallest))

    def log_integral(self, n: int) -> float:
        return math.lgamma(n + 1)

    def mean_energy(self, d: int) -> float:
        return float(_dimension(d))

    def cdf(self, radius: Any, d: int) -> tf.Tensor:
        _dimension(d)
        return _cdf(lambda r: tf.exp(log_igamma(float(d), r)), radius)

    def quantile(self, probability: Any, d: int) -> tf.Tensor:
        d = _double(_dimension(d))
        return _quantile(lambda p: tfp.math.igammainv(d, p), probability)


class Charbonnier(RadialEnergy):
    """Charbonnier's energy `rho(r) = sqrt(r^2 + 1) - 1` (eq. 13): a smooth Huber, kappa(2) = 3.5.

    Its integrals are modified Bessel functions; the distribution of the radius is integrated
    numerically, to about 1e-13.

    >>> round(Charbonnier().kappa(2), 10)
    3.5
    """

    # The integral up to `_SPLIT` by Gauss-Legendre, the one from there on by Gauss-Laguerre.
    _SPLIT = 10.0
    _INNER = np.polynomial.legendre.leggauss(64)
    _OUTER = np.polynomial.laguerre.laggauss(64)

    def __repr__(self) -> str:
        return "Charbonnier()"

    def energy(self, squared_radius: Any) -> tf.Tensor:
        squared_radius = tf.convert_to_tensor(squared_radius)
        return squared_radius / (tf.sqrt(squared_radius + 1) + 1)  # without cancellation

    def weight(self, squared_radius: Any) -> tf.Tensor:
        return tf.math.rsqrt(tf.convert_to_tensor(squared_radius) + 1)

    def log_integral(self, n: int) -> float:
        scale = 1 + n / 2 * math.log(2) + math.lgamma((n + 1) / 2) - math.log(math.pi) / 2
        return scale + math.log(special.kve(n / 2 + 1, 1)) - 1

    def mean_energy(self, d: int) -> float:
        order = (_dimension(d) + 1) / 2
        return float(special.kve(order + 1, 1) / special.kve(order, 1)) - 2

    def cdf(self, radius: Any, d: int) -> tf.Tensor:
        _dimension(d)
        return _cdf(lambda r: self._cdf(r, d), radius)

    def quantile(self, probability: Any, d: int) -> tf.Tensor:
        log_integral = self.log_integral(_dimension(d) - 1)

        def invert(p):
            # exp(-rho) <= 1 bounds the radius from below, and closely where p is small.
            low = tf.exp((tf.math.log(p * d) + log_integral) / d)
            root = tfp.math.find_root_chandrupatla(
                lambda r: self._cdf(r, d) - p, low, tf.fill(tf.shape(p), _double(60.0 + 4 * d))
            ).estimated_root
            # Two steps of Newton's: the first polishes the root, the second carries its gradient.
            for _ in range(2):
                root = tf.stop_gradient(root)
                root -= (self._cdf(root, d) - p) / tf.exp(self.log_prob(root, d))
            return root

        return _quantile(invert, probability)

    def _cdf(self, r: tf.Tensor, d: int) -> tf.Tensor:
        log_integral = self.log_integral(d - 1)
        nodes, weights = (_double(values) for values in self._INNER)
        inner = tf.minimum(r, self._SPLIT)[..., tf.newaxis]
        u = inner * (nodes + 1) / 2
        log_density = (d - 1) * tf.math.log(u) - self.energy(tf.square(u)) - log_integral
        inside = tf.reduce_sum(weights * inner / 2 * tf.exp(log_density), axis=-1)
        # In t = rho(r), where r dr = (1 + t) dt.
        nodes, weights = (_double(values) for values in self._OUTER)
        start = self.energy(tf.square(tf.clip_by_value(r, self._SPLIT, 1e4)))[..., tf.newaxis]
        t = start + nodes
        log_density = tf.math.log1p(t) + (d / 2 - 1) * tf.math.log(t * (t + 2)) - log_integral
        beyond = tf.reduce_sum(weights * tf.exp(log_density - start), axis=-1)
        return tf.where(r > self._SPLIT, 1 - beyond, inside)


def _cdf(probability: Callable[[tf.Tensor], tf.Tensor], radius: Any) -> tf.Tensor:
    """`probability(radius)` in float64 where the radius is positive, else 0; of the radius's dtype."""
    radius = tf.convert_to_tensor(radius)
    r = tf.cast(radius, tf.float64)
    is_empty = r <= 0
    r = tf.clip_by_value(r, 1e-150, 1e150)  # where all logarithms have finite gradients
    return tf.cast(tf.where(is_empty, _double(0.0), probability(r)), radius.dtype)


def _quantile(radius: Callable[[tf.Tensor], tf.Tensor], probability: Any) -> tf.Tensor:
    """`radius(probability)` in float64 inside (0, 1), 0 at 0 and infinity at 1; NaN elsewhere."""
    probability = tf.convert_to_tensor(probability)
    p = tf.cast(probability, tf.float64)
    is_inside = (p > 0) & (p < 1)
    ends = tf.where(p == 1, _double(math.inf), tf.where(p == 0, _double(0.0), math.nan))
    inside = radius(tf.where(is_inside, p, _double(0.5)))
    return tf.cast(tf.where(is_inside, inside, ends), probability.dtype)


def _log_integral(n: int, delta: tf.Tensor) -> tf.Tensor:
    """`log I_n` of Huber's energy."""
    return tfp.math.log_add_exp(log_inner(n, delta), log_outer(n, delta, delta))


def _dimension(d: int) -> int:
    if not isinstance(d, numbers.Integral) or d < 1:
        raise ValueError(f"d must be a positive integer, got {d!r}.")
    return int(d)


def _double(value: float) -> tf.Tensor:
    return tf.constant(value, tf.float64)


def _as(value: Any, dtype: tf.DType) -> tf.Tensor:
    """A number or tensor as a tensor of `dtype`; `tf.cast` alone would round a number to float32."""
    return tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)
