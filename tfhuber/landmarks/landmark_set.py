"""A landmark set: its points' names, mirror image, edges to draw, and what normalises an error.

A description is the same in JSON, with every landmark by its name; `docs/bring_your_own_data.md`
explains its keys.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from tfhuber.geometry.box_square import SQUARE_RULES

__all__ = ["LandmarkSet", "describe", "from_description"]

_METRICS = ("nme", "pckh")
_LENGTHS = ("box", "reader")
_NORMALIZER = '"box", "reader" or the distance between two landmarks, {"distance": [A, B]}'


@dataclass(frozen=True)
class LandmarkSet:
    """The fixed facts about the points that a model predicts.

    Attributes:
      name: short name, as in configurations and manifests.
      names: one name a landmark, in the data set's official order.
      mirror: permutation such that landmark `mirror[k]` of a mirrored image is landmark `k`.
      edges: pairs of landmarks joined when drawn.
      metric: "nme" (mean error over the normalizer) or "pckh".
      square: how a box becomes the region the network sees (`box_square.region_around`).
      groups: named groups of landmarks that an evaluation reports.
      contours: (first, last) runs of landmarks that divide a contour into equal lengths; only the
        ends have an identity of their own.
      attributes: names of the 0/1 flags each example carries; evaluation reports each one's subset.
      normalizer: the length that errors are divided by: the distance between two landmarks, "box" for
        the square root of the box's area, or "reader" if only the data set's reader knows it.
      shift_in_company: whether training shifts the crop at random if the image holds several people.
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
    normalizer: tuple[int, int] | str = "box"
    shift_in_company: bool = True

    def __post_init__(self) -> None:
        mirror = np.asarray(self.mirror)
        if sorted(self.mirror) != list(range(self.count)) or np.any(
            mirror[mirror] != np.arange(len(mirror))
        ):
            raise ValueError(f"mirror of {self.name} must be a permutation that undoes itself")
        ends = () if isinstance(self.normalizer, str) else (self.normalizer,)
        if not (len(set(self.normalizer)) == 2 if ends else self.normalizer in _LENGTHS):
            raise ValueError(f"normalizer must be {_NORMALIZER}, got {self.normalizer!r}")
        for points in (*self.edges, *self.groups.values(), *self.contours, *ends):
            if not all(0 <= point < self.count for point in points):
                raise ValueError(
                    f"landmarks of {self.name} are 0 to {self.count - 1}, got {points}"
                )
        if not all(first < last for first, last in self.contours):
            raise ValueError(f"contours of {self.name} must go from a landmark to a later one")
        for name, known in (("square", SQUARE_RULES), ("metric", _METRICS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if self.metric == "pckh" and not any(self.groups.values()):
            raise ValueError('metric "pckh" is a mean over the landmarks of groups: there are none')

    @property
    def count(self) -> int:
        """The number of landmarks, K."""
        return len(self.names)

    def normalizer_length(
        self, landmarks: np.ndarray, weights: np.ndarray, box: np.ndarray
    ) -> float:
        """Return the length that an example's errors are divided by, in its labels' pixels; 0 if unknown.

        Args:
          landmarks: [K, 2].
          weights: [K]; a distance needs both of its landmarks labelled.
          box: [4] x0, y0, x1, y1.
        """
        if isinstance(self.normalizer, str):
            is_box = self.normalizer == "box"
            return float(np.sqrt((box[2] - box[0]) * (box[3] - box[1]))) if is_box else 0.0
        a, b = self.normalizer
        labelled = weights[a] > 0 and weights[b] > 0
        return float(np.linalg.norm(landmarks[a] - landmarks[b])) if labelled else 0.0


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("must be printable")
    return name


_Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
_Pair = Annotated[list[str], Field(min_length=2, max_length=2)]
_Distance = Annotated[dict[Literal["distance"], _Pair], Field(min_length=1)]


class _Description(BaseModel):
    """A landmark set as people write it: every landmark by its name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=100)]
    landmarks: Annotated[list[_Name], Field(min_length=1, max_length=1000)]
    mirror: list[_Pair] = []
    edges: list[_Pair] = []
    normalizer: Literal["box", "reader"] | _Distance = "box"
    square: Literal["diagonal", "longest", "stretch"] = "longest"
    metric: Literal["nme", "pckh"] = "nme"
    groups: dict[_Name, list[str]] = {}
    contours: list[_Pair] = []
    attributes: list[_Name] = []
    shift_in_company: bool = True


def from_description(values: dict) -> LandmarkSet:
    """Return the landmark set that `describe` made these values of; ValueError names the key at fault."""
    try:
        d = _Description.model_validate(values)
    except ValidationError as error:
        raise ValueError(_explain(error.errors()[0])) from None
    names = tuple(d.landmarks)
    _check_unique("landmarks", names)
    _check_unique("mirror", [name for pair in d.mirror for name in pair])
    _check_unique("attributes", d.attributes)

    def places(key: str, runs: Iterable[list[str]]) -> tuple[tuple[int, ...], ...]:
        for name in (name for run in runs for name in run):
            if name not in names:
                raise ValueError(f"{key}: {name!r} is no landmark; {_nearest(name, names)}")
        return tuple(tuple(map(names.index, run)) for run in runs)

    def pairs(key: str, runs: Iterable[list[str]]) -> tuple[tuple[int, int], ...]:
        return tuple((first, second) for first, second in places(key, runs))

    swapped = {a: b for pair in pairs("mirror", d.mirror) for a, b in (pair, pair[::-1])}
    return LandmarkSet(
        name=d.name,
        names=names,
        mirror=tuple(swapped.get(point, point) for point in range(len(names))),
        edges=pairs("edges", d.edges),
        metric=d.metric,
        square=d.square,
        groups=dict(zip(d.groups, places("groups", d.groups.values()), strict=True)),
        contours=pairs("contours", d.contours),
        attributes=tuple(d.attributes),
        normalizer=d.normalizer
        if isinstance(d.normalizer, str)
        else pairs("normalizer", d.normalizer.values())[0],
        shift_in_company=d.shift_in_company,
    )


def describe(landmark_set: LandmarkSet) -> dict:
    """Return the description, ready for JSON, of which `parse` makes the same landmark set."""
    s = landmark_set

    def named(runs: Iterable[Iterable[int]]) -> list[list[str]]:
        return [[s.names[point] for point in points] for points in runs]

    return {
        "name": s.name,
        "landmarks": list(s.names),
        "mirror": named((a, b) for a, b in enumerate(s.mirror) if a < b),
        "edges": named(s.edges),
        "normalizer": s.normalizer
        if isinstance(s.normalizer, str)
        else {"distance": named([s.normalizer])[0]},
        "square": s.square,
        "metric": s.metric,
        "groups": dict(zip(s.groups, named(s.groups.values()), strict=True)),
        "contours": named(s.contours),
        "attributes": list(s.attributes),
        "shift_in_company": s.shift_in_company,
    }


def _check_unique(key: str, names: Iterable[str]) -> None:
    name, times = Counter(names).most_common(1)[0] if names else ("", 0)
    if times > 1:
        raise ValueError(f"{key}: {name!r} is there {times} times")


def _explain(fault: ErrorDetails) -> str:
    """Return a fault that pydantic found, in one line."""
    where = ".".join(map(str, fault["loc"]))
    where = where if where.isprintable() else repr(where)
    if fault["type"] == "extra_forbidden":
        return f"unknown key {where!r}; {_nearest(where, list(_Description.model_fields))}"
    if fault["type"] == "missing":
        return f"{where} is required"
    if where.startswith("normalizer"):
        return f"normalizer must be {_NORMALIZER}"
    if not where:
        return f"must be a JSON object, got {fault['input']!r:.60}"
    return f"{where}: {fault['msg'].removeprefix('Value error, ')} (got {fault['input']!r:.60})"


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known[:20])}"
