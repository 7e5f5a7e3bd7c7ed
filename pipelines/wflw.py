"""Reads WFLW's official list files: 98 facial landmarks, a box and six attributes a line."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.annotation import Annotation, Reject, Unusable, check_box, check_points

__all__ = ["IMAGES", "LANDMARK_SET", "VALIDATION_FRACTION", "photograph", "read"]

LANDMARK_SET = "wflw"
IMAGES = "WFLW_images"
VALIDATION_FRACTION = 0.0

_LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{}.txt"
_POINTS, _BOX, _ATTRIBUTES = 2 * 98, 4, 6
_FIELDS = _POINTS + _BOX + _ATTRIBUTES + 1
# The error is measured against the distance between the eyes' outer corners.
_LEFT_CORNER, _RIGHT_CORNER = 60, 72


def read(source: Path) -> Iterator[Annotation | Reject]:
    """Yields one item for each line of the two lists that is not blank, in the lists' order.

    Ids are `image#line`; the normalizer is the distance between landmarks 60 and 72, and all
    coordinates are the original image's pixels.

    Args:
      source: directory with `WFLW_images/` and `WFLW_annotations/`.

    Raises:
      ValueError: if the directory does not have WFLW's layout.
    """
    lists = {split: _LISTS.format(split) for split in ("train", "test")}
    missing = [name for name in (IMAGES, *lists.values()) if not (source / name).exists()]
    if missing:
        raise ValueError(
            f"{source} does not have WFLW's layout: {missing[0]} is missing. Expected {IMAGES}/ "
            f"and {_LISTS.format('{train,test}')}; get both archives from "
            "https://wywu.github.io/projects/LAB/WFLW.html and unpack them there"
        )
    for split, name in lists.items():
        # "utf-8-sig" drops a byte-order mark; text mode takes any line ends.
        with open(source / name, encoding="utf-8-sig", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _read_line(line.split(), split, name, number)


def photograph(image: str) -> str:
    """The photograph that an image was made from: here itself."""
    return image


def _read_line(fields: list[str], split: str, source: str, number: int) -> Annotation | Reject:
    image = fields[-1] if len(fields) == _FIELDS else ""
    where = (f"{image}#{number}", split, image, source, f"line {number}")
    try:
        landmarks, box, attributes = _parse(fields)
    except Unusable as unusable:
        return Reject(*where, unusable.reason, unusable.detail)
    eyes = landmarks[_LEFT_CORNER] - landmarks[_RIGHT_CORNER]
    return Annotation(
        *where,
        landmarks=landmarks,
        weights=np.ones(len(landmarks)),
        box=box,
        normalizer=float(np.linalg.norm(eyes)),
        attributes=attributes,
    )


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
    if np.array_equal(landmarks[_LEFT_CORNER], landmarks[_RIGHT_CORNER]):
        raise Unusable("degenerate_landmarks", "the eyes' outer corners are the same point")
    return landmarks, box, tuple(int(flag) for flag in attributes)


def _number(field: str) -> float:
    try:
        return float(field)
    except ValueError:
        raise Unusable("not_a_number", f"{field[:40]!r} is not a number") from None
