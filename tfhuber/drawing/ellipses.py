"""Uncertainty ellipses in NumPy: how large for a probability, how large in pixels, and their outlines.

Without TensorFlow, so that a client of the server has the same numbers as `tfhuber.distributions`.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    from scipy import special
else:  # it takes a tenth of a second, which a client that draws nothing is spared
    special = lazy_module("scipy.special")

__all__ = [
    "FAMILIES",
    "ellipse_points",
    "kappa",
    "probability_within",
    "radius_for",
    "standard_deviation",
]

# The same as in `tfhuber.distributions.radial`, which needs TensorFlow.
FAMILIES = ("huber", "gauss", "laplace", "charbonnier")

# For this delta Huber's distribution is Gauss's to the last digit; larger ones, whose powers would
# overflow, are replaced by it.
_LARGE_DELTA = 1e3

# Directions in a quarter of the circle over which a probability is averaged: flat ellipses need some.
_DIRECTIONS = 256

# Radii beyond it, whose squares overflow, are replaced by it.
_FURTHEST = 1e150


def kappa(family: str = "huber", delta: float = 1.0) -> float:
    """Return `kappa = E[r^2] / 2` of a 2-D distribution, whose covariance is `kappa inv(A A)`.

    Args:
      family: one of `FAMILIES`.
      delta: the knee of the Huber energy (eq. 2); the other families have none.

    Raises:
      ValueError: an argument is out of range, or `delta` is so small that kappa is not finite.

    Example:
      >>> round(kappa("huber", 1.0), 4), kappa("laplace")
      (3.0765, 3.0)
    """
    _check(family, delta)
    if family != "huber":
        return {"gauss": 1.0, "laplace": 3.0, "charbonnier": 3.5}[family]
    delta = min(delta, _LARGE_DELTA)
    square = delta * delta
    if not (square > 0 and math.isfinite(found := _huber_moments(delta)[1] / square)):
        raise ValueError(f"delta must be large enough that kappa is finite, got {delta}")
    return found


def radius_for(probability: float, family: str = "huber", delta: float = 1.0) -> float:
    """Return how many standard deviations the ellipse reaches that holds `probability` in 2-D.

    With R the quantile of the radius, whose density is `r exp(-rho(r)) / I_1`, and the covariance
    `kappa inv(A A)`, that ellipse is {u: (u - mu)' inv(covariance) (u - mu) = R^2 / kappa}, and this
    is R / sqrt(kappa). In two dimensions both are closed forms.

    Args:
      probability: in [0, 1).
      family: one of `FAMILIES`.
      delta: the knee of the Huber energy (eq. 2); the other families have none.

    Raises:
      ValueError: an argument is out of range.

    Example:
      >>> round(radius_for(0.9), 4), round(radius_for(0.9, "gauss"), 4)
      (2.2362, 2.146)
    """
    if not 0 <= probability < 1:
        raise ValueError(f"probability must be in [0, 1), got {probability}")
    _check(family, delta)
    if family == "huber":
        # Quantile and variance of x = delta r, because a small delta would divide by 0.
        delta = min(delta, _LARGE_DELTA)
        quantile, variance = _huber_quantile(probability, delta), _huber_moments(delta)[1]
    elif family == "gauss":
        quantile, variance = math.sqrt(-2 * math.log1p(-probability)), 1.0
    elif family == "laplace":
        quantile, variance = _gamma_quantile(1 - probability), 3.0
    else:  # Charbonnier's s = sqrt(1 + r^2) has the tail (1 + s) exp(1 - s) / 2.
        s = _gamma_quantile(2 / math.e * (1 - probability))
        quantile, variance = math.sqrt(max(0.0, s * s - 1)), 3.5
    return quantile / math.sqrt(variance)


def probability_within(
    distance: float,
    covariance: ArrayLike,
    family: str = "huber",
    delta: float = 1.0,
    kappa: float = 1.0,
) -> np.ndarray:
    """Return the probabilities [...] that points in the plane lie within a distance of their means.

    In the direction u the density falls off by the scale s(u) = |L u|, with L L' = covariance / kappa; the
    result is the mean over all u of the radius's distribution function at distance / s(u).

    Args:
      distance: positive, in the pixels of the covariance.
      covariance: [..., 2, 2] in square pixels; negative eigenvalues, which rounding may leave, count as 0.
      family: one of `FAMILIES`.
      delta: the knee of the Huber energy (eq. 2); the other families have none.
      kappa: the covariance is `kappa inv(A A)`.

    Raises:
      ValueError: an argument is out of range.

    Example:
      >>> float(probability_within(2.0, np.eye(2), "gauss").round(4))
      0.8647
    """
    if not (distance > 0 and math.isfinite(distance)):
        raise ValueError(f"distance must be positive and finite, got {distance}")
    _check(family, delta)
    variances = np.linalg.eigvalsh(np.asarray(covariance, np.float64)).clip(0)[..., np.newaxis, :]
    angle = (np.arange(_DIRECTIONS) + 0.5) * (np.pi / 2 / _DIRECTIONS)
    squares = np.stack([np.cos(angle), np.sin(angle)], axis=-1) ** 2
    scale = np.sqrt((variances * squares).sum(-1) / kappa)
    radius = distance / np.maximum(scale, np.finfo(np.float64).tiny)
    return (1 - _tail(np.minimum(radius, _FURTHEST), family, delta)).mean(-1)


def standard_deviation(covariance: ArrayLike) -> np.ndarray:
    """Return the standard deviations sqrt(trace / 2) [...] of points in the plane, in their pixels.

    That is the root mean square over the two axes; a trace that rounding made negative counts as 0.

    Args:
      covariance: [..., 2, 2] in square pixels.

    Example:
      >>> float(standard_deviation([[3.0, 1.0], [1.0, 5.0]]))
      2.0
    """
    return np.sqrt(np.trace(np.asarray(covariance), axis1=-2, axis2=-1).clip(0) / 2)


def ellipse_points(
    center: ArrayLike, covariance: ArrayLike, scale: float, n: int = 64
) -> np.ndarray:
    """Return points [n, 2] once around {u: (u - center)' inv(covariance) (u - center) = scale^2}.

    Args:
      center: [2] point.
      covariance: [2, 2] symmetric; negative eigenvalues, which rounding may leave, count as 0.
      scale: standard deviations, such as `radius_for(0.9)`.
      n: number of points.
    """
    variances, axes = np.linalg.eigh(np.asarray(covariance, np.float64))
    angle = np.arange(n) * (2 * np.pi / n)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    semi_axes = scale * np.sqrt(np.maximum(variances, 0))
    return np.asarray(center, np.float64) + (circle * semi_axes) @ axes.T


def _check(family: str, delta: float) -> None:
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    if not (delta > 0 and math.isfinite(delta)):
        raise ValueError(f"delta must be positive and finite, got {delta}")


def _tail(radius: np.ndarray, family: str, delta: float) -> np.ndarray:
    """Return how much of the mass lies beyond a radius, whose density is `r exp(-rho(r)) / I_1`."""
    if family == "gauss":
        return np.exp(-radius * radius / 2)
    if family == "laplace":
        return (1 + radius) * np.exp(-radius)
    if family == "charbonnier":
        s = np.sqrt(1 + radius * radius)
        return (1 + s) * np.exp(1 - s) / 2
    delta = min(delta, _LARGE_DELTA)
    square = delta * delta
    mass, _ = _huber_moments(delta)
    within = 1 - square * -np.expm1(-(np.minimum(radius, delta) ** 2) / 2) / mass
    x = delta * np.maximum(radius, delta)
    return np.where(radius <= delta, within, (1 + x) * np.exp(square / 2 - x) / mass)


def _huber_moments(delta: float) -> tuple[float, float]:
    """Return the integral of x exp(-rho), for x = delta r, and half of E[x^2]."""
    square = delta * delta
    at_knee = math.exp(-square / 2)
    mass = square + at_knee  # delta^2 times the integral of r exp(-rho(r))
    moment = 2 * square**2 + at_knee * (square**2 + 6 * square + 6)  # delta^4 times that of r^3
    return mass, moment / (2 * mass)


def _huber_quantile(probability: float, delta: float) -> float:
    """Return the quantile of x = delta r."""
    square, at_knee = delta * delta, math.exp(-delta * delta / 2)
    mass, _ = _huber_moments(delta)
    if probability * mass < square * (1 - at_knee):
        return delta * math.sqrt(-2 * math.log1p(-probability * mass / square))
    # Beyond the knee lies exp(delta^2 / 2) (1 + x) exp(-x) of the mass.
    return _gamma_quantile((1 - probability) * mass * at_knee)


def _gamma_quantile(tail: float) -> float:
    """Return the x >= 0 where (1 + x) exp(-x), the tail of a gamma distribution of shape 2, is `tail`."""
    return float(-1 - special.lambertw(-tail / math.e, k=-1).real) if tail < 1 else 0.0
