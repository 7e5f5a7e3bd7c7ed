"""Small pose projects in the layouts of DeepLabCut and Lightning Pose, with drawn frames."""

import csv
import io

import numpy as np
from conversion import photograph

CONFIG = """\
Task: Reach
scorer: {scorer}
video_sets:
  C:\\Users\\me\\videos\\a.avi:
    crop: 0, 200, 0, 180
bodyparts: {parts}
skeleton: {skeleton}
"""
PARTS = ("nose", "earL", "earR", "tail")


def points(seed, count=4, size=(200, 180)):
    """Points [count, 2] well within a frame."""
    return np.random.default_rng(seed).uniform(20, np.array(size) - 20, (count, 2)).round(3)


def table(rows, parts=PARTS, *, scorer="Ann", individuals=None, columns=1, delimiter=","):
    """The text of a CSV file.

    Args:
      rows: (path, cells), a cell being a number or a text; paths have `columns` parts.
      parts: names of the columns, x and y each, of every individual.
      scorer: the first row's.
      individuals: names in a row of their own; None for no such row.
      columns: 1 for a path in one column, 3 for one in three.
      delimiter: between cells.
    """
    names = individuals or [None]
    blank = [""] * (columns - 1)
    whole = [(name, part, axis) for name in names for part in parts for axis in "xy"]
    lines = [["scorer", *blank, *[scorer] * len(whole)]]
    if individuals:
        lines.append(["individuals", *blank, *(name for name, _, _ in whole)])
    lines.append(["bodyparts", *blank, *(part for _, part, _ in whole)])
    lines.append(["coords", *blank, *(axis for _, _, axis in whole)])
    for path, cells in rows:
        index = [path] if columns == 1 else path.split("/")
        lines.append([*index, *(str(cell) for cell in np.ravel(np.array(cells, object)))])
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(lines)
    return out.getvalue()


def write_table(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def write_dlc(root, videos=("a", "b"), frames=3, *, scorer="Ann", skeleton="[[nose, earL]]"):
    """A DeepLabCut project with frames of several videos; returns the points by image."""
    root.mkdir(parents=True, exist_ok=True)
    parts = "[" + ", ".join(PARTS) + "]"
    (root / "config.yaml").write_text(CONFIG.format(scorer=scorer, parts=parts, skeleton=skeleton))
    placed = {}
    for v, video in enumerate(videos):
        rows = []
        for f in range(frames):
            name = f"{video}/img{f:03d}.png"
            photograph(root / "labeled-data" / name, seed=10 * v + f)
            placed[name] = points(10 * v + f)
            rows.append((f"labeled-data/{name}", placed[name]))
        path = root / "labeled-data" / video / f"CollectedData_{scorer}.csv"
        write_table(path, table(rows, scorer=scorer))
    return placed
