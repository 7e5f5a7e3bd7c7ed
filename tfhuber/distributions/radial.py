"""The four families of radial energies: Huber, Gauss, Laplace and Charbonnier (eq. 2 and 11-13)."""

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import special

from tfhuber.distributions.arguments import as_float, is_reference
from tfhuber.distributions.energy import RadialEnergy, cast, dimension, double

__all__ = ["FAMILIES", "Charbonnier", "Gauss", "Huber", "Laplace", "RadialEnergy", "radial_energy"]

FAMILIES = ("huber", "gauss", "laplace", "charbonnier")


def radial_energy(family: str, delta: Any = 1.0) -> "RadialEnergy":
    """Return the radial energy of that name, one of `FAMILIES`; `delta` is the knee of Huber's.

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


@tfp.experimental.auto_composite_tensor
class Huber(RadialEnergy):
    """Huber's energy: quadratic up to `delta`, linear beyond, with a continuous slope (eq. 2).

        rho(r) = r^2 / 2                  for r <= delta
                 delta (r - delta / 2)    otherwise

    `delta` is a Python number, and what depends on it alone (`log_normalizer`, `kappa`, `entropy`, ...)
    then comes back as a Python float, exact to float64; or it is a tensor of any shape, and those come
    back as tensors of its shape and dtype, differentiable with respect to it. A variable is read at
    each call.

    As delta grows this is the Gaussian's energy; as it falls, `rho(r) / delta` tends to Laplace's `r`.

    >>> round(Huber(1.0).kappa(2), 4)
    3.0765

    Raises:
      ValueError: `delta` is a number that is not positive and finite, or neither float32 nor float64.
    """

    degree = 1

    def __init__(self, delta: Any = 1.0):
        if isinstance(delta, numbers.Real):
            delta = float(delta)
            if not 0.0 < delta < math.inf:
                raise ValueError(f"delta must be positive and finite, got {delta!r}.")
        elif not is_reference(delta):
            delta = as_float(delta, "delta")
        self.delta = delta

    @property
    def batch_shape(self) -> tf.TensorShape:
        return tf.TensorShape([] if isinstance(self.delta, float) else self.delta.shape)

    def __repr__(self) -> str:
        return f"Huber(delta={self.delta!r})"

    def energy(self, squared_radius: Any) -> tf.Tensor:
        squared_radius = as_float(squared_radius, "squared_radius")
        delta = self._delta(squared_radius.dtype)
        knee = tf.square(delta)
        # delta (r - delta) without cancellation. At the knee the minimum hands on the whole slope and
        # the rectifier none, so that the gradient is exact there too.
        beyond = tf.nn.relu(squared_radius - knee)
        linear = delta * (beyond / (tf.sqrt(knee + beyond) + delta))
        return tf.minimum(squared_radius, knee) / 2 + linear

    def weight(self, squared_radius: Any) -> tf.Tensor:
        squared_radius = as_float(squared_radius, "squared_radius")
        delta = self._delta(squared_radius.dtype)
        return delta / tf.sqrt(tf.maximum(squared_radius, tf.square(delta)))

    def log_integral(self, n: int) -> Any:
        return self._evaluate(lambda delta: _log_integral(n, delta))

    def mean_energy(self, d: int) -> Any:
        # rho is r rho'/2 inside and r rho' - delta^2/2 outside; E[r rho'] = d by partial integration.
        def formula(delta: tf.Tensor) -> tf.Tensor:
            log_integral = _log_integral(dimension(d) - 1, delta)
            inner_moment = tf.exp(_log_inner(d + 1, delta) - log_integral)
            outer_mass = tf.exp(_log_outer(d - 1, delta, delta) - log_integral)
            return d - inner_moment / 2 - tf.square(delta) / 2 * outer_mass

        return self._evaluate(formula)

    def _cdf(self, r: tf.Tensor, d: int) -> tf.Tensor:
        delta = self._delta(tf.float64)
        log_integral = _log_integral(d - 1, delta)
        inside = tf.exp(_log_inner(d - 1, tf.minimum(r, delta)) - log_integral)
        beyond = tf.exp(_log_outer(d - 1, tf.maximum(r, delta), delta) - log_integral)
        return tf.where(r > delta, 1 - beyond, inside)

    def _quantile(self, p: tf.Tensor, d: int) -> tf.Tensor:
        delta = self._delta(tf.float64)
        log_integral = _log_integral(d - 1, delta)
        is_outer = p > tf.exp(_log_inner(d - 1, delta) - log_integral)
        # Each branch inverts its incomplete gamma function; 0.5 stands in where it is not taken.
        lower = p * tf.exp(log_integral - _log_inner_scale(d - 1))
        half_square = tfp.math.igammainv(double(d / 2), tf.where(is_outer, double(0.5), lower))
        upper = (1 - p) * tf.exp(log_integral - _log_outer_scale(d - 1, delta))
        product = tfp.math.igammacinv(double(d), tf.where(is_outer, upper, double(0.5)))
        return tf.where(is_outer, product / delta, tf.sqrt(2 * half_square))

    def _delta(self, dtype: tf.DType) -> tf.Tensor:
        return cast(self.delta, dtype)

    def _evaluate(self, formula: Callable[[tf.Tensor], tf.Tensor]) -> Any:
        """Compute `formula(delta)` in float64: a float where delta is a number, else a tensor like it."""
        if isinstance(self.delta, float):
            return _number(lambda: formula(self._delta(tf.float64)))
        return tf.cast(formula(self._delta(tf.float64)), self.delta.dtype)


@tfp.experimental.auto_composite_tensor
class Gauss(RadialEnergy):
    """The Gaussian's energy `rho(r) = r^2 / 2` (eq. 11), with kappa = 1: Huber's for a large delta.

    >>> Gauss().kappa(2)
    1.0
    """

    def __repr__(self) -> str:
        return "Gauss()"

    def energy(self, squared_radius: Any) -> tf.Tensor:
        return as_float(squared_radius, "squared_radius") / 2

    def weight(self, squared_radius: Any) -> tf.Tensor:
        return tf.ones_like(as_float(squared_radius, "squared_radius"))

    def log_integral(self, n: int) -> float:
        return _log_inner_scale(n)

    def mean_energy(self, d: int) -> float:
        return dimension(d) / 2

    def _cdf(self, r: tf.Tensor, d: int) -> tf.Tensor:
        return tf.exp(_log_igamma(d / 2, tf.square(r) / 2))

    def _quantile(self, p: tf.Tensor, d: int) -> tf.Tensor:
        return tf.sqrt(2 * tfp.math.igammainv(double(d / 2), p))


@tfp.experimental.auto_composite_tensor
class Laplace(RadialEnergy):
    """The multivariate Laplace energy `rho(r) = r` (eq. 12), with kappa = d + 1.

    It has no slope at 0; there the gradient is defined as 0 and the weight is huge but finite.

    >>> Laplace().kappa(2)
    3.0
    """

    degree = 1

    def __repr__(self) -> str:
        return "Laplace()"

    def energy(self, squared_radius: Any) -> tf.Tensor:
        squared_radius = as_float(squared_radius, "squared_radius")
        is_positive = squared_radius > 0
        root = tf.sqrt(tf.where(is_positive, squared_radius, 1))
        return tf.where(is_positive, root, squared_radius)

    def weight(self, squared_radius: Any) -> tf.Tensor:
        squared_radius = as_float(squared_radius, "squared_radius")
        smallest = np.finfo(squared_radius.dtype.as_numpy_dtype).tiny
        return tf.math.rsqrt(tf.maximum(squared_radius, smallest))

    def log_integral(self, n: int) -> float:
        return math.lgamma(n + 1)

    def mean_energy(self, d: int) -> float:
        return float(dimension(d))

    def _cdf(self, r: tf.Tensor, d: int) -> tf.Tensor:
        return tf.exp(_log_igamma(float(d), r))

    def _quantile(self, p: tf.Tensor, d: int) -> tf.Tensor:
        return tfp.math.igammainv(double(d), p)


@tfp.experimental.auto_composite_tensor
class Charbonnier(RadialEnergy):
    """Charbonnier's energy `rho(r) = sqrt(r^2 + 1) - 1` (eq. 13): a smooth Huber, kappa(2) = 3.5.

    Its integrals are modified Bessel functions; the distribution of the radius is integrated
    numerically, to about 1e-13.

    >>> round(Charbonnier().kappa(2), 10)
    3.5
    """

    degree = 1
    # The integral up to `_SPLIT` by Gauss-Legendre, the one from there on by Gauss-Laguerre.
    _SPLIT = 10.0
    _INNER = np.polynomial.legendre.leggauss(64)
    _OUTER = np.polynomial.laguerre.laggauss(64)

    def __repr__(self) -> str:
        return "Charbonnier()"

    def energy(self, squared_radius: Any) -> tf.Tensor:
        squared_radius = as_float(squared_radius, "squared_radius")
        return squared_radius / (tf.sqrt(squared_radius + 1) + 1)  # without cancellation

    def weight(self, squared_radius: Any) -> tf.Tensor:
        return tf.math.rsqrt(as_float(squared_radius, "squared_radius") + 1)

    def log_integral(self, n: int) -> float:
        scale = 1 + n / 2 * math.log(2) + math.lgamma((n + 1) / 2) - math.log(math.pi) / 2
        return scale + math.log(special.kve(n / 2 + 1, 1)) - 1

    def mean_energy(self, d: int) -> float:
        order = (dimension(d) + 1) / 2
        return float(special.kve(order + 1, 1) / special.kve(order, 1)) - 2

    def _cdf(self, r: tf.Tensor, d: int) -> tf.Tensor:
        log_integral = self.log_integral(d - 1)
        nodes, weights = (double(values) for values in self._INNER)
        inner = tf.minimum(r, self._SPLIT)[..., tf.newaxis]
        u = inner * (nodes + 1) / 2
        log_density = (d - 1) * tf.math.log(u) - self.energy(tf.square(u)) - log_integral
        inside = tf.reduce_sum(weights * inner / 2 * tf.exp(log_density), axis=-1)
        # In t = rho(r), where r dr = (1 + t) dt.
        nodes, weights = (double(values) for values in self._OUTER)
        start = self.energy(tf.square(tf.clip_by_value(r, self._SPLIT, 1e4)))[..., tf.newaxis]
        t = start + nodes
        log_density = tf.math.log1p(t) + (d / 2 - 1) * tf.math.log(t * (t + 2)) - log_integral
        beyond = tf.reduce_sum(weights * tf.exp(log_density - start), axis=-1)
        return tf.where(r > self._SPLIT, 1 - beyond, inside)

    def _quantile(self, p: tf.Tensor, d: int) -> tf.Tensor:
        log_integral = self.log_integral(d - 1)
        # exp(-rho) <= 1 bounds the radius from below, and closely where p is small.
        low = tf.exp((tf.math.log(p * d) + log_integral) / d)
        root = tfp.math.find_root_chandrupatla(
            lambda r: self._cdf(r, d) - p, low, tf.fill(tf.shape(p), double(60.0 + 4 * d))
        ).estimated_root
        # Two steps of Newton's: the first polishes the root, the second carries its gradient.
        for _ in range(2):
            root = tf.stop_gradient(root)
            root -= (self._cdf(root, d) - p) / tf.exp(self.log_prob(root, d))
        return root


def _log_integral(n: int, delta: tf.Tensor) -> tf.Tensor:
    """`log I_n` of Huber's energy."""
    return tfp.math.log_add_exp(_log_inner(n, delta), _log_outer(n, delta, delta))


def _number(scalar: Callable[[], tf.Tensor]) -> float:
    """Evaluate `scalar()` now, also while a graph is being built."""
    with tf.init_scope():
        if tf.executing_eagerly():
            return float(scalar())
    with tf.Graph().as_default() as graph:  # of TensorFlow 1, which runs nothing eagerly
        value = scalar()
    with tf.compat.v1.Session(graph=graph) as session:
        return float(session.run(value))


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
    terms = [tf.math.xlogy(double(k), product) - math.lgamma(k + 1) for k in range(n + 1)]
    log_sum = tf.reduce_logsumexp(tf.stack(terms), axis=0)
    return _log_outer_scale(n, delta) - product + log_sum


def _log_outer_scale(n: int, delta: tf.Tensor) -> tf.Tensor:
    return math.lgamma(n + 1) + tf.square(delta) / 2 - (n + 1) * tf.math.log(delta)


def _log_igamma(a: float, x: tf.Tensor) -> tf.Tensor:
    """Log of the regularised lower incomplete gamma function, without underflow for small `x`."""
    small = 2e-4  # below, the first terms of the power series are exact to float64
    x_small, x_large = tf.minimum(x, double(small)), tf.maximum(x, double(small))
    series = 1 / a - x_small / (a + 1) + x_small**2 / (2 * (a + 2)) - x_small**3 / (6 * (a + 3))
    log_series = tf.math.xlogy(double(a), x_small) + tf.math.log(series) - math.lgamma(a)
    return tf.where(x < small, log_series, tf.math.log(tf.math.igamma(double(a), x_large)))
