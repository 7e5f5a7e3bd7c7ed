"""The colours and sizes that `overlay` and `fast_overlay` share, so that their drawings look alike."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = [
    "CERTAIN",
    "COLOURS",
    "SUFFIXES",
    "UNCERTAIN",
    "UNKNOWN",
    "extent_of",
    "pen_width",
    "spacing_of",
]

# Of file names that pictures may be saved under.
SUFFIXES = (".jpeg", ".jpg", ".png")


# From certain to uncertain, readable on skin, cloth and grass.
COLOURS = ("#16c7b4", "#86d65c", "#f8d43c", "#ff9232", "#f2304e")
UNKNOWN = (0.75, 0.75, 0.75, 1.0)
# Standard deviations, relative to the extent of the landmarks, at the two ends of the colours.
CERTAIN, UNCERTAIN = 0.004, 0.064


def extent_of(points: np.ndarray, image_size: Sequence[float]) -> float:
    """Return the diagonal of the box around points [N, 2], or the image's longer side if that is 0."""
    extent = math.hypot(*np.ptp(points, axis=0)) if len(points) else 0.0
    return extent or max(image_size)


def spacing_of(extent: float, count: int) -> float:
    """Return about how far each of `count` landmarks is from the next, in the unit of their extent."""
    return extent / math.sqrt(max(1, count))


def pen_width(spacing: float) -> float:
    """Return the unit of lines and dots for landmarks that far apart, all in the picture's pixels.

    It grows with the landmarks' spacing, not with the picture, so that dots don't hide a small face.
    """
    return float(np.clip(spacing / 55, 0.5, 2.5))
