"""Photographs as the unit of calibration: which one an example is of, and their parts and folds.

Two faces on one photograph share its light, its blur and its labeller, so that no part, fold or guarantee
may tear them apart.
"""

from collections.abc import Sequence

import numpy as np

from tfhuber.data.photographs import photograph_name, shuffled

__all__ = ["folds", "parts", "photographs"]


def photographs(ids: Sequence[bytes | str]) -> np.ndarray:
    """Return the number [N] of each example's photograph, from 0 in the order of a hash of the names.

    >>> photographs(["a.jpg#1", "b.jpg#2", "a.jpg#3"]).tolist()
    [0, 1, 0]
    """
    names = [photograph_name(id) for id in ids]
    number = {name: i for i, name in enumerate(shuffled(names))}
    return np.array([number[name] for name in names], np.int64)


def parts(photograph: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which examples [N] choose (every second photograph), and which promise (the others).

    What is fitted is fitted to the first part. Conformal radii come from the second: their guarantee holds
    because nothing that they are measured with was chosen on it.
    """
    chooses = photograph % 2 == 0
    return chooses, ~chooses


def folds(photograph: np.ndarray, count: int = 5) -> np.ndarray:
    """Return the fold [N] of each example, from 0 to `count` - 1, alike within a photograph."""
    _, dense = np.unique(photograph, return_inverse=True)
    return dense % count
