"""The categories of a COCO file whose annotations are wanted, and the order of their keypoints."""

import json
import sqlite3
from dataclasses import dataclass

from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = ["Category", "choose"]


@dataclass(frozen=True)
class Category:
    """A category whose annotations are wanted.

    Attributes:
      count: how many keypoints its annotations have.
      order: of each landmark, its place among them.
    """

    count: int
    order: tuple[int, ...]

    def labels(self, row: sqlite3.Row) -> dict:
        """Return the JSON that `Coco.labels` reads: the keypoints in the landmarks' order, or the fault."""
        values = json.loads(row["labels"])
        if "fault" in values:
            return values
        numbers = values["keypoints"]
        if len(numbers) != 3 * self.count:
            detail = f"keypoints are {len(numbers)} numbers instead of {3 * self.count}"
            return {"fault": ["wrong_keypoint_count", detail]}
        keypoints = [numbers[3 * place : 3 * place + 3] for place in self.order]
        size = row["size"] and json.loads(row["size"])
        return values | {"keypoints": keypoints, "people": row["people"], "size": size}


def choose(
    categories: list[dict], names: tuple[str, ...], wanted: LandmarkSet, path: str
) -> dict[str, Category]:
    """Return, by id as JSON has it, the categories of these names; without names all with keypoints.

    Raises:
      ValueError: if a name is not that of one category; if there are no names, and the categories do not
        have the same keypoints; or if a landmark is missing.
    """
    if not categories:
        raise ValueError(f"{path} is not COCO keypoints: it has no categories")
    found = [each for each in categories if each.get("name") in names]
    if not names:
        found = [each for each in categories if each.get("keypoints")] or categories
    if fault := _fault(found, names):
        known = ", ".join(f"{each.get('name')!r:.60}" for each in categories[:20])
        raise ValueError(f"{path}: --category must choose {fault}; there are: {known}")
    chosen = {}
    for category in found:
        keypoints = category.get("keypoints")
        keypoints = [str(name) for name in keypoints] if isinstance(keypoints, list) else []
        order = _order(keypoints, wanted, path)
        chosen[category["id"]] = Category(len(keypoints) or wanted.count, order)
    return chosen


def _fault(found: list[dict], names: tuple[str, ...]) -> str | None:
    """Return what the names must choose instead of the categories found; None if these will do."""
    for name in names:
        if (count := sum(each.get("name") == name for each in found)) != 1:
            return f"one category, not {count} that are called {name!r}"
    keypoints = {str(each.get("keypoints")) for each in found}
    if not names and len(found) > 1 and (len(keypoints) > 1 or not found[0].get("keypoints")):
        return "one category, or several by repeating it, as they do not have the same keypoints"
    return None


def _order(names: list[str], wanted: LandmarkSet, path: str) -> tuple[int, ...]:
    """Return each landmark's place among keypoints of these names; without names, the order is the same."""
    missing = [name for name in wanted.names if names.count(name) != 1]
    if not missing:
        return tuple(map(names.index, wanted.names))
    numbered = len(names) == wanted.count and all(name.isdigit() for name in names)
    if names and not numbered:
        raise ValueError(
            f"{path} must name each landmark of {wanted.name!r} once, and does not so name "
            f"{', '.join(missing[:8])}; its keypoints are {', '.join(names[:8])!r:.400}"
        )
    return tuple(range(wanted.count))
