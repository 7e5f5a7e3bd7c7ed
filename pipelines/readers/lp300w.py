"""The reader of 300W-LP: 68 facial landmarks in a MATLAB file for each photograph and turned pose."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from pipelines.errors import Unusable
from pipelines.readers.annotation import Entry, Labels, check_box, check_points
from pipelines.readers.matlab import load_matlab
from pipelines.storage import Source, SourceFiles
from tfhuber.landmarks.known_sets import LP300W, LandmarkSet

__all__ = ["LP300W_FOLDERS", "Lp300w"]

LP300W_FOLDERS = ("AFW", "HELEN", "IBUG", "LFPW")
_POINTS = 68
# Bytes. Official files have 2 to 5 KB; compressed numbers can be a thousand times as large.
_LARGEST_FILE, _LARGEST_CONTENT = 65_536, 1 << 24


@dataclass(frozen=True)
class Lp300w:
    """The reader of 300W-LP, for a directory with `landmarks/` and some of `AFW/`, `HELEN/` ...

    One entry for each name of the four folders that has an image or labels, in order. The labels of
    `AFW/X.jpg` are `pts_2d` [68, 2] of `landmarks/AFW/X_pts.mat` or, where that file is missing,
    `pt2d` [2, 68] of `AFW/X.mat`. The latter holds the photograph's points even for poses that were
    synthesised from it by turning the head (`X` ends in a number above 0); these are refused. A
    point with x = -1, as the authors mark missing ones, counts as unlabelled.

    Ids are the images' paths. Coordinates are pixels of the jpg, taken as they are: MATLAB counts
    from 1, but other projects' published conversions do not subtract it, and one of 450 pixels is
    less than the labels' own error. There are no detector's boxes: the box is that of the labelled
    points. The normalizer is the distance between landmarks 36 and 45, which is short where a head
    is turned far. The mirrored copies in `AFW_Flip` and so on are left out, since training mirrors
    by itself. 300W-LP has no splits, so that a part of the photographs is held out.
    """

    landmark_set: LandmarkSet = LP300W
    images: str = "."
    lists: tuple[str, ...] = ()
    validation_fraction: float = 0.1

    def entries(self, source: Source) -> Iterator[Entry]:
        """Yield as in `Reader`; memory holds the names of one folder at a time."""
        empty = True
        for folder in LP300W_FOLDERS:
            for stem, has_own_labels in _names(source, folder):
                empty = False
                image = f"{folder}/{stem}.jpg"
                if has_own_labels:
                    path, position = f"landmarks/{folder}/{stem}_pts.mat", "pts_2d"
                else:
                    path, position = f"{folder}/{stem}.mat", "pt2d"
                yield Entry(image, "train", image, path, position, None)
        if empty:
            raise ValueError(
                f"{source.root} does not have 300W-LP's layout: no .jpg or .mat in any of "
                f"{', '.join(f'{folder}/' for folder in LP300W_FOLDERS)}. Expected these folders and "
                "landmarks/; get 300W-LP from "
                "http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm and give the "
                "directory 300W_LP of the archive"
            )

    def labels(self, entry: Entry, source: SourceFiles) -> Labels:
        """Return as in `Reader`, from the entry's own file."""
        path = entry.source
        if entry.position == "pts_2d":
            points = _matrix(source, path, "pts_2d", (_POINTS, 2))
        else:
            points = _pt2d(source, path)
        check_points(points)
        labelled = points[:, 0] != -1
        if not labelled.any():
            raise Unusable("unlabelled", f"{path} labels none of the points")
        box = np.concatenate([points[labelled].min(axis=0), points[labelled].max(axis=0)])
        check_box(box)
        weights = labelled.astype(np.float64)
        normalizer = self.landmark_set.normalizer_length(points, weights, box)
        return Labels(np.where(labelled[:, np.newaxis], points, 0.0), weights, box, normalizer)

    def photograph(self, image: str) -> str:
        """Return the photograph of an image, the same for all its faces, poses and mirrored copies.

        Example:
          >>> Lp300w().photograph("LFPW_Flip/LFPW_image_test_0001_3.jpg")
          'LFPW_image_test_0001'
        """
        # The last number is the pose; one of at most two digits before it is that of the face.
        return re.sub(r"(_\d{1,2})?_\d+$", "", PurePosixPath(image).stem)


def _names(source: Source, folder: str) -> list[tuple[str, bool]]:
    """Return each name in the folder, and whether `landmarks/` has labels of it."""
    images, old_labels = (_stems(source, folder, suffix) for suffix in (".jpg", ".mat"))
    labels = _stems(source, f"landmarks/{folder}", "_pts.mat")
    return [(stem, stem in labels) for stem in sorted(images | old_labels | labels)]


def _stems(source: Source, folder: str, suffix: str) -> set[str]:
    return {
        name.removesuffix(suffix).encode(errors="replace").decode()
        for name in source.names(folder)
        if name.endswith(suffix)
    }


def _pt2d(source: SourceFiles, path: str) -> np.ndarray:
    """Return `pt2d` [68, 2] of a pose's file; raise `Unusable` if it is the points of pose 0."""
    points = _matrix(source, path, "pt2d", (2, _POINTS))
    stem, _, pose = path.removesuffix(".mat").rpartition("_")
    unturned = f"{stem}_0.mat"
    if pose != "0" and source.has(unturned):
        # Turning a head moves some of its points by many pixels.
        before = _matrix(source, unturned, "pt2d", (2, _POINTS))
        if np.allclose(points, before, rtol=0, atol=0.5):
            raise Unusable(
                "labels_of_another_pose",
                f"{path} has the points of {unturned}; the pose's own are in landmarks/",
            )
    return points.T


def _matrix(source: SourceFiles, path: str, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Return the variable `name` of a MATLAB file as float64; it must have that shape."""
    content = source.read(path, "labels", _LARGEST_FILE)
    try:
        matrix, kind = load_matlab(content, name, _LARGEST_CONTENT)
    except ValueError as error:
        raise Unusable("unreadable_labels", f"{path}: {error}") from None
    if matrix is None:
        raise Unusable("no_points", f"{path} has no {name}")
    if np.shape(matrix) != shape:
        raise Unusable(
            "wrong_shape", f"{name} of {path} is {_by(np.shape(matrix))}, not {_by(shape)}"
        )
    if matrix.dtype.kind not in "fiu":
        raise Unusable("not_a_number", f"{name} of {path} is of class {kind}")
    return matrix.astype(np.float64)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
