"""The four families' radial laws in the plane, in closed form: NumPy and float64, no TensorFlow.

With rho as in `tfhuber.distributions.radial`, a whitened error z = A (y - mu) has the density
exp(-rho(|z|)) / (2 pi I), where I = integral of r exp(-rho(r)) dr is 1 for Gauss and Laplace, 2 for
Charbonnier, and 1 + exp(-delta^2 / 2) / delta^2 for Huber.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["FAMILIES", "Law"]

FAMILIES = ("huber", "gauss", "laplace", "charbonnier")


@dataclass(frozen=True)
class Law:
    """How the length r of a whitened error in the plane is distributed.

    >>> Law("gauss").cdf(math.sqrt(2 * math.log(2))).round(12)
    np.float64(0.5)

    Attributes:
      family: one of `FAMILIES`.
      delta: the knee of Huber's; the others do without.

    Raises:
      ValueError: there is no such family, or `delta` is not positive and finite.
    """

    family: str
    delta: float = 1.0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {self.family!r}")
        if not 0 < self.delta < math.inf:
            raise ValueError(f"delta must be positive and finite, got {self.delta!r}")

    @property
    def integral(self) -> float:
        """The integral I of r exp(-rho(r)) over r > 0."""
        if self.family == "huber":
            return 1 + math.exp(-(self.delta**2) / 2) / self.delta**2
        return 2.0 if self.family == "charbonnier" else 1.0

    @property
    def log_normalizer(self) -> float:
        """Log c_2: minus the log-density at the centre where A is the identity."""
        return math.log(2 * math.pi * self.integral)

    def energy(self, radius: ArrayLike) -> np.ndarray:
        """Compute rho(r)."""
        r = np.asarray(radius, np.float64)
        if self.family == "huber":
            inner = np.minimum(r, self.delta)
            return inner**2 / 2 + self.delta * (r - inner)
        if self.family == "gauss":
            return r**2 / 2
        return r.copy() if self.family == "laplace" else r**2 / (np.hypot(r, 1) + 1)

    def weight(self, radius: ArrayLike) -> np.ndarray:
        """Compute rho'(r) / r, the weight of an error in iteratively reweighted least squares."""
        r = np.asarray(radius, np.float64)
        if self.family == "huber":
            return self.delta / np.maximum(r, self.delta)
        if self.family == "gauss":
            return np.ones_like(r)
        if self.family == "laplace":
            return 1 / np.maximum(r, np.finfo(np.float64).tiny)
        return 1 / np.hypot(r, 1)

    def cdf(self, radius: ArrayLike) -> np.ndarray:
        """Compute the probability of a length of at most r."""
        r = np.asarray(radius, np.float64)
        if self.family == "gauss":
            return -np.expm1(-(r**2) / 2)
        if self.family == "laplace":
            return 1 - (1 + r) * np.exp(-r)
        if self.family == "charbonnier":
            rise = self.energy(r)
            return 1 - (2 + rise) / 2 * np.exp(-rise)
        delta, outer = self.delta, np.maximum(r, self.delta)
        beyond = np.exp(delta * (delta / 2 - outer)) * (outer / delta + 1 / delta**2)
        inside = -np.expm1(-(np.minimum(r, delta) ** 2) / 2)
        return np.where(r > delta, 1 - beyond / self.integral, inside / self.integral)

    def quantile(self, level: ArrayLike) -> np.ndarray:
        """Compute the length that is not exceeded with that probability, by bisection.

        Raises:
          ValueError: a level is not in [0, 1).
        """
        level = np.asarray(level, np.float64)
        if not np.all((level >= 0) & (level < 1)):
            raise ValueError("level must be in [0, 1)")
        # No law of these has a heavier tail than exp(-delta r), or exp(-r) of the others.
        high = np.full_like(level, 60.0 * max(1.0, 1 / self.delta))
        low = np.zeros_like(level)
        for _ in range(64):
            middle = (low + high) / 2
            below = self.cdf(middle) < level
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return high

    def nll(self, radius: ArrayLike) -> np.ndarray:
        """Compute the negative log-density of a whitened error of that length."""
        return self.energy(radius) + self.log_normalizer
