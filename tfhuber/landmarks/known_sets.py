"""The known landmark sets, and anyone's own."""

from itertools import pairwise
from pathlib import Path

from tfhuber.console.files import read_json
from tfhuber.landmarks.landmark_set import LandmarkSet, describe, from_description

__all__ = [
    "COCO",
    "LANDMARK_SETS",
    "LP300W",
    "MPII",
    "WFLW",
    "LandmarkSet",
    "by_count",
    "describe",
    "get",
    "load",
    "parse",
]


def _chain(*points: int) -> tuple[tuple[int, int], ...]:
    return tuple(pairwise(points))


def _names(**parts: int) -> tuple[str, ...]:
    return tuple(f"{part}_{i}" for part, count in parts.items() for i in range(count))


def _mirror(*pieces: range | tuple[int, ...]) -> tuple[int, ...]:
    return tuple(i for piece in pieces for i in piece)


# Left and right are the viewer's: `left_eye` is the one on the left of an upright image.
WFLW = LandmarkSet(
    name="wflw",
    names=_names(
        jaw=33,
        left_brow=9,
        right_brow=9,
        nose_bridge=4,
        nose_base=5,
        left_eye=8,
        right_eye=8,
        outer_lips=12,
        inner_lips=8,
        left_pupil=1,
        right_pupil=1,
    ),
    mirror=_mirror(
        range(32, -1, -1),
        (46, 45, 44, 43, 42, 50, 49, 48, 47),
        (37, 36, 35, 34, 33, 41, 40, 39, 38),
        range(51, 55),
        range(59, 54, -1),
        (72, 71, 70, 69, 68, 75, 74, 73),
        (64, 63, 62, 61, 60, 67, 66, 65),
        range(82, 75, -1),
        range(87, 82, -1),
        range(92, 87, -1),
        range(95, 92, -1),
        (97, 96),
    ),
    edges=(
        *_chain(*range(33)),
        *_chain(*range(33, 42), 33),
        *_chain(*range(42, 51), 42),
        *_chain(*range(51, 55)),
        *_chain(*range(55, 60)),
        *_chain(*range(60, 68), 60),
        *_chain(*range(68, 76), 68),
        *_chain(*range(76, 88), 76),
        *_chain(*range(88, 96), 88),
    ),
    metric="nme",
    square="diagonal",
    normalizer=(60, 72),
    groups={
        "jaw": tuple(range(33)),
        "brows": tuple(range(33, 51)),
        "nose": tuple(range(51, 60)),
        "eyes": (*range(60, 76), 96, 97),
        "mouth": tuple(range(76, 96)),
    },
    contours=((0, 16), (16, 32)),
    attributes=("large_pose", "expression", "illumination", "make_up", "occlusion", "blur"),
)

# The 68 points of Multi-PIE and 300W; left and right are the viewer's, as in WFLW. On a turned head
# the jaw's points follow the contour that is seen, without dividing it equally.
LP300W = LandmarkSet(
    name="300w_lp",
    names=_names(
        jaw=17,
        left_brow=5,
        right_brow=5,
        nose_bridge=4,
        nose_base=5,
        left_eye=6,
        right_eye=6,
        outer_lips=12,
        inner_lips=8,
    ),
    mirror=_mirror(
        range(16, -1, -1),
        range(26, 16, -1),
        range(27, 31),
        range(35, 30, -1),
        (45, 44, 43, 42, 47, 46),
        (39, 38, 37, 36, 41, 40),
        range(54, 47, -1),
        range(59, 54, -1),
        range(64, 59, -1),
        range(67, 64, -1),
    ),
    edges=(
        *_chain(*range(17)),
        *_chain(*range(17, 22)),
        *_chain(*range(22, 27)),
        *_chain(*range(27, 31)),
        *_chain(*range(31, 36)),
        *_chain(*range(36, 42), 36),
        *_chain(*range(42, 48), 42),
        *_chain(*range(48, 60), 48),
        *_chain(*range(60, 68), 60),
    ),
    metric="nme",
    square="diagonal",
    normalizer=(36, 45),
    groups={
        "jaw": tuple(range(17)),
        "brows": tuple(range(17, 27)),
        "nose": tuple(range(27, 36)),
        "eyes": tuple(range(36, 48)),
        "mouth": tuple(range(48, 68)),
    },
)

# Left and right are the person's, as in MPII.
MPII = LandmarkSet(
    name="mpii",
    names=(
        "right_ankle",
        "right_knee",
        "right_hip",
        "left_hip",
        "left_knee",
        "left_ankle",
        "pelvis",
        "thorax",
        "upper_neck",
        "head_top",
        "right_wrist",
        "right_elbow",
        "right_shoulder",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
    ),
    mirror=(5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10),
    edges=(
        *_chain(0, 1, 2, 6, 3, 4, 5),
        *_chain(6, 7, 8, 9),
        *_chain(10, 11, 12, 7, 13, 14, 15),
    ),
    metric="pckh",
    square="longest",
    normalizer="reader",
    shift_in_company=False,
    # MPII's mean leaves out pelvis (6) and thorax (7), so no group holds them.
    groups={
        "head": (8, 9),
        "shoulder": (12, 13),
        "elbow": (11, 14),
        "wrist": (10, 15),
        "hip": (2, 3),
        "knee": (1, 4),
        "ankle": (0, 5),
    },
)

# The body joints of COCO's keypoint challenge and its skeleton; left and right are the person's.
_COCO_PARTS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO = LandmarkSet(
    name="coco",
    names=("nose", *(f"{side}_{part}" for part in _COCO_PARTS for side in ("left", "right"))),
    mirror=(0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15),
    edges=(
        *_chain(15, 13, 11, 12, 14, 16),
        *_chain(9, 7, 5, 6, 8, 10),
        *_chain(5, 3, 1, 0, 2, 4, 6),
        (1, 2),
        (5, 11),
        (6, 12),
    ),
    metric="nme",
    square="longest",
    normalizer="box",
    groups={
        "head": (0, 1, 2, 3, 4),
        "shoulder": (5, 6),
        "elbow": (7, 8),
        "wrist": (9, 10),
        "hip": (11, 12),
        "knee": (13, 14),
        "ankle": (15, 16),
    },
)

LANDMARK_SETS = {s.name: s for s in (WFLW, MPII, LP300W, COCO)}


def get(name: str) -> LandmarkSet:
    """Return the landmark set of that name; ValueError names the known ones otherwise."""
    if name not in LANDMARK_SETS:
        raise ValueError(
            f"unknown landmark set {name!r}; known: {', '.join(sorted(LANDMARK_SETS))}"
        )
    return LANDMARK_SETS[name]


def by_count(count: int) -> LandmarkSet | None:
    """Return the landmark set with `count` points, or None: how a client knows what to draw."""
    return next((s for s in LANDMARK_SETS.values() if s.count == count), None)


def load(path: str | Path) -> LandmarkSet:
    """Return the landmark set that a JSON file describes; ValueError names the file and what is wrong."""
    return parse(read_json(path), str(path))


def parse(value: str | dict, where: str = "landmark set") -> LandmarkSet:
    """Return the landmark set of that name, or with that description.

    Raises:
      ValueError: naming `where` it came from, the key and what is wrong with it.

    Example:
      >>> parse({"name": "hand", "landmarks": ["pivot", "tip"], "edges": [["pivot", "tip"]]}).edges
      ((0, 1),)
    """
    try:
        if isinstance(value, str):
            return get(value)
        found = from_description(value)
        known = LANDMARK_SETS.get(found.name, found)
        if known.names != found.names:
            raise ValueError(f"name: {known.name!r} is a known set with other landmarks")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return found
