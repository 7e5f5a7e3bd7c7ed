"""Which corrections of scale and law are kept: those that predict photographs they were not fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfhuber.calibration.law import FAMILIES, Law
from tfhuber.calibration.photographs import folds
from tfhuber.calibration.radial_law import fit_law
from tfhuber.calibration.scale import fit_scale, transformed

__all__ = ["Correction", "Step", "choose", "mean_nll"]

# From the simplest on; the next is taken only where it predicts better than the one before.
_SCALES = ("one", "landmarks", "axes")


@dataclass(frozen=True)
class Correction:
    """A matrix for each landmark's whitened errors, and the law that they then follow.

    Attributes:
      log_matrix: [K, 2, 2] S; errors count as exp(S) A (y - mu).
      law: of their lengths.
    """

    log_matrix: np.ndarray
    law: Law

    def nll(self, errors: np.ndarray) -> np.ndarray:
        """Compute the negative log-density [N, K] of labels, less log|A|; NaN where unlabelled."""
        gain = np.trace(self.log_matrix, axis1=-2, axis2=-1)
        return self.law.nll(self.radius(errors)) - gain

    def radius(self, errors: np.ndarray) -> np.ndarray:
        """Compute the lengths [N, K] of corrected errors; NaN where unlabelled."""
        return np.linalg.norm(transformed(errors, self.log_matrix), axis=-1)


@dataclass(frozen=True)
class Step:
    """A correction that was tried.

    Attributes:
      name: what it was.
      nll: the mean over labels of the negative log-density, less log|A|, in photographs left out.
      kept: whether it was the best so far.
    """

    name: str
    nll: float
    kept: bool


@dataclass(frozen=True)
class _Recipe:
    """What to fit: a scale of `_SCALES` or none, and a family or the law that is there."""

    scale: str | None = None
    family: str | None = None

    def fit(
        self, errors: np.ndarray, photograph: np.ndarray, groups: Sequence[int], raw: Law
    ) -> Correction:
        log_matrix, law = np.zeros((errors.shape[1], 2, 2)), raw
        if self.scale:
            log_matrix = fit_scale(errors, photograph, groups, raw, self.scale)
        if self.family:
            radius = Correction(log_matrix, raw).radius(errors)
            t, law = fit_law(radius[~np.isnan(radius)], self.family)
            log_matrix = log_matrix + t * np.eye(2)
        return Correction(log_matrix, law)


def choose(
    errors: np.ndarray,
    photograph: np.ndarray,
    groups: Sequence[int],
    raw: Law,
) -> tuple[Correction, list[Step]]:
    """Fit a correction to whitened errors, no more of one than photographs left out bear out.

    First the scale (one number, then one a landmark, then a matrix a landmark), then the law, of all four
    families with a scale of its own: each is kept if it lowers the mean negative log-density of the
    labels that it was not fitted to, in five folds of photographs.

    Args:
      errors: [N, K, 2] whitened errors A (y - mu), NaN where unlabelled.
      photograph: [N] the photograph of each example.
      groups: [K] the group of each landmark, to which its scale is shrunk.
      raw: the law that the model was trained with.

    Returns:
      The correction, fitted to all, and what was tried.
    """
    best = _Recipe()
    lowest = _held_out_nll(best, errors, photograph, groups, raw)
    steps = [Step("as the model says", lowest, True)]

    def consider(candidate: _Recipe, name: str) -> None:
        nonlocal best, lowest
        nll = _held_out_nll(candidate, errors, photograph, groups, raw)
        kept = nll < lowest
        steps.append(Step(name, nll, kept))
        if kept:
            best, lowest = candidate, nll

    for scale in _SCALES:
        consider(_Recipe(scale), f"scale: {scale}")
    chosen_scale = best.scale
    for family in FAMILIES:
        consider(_Recipe(chosen_scale, family), f"law: {family}")
    return best.fit(errors, photograph, groups, raw), steps


def mean_nll(correction: Correction, errors: np.ndarray) -> float:
    """Return the mean over labels of the negative log-density, less log|A|."""
    return float(np.nanmean(correction.nll(errors)))


def _held_out_nll(
    recipe: _Recipe, errors: np.ndarray, photograph: np.ndarray, groups: Sequence[int], raw: Law
) -> float:
    fold, total = folds(photograph), 0.0
    for i in np.unique(fold):
        seen = fold != i
        correction = recipe.fit(errors[seen], photograph[seen], groups, raw)
        total += np.nansum(correction.nll(errors[~seen]))
    return float(total / np.count_nonzero(~np.isnan(errors[..., 0])))
