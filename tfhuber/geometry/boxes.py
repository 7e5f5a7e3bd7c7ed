"""The boxes that a user gives: one for all pictures, or a file with one for each."""

import codecs
import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

__all__ = ["Boxes", "box_table", "is_outside", "parse_box", "read_box_lines", "read_boxes"]

_SEPARATORS = (",", ";", "\t")


def parse_box(text: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the box [4] that a user typed as `x0,y0,x1,y1`, float64, in pixels of an image.

    Args:
      text: four numbers with commas between.
      size: width and height of the image, if the box is for a single one.

    Raises:
      ValueError: those are not four finite numbers, or the box is empty or outside the image.
    """
    try:
        box = np.array([float(part) for part in text.split(",")])
    except ValueError:
        box = np.array([np.nan])
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"--box must be four numbers x0,y0,x1,y1, got {text!r}")
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"--box {text} is empty: x0 < x1 and y0 < y1 are required")
    if size and is_outside(box, size):
        raise ValueError(
            f"--box {text} is outside the image, which has {size[0]} x {size[1]} pixels"
        )
    return box


def is_outside(box: np.ndarray, size: tuple[int, int]) -> bool:
    """Return whether a box [4] and an image of `size` (width, height) have no pixel in common."""
    return bool((box[2:] <= -0.5).any() or (box[:2] >= np.array(size) - 0.5).any())


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
    """Return the boxes in a file of this machine, as `box_table` does."""
    with path.open("rb") as file:
        return box_table(file, str(path))


def box_table(file: BinaryIO, path: str) -> dict[str, np.ndarray]:
    """Return the boxes that `read_box_lines` yields, by name or frame.

    Raises:
      ValueError: naming the line at fault, which may be a second one for a name.
      OSError: the file cannot be read.
    """
    boxes: dict[str, np.ndarray] = {}
    for number, name, box in read_box_lines(file, path):
        if name in boxes:
            raise ValueError(f"{path}, line {number}: a second box for {name}")
        boxes[name] = box
    return boxes


def read_box_lines(file: BinaryIO, path: str) -> Iterator[tuple[int, str, np.ndarray]]:
    """Yield the number of each line with a box in it, the name or frame it is for, and the box [4].

    A line of CSV is `name,x0,y0,x1,y1`, and the first may be a heading. Spreadsheets' semicolons or tabs,
    with decimal commas, will do. A JSON line is an object with `box`, a list of four numbers, and
    `source`, a file's name, or `frame`, a number. The text is UTF-8, or UTF-16 with a byte-order mark.

    Args:
      file: at its beginning; it is read once, as it may be a pipe, not held, and closed at its end.
      path: its name, for messages; one that ends in .jsonl is of JSON lines.

    Raises:
      ValueError: naming the line at fault.
    """
    read = _json_line if path.lower().endswith(".jsonl") else _csv_line
    for number, line in enumerate(_text_lines(file), start=1):
        if not line.strip():
            continue
        try:
            name, numbers = read(line)
            if number == 1 and read is _csv_line and _is_heading(numbers):
                continue
            box = parse_box(numbers)
        except (ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
            fault = str(error).removeprefix("--box ")
            raise ValueError(f"{path}, line {number}: {fault}") from None
        yield number, name, box


def _text_lines(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a text in any of the encodings, with their ends."""
    buffered = io.BufferedReader(cast(io.RawIOBase, file))
    is_utf16 = buffered.peek(2).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if is_utf16 else "utf-8-sig"
    with io.TextIOWrapper(buffered, encoding, errors="replace", newline="") as text:
        yield from text


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
