"""Reads MPII Human Pose's MATLAB file: up to 16 joints, a centre and a scale a person."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.annotation import (
    LARGEST_COORDINATE,
    Annotation,
    Reject,
    Unusable,
    check_box,
    check_points,
)

__all__ = ["IMAGES", "LANDMARK_SET", "VALIDATION_FRACTION", "photograph", "read"]

LANDMARK_SET = "mpii"
IMAGES = "images"
# The official test labels are not public, so that a part of the training images is held out.
VALIDATION_FRACTION = 0.1

_FILE = "mpii_human_pose_v1_u12_1.mat"
_JOINTS = 16
# `scale` 1 is a person 200 pixels tall, and the box is as high: 100 on each side of the centre.
_HALF_SIDE = 100
_HEAD_SIZE = 0.6


def read(source: Path) -> Iterator[Annotation | Reject]:
    """Yields one item for each person of the file, and a reject for each image without a person.

    Ids are `image#person`, counted from 1 as in the file. The box is the square around `objpos`,
    the normalizer 0.6 times the diagonal of the head's box (0 where that is missing), both in
    original pixels, as the joints are; the file's coordinates start at 1, ours at 0. `is_visible`
    is not used: occluded joints are labelled too. The official test people carry no labels and
    become rejects.

    Args:
      source: directory with `images/` and `mpii_human_pose_v1_u12_1.mat`.

    Raises:
      ValueError: if the directory does not have MPII's layout, or the file is not MPII's.
    """
    missing = [name for name in (IMAGES, _FILE) if not (source / name).exists()]
    if missing:
        raise ValueError(
            f"{source} does not have MPII's layout: {missing[0]} is missing. Expected {IMAGES}/ "
            f"and {_FILE}; get both from http://human-pose.mpi-inf.mpg.de and unpack them there"
        )
    names = set()
    for index, (entry, split) in enumerate(_entries(source / _FILE), start=1):
        name = _image_name(entry)
        people = _get(entry, "annorect")
        where = (f"{name}#0", split, name, _FILE, f"annolist({index})")
        if name in names:
            yield Reject(*where, "duplicate_image", f"{name!r} is in the list already")
        elif people is None:
            yield Reject(*where, "no_people", "annorect is empty")
        else:
            for number, person in enumerate(people.ravel(), start=1):
                yield _read_person(person, number, where)
        names.add(name)


def photograph(image: str) -> str:
    """The photograph that an image was made from: here itself."""
    return image


def _entries(path: Path) -> Iterator[tuple[np.void, str]]:
    import scipy.io

    try:
        release = scipy.io.loadmat(path, variable_names=["RELEASE"])["RELEASE"].flat[0]
        images, train = release["annolist"].ravel(), release["img_train"].ravel()
        if images.dtype.names is None or len(images) != len(train):
            raise ValueError(f"{len(images)} images, {len(train)} flags img_train")
    except Exception as error:  # The parser raises nearly anything on other files.
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as MPII's annotation file, with RELEASE.annolist and as many "
            f"RELEASE.img_train: {detail}"
        ) from error
    return zip(images, np.where(train == 1, "train", "test").tolist(), strict=True)


def _read_person(person: np.void, number: int, image: tuple) -> Annotation | Reject:
    _, split, name, source, position = image
    where = (f"{name}#{number}", split, name, source, f"{position}.annorect({number})")
    try:
        if not name:
            raise Unusable("no_image_name", "image.name is empty")
        landmarks, weights = _joints(person)
        return Annotation(
            *where,
            landmarks=landmarks,
            weights=weights,
            box=_box(person),
            normalizer=_head_size(person),
        )
    except Unusable as unusable:
        return Reject(*where, unusable.reason, unusable.detail)


def _joints(person: np.void) -> tuple[np.ndarray, np.ndarray]:
    """Joints [16, 2], averaged where given twice, and 0/1 weights [16]."""
    labels = _get(person, "annopoints")
    points = None if labels is None else _get(labels.flat[0], "point")
    if points is None:
        raise Unusable("unlabelled", "the person has no annopoints")
    sums, counts = np.zeros((_JOINTS, 2)), np.zeros(_JOINTS)
    for point in points.ravel():
        joint, x, y = (_number(point, field) for field in ("id", "x", "y"))
        if joint not in range(_JOINTS) or x is None or y is None:
            raise Unusable("malformed_point", f"joint {joint} at ({x}, {y})")
        sums[int(joint)] += (x - 1, y - 1)
        counts[int(joint)] += 1
    check_points(sums)
    return sums / np.maximum(counts, 1)[:, np.newaxis], np.minimum(counts, 1)


def _box(person: np.void) -> np.ndarray:
    position, scale = _get(person, "objpos"), _number(person, "scale")
    centre = [None if position is None else _number(position.flat[0], axis) for axis in "xy"]
    if scale is None or None in centre:
        raise Unusable("no_box", "the person has no objpos or no scale")
    centre, half = np.array(centre) - 1, _HALF_SIDE * scale
    box = np.concatenate([centre - half, centre + half])
    check_box(box)
    return box


def _head_size(person: np.void) -> float:
    corners = [_number(person, field) for field in ("x1", "y1", "x2", "y2")]
    if None in corners or not np.all(np.abs(corners) <= LARGEST_COORDINATE):
        return 0.0
    x0, y0, x1, y1 = corners
    return _HEAD_SIZE * float(np.hypot(x1 - x0, y1 - y0))


def _image_name(entry: np.void) -> str:
    image = _get(entry, "image")
    name = None if image is None else _get(image.flat[0], "name")
    return "" if name is None else str(name.flat[0]).encode(errors="replace").decode()


def _get(struct: np.void, field: str) -> np.ndarray | None:
    """A field of a MATLAB struct; None where the struct lacks it or it is empty."""
    if struct.dtype.names is None or field not in struct.dtype.names or struct[field].size == 0:
        return None
    return struct[field]


def _number(struct: np.void, field: str) -> float | None:
    value = _get(struct, field)
    if value is None:
        return None
    try:
        return float(value.flat[0])
    except (TypeError, ValueError):
        raise Unusable("not_a_number", f"{field} is {str(value.flat[0])[:40]!r}") from None
