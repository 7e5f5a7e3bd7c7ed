"""What options of a data set of your own name: a file for a split, a landmark set."""

import json

from pipelines.storage import exists, is_local, open_file
from tfhuber.landmarks.known_sets import LANDMARK_SETS, LandmarkSet, load, parse

__all__ = ["SPLITS", "assignment", "named_landmark_set"]

SPLITS = ("train", "valid", "test")


def assignment(option: str, text: str) -> tuple[str, str]:
    """Return the split and the name in `SPLIT=NAME`; ValueError names the option."""
    split, _, name = text.partition("=")
    if split not in SPLITS or not name:
        raise ValueError(
            f"{option} must be SPLIT=NAME with one of {', '.join(SPLITS)} as SPLIT, got {text!r}"
        )
    return split, name


def named_landmark_set(name: str, hint: str = "") -> LandmarkSet:
    """Return the known set of that name, or the one in that JSON file.

    Raises:
      ValueError: if there is no such file, which ends with `hint`, or it describes no landmark set.
    """
    if name in LANDMARK_SETS:
        return LANDMARK_SETS[name]
    if not exists(name):
        raise ValueError(
            f"there is no landmark set {name}: describe your landmarks in such a file, or give "
            f"--landmarks one of {', '.join(LANDMARK_SETS)}. {hint}".rstrip()
        )
    if is_local(name):
        return load(name)
    with open_file(name) as file:
        try:
            values = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name} is not JSON that can be read: {error}") from None
    return parse(values, name)
