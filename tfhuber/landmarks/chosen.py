"""The landmark set of predictions that don't name theirs."""

from tfhuber.landmarks import known_sets
from tfhuber.landmarks.landmark_set import LandmarkSet

__all__ = ["chosen"]


def chosen(name: str | None, count: int) -> LandmarkSet | None:
    """Return the set of that name, or in that JSON file; without a name the known one of `count` points.

    Raises:
      ValueError: the set has another number of landmarks, or the file holds none.
      OSError: the file cannot be read.
    """
    if name is None:
        return known_sets.by_count(count)
    is_known = name in known_sets.LANDMARK_SETS
    found = known_sets.get(name) if is_known else known_sets.load(name)
    if found.count != count:
        raise ValueError(
            f"--landmarks {found.name} has {found.count} landmarks, the lines have {count}"
        )
    return found
