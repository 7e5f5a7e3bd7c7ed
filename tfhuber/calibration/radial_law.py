"""One scale and one law for all whitened errors, by maximum likelihood: two numbers that do most of it."""

import math

import numpy as np
from scipy import optimize

from tfhuber.calibration.law import Law
from tfhuber.calibration.scale import log_scale

__all__ = ["fit_law"]

# Below, Huber's law is Laplace's, and above, Gauss', to three digits of every quantile.
DELTAS = (0.02, 8.0)


def fit_law(radius: np.ndarray, family: str) -> tuple[float, Law]:
    """Return t = log s and the law of the family with which lengths [M] of errors, times s, are likeliest.

    Scale and delta are found together: with a smaller delta errors count as made of longer tails around a
    narrower middle.

    >>> radius = Law("gauss").cdf(np.linspace(0.1, 3, 30))  # any lengths
    >>> fit_law(radius, "laplace")[1]
    Law(family='laplace', delta=1.0)
    """
    if family != "huber":
        law = Law(family)
        return log_scale(radius, law), law

    def cost(log_delta: float) -> float:
        law = Law("huber", math.exp(log_delta))
        t = log_scale(radius, law)
        return float(np.mean(law.nll(math.exp(t) * radius))) - 2 * t

    bounds = tuple(map(math.log, DELTAS))
    found = optimize.minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    law = Law("huber", math.exp(float(found.x)))
    return log_scale(radius, law), law
