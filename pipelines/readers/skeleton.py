"""A skeleton as pose tools have it, and the landmark set that it becomes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.readers.mirror_pairs import mirror_pairs
from tfhuber.landmarks.known_sets import LANDMARK_SETS, LandmarkSet, parse

__all__ = ["Skeleton", "known_landmark_set", "landmark_set_of"]

# At most so many names are said in a line.
_MOST_NAMED = 20


@dataclass(frozen=True)
class Skeleton:
    """What a project says of its points.

    Attributes:
      name: of the project or the animal.
      parts: the points' names, in order.
      edges: pairs of names that are joined when drawn.
      mirror: pairs of names that change places in a mirror image; None if the names must tell.
    """

    name: str
    parts: tuple[str, ...]
    edges: tuple[tuple[str, str], ...] = ()
    mirror: tuple[tuple[str, str], ...] | None = None


def landmark_set_of(skeleton: Skeleton, where: str) -> tuple[LandmarkSet, tuple[str, ...]]:
    """Return the landmark set that a skeleton becomes, and what to tell the user about it.

    Raises:
      ValueError: naming `where` it is from, if a name is empty, too long, or there twice.
    """
    parts = set(skeleton.parts)
    edges = list(dict.fromkeys(e for e in skeleton.edges if set(e) <= parts and e[0] != e[1]))
    pairs, alone = mirror_pairs(skeleton.parts)
    if skeleton.mirror is not None:
        pairs, alone = [pair for pair in skeleton.mirror if set(pair) <= parts], []
    found = parse(
        {
            "name": _plain(skeleton.name),
            "landmarks": list(skeleton.parts),
            "mirror": list(map(list, pairs)),
            "edges": list(map(list, edges)),
        },
        where,
    )
    lost = [f"{a} - {b}" for a, b in skeleton.edges if not {a, b} <= parts]
    return found, tuple(_remarks(found, pairs, alone, lost))


def known_landmark_set(wanted: LandmarkSet, parts: Iterable[str], where: str) -> LandmarkSet:
    """Return the landmark set that is wanted of these parts; ValueError if none of it is there."""
    if not set(wanted.names) & set(parts):
        raise ValueError(
            f"{where} has none of the landmarks of {wanted.name!r}; its points are {_few(parts)}"
        )
    if wanted.normalizer == "reader":
        raise ValueError(
            f"the normalizer of {wanted.name!r} is not known from {where}: nothing could be scored; let "
            'it be "box" or a distance'
        )
    return wanted


def _remarks(
    found: LandmarkSet, pairs: list[tuple[str, str]], alone: list[str], lost: list[str]
) -> Iterable[str]:
    yield f"landmarks: {_few(found.names)}; {len(found.edges)} edges"
    if lost:
        yield f"note: the skeleton joins points that are not there: {_few(lost)}"
    if pairs:
        yield f"mirror pairs: {_few(' - '.join(pair) for pair in pairs)}"
    else:
        yield (
            "mirror pairs: none, as no names differ in left and right; if a mirror image of your animal "
            "cannot exist, train with --set augmentation.mirror=0"
        )
    if alone:
        yield (
            f"note: without another side: {_few(alone)}; a mirror image would give them wrong labels. Name "
            "the pairs in a file for --landmarks, or train with --set augmentation.mirror=0"
        )


def _few(names: Iterable[str]) -> str:
    known = list(names)
    more = len(known) - _MOST_NAMED
    return ", ".join(known[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _plain(name: str) -> str:
    """Return a name of the letters that a landmark set's may have, and of no known set."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:90] or "animal"
    return f"{plain}_skeleton" if plain in LANDMARK_SETS else plain
