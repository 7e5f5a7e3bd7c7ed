"""Reads 300W-LP's folders: 68 facial landmarks in a MATLAB file for each photograph and turned pose."""

import io
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from pipelines.annotation import Unread, Unusable, check_box, check_points

__all__ = ["IMAGES", "LANDMARK_SET", "VALIDATION_FRACTION", "photograph", "read"]

LANDMARK_SET = "300w_lp"
IMAGES = "."
# 300W-LP has no splits, so that a part of the photographs is held out.
VALIDATION_FRACTION = 0.1

_FOLDERS = ("AFW", "HELEN", "IBUG", "LFPW")
_POINTS = 68
# The error is measured against the distance between the eyes' outer corners.
_LEFT_CORNER, _RIGHT_CORNER = 36, 45
# Official files have 2 to 5 KB. Compressed numbers can be a thousand times as large.
_LARGEST_FILE = 65_536


def read(source: Path) -> Iterator[Unread]:
    """Yields one item for each name of the four folders that has an image or labels, in order.

    The labels of `AFW/X.jpg` are `pts_2d` [68, 2] of `landmarks/AFW/X_pts.mat` or, where that file
    is missing, `pt2d` [2, 68] of `AFW/X.mat`. The latter holds the photograph's points even for
    poses that were synthesised from it by turning the head (`X` ends in a number above 0); these
    are refused. A point with x = -1, as the authors mark missing ones, counts as unlabelled.

    Ids are the images' paths. Coordinates are pixels of the jpg, taken as they are: MATLAB counts
    from 1, but other projects' published conversions do not subtract it, and one of 450 pixels is
    less than the labels' own error. There are no detector's boxes: the box is that of the labelled
    points. The normalizer is the distance between landmarks 36 and 45, which is short where a head
    is turned far. The mirrored copies in `AFW_Flip` and so on are left out, since training mirrors
    by itself.

    Args:
      source: directory with `AFW/`, `HELEN/`, `IBUG/` and `LFPW/`, at least one of them, and
        `landmarks/`.

    Raises:
      ValueError: if the directory does not have 300W-LP's layout.
    """
    names = [(folder, *name) for folder in _FOLDERS for name in _names(source, folder)]
    if not names:
        raise ValueError(
            f"{source} does not have 300W-LP's layout: no .jpg or .mat in any of "
            f"{', '.join(f'{folder}/' for folder in _FOLDERS)}. Expected these folders and "
            "landmarks/; get 300W-LP from "
            "http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm and give the "
            "directory 300W_LP of the archive"
        )
    for folder, stem, has_own_labels in names:
        image = f"{folder}/{stem}.jpg"
        if has_own_labels:
            path, position = f"landmarks/{folder}/{stem}_pts.mat", "pts_2d"
        else:
            path, position = f"{folder}/{stem}.mat", "pt2d"
        yield Unread(image, "train", image, path, position, partial(_labels, source, path))


def photograph(image: str) -> str:
    """The photograph that an image was made from: all its faces, poses and mirrored copies.

    Example:
      >>> photograph("AFW/AFW_134212_2_16.jpg"), photograph("LFPW_Flip/LFPW_image_test_0001_3.jpg")
      ('AFW_134212', 'LFPW_image_test_0001')
    """
    # The last number is the pose; one of at most two digits before it is that of the face.
    return re.sub(r"(_\d{1,2})?_\d+$", "", PurePosixPath(image).stem)


def _names(source: Path, folder: str) -> list[tuple[str, bool]]:
    """Each name in the folder, and whether `landmarks/` has labels of it."""
    images, old_labels = (_stems(source / folder, suffix) for suffix in (".jpg", ".mat"))
    labels = _stems(source / "landmarks" / folder, "_pts.mat")
    return [(stem, stem in labels) for stem in sorted(images | old_labels | labels)]


def _stems(folder: Path, suffix: str) -> set[str]:
    names = os.listdir(folder) if folder.is_dir() else []
    return {
        name.removesuffix(suffix).encode(errors="replace").decode()
        for name in names
        if name.endswith(suffix)
    }


def _labels(source: Path, path: str) -> dict:
    """The fields of an `Annotation` that a file holds."""
    if path.startswith("landmarks/"):
        points = _matrix(source, path, "pts_2d", (_POINTS, 2))
    else:
        points = _pt2d(source, path)
    check_points(points)
    labelled = points[:, 0] != -1
    if not labelled.any():
        raise Unusable("unlabelled", f"{path} labels none of the points")
    box = np.concatenate([points[labelled].min(axis=0), points[labelled].max(axis=0)])
    check_box(box)
    eyes = points[_LEFT_CORNER] - points[_RIGHT_CORNER]
    both = labelled[_LEFT_CORNER] and labelled[_RIGHT_CORNER]
    return {
        "landmarks": np.where(labelled[:, np.newaxis], points, 0.0),
        "weights": labelled.astype(np.float64),
        "box": box,
        "normalizer": float(np.linalg.norm(eyes)) if both else 0.0,
    }


def _pt2d(source: Path, path: str) -> np.ndarray:
    points = _matrix(source, path, "pt2d", (2, _POINTS))
    stem, _, pose = path.removesuffix(".mat").rpartition("_")
    unturned = f"{stem}_0.mat"
    if pose != "0" and (source / unturned).is_file():
        # Turning a head moves some of its points by many pixels.
        before = _matrix(source, unturned, "pt2d", points.shape)
        if np.allclose(points, before, rtol=0, atol=0.5):
            raise Unusable(
                "labels_of_another_pose",
                f"{path} has the points of {unturned}; the pose's own are in landmarks/",
            )
    return points.T


def _matrix(source: Path, path: str, name: str, shape: tuple[int, int]) -> np.ndarray:
    """The variable `name` of a MATLAB file as float64; loaded only if it has that shape."""
    import scipy.io

    if not (source / path).is_file():
        raise Unusable("missing_labels", f"{path!r} is no file of the source")
    try:
        with open(source / path, "rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise Unusable("unreadable_labels", f"{path}: {error.strerror}") from None
    if len(content) > _LARGEST_FILE:
        raise Unusable("labels_too_large", f"{path} has more than {_LARGEST_FILE:,} bytes")
    try:
        shapes = {each: size for each, size, _ in scipy.io.whosmat(io.BytesIO(content))}
        found = shapes.get(name)
        if found == shape:
            matrix = scipy.io.loadmat(io.BytesIO(content), variable_names=[name])[name]
    except Exception as error:  # The parser raises nearly anything on other files.
        detail = " ".join(str(error).split()) or type(error).__name__
        raise Unusable("unreadable_labels", f"{path}: {detail}") from None
    if found is None:
        raise Unusable("no_points", f"{path} has no {name}")
    if found != shape:
        raise Unusable("wrong_shape", f"{name} of {path} is {_by(found)}, not {_by(shape)}")
    matrix = np.asarray(matrix)
    if matrix.dtype.kind not in "fiu":
        raise Unusable("not_a_number", f"{name} of {path} does not hold real numbers")
    return matrix.astype(np.float64)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
