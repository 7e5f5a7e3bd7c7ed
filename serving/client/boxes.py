"""The boxes that a user gives: one for all pictures, or a file with one for each."""

import codecs
import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfhuber.saved_model.image_command import parse_box

__all__ = ["Boxes", "read_boxes"]

_SEPARATORS = (",", ";", "\t")


class Boxes:
    """A table of which box belongs to which picture.

    Args:
      default: [4] the box of those that have none of their own; None for all of the picture.
      by_name: boxes by a file's name (its path below the folder, or that path's last part) or a frame's
        number as a string; None if there are none.
    """

    def __init__(
        self, default: np.ndarray | None = None, by_name: Mapping[str, np.ndarray] | None = None
    ):
        self._default = default
        self._by_name = by_name
        self._used: set[str] = set()

    def find(self, *names: str) -> np.ndarray | None:
        """Return the box under the first of some names that has one, or else the default.

        Raises:
          ValueError: there are boxes, but none under these names, and no default.
        """
        for name in names:
            if self._by_name and name in self._by_name:
                self._used.add(name)
                return self._by_name[name]
        if self._by_name is not None and self._default is None:
            raise ValueError(f"no box for {names[0]} in --boxes, and no --box for the others")
        return self._default

    def unused(self) -> list[str]:
        """Return the names that have a box and that nobody has asked for."""
        return [name for name in self._by_name or {} if name not in self._used]


def read_boxes(path: Path) -> dict[str, np.ndarray]:
    """Return the boxes in a CSV file, or in JSON lines if its name ends in .jsonl; by name or frame.

    A line of CSV is `name,x0,y0,x1,y1`, and the first may be a heading. Spreadsheets' semicolons or tabs,
    with decimal commas, will do. A JSON line is an object with `box`, a list of four numbers, and
    `source`, a file's name, or `frame`, a number. The text is UTF-8, or UTF-16 with a byte-order mark.

    Raises:
      ValueError: naming the line at fault.
      OSError: the file cannot be read.
    """
    boxes: dict[str, np.ndarray] = {}
    read = _json_line if path.suffix.lower() == ".jsonl" else _csv_line
    data = path.read_bytes()  # Once: it may be a pipe.
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        if not line.strip():
            continue
        try:
            name, numbers = read(line)
            if number == 1 and read is _csv_line and _is_heading(numbers):
                continue
            box = parse_box(numbers)
            if name in boxes:
                raise ValueError(f"a second box for {name}")
        except (ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
            fault = str(error).removeprefix("--box ")
            raise ValueError(f"{path}, line {number}: {fault}") from None
        boxes[name] = box
    return boxes


def _csv_line(line: str) -> tuple[str, str]:
    """Return the name and the four numbers, by the first separator that makes them such."""
    readings = []
    for separator in _SEPARATORS:
        name, *numbers = (value.strip() for value in next(csv.reader([line], delimiter=separator)))
        if separator != ",":
            numbers = [number.replace(",", ".") for number in numbers]
        readings.append((name, numbers))
    fits = [reading for reading in readings if len(reading[1]) == 4]
    good = [reading for reading in fits if all(map(_is_number, reading[1]))]
    name, numbers = (good or fits or readings)[0]
    return name, ",".join(numbers)


def _is_heading(text: str) -> bool:
    """Return whether there are four values that are words."""
    values = [value.strip() for value in text.split(",")]
    return len(values) == 4 and all(v[:1].isalpha() and not _is_number(v) for v in values)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _json_line(line: str) -> tuple[str, str]:
    values = json.loads(line)
    if not isinstance(values, dict) or not isinstance(values.get("box"), list):
        raise ValueError('must be an object with a list "box"')
    name = values.get("source") if values.get("frame") is None else values["frame"]
    if name is None:
        raise ValueError('must have a "source", a file\'s name, or a "frame", a number')
    return str(name), ",".join(map(str, values["box"]))
