"""Photographs as the unit of calibration: which one an example is of, and their parts and folds.

Two faces on one photograph share its light, its blur and its labeller, so that no part, fold or guarantee
may tear them apart.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

__all__ = ["folds", "parts", "photographs"]

# How 300W-LP names its images.
_RENDERED = re.compile(
    r"(AFW|HELEN|IBUG|LFPW)(_Flip)?/(?P<photograph>[^#]+?)(_\d{1,2})?_\d+\.jpg", re.ASCII
)


def photographs(ids: Sequence[bytes | str]) -> np.ndarray:
    """Return the number [N] of each example's photograph, from 0 in the order of a hash of the names.

    An example's id is `image#number`, as the readers write it, or the image alone. In 300W-LP that is one
    of a photograph's many faces, poses and mirrored copies, whose numbers its name ends with.

    >>> photographs(["a.jpg#1", "b.jpg#2", "a.jpg#3"]).tolist()
    [1, 0, 1]
    """
    names = [_name(id.decode(errors="replace") if isinstance(id, bytes) else id) for id in ids]
    ordered = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    number = {name: i for i, name in enumerate(ordered)}
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


def _name(id: str) -> str:
    if rendered := _RENDERED.fullmatch(id):
        return rendered["photograph"]
    return id.rpartition("#")[0] or id
