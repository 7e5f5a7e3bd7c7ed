"""The labels of drawn pictures, written the way the data sets do, irregularities included."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from scipy.io import savemat

from pipelines.sample.face_views import FaceView
from pipelines.sample.faces import Face
from pipelines.sample.figures import Figure

__all__ = ["Picture", "people", "write_lp300w_mats", "write_mpii_mat", "write_wflw_list"]

ANNOTATIONS = Path("WFLW_annotations/list_98pt_rect_attr_train_test")
NOTHING = np.zeros((0, 0))  # MATLAB's []


# Who is on a picture.
Subject = TypeVar("Subject", Face, Figure, FaceView)


@dataclass(frozen=True)
class Picture(Generic[Subject]):
    """A picture that was drawn, and the noisy labels of who is on it.

    Attributes:
      name: its path below the layout's image folder; in 300W-LP's, what its files' names begin with.
      index: its number in its split, from 0.
      size: width and height in pixels.
      subjects: the faces or figures; in 300W-LP's layout, one a file.
      labels: for each of them [K, 2], in pixels whose centres are at integers, from 0.
    """

    name: str
    index: int
    size: tuple[int, int]
    subjects: list[Subject]
    labels: list[np.ndarray]


def write_wflw_list(directory: Path, split: str, pictures: list[Picture[Face]]) -> list[str]:
    """Write a split's list file; return the id of each line, `path#line`."""
    lines, ids = [], []
    for picture in pictures:
        for face, labels in zip(picture.subjects, picture.labels, strict=True):
            points = " ".join(f"{value:.6f}" for value in labels.ravel())
            box_and_attributes = " ".join(str(n) for n in (*face.box, *face.attributes))
            lines.append(f"{points} {box_and_attributes} {picture.name}\n")
            ids.append(f"{picture.name}#{len(lines)}")
    folder = directory / ANNOTATIONS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"list_98pt_rect_attr_{split}.txt").write_text("".join(lines))
    return ids


def write_lp300w_mats(directory: Path, pictures: list[Picture[FaceView]]) -> list[str]:
    """Write 300W-LP's two files for each face; return their ids, the images' paths.

    `landmarks/AFW/X_pts.mat` holds the labels; `AFW/X.mat` those of pose 0, as in the official
    files, whatever the pose.
    """
    ids = []
    for picture in pictures:
        for face, labels in zip(picture.subjects, picture.labels, strict=True):
            name = f"{picture.name}_{face.suffix}"
            own, old = directory / f"landmarks/{name}_pts.mat", directory / f"{name}.mat"
            own.parent.mkdir(parents=True, exist_ok=True)
            if face.is_photograph:  # The first of each face's views.
                unturned = labels
            _save_mat(own, {"pts_2d": labels})
            _save_mat(old, {"pt2d": unturned.T})
            ids.append(f"{name}.jpg")
    return ids


def people(index: int) -> int:
    """Return how many people are on MPII's picture of this index: two on one of eight."""
    return 2 if index % 8 == 7 else 1


def write_mpii_mat(
    directory: Path, train: list[Picture[Figure]], test: list[Picture[Figure]]
) -> list[list[str]]:
    """Write MPII's MATLAB file; return both splits' ids, `name#ridx`, "" for people left out.

    Like the official file it is irregular in places, by the picture's index so that every kind
    occurs among any 50: images whose people are not annotated, people without joints, without a
    head box, with a joint given twice (its mean is the label), joints that are missing because
    they lie outside the picture or for no reason, and three ways to write `is_visible`.
    People of the test split have a scale and a position only.
    """
    pictures = [*train, *test]
    is_train = [1] * len(train) + [0] * len(test)
    rects = [_train_rects(p) for p in train] + [_test_rects(p) for p in test]
    annolist, acts, single = [], [], []
    for picture, training, rect in zip(pictures, is_train, rects, strict=True):
        image = _struct([{"name": picture.name}])
        frame = float(picture.index) if training else NOTHING
        video = 1.0 if training else NOTHING
        entry = {"image": image, "annorect": rect, "frame_sec": frame, "vididx": video}
        annolist.append(entry)
        act = {"act_name": "drawing, posing", "cat_name": "drawing", "act_id": 1}
        acts.append(act if training else {"act_name": NOTHING, "cat_name": NOTHING, "act_id": -1})
        alone = np.arange(1.0, rect.size + 1)[:, None] if rect.size == 1 else NOTHING
        single.append(alone)
    release = {
        "annolist": _struct(annolist),
        "img_train": np.array([is_train], np.uint8),
        "version": "12",
        "single_person": _cells(single).T,
        "act": _struct(acts).T,
        "video_list": _cells(["drawn"]),
    }
    _save_mat(directory / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release})
    return [
        _ids(train, rects[: len(train)], labelled=True),
        _ids(test, rects[len(train) :], labelled=False),
    ]


def _ids(pictures: list[Picture[Figure]], rects: list[np.ndarray], labelled: bool) -> list[str]:
    """Return the id of each subject; "" for one that is not listed or, if `labelled`, has no labels."""
    ids = []
    for picture, rect in zip(pictures, rects, strict=True):
        for position in range(len(picture.subjects)):
            listed = position < rect.size and (not labelled or _has_points(rect, position))
            ids.append(f"{picture.name}#{position + 1}" if listed else "")
    return ids


def _has_points(rect: np.ndarray, position: int) -> bool:
    return "annopoints" in (rect.dtype.names or ()) and rect[0, position]["annopoints"].size > 0


def _test_rects(picture: Picture[Figure]) -> np.ndarray:
    if picture.index % 50 == 20:
        return NOTHING
    return _struct([_position(figure) for figure in picture.subjects])


def _train_rects(picture: Picture[Figure]) -> np.ndarray:
    if picture.index % 50 == 20:
        return NOTHING
    rects = []
    for position, figure in enumerate(picture.subjects):
        if picture.index % 40 == 11:
            head = dict.fromkeys(("x1", "y1", "x2", "y2"), NOTHING)
        else:
            corners = np.round(np.array(figure.head_box)) + 1.0
            head = dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))
        rect = {**head, "annopoints": _points(picture, position), **_position(figure)}
        if position == 1 and picture.index % 16 == 7:
            rect["annopoints"] = NOTHING
        if picture.index % 50 == 45:
            del rect["annopoints"]
        rects.append(rect)
    return _struct(rects)


def _position(figure: Figure) -> dict:
    """Return scale and centre such that a square of half side 100 * scale holds the person."""
    low, high = figure.landmarks.min(axis=0), figure.landmarks.max(axis=0)
    side = max(0.95 * figure.height, 1.1 * (high - low).max())
    x, y = np.round((low + high) / 2) + 1.0
    return {"scale": side / 200.0, "objpos": _struct([{"x": x, "y": y}])}


def _points(picture: Picture[Figure], position: int) -> np.ndarray:
    """Return the structure with a person's labels; MATLAB's coordinates start at 1."""
    figure, labels = picture.subjects[position], picture.labels[position] + 1.0
    truth = figure.landmarks
    inside = np.all((truth > -0.5) & (truth < np.array(picture.size) - 0.5), axis=1)
    if picture.index % 9 == 2:
        inside[(picture.index // 9 * 5 + position) % 16] = False
    points = []
    for joint in np.flatnonzero(inside):
        twice = picture.index % 30 == 4 and joint == np.flatnonzero(inside)[picture.index % 7]
        for shift in (-0.75, 0.75) if twice else (0.0,):
            x, y = labels[joint] + shift
            seen = _visibility(picture.index, int(joint), bool(figure.visible[joint]))
            points.append({"x": x, "y": y, "id": np.uint8(joint), "is_visible": seen})
    return _struct([{"point": _struct(points)}]) if points else NOTHING


def _visibility(index: int, joint: int, visible: bool) -> np.ndarray | np.uint8 | str:
    """Return a number, text, or nothing; always nothing for the upper neck and the head's top."""
    if joint in (8, 9) or index % 10 == 6:
        return NOTHING
    return str(int(visible)) if index % 3 == 1 else np.uint8(visible)


def _save_mat(path: Path, variables: dict) -> None:
    stream = io.BytesIO()
    savemat(stream, variables, do_compression=True)
    # The header's text says when the file was written; two runs shall give the same bytes.
    header = b"MATLAB 5.0 MAT-file, drawn sample data".ljust(116)
    path.write_bytes(header + stream.getvalue()[len(header) :])


def _struct(rows: list[dict]) -> np.ndarray:
    """Return MATLAB's structure array [1, N] of N dictionaries with the same keys."""
    array = np.empty((1, len(rows)), dtype=[(key, object) for key in rows[0]])
    for position, row in enumerate(rows):
        array[0, position] = tuple(row.values())
    return array


def _cells(values: list) -> np.ndarray:
    """Return MATLAB's cell array [1, N]."""
    array = np.empty((1, len(values)), dtype=object)
    for position, value in enumerate(values):
        array[0, position] = value
    return array
