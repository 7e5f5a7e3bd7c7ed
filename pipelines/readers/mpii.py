"""The reader of MPII Human Pose's MATLAB file: up to 16 joints, a centre and a scale a person."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.errors import Unusable
from pipelines.readers.annotation import LARGEST_COORDINATE, Entry, Labels, check_box, check_points
from pipelines.readers.matlab import load_matlab
from pipelines.storage import Source, SourceFiles
from tfhuber.landmarks.known_sets import MPII, LandmarkSet

__all__ = ["Mpii"]

_FILE = "mpii_human_pose_v1_u12_1.mat"
_JOINTS = 16
# `scale` 1 is a person 200 pixels tall, and the box is as high: 100 on each side of the centre.
_HALF_SIDE = 100
_HEAD_SIZE = 0.6
# Bytes, uncompressed. The official file has 13 MB, compressed.
_LARGEST_FILE = 1 << 29


@dataclass(frozen=True)
class Mpii:
    """The reader of MPII, for a directory with `images/` and `mpii_human_pose_v1_u12_1.mat`.

    One entry for each person of the file, and one for each image without a person. Ids are
    `image#person`, counted from 1 as in the file. The box is the square around `objpos`, the
    normalizer 0.6 times the diagonal of the head's box (0 where that is missing), both in original
    pixels, as the joints are; the file's coordinates start at 1, ours at 0. `is_visible` is not
    used: occluded joints are labelled too.

    Attributes:
      deploy: whether people of the official test images, whose labels are not public, are examples
        without labels, on which a model can predict; otherwise they are refused.
      validation_fraction: none of the test labels being public, a part of the training images is
        held out.
    """

    deploy: bool = False
    landmark_set: LandmarkSet = MPII
    images: str = "images"
    lists: tuple[str, ...] = (_FILE,)
    validation_fraction: float = 0.1

    def entries(self, source: Source) -> Iterator[Entry]:
        """Yield as in `Reader`, but for memory: MATLAB's format has to be read whole."""
        missing = [name for name in (self.images, _FILE) if not source.has(name)]
        if missing:
            raise ValueError(
                f"{source.root} does not have MPII's layout: {missing[0]} is missing. Expected "
                f"{self.images}/ and {_FILE}; get both from http://human-pose.mpi-inf.mpg.de and "
                "unpack them there"
            )
        names = set()
        for index, (image, split) in enumerate(_images(source), start=1):
            name = _image_name(image)
            people = _structs(_get(image, "annorect"))
            where = (split, name, _FILE, f"annolist({index})")
            if name in names:
                fault = ["duplicate_image", f"{name!r} is in the list already"]
                yield Entry(f"{name}#0", *where, {"fault": fault})
            elif not people:
                fault = ["no_people", "annorect is empty"]
                yield Entry(f"{name}#0", *where, {"fault": fault})
            else:
                for number, person in enumerate(people, start=1):
                    labels = _plain(person) | {"people": len(people)}
                    position = f"{where[-1]}.annorect({number})"
                    yield Entry(f"{name}#{number}", *where[:-1], position, labels)
            names.add(name)

    def labels(self, entry: Entry, source: SourceFiles) -> Labels:
        """Return as in `Reader`."""
        person = entry.labels
        if "fault" in person:
            raise Unusable(*person["fault"])
        if not entry.image:
            raise Unusable("no_image_name", "image.name is empty")
        if self.deploy and entry.split == "test" and person["points"] is None:
            landmarks, weights = np.zeros((_JOINTS, 2)), np.zeros(_JOINTS)
        else:
            landmarks, weights = _joints(person["points"])
        box, normalizer = _box(person["centre"], person["scale"]), _head_size(person["head"])
        return Labels(landmarks, weights, box, normalizer, people=person["people"])

    def photograph(self, image: str) -> str:
        """Return the image itself."""
        return image


def _images(source: Source) -> Iterator[tuple[np.void, str]]:
    try:
        with source.open(_FILE) as file:
            content = file.read(_LARGEST_FILE)
        variable, _ = load_matlab(content, "RELEASE", _LARGEST_FILE)
        if variable is None:
            raise ValueError("it has no RELEASE")
        release = _structs(variable)[0]
        images, train = _structs(release["annolist"]), release["img_train"].ravel()
        if not images or len(images) != len(train):
            raise ValueError(f"{len(images)} images, {len(train)} flags img_train")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{source.path(_FILE)} cannot be read as MPII's annotation file, with RELEASE.annolist "
            f"and as many RELEASE.img_train: {' '.join(str(error).split())}"
        ) from error
    return zip(images, np.where(train == 1, "train", "test").tolist(), strict=True)


def _plain(person: np.void) -> dict:
    """Return what is used of a person, as JSON; `points` is [[id, x, y], ...] or None."""
    position = _get(person, "objpos")
    points = _structs(_get(_first(_get(person, "annopoints")), "point"))
    try:
        return {
            "points": [[_number(point, name) for name in ("id", "x", "y")] for point in points]
            or None,
            "centre": None if position is None else [_number(_first(position), a) for a in "xy"],
            "scale": _number(person, "scale"),
            "head": [_number(person, corner) for corner in ("x1", "y1", "x2", "y2")],
        }
    except Unusable as unusable:
        return {"fault": [unusable.reason, unusable.detail]}


def _joints(points: list[list] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return joints [16, 2], averaged where given twice, and 0/1 weights [16]."""
    if points is None:
        raise Unusable("unlabelled", "the person has no annopoints")
    sums, counts = np.zeros((_JOINTS, 2)), np.zeros(_JOINTS)
    for joint, x, y in points:
        if joint not in range(_JOINTS) or x is None or y is None:
            raise Unusable("malformed_point", f"joint {joint} at ({x}, {y})")
        sums[int(joint)] += (x - 1, y - 1)
        counts[int(joint)] += 1
    check_points(sums)
    return sums / np.maximum(counts, 1)[:, np.newaxis], np.minimum(counts, 1)


def _box(centre: list[float | None] | None, scale: float | None) -> np.ndarray:
    if centre is None or scale is None or None in centre:
        raise Unusable("no_box", "the person has no objpos or no scale")
    middle, half = np.array(centre) - 1, _HALF_SIDE * scale
    box = np.concatenate([middle - half, middle + half])
    check_box(box)
    return box


def _head_size(corners: list[float | None]) -> float:
    """Return 0.6 times the diagonal of the head's box; 0 if the box is not known."""
    known = [corner for corner in corners if corner is not None]
    if len(known) < len(corners) or not np.all(np.abs(known) <= LARGEST_COORDINATE):
        return 0.0
    x0, y0, x1, y1 = known
    return _HEAD_SIZE * float(np.hypot(x1 - x0, y1 - y0))


def _image_name(entry: np.void) -> str:
    name = _get(_first(_get(entry, "image")), "name")
    return "" if name is None else str(name.flat[0]).encode(errors="replace").decode()


def _structs(array: np.ndarray | None) -> list[np.void]:
    """Return the structs of an array; SciPy, asked for objects, saves it anew as cells of structs."""
    if array is None:
        return []
    if array.dtype.names is not None:
        return list(array.ravel())
    cells = array.ravel() if array.dtype == object else ()
    return [struct for cell in cells for struct in _structs(np.asarray(cell))]


def _first(array: np.ndarray | None) -> np.void:
    """Return the first struct of an array, or one without fields."""
    return next(iter(_structs(array)), np.void(b""))


def _get(struct: np.void, field: str) -> np.ndarray | None:
    """Return a field of a MATLAB struct; None where the struct lacks it or it is empty."""
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
