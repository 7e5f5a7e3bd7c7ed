"""A reproduced table as Markdown, JSON and a picture, measured values beside the published ones."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfhuber.console.files import write_json
from tfhuber.console.lazy import lazy_module
from tfhuber.paper.tables import Cell, Number, Table

if TYPE_CHECKING:
    from matplotlib import figure
else:
    figure = lazy_module("matplotlib.figure")

__all__ = ["markdown", "write"]

_DECIMALS = {"nme": 2, "pckh_0.5": 1, "loss": 1, "nll_relative": 1}
_LABELS = {
    "nme": "NME (%), lower is better",
    "pckh_0.5": "PCKh@0.5 (%), higher is better",
    "loss": "NLL, lower is better",
    "nll_relative": "NLL, lower is better",
}

Values = dict[tuple[str, str], list[float]]


def write(output: Path, name: str, table: Table, values: Values, seeds: int) -> str:
    """Write OUTPUT/NAME.md, .json and .png, and return the Markdown.

    Args:
      output: an existing or new directory.
      name: the table's name, such as "table2".
      table: what its cells are.
      values: (row, column) -> what each seed's run gave.
      seeds: how many runs there should be, so that missing ones are named.
    """
    output.mkdir(parents=True, exist_ok=True)
    text = markdown(name, table, values, seeds)
    (output / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    cells = [
        {
            "row": cell.row,
            "column": cell.column,
            "metric": cell.metric,
            "tta": cell.tta,
            "values": values[cell.row, cell.column],
            "published": cell.published,
        }
        for cell in table.cells
    ]
    write_json(output / f"{name}.json", {"title": table.title, "seeds": seeds, "cells": cells})
    if any(values.values()):
        _picture(table, values).savefig(output / f"{name}.png", dpi=120)
    return text


def markdown(name: str, table: Table, values: Values, seeds: int) -> str:
    """Return the table as Markdown: mean ± standard deviation over the seeds, and the published value."""
    columns = list(dict.fromkeys(cell.column for cell in table.cells))
    rows = list(dict.fromkeys(cell.row for cell in table.cells))
    cells = {(cell.row, cell.column): cell for cell in table.cells}
    with_published = any(cell.published for cell in table.cells)
    head = ["", *(part for c in columns for part in ([c, "published"] if with_published else [c]))]
    if table.increase:
        head.append("increase")
    lines = []
    for row in rows:
        line = [row]
        for column in columns:
            cell = cells[row, column]
            line.append(_measured(cell, values[row, column], seeds))
            if with_published:
                line.append(_number(cell.published, _DECIMALS[cell.metric]))
        if table.increase:
            before, after = (values[row, column] for column in table.increase)
            differences = [b - a for a, b in zip(before, after, strict=False)]
            line.append(_measured(cells[row, columns[0]], differences, seeds))
        lines.append(line)
    text = [f"### {name}: {table.title}", "", _row(head)]
    text += [_row(["---", *(["--:"] * (len(head) - 1))]), *(_row(line) for line in lines), ""]
    spread = "mean ± standard deviation" if seeds > 1 else "one run"
    text.append(f"{seeds} seed{'s' * (seeds > 1)}, {spread}. {table.note}".strip())
    return "\n".join(text)


def _measured(cell: Cell, values: list[float], seeds: int) -> str:
    """Return mean and deviation as text, and how many runs there are if some are missing."""
    if not values:
        return "no run"
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    text = _number((float(np.mean(values)), deviation), _DECIMALS[cell.metric])
    return text if len(values) == seeds else f"{text} ({len(values)} of {seeds} runs)"


def _number(number: Number | None, decimals: int) -> str:
    if number is None:
        return ""
    mean, deviation = number
    return f"{mean:.{decimals}f}" + (
        f" ± {deviation:.{decimals}f}" if deviation is not None else ""
    )


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _picture(table: Table, values: Values) -> "figure.Figure":
    """Return a panel per metric: cells as dots with standard deviations, and the runs behind them."""
    metrics = list(dict.fromkeys(cell.metric for cell in table.cells))
    rows = list(dict.fromkeys(cell.row for cell in table.cells))
    picture = figure.Figure(
        figsize=(6 * len(metrics) + 1.5, 1.6 + 0.55 * len(rows)), layout="constrained"
    )
    picture.suptitle(table.title, fontsize=12)
    for panel, metric in enumerate(metrics):
        axes = picture.add_subplot(1, len(metrics), panel + 1)
        shown = [cell for cell in table.cells if cell.metric == metric]
        columns = list(dict.fromkeys(cell.column for cell in shown))
        for c, column in enumerate(columns):
            offset = 0.5 * ((c + 0.5) / len(columns) - 0.5)
            found = [cell for cell in shown if cell.column == column and values[cell.row, column]]
            places = [rows.index(cell.row) + offset for cell in found]
            runs = [values[cell.row, column] for cell in found]
            axes.errorbar(
                [np.mean(v) for v in runs],
                places,
                xerr=[float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for v in runs],
                fmt="o",
                capsize=3,
                color=f"C{c}",
                label=column,
            )
            for place, v in zip(places, runs, strict=True):
                axes.plot(v, [place] * len(v), "|", color=f"C{c}", alpha=0.5)
        axes.set(xlabel=_LABELS[metric], yticks=range(len(rows)), yticklabels=rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.3)
        if len(columns) > 1:
            axes.legend(fontsize=9)
    return picture
