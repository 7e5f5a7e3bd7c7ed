"""What a landmark set is: its points' names, mirror image, edges to draw, and what normalises an error."""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["LANDMARK_SETS", "LP300W", "MPII", "WFLW", "LandmarkSet", "by_count", "get"]


@dataclass(frozen=True)
class LandmarkSet:
    """The fixed facts about the points that a model predicts.

    Attributes:
      name: short name, as in configurations and manifests.
      names: one name a landmark, in the data set's official order.
      mirror: permutation such that landmark `mirror[k]` of a mirrored image is landmark `k`.
      edges: pairs of landmarks joined when drawn.
      square: how a box becomes the square the network sees (`geometry.square_around`).
      groups: named groups of landmarks that an evaluation reports.
      metric: "nme" (mean error over the distance between two landmarks) or "pckh".
      contours: (first, last) runs of landmarks that divide a contour into equal lengths; only the
        ends have an identity of their own.
      attributes: names of the 0/1 flags each example carries; evaluation reports each one's subset.
    """

    name: str
    names: tuple[str, ...]
    mirror: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    metric: str
    square: str
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)
    contours: tuple[tuple[int, int], ...] = ()
    attributes: tuple[str, ...] = ()

    def __post_init__(self):
        mirror = np.asarray(self.mirror)
        if sorted(self.mirror) != list(range(len(self.names))) or np.any(
            mirror[mirror] != np.arange(len(mirror))
        ):
            raise ValueError(f"mirror of {self.name} must be a permutation that undoes itself")

    @property
    def count(self) -> int:
        """The number of landmarks, K."""
        return len(self.names)


def _chain(first: int, last: int, closed: bool = False) -> tuple[tuple[int, int], ...]:
    edges = tuple((i, i + 1) for i in range(first, last))
    return (*edges, (last, first)) if closed else edges


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
        *_chain(0, 32),
        *_chain(33, 41, closed=True),
        *_chain(42, 50, closed=True),
        *_chain(51, 54),
        *_chain(55, 59),
        *_chain(60, 67, closed=True),
        *_chain(68, 75, closed=True),
        *_chain(76, 87, closed=True),
        *_chain(88, 95, closed=True),
    ),
    metric="nme",
    square="diagonal",
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
        *_chain(0, 16),
        *_chain(17, 21),
        *_chain(22, 26),
        *_chain(27, 30),
        *_chain(31, 35),
        *_chain(36, 41, closed=True),
        *_chain(42, 47, closed=True),
        *_chain(48, 59, closed=True),
        *_chain(60, 67, closed=True),
    ),
    metric="nme",
    square="diagonal",
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
        (0, 1),
        (1, 2),
        (2, 6),
        (6, 3),
        (3, 4),
        (4, 5),
        (6, 7),
        (7, 8),
        (8, 9),
        (10, 11),
        (11, 12),
        (12, 7),
        (7, 13),
        (13, 14),
        (14, 15),
    ),
    metric="pckh",
    square="longest",
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

LANDMARK_SETS = {s.name: s for s in (WFLW, MPII, LP300W)}


def get(name: str) -> LandmarkSet:
    """The landmark set of that name; ValueError names the known ones otherwise."""
    if name not in LANDMARK_SETS:
        raise ValueError(
            f"unknown landmark set {name!r}; known: {', '.join(sorted(LANDMARK_SETS))}"
        )
    return LANDMARK_SETS[name]


def by_count(count: int) -> LandmarkSet | None:
    """The landmark set with `count` points, or None: how a client knows what to draw."""
    return next((s for s in LANDMARK_SETS.values() if s.count == count), None)
