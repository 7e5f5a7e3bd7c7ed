"""Radii with a guarantee that needs no model to be right: conformal prediction, the photograph the unit.

A score is the length |A (y - mu)| of a label's whitened error; one that is unlabelled is NaN. Let a
photograph's loss at radius q be the share of its labels outside q. If the n photographs and the one to
come are exchangeable, and the scores are measured with nothing that was fitted to these photographs, then
the smallest q with

    (sum_i loss_i(q) + 1) / (n + 1) <= 1 - level

has an expected loss of at most 1 - level on the one to come (Angelopoulos et al., Conformal Risk Control,
2022). Where each photograph has one score it is the ceil((n + 1) level)-th smallest, the classical split
conformal radius, and the probability is at most level + 1 / (n + 1) where scores do not tie. Both are
averages over calibration sets and photographs: no promise about a particular landmark or face.

Where n is too small for a level the radius is infinite: all of the plane, and no promise more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["LEVELS", "Radii", "guaranteed_bound", "guaranteed_radius", "radii", "third"]

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)

# Far above the rounding of a sum of shares, and far below a photograph's.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Radii:
    """Radii in units of |A (y - mu)| at one level; infinite where photographs were too few.

    Attributes:
      level: the probability.
      pooled: for a label of any landmark.
      landmarks: [K] for a label of each.
      simultaneous: for all labels of an object at once.
      thirds: [3] for a label of any landmark of an object that is easy, middling or hard.
    """

    level: float
    pooled: float
    landmarks: tuple[float, ...]
    simultaneous: float
    thirds: tuple[float, ...]


def guaranteed_radius(scores: ArrayLike, photograph: ArrayLike, level: float) -> float:
    """Return the smallest radius that keeps a photograph's expected share outside at 1 - `level`.

    >>> guaranteed_radius([3.0, 1.0, 2.0, 4.0], [0, 1, 2, 3], 0.8), guaranteed_radius([1.0], [0], 0.8)
    (4.0, inf)

    Args:
      scores: [N, ...] of N examples; NaN doesn't count.
      photograph: [N] the photograph that each is of.
      level: in (0, 1).

    Raises:
      ValueError: if the level is no probability, a score is negative, or the shapes do not fit.
    """
    if np.any(np.asarray(scores, np.float64) < 0):
        raise ValueError("scores must not be negative")
    return guaranteed_bound(scores, photograph, level)


def guaranteed_bound(scores: ArrayLike, photograph: ArrayLike, level: float) -> float:
    """Return `guaranteed_radius` for scores of any sign.

    Raises:
      ValueError: if the level is no probability, or the shapes do not fit.
    """
    scores, photograph = np.asarray(scores, np.float64), np.asarray(photograph)
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")
    if photograph.ndim != 1 or scores.shape[:1] != photograph.shape:
        raise ValueError(
            "scores and photograph must have as many examples, "
            f"got shapes {scores.shape} and {photograph.shape}"
        )
    counted = ~np.isnan(scores)
    values = scores[counted]
    if not values.size:
        return math.inf
    column = photograph.reshape(-1, *[1] * (scores.ndim - 1))
    _, owner, count = np.unique(
        np.broadcast_to(column, scores.shape)[counted], return_inverse=True, return_counts=True
    )
    order = np.argsort(values, kind="stable")
    inside = np.cumsum(1 / count[owner[order]])
    reached = int(np.searchsorted(inside, (len(count) + 1) * level - _ROUNDING))
    return float(values[order[reached]]) if reached < len(values) else math.inf


def third(size: ArrayLike, edges: Sequence[float]) -> np.ndarray:
    """Return the third of difficulty [N], 0 easy to 2 hard, of objects with that predicted size.

    Args:
      size: [N] minus the mean log-determinant of A over landmarks, in the network crop, whose unit is the
        object's box: the larger, the less sure.
      edges: the two sizes between the thirds, of other photographs than those of the radii.
    """
    return np.searchsorted(np.asarray(edges, np.float64), np.asarray(size, np.float64))


def radii(
    scores: ArrayLike, photograph: ArrayLike, thirds: ArrayLike, levels: Sequence[float] = LEVELS
) -> tuple[Radii, ...]:
    """Return the radii for each level.

    Args:
      scores: [N, K], NaN where unlabelled.
      photograph: [N].
      thirds: [N] as `third` returns it.
      levels: probabilities.

    Raises:
      ValueError: as `guaranteed_radius`.
    """
    scores, photograph, thirds = map(np.asarray, (scores, photograph, thirds))
    labelled = np.any(~np.isnan(scores), axis=1)
    largest = np.full(len(scores), np.nan)
    largest[labelled] = np.nanmax(scores[labelled], axis=1)

    def at(level: float) -> Radii:
        return Radii(
            level=level,
            pooled=guaranteed_radius(scores, photograph, level),
            landmarks=tuple(guaranteed_radius(each, photograph, level) for each in scores.T),
            simultaneous=guaranteed_radius(largest, photograph, level),
            thirds=tuple(
                guaranteed_radius(scores[thirds == i], photograph[thirds == i], level)
                for i in range(3)
            ),
        )

    return tuple(at(level) for level in levels)
