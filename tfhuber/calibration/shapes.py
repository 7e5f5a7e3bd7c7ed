"""Whole shapes of landmarks that a calibration predicts: how well they fit labels, and some to be drawn.

All of it is in NumPy and float64, in original image pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tfhuber.calibration.dependence import correlation, draw_errors, log_ratio, normal_scores
from tfhuber.calibration.law import Law

__all__ = ["Shapes"]

_LEVELS = (0.5, 0.9, 0.95)
_BOUNDS = stats.norm.ppf((1 + np.array(_LEVELS)) / 2)

# A distance that is shorter than its standard deviation has no direction to be propagated along.
_FEWEST_DEVIATIONS = 1.0


@dataclass(frozen=True)
class Shapes:
    """Predicted landmarks of N objects, with how they go together.

    Attributes:
      loc: [N, K, 2].
      precision_factor: [N, K, 2, 2].
      law: of the length of whitened errors.
      kappa: the covariance of a landmark is kappa inv(A A).
      factor: [2K, r] F of the dependence.
    """

    loc: np.ndarray
    precision_factor: np.ndarray
    law: Law
    kappa: float
    factor: np.ndarray

    def draw(self, index: int, count: int) -> np.ndarray:
        """Return `count` shapes [count, K, 2] of one object; always the same."""
        errors = draw_errors(self.factor, self.law, (count,), np.random.default_rng(0))
        inverse = np.linalg.inv(self.precision_factor[index].astype(np.float64))
        return self.loc[index] + np.einsum("kab,nkb->nka", inverse, errors)

    def facts(self, truth: np.ndarray, labelled: np.ndarray) -> dict[str, object] | None:
        """Return what the dependence is worth on labels; None if no object has two of them far apart.

        Args:
          truth: [N, K, 2].
          labelled: [N, K].

        Returns:
          `gain`: how much likelier it makes the labels of an object, in nats; `distances`: by
          "independent" and "joint", the shares of distances between two labels within the intervals of
          50, 90 and 95 % around the predicted distance, by its standard deviation to first order; of
          distances beyond one deviation, for which that holds; `length`: of the intervals with the
          dependence over that without.
        """
        several = labelled.sum(axis=1) > 1
        if not several.any():
            return None
        offset = np.where(labelled[..., None], truth - self.loc, np.nan)
        errors = np.einsum("nkab,nkb->nka", self.precision_factor.astype(np.float64), offset)
        gain = log_ratio(normal_scores(errors, self.law), self.factor)[several].mean()
        together = correlation(self.factor)
        kinds = {"independent": np.eye(len(together)), "joint": together}
        rows = [int(i) for i in np.flatnonzero(several)]
        sums = {
            name: np.sum([self._distances(i, truth[i], labelled[i], each) for i in rows], axis=0)
            for name, each in kinds.items()
        }
        if not sums["joint"][0]:
            return None
        levels = [f"{100 * level:g}" for level in _LEVELS]
        return {
            "gain": float(gain),
            "distances": {
                name: {
                    level: float(inside / found[0])
                    for level, inside in zip(levels, found[2:], strict=True)
                }
                for name, found in sums.items()
            },
            "length": float(sums["joint"][1] / sums["independent"][1]),
        }

    def _distances(
        self, i: int, truth: np.ndarray, labelled: np.ndarray, whole: np.ndarray
    ) -> np.ndarray:
        """Sum over distances between two labels: 1, the deviation, and 1 if inside, for each level."""
        seen = np.flatnonzero(labelled)
        a, b = (seen[each] for each in np.triu_indices(len(seen), 1))
        count = len(labelled)
        blocks = whole.reshape(count, 2, count, 2)
        root = math.sqrt(self.kappa) * np.linalg.inv(self.precision_factor[i].astype(np.float64))
        offset = self.loc[i, a].astype(np.float64) - self.loc[i, b]
        predicted = np.linalg.norm(offset, axis=-1)
        along = offset / np.maximum(predicted, np.finfo(np.float64).tiny)[:, None]
        # Each point's own part of the distance's error, whitened; what the two share is between them.
        of_a = np.einsum("pij,pi->pj", root[a], along)
        of_b = np.einsum("pij,pi->pj", root[b], along)
        shared = np.einsum("pi,pij,pj->p", of_a, blocks[a, :, b, :], of_b)
        variance = np.sum(of_a**2 + of_b**2, axis=1) - 2 * shared
        deviation = np.sqrt(variance)
        error = np.abs(np.linalg.norm(truth[a] - truth[b], axis=-1) - predicted)
        far = predicted > _FEWEST_DEVIATIONS * np.sqrt(np.sum(of_a**2 + of_b**2, axis=1))
        inside = error[far, None] <= _BOUNDS * deviation[far, None]
        return np.array([far.sum(), deviation[far].sum(), *inside.sum(axis=0)])
