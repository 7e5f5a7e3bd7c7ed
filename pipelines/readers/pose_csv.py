"""The CSV of DeepLabCut and Lightning Pose: rows of frames, columns of scorer, individual, part and x or y.

The first rows name the columns: `scorer`, perhaps `individuals`, `bodyparts`, `coords`. A row's frame is
one path, or the folder `labeled-data`, the video and the picture in three columns.
"""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.storage import Source

__all__ = ["PoseTable", "read_pose_table"]

# A million labelled frames of twenty points have 400 MB; nobody has labelled as many.
_LARGEST_FILE = 1 << 29
_HEADERS = ("scorer", "individuals", "bodyparts", "coords")
_COORDS = ("x", "y", "likelihood")
# How programs write that there is no number.
_NOTHING = ("", "nan", "na", "n/a", "none", "null")


@dataclass(frozen=True)
class PoseTable:
    """The columns of a file, and its rows.

    Attributes:
      columns: (individual, part, 0 for x or 1 for y) of each column that is read; "" where the file has no
        individuals.
      rows: (line from 1, path of the frame, cells of these columns).
    """

    columns: tuple[tuple[str, str, int], ...]
    rows: tuple[tuple[int, str, tuple[str, ...]], ...]

    @property
    def individuals(self) -> tuple[str, ...]:
        """The individuals, each once, in order."""
        return tuple(dict.fromkeys(individual for individual, _, _ in self.columns))

    def parts(self, individual: str) -> tuple[str, ...]:
        """Return the parts that an individual has, each once, in order."""
        return tuple(dict.fromkeys(part for name, part, _ in self.columns if name == individual))

    def frames(self) -> Iterator[tuple[int, str, dict[str, dict[str, tuple[float, float]]]]]:
        """Yield each frame's line, its path, and the points (x, y) of each individual by part.

        A point of two empty cells is left out; what is no number is NaN.
        """
        for line, path, cells in self.rows:
            found: dict[str, dict[str, list[float]]] = {name: {} for name in self.individuals}
            for (individual, part, axis), cell in zip(self.columns, cells, strict=True):
                if cell.strip().lower() not in _NOTHING:
                    point = found[individual].setdefault(part, [math.nan, math.nan])
                    point[axis] = _number(cell)
            yield (
                line,
                path,
                {
                    name: {part: (x, y) for part, (x, y) in points.items()}
                    for name, points in found.items()
                },
            )


def read_pose_table(source: Source, name: str, scorer: str | None = None) -> PoseTable:
    """Return what a CSV file of a source holds.

    Args:
      source: the data set.
      name: of the file in it.
      scorer: whose columns to take where several scorers have some; None to take no such file.

    Raises:
      ValueError: naming the file, and what is wrong with its first rows.
      OSError: if it cannot be read.
    """
    path = source.path(name)
    lines = _lines(source, name)
    header: dict[str, list[str]] = {}
    number = 0
    for number, row in lines:
        kind = row[0].strip().lower() if row else ""
        if kind not in _HEADERS:
            raise ValueError(
                f"{path} does not begin with the rows scorer, bodyparts and coords of DeepLabCut and "
                f"Lightning Pose: line {number} begins with {kind[:40]!r}"
            )
        header[kind] = [cell.strip() for cell in row]
        if kind == "coords":
            break
    missing = [kind for kind in ("scorer", "bodyparts", "coords") if kind not in header]
    if missing:
        raise ValueError(f"{path} has no row {missing[0]!r} at its beginning")
    chosen = _choose(header, scorer, path)
    first = next(index for index, coord in enumerate(header["coords"]) if coord.lower() in _COORDS)
    rows: list[tuple[int, str, tuple[str, ...]]] = []
    for number, row in lines:
        if not any(cell.strip() for cell in row):
            continue
        frame = "/".join(cell.strip() for cell in row[:first] if cell.strip())
        if not rows and not any(cell.strip() for cell in row[first:]) and "." not in frame:
            continue  # pandas writes the names of the index, if it has some, below those of the columns
        cells = tuple(row[index] if index < len(row) else "" for index in chosen.values())
        rows.append((number, frame.replace("\\", "/"), cells))
    return PoseTable(tuple(chosen), tuple(rows))


def _choose(
    header: dict[str, list[str]], scorer: str | None, path: str
) -> dict[tuple[str, str, int], int]:
    """Return where the columns are that are read."""
    scorers, parts, coords = (header[kind] for kind in ("scorer", "bodyparts", "coords"))
    individuals = header.get("individuals", [""] * len(parts))
    width = len(coords)
    if not len(scorers) == len(parts) == len(individuals) == width:
        raise ValueError(f"{path}: its first rows have different numbers of columns")
    columns = [index for index in range(width) if coords[index].lower() in _COORDS]
    known = sorted({scorers[index] for index in columns})
    if len(known) > 1 and scorer not in known:
        raise ValueError(
            f"{path} has columns of several scorers, {', '.join(known)[:200]}: leave those of one in it"
        )
    found: dict[tuple[str, str, int], int] = {}
    for index in columns:
        kind = coords[index].lower()
        if kind == "likelihood" or (len(known) > 1 and scorers[index] != scorer):
            continue
        key = (individuals[index], parts[index], int(kind == "y"))
        if key in found or not parts[index]:
            what = "no bodypart" if not parts[index] else f"{kind} of {parts[index]!r} twice"
            raise ValueError(f"{path}: column {index + 1} has {what}")
        found[key] = index
    points = {key[:2] for key in found}
    if not points or len(found) != 2 * len(points):
        raise ValueError(f"{path} must have a column x and a column y for each bodypart")
    return found


def _lines(source: Source, name: str) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield the cells of each row with its line, whatever the file's encoding and separator."""
    with source.open(name) as file:
        data = file.read(_LARGEST_FILE + 1)
    path = source.path(name)
    if len(data) > _LARGEST_FILE:
        raise ValueError(f"{path} has more than {_LARGEST_FILE:,} bytes")
    is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = data.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")
    # Behind the first cell, `scorer`; a scorer's own name may hold any of them.
    separator = re.search("[,;\t]", text)
    # Where a semicolon separates cells, a comma may be the decimal point.
    reader = csv.reader(
        io.StringIO(text.replace("\0", ""), newline=""),
        delimiter=separator[0] if separator else ",",
    )
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from None


def _number(cell: str) -> float:
    try:
        return float(cell.replace(",", "."))
    except ValueError:
        return math.nan
