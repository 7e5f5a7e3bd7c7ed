"""The reader of WFLW's official list files: 98 facial landmarks, a box and six attributes a line."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from pipelines.errors import Unusable
from pipelines.readers.annotation import Entry, Labels, check_box, check_points
from pipelines.storage import Source, SourceFiles
from tfhuber.landmarks.known_sets import WFLW, LandmarkSet

__all__ = ["Wflw"]

_LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{}.txt"
_SPLITS = ("train", "test")
_POINTS, _BOX, _ATTRIBUTES = 2 * 98, 4, 6
_FIELDS = _POINTS + _BOX + _ATTRIBUTES + 1
# Official lines have 2,500 bytes; a file without line ends must not fill the memory.
_LONGEST_LINE = 65_536


@dataclass(frozen=True)
class Wflw:
    """The reader of WFLW, for a directory with `WFLW_images/` and `WFLW_annotations/`.

    One entry for each line of the two lists that is not blank; ids are `image#line`. The normalizer
    is the distance between landmarks 60 and 72, and all coordinates are the original image's pixels.
    """

    landmark_set: LandmarkSet = WFLW
    images: str = "WFLW_images"
    lists: tuple[str, ...] = tuple(map(_LISTS.format, _SPLITS))
    validation_fraction: float = 0.0

    def entries(self, source: Source) -> Iterator[Entry]:
        """Yield as in `Reader`."""
        missing = [name for name in (self.images, *self.lists) if not source.has(name)]
        if missing:
            raise ValueError(
                f"{source.root} does not have WFLW's layout: {missing[0]} is missing. Expected "
                f"{self.images}/ and {_LISTS.format('{train,test}')}; get both archives from "
                "https://wywu.github.io/projects/LAB/WFLW.html and unpack them there"
            )
        for split, name in zip(_SPLITS, self.lists, strict=True):
            for number, line in enumerate(_lines(source.open(name)), start=1):
                if fields := line.split():
                    image = fields[-1] if len(fields) == _FIELDS else ""
                    position = f"line {number}"
                    yield Entry(f"{image}#{number}", split, image, name, position, line)

    def labels(self, entry: Entry, source: SourceFiles) -> Labels:
        """Return as in `Reader`."""
        landmarks, box, attributes = _parse(entry.labels.split())
        weights = np.ones(len(landmarks))
        normalizer = self.landmark_set.normalizer_length(landmarks, weights, box)
        if normalizer == 0:
            raise Unusable("degenerate_landmarks", "the eyes' outer corners are the same point")
        return Labels(landmarks, weights, box, normalizer, attributes)

    def photograph(self, image: str) -> str:
        """Return the image itself."""
        return image


def _lines(file: BinaryIO) -> Iterator[str]:
    """Yield lines with any line ends, of bytes that need not be text, without a byte-order mark.

    What is longer than any line of the format comes in pieces, each of them a damaged line.
    """
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace") as text:
        while line := text.readline(_LONGEST_LINE):
            yield line.rstrip("\n")


def _parse(fields: list[str]) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    if len(fields) != _FIELDS:
        raise Unusable("wrong_field_count", f"{len(fields)} fields instead of {_FIELDS}")
    numbers = np.array([_number(field) for field in fields[:-1]])
    landmarks, box, attributes = np.split(numbers, [_POINTS, _POINTS + _BOX])
    landmarks = landmarks.reshape(-1, 2)
    check_points(landmarks)
    check_box(box)
    if not np.all(np.isin(attributes, (0, 1))):
        raise Unusable("bad_attribute", f"attributes {' '.join(fields[-7:-1])} are not all 0 or 1")
    return landmarks, box, tuple(int(flag) for flag in attributes)


def _number(field: str) -> float:
    try:
        return float(field)
    except ValueError:
        raise Unusable("not_a_number", f"{field[:40]!r} is not a number") from None
