"""What a measurement is worth: the Huber energy of its white noise, scaled to the information it has.

The predicted covariance R of a landmark is that of Huber's law, `kappa inv(A A)`, whose energy is
`rho(|A e|)` of an error e. The filter's update minimises the prior's square plus this energy, by
majorising it: each step solves the least squares with the weight `w = rho'(r) / r` of the point
before, and none can rise.

An energy's curvature where a majoriser touches it, E[w] on average, is more than the Fisher
information I of the law, E[rho'^2] / d: a filter that took the former for what it has learnt would be
too sure, for delta = 1 by 43 %. So the energy is divided by gamma = E[w] / I, which is Huber's energy
again, with A / sqrt(gamma) and delta / sqrt(gamma). An infinite delta is Gauss's law, with gamma = 1.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import integrate

from tfhuber.tracking.batched import apply, inverse, quadratic

__all__ = ["HuberLaw", "huber_law", "measurement_weight", "residual_radius"]


@dataclass(frozen=True)
class HuberLaw:
    """The energy of white noise with covariance R: rho of radius `sqrt(e' inv(R / precision) e)`.

    Attributes:
      precision: of the core, in units of inv(R).
      knee: the radius beyond which the energy grows linearly.
    """

    precision: float
    knee: float


def huber_law(delta: float, dimensions: int) -> HuberLaw:
    """Return the law that the filter uses for Huber's distribution with this delta.

    Raises:
      ValueError: `delta` is not positive.

    Example:
      >>> law = huber_law(1.0, 2)
      >>> round(law.precision, 3), round(law.knee, 3)
      (2.144, 0.835)
    """
    if not delta > 0:
        raise ValueError(f"delta must be positive, got {delta}")
    if delta > 30:
        return HuberLaw(1.0, math.inf)

    def mean(values: list[float]) -> float:
        return values[0] + math.exp(-delta * delta / 2) * values[1]

    def moment(power: int) -> list[float]:
        """Return the integrals of r^power exp(-rho) up to the knee and, times exp(delta^2 / 2), beyond."""
        within = integrate.quad(lambda r: r**power * math.exp(-r * r / 2), 0, delta)[0]
        beyond = integrate.quad(
            lambda x: (delta + x) ** power * math.exp(-delta * x), 0, 60 / delta, limit=200
        )[0]
        return [within, beyond]

    d = dimensions
    mass = mean(moment(d - 1))
    kappa = mean(moment(d + 1)) / mass / d
    weight = mean([moment(d - 1)[0], delta * moment(d - 2)[1]]) / mass
    information = mean([moment(d + 1)[0], delta**2 * moment(d - 1)[1]]) / mass / d
    gamma = weight / information
    return HuberLaw(kappa / gamma, delta / math.sqrt(gamma))


def measurement_weight(
    innovation: np.ndarray,
    predicted: np.ndarray,
    core: np.ndarray,
    knee: float,
    left: np.ndarray,
    *,
    tolerance: float = 1e-2,
    steps: int = 20,
) -> np.ndarray:
    """Return the weights [K] with which least squares gives the minimum of the posterior's energy.

    That is, of `e' inv(predicted) e / 2 + rho(radius of innovation - e)` over e, for each landmark. The
    residual that a weight w leaves has a radius r(w) that falls as w grows, and the minimum is where
    w r(w) is the knee, or w is 1. It begins at the weight that would be right if the predicted covariance
    were a multiple of the core; Newton's steps from there lower the energy one by one.

    Args:
      innovation: [K, d], measured less predicted.
      predicted: [K, d, d] covariance of the predicted place.
      core: [K, d, d], R over `HuberLaw.precision`.
      knee: of the law.
      left: [K] radius of the residual that the weight 1 leaves (`residual_radius`).
      tolerance: the steps end where no weight changes by more; the error is then about its square.
      steps: how many are made at most; 1 or 2 are usual.
    """
    full = residual_radius(inverse(core)[0], innovation, core)
    least, most = np.minimum(1, knee / full), np.minimum(1, knee / left)
    weight = np.where(left > knee, knee / (full * (1 - knee / left) + knee), 1.0)
    for _ in range(steps):
        solved, _ = inverse(weight[:, None, None] * predicted + core)
        y = apply(solved, innovation)
        shape = apply(core, y)
        radius = np.sqrt(np.maximum((y * shape).sum(-1), 1e-300))
        bend = (apply(solved, shape) * apply(predicted, y)).sum(-1)  # -r r'
        slope = np.maximum(radius - weight * bend / radius, 1e-3 * radius)
        new = np.clip(weight + (knee - weight * radius) / slope, least, most)
        change = np.abs(new - weight).max(initial=0)
        weight = new
        if change <= tolerance:
            break
    return weight


def residual_radius(
    information: np.ndarray, innovation: np.ndarray, core: np.ndarray
) -> np.ndarray:
    """Return the radii [K] of what is left of innovations, none quite 0.

    Args:
      information: [K, d, d] `inv(w predicted + core)` for a weight w.
      innovation: [K, d].
      core: [K, d, d].
    """
    return np.sqrt(np.maximum(quadratic(apply(information, innovation), core), 1e-300))
