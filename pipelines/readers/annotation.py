"""What readers make: an annotated box of an image, its labels, or the reason why there are none."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipelines.errors import Unusable

__all__ = [
    "LARGEST_COORDINATE",
    "Entry",
    "Labels",
    "Reject",
    "box_around",
    "check_box",
    "check_points",
]

# No photograph is this wide; beyond it float32, in which records hold labels, loses sub-pixels.
LARGEST_COORDINATE = 100_000.0

# Of a box around points, in parts of its longer side, on each side: objects go on beyond their points.
_MARGIN = 0.15


@dataclass(frozen=True)
class Entry:
    """One annotated box as the source lists it; its labels are looked at by the worker.

    Attributes:
      id: stable name, unique in its split.
      split: "train", "valid" or "test".
      image: path below the reader's image folder; "" where it is not known.
      source: file with the labels, relative to the source's directory.
      position: where in `source`, counted from 1: a line or an index.
      labels: JSON of which `Reader.labels` makes `Labels`, in whatever form the reader has it.
    """

    id: str
    split: str
    image: str
    source: str
    position: str
    labels: Any


@dataclass(frozen=True)
class Labels:
    """An entry's labels; coordinates are the original image's pixels, centres at integers.

    Attributes:
      landmarks: [K, 2] float64; 0 where there is no label.
      weights: [K] 1 where labelled, else 0.
      box: [4] x0, y0, x1, y1; None for the whole picture.
      normalizer: the length that errors are divided by; 0 if unknown, or if the box is to tell it.
      attributes: 0/1 flags in the landmark set's order.
      people: how many annotated subjects the image holds, if the format says so; else 1.
      size: (width, height) of the picture that was labelled, if the format says so.
      frame: "stored" if the labels are of the pixels as they are stored, "upright" if of the picture
        as EXIF's orientation turns it, "unknown" if `size` must tell.
      notes: codes of `pipelines.notes` about these labels.
    """

    landmarks: np.ndarray
    weights: np.ndarray
    box: np.ndarray | None
    normalizer: float
    attributes: tuple[int, ...] = ()
    people: int = 1
    size: tuple[int, int] | None = None
    frame: Literal["stored", "upright", "unknown"] = "stored"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reject:
    """One entry of the source that becomes no example, and why.

    Attributes:
      id, split, image, source, position: as in `Entry`.
      reason: a short code, the same for all entries with this fault.
      detail: the fault itself, for a human.
    """

    id: str
    split: str
    image: str
    source: str
    position: str
    reason: str
    detail: str

    @classmethod
    def of(cls, entry: Entry, unusable: Unusable) -> "Reject":
        """Return the reject that an entry becomes."""
        where = (entry.id, entry.split, entry.image, entry.source, entry.position)
        return cls(*where, unusable.reason, unusable.detail)


def check_points(points: np.ndarray) -> None:
    """Raise `Unusable` if a coordinate is not finite or lies where no image can be."""
    if not np.all(np.isfinite(points)):
        raise Unusable("non_finite_landmark", "a landmark's coordinate is not finite")
    if np.any(np.abs(points) > LARGEST_COORDINATE):
        raise Unusable(
            "absurd_landmark", f"a coordinate of {points.flat[np.abs(points).argmax()]:g} pixels"
        )


def check_box(box: np.ndarray) -> None:
    """Raise `Unusable` if a box (x0, y0, x1, y1) is not finite, too large or less than a pixel."""
    text = " ".join(f"{value:g}" for value in box)
    if not np.all(np.isfinite(box)):
        raise Unusable("non_finite_box", f"box {text} is not finite")
    if np.any(np.abs(box) > LARGEST_COORDINATE):
        raise Unusable("absurd_box", f"box {text} is larger than any image")
    if box[2] - box[0] < 1 or box[3] - box[1] < 1:
        raise Unusable("empty_box", f"box {text} (x0 y0 x1 y1) holds no pixel")


def box_around(points: np.ndarray) -> np.ndarray:
    """Return the box [4] (x0, y0, x1, y1) of points [N, 2], with a margin.

    Raises:
      Unusable: "no_box" if they all lie in one place.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    margin = _MARGIN * np.max(high - low)
    if 2 * margin < 1:
        raise Unusable("no_box", "there is no usable box, and the labelled points lie in one place")
    return np.concatenate([low - margin, high + margin])
