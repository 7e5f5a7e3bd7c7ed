"""How much differences in predicted size should count.

A model may be right on average, and yet too sure of what is hard and not sure enough of what is easy.

Of landmark k in example n let u = log|A| - typical[k], how much surer of it the model is than it mostly is.
With a contrast c the precision factor becomes exp(c u) A. Standard deviations differ by the factor
exp(-u / 2) from the typical one, and then by exp(-(1 / 2 + c) u): with c = 1 / 2 twice as much in their
logarithm. u counts up to what photographs have shown, no further.

c is found by maximum likelihood together with one scale for all, and kept if it makes labels likelier in
photographs left out.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from tfhuber.calibration.law import Law
from tfhuber.calibration.photographs import folds
from tfhuber.calibration.scale import log_scale

__all__ = ["Fitted", "fit_contrast"]

# With -1/2 all examples would have the same size.
_LOWEST, _HIGHEST = -0.45, 1.5


@dataclass(frozen=True)
class Fitted:
    """A contrast, and what it is worth.

    Attributes:
      exponent: c; 0 where none is kept.
      typical: [K] the mean log|A| of each landmark.
      least: the smallest u that counts.
      largest: the largest.
      nll: with one scale for all, kept or not, the mean over labels left out of the negative log-density,
        less the model's log|A|.
    """

    exponent: float
    typical: np.ndarray
    least: float
    largest: float
    nll: float


def fit_contrast(
    errors: np.ndarray, log_det: np.ndarray, photograph: np.ndarray, law: Law
) -> Fitted:
    """Fit a contrast to whitened errors, if labels left out are likelier with it.

    Args:
      errors: [N, K, 2] whitened errors A (y - mu), NaN where unlabelled.
      log_det: [N, K] log|A| in network-crop pixels.
      photograph: [N] the photograph of each example.
      law: of the errors' lengths, as the model was trained.
    """
    radius, fold = np.linalg.norm(errors, axis=-1), folds(photograph)
    total = {"without": 0.0, "with": 0.0}
    for i in np.unique(fold):
        seen = fold != i
        surer = log_det - _typical(radius[seen], log_det[seen])
        found = {"without": 0.0, "with": _exponent(radius[seen], surer[seen], law)}
        for name, c in found.items():
            t = log_scale(_known(np.exp(c * surer) * radius, seen), law)
            left_out = law.nll(np.exp(t + c * surer) * radius) - 2 * (t + c * surer)
            total[name] += float(np.nansum(left_out[~seen]))
    typical = _typical(radius, log_det)
    surer = (log_det - typical)[~np.isnan(radius)]
    c = _exponent(radius, log_det - typical, law) if total["with"] < total["without"] else 0.0
    return Fitted(c, typical, float(surer.min()), float(surer.max()), total["with"] / surer.size)


def _typical(radius: np.ndarray, log_det: np.ndarray) -> np.ndarray:
    """Return the mean log|A| [K] where labelled; of all examples where a landmark never is."""
    labelled = ~np.isnan(radius)
    count = labelled.sum(axis=0)
    mean = np.where(labelled, log_det, 0).sum(axis=0) / np.maximum(count, 1)
    return np.where(count > 0, mean, log_det.mean(axis=0))


def _known(radius: np.ndarray, rows: np.ndarray) -> np.ndarray:
    chosen = radius[rows]
    return chosen[~np.isnan(chosen)]


def _exponent(radius: np.ndarray, surer: np.ndarray, law: Law) -> float:
    """Return c of maximum likelihood, with the scale that goes with it."""
    labelled = ~np.isnan(radius)
    r, u = radius[labelled], surer[labelled]

    def cost(c: float) -> float:
        lengths = np.exp(c * u) * r
        t = log_scale(lengths, law)
        return float(np.mean(law.nll(math.exp(t) * lengths) - 2 * c * u)) - 2 * t

    found = optimize.minimize_scalar(
        cost, bounds=(_LOWEST, _HIGHEST), method="bounded", options={"xatol": 1e-4}
    )
    return float(found.x)
