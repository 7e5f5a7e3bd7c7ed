"""Cuts of a film: frames where an object is somewhere else from one to the next, and stays there."""

import numpy as np

from tfhuber.tracking.filtering import Measurements

__all__ = ["find_cuts"]

# A cut moves half of the landmarks by more than this part of the object's extent, and by so many times what
# the frames about it do.
_PART, _TIMES = 0.25, 5.0


def find_cuts(measured: Measurements) -> list[int]:
    """Return the frames with which another shot begins, ascending.

    A single frame that is elsewhere is no cut, but a wrong prediction: it is as far there as back.

    Args:
      measured: a film of T frames.
    """
    shown = np.flatnonzero(measured.seen.any(1))
    if len(shown) < 3:
        return []
    place, seen = measured.place[shown], measured.seen[shown] > 0
    # While it was not seen an object may have gone far.
    steps = _median_steps(place, seen) / np.maximum(1, np.diff(measured.times[shown]))
    extent = np.array(
        [np.linalg.norm(np.ptp(p[s], axis=0)) for p, s in zip(place, seen, strict=True)]
    )
    nearby = np.maximum(*(_shifted(steps, offset, 2) for offset in (-1, 1)))
    deviation = np.sqrt(np.trace(measured.covariance[shown], axis1=2, axis2=3))
    doubt = np.array([np.median(d[s]) for d, s in zip(deviation, seen, strict=True)])
    least = np.maximum(_PART * np.median(extent), 3 * (doubt[1:] + doubt[:-1]))
    is_cut = (steps > least) & (steps > _TIMES * nearby)
    return [int(shown[i + 1]) for i in np.flatnonzero(is_cut)]


def _median_steps(place: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return how far [T - 1] the median landmark goes between frames; 0 if none is in both."""
    distance = np.linalg.norm(np.diff(place, axis=0), axis=-1)
    both = seen[1:] & seen[:-1]
    return np.array(
        [np.median(row[ok]) if ok.any() else 0.0 for row, ok in zip(distance, both, strict=True)]
    )


def _shifted(steps: np.ndarray, direction: int, reach: int) -> np.ndarray:
    """Return the largest of the `reach` steps before each (direction -1) or after it (1)."""
    padded = np.pad(steps, reach)
    count = len(steps)
    return np.max(
        [
            padded[reach + direction * k : reach + direction * k + count]
            for k in range(1, reach + 1)
        ],
        axis=0,
    )
