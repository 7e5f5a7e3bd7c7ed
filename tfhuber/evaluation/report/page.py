"""The report of an evaluation: numbers, curves, errors by landmark, photographs; one HTML file."""

import functools
import html
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tfhuber.console.files import Aside, blamed
from tfhuber.data.dataset import Split
from tfhuber.data.photographs import photograph_name
from tfhuber.evaluation import detail, examples, metrics
from tfhuber.evaluation.predictions import Predictions
from tfhuber.evaluation.report import curves, photographs
from tfhuber.evaluation.report.style import STYLE
from tfhuber.evaluation.summary import error_unit, headline
from tfhuber.model.predictor import Predictor

__all__ = ["Draw", "Subject", "write_report"]

# From an example's index and a count to shapes [count, K, 2] in original pixels.
Draw: TypeAlias = Callable[[int, int], np.ndarray]

_SHAPES = 8  # drawn over a photograph


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
      raw: the predictions of the split's examples, as the model makes them.
      predictor: with the energy of `predictions`.
      predictions: calibrated, or `raw`.
      split: whose examples they are.
      metrics: what the evaluation's JSON holds.
      facts: what is said of the origin: the run, the command.
      draw: from an example's index and a count to predicted shapes; None if there are none.
    """

    raw: Predictions
    predictor: Predictor
    predictions: Predictions
    split: Split
    metrics: Mapping[str, Any]
    facts: Mapping[str, str]
    draw: Draw | None = None

    def probabilities(self) -> dict[str, np.ndarray]:
        """Return by "raw" and "calibrated" the probability [M] of the ellipse through each label."""
        kinds = {"raw": self.raw}
        if "calibrated" in self.metrics["coverage"]:
            kinds["calibrated"] = self.predictions
        return {name: each.radial_cdf[each.weights > 0] for name, each in kinds.items()}


def write_report(path: Path, subject: Subject) -> None:
    """Write the report, and create its directory if need be.

    Args:
      path: of the HTML file.
      subject: what it is about.

    Raises:
      ValueError: if an example that is shown cannot be read.
      OSError: if the file cannot be written.
    """
    title = f"{headline(dict(subject.metrics))}: {subject.predictor.landmark_set.name}"
    body = "\n".join(
        [
            _head(title, subject),
            _coverage(subject),
            _figures(subject),
            _photographs(subject),
            _shapes(subject),
            _errors(subject),
        ]
    )
    text = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with Aside(path) as aside, blamed(path):
        aside.open().write(text)


def _head(title: str, subject: Subject) -> str:
    m = subject.metrics
    calibrated = "no"
    if "calibrated" in m:
        source = m["calibrated"]["source"]
        calibrated = f"by {source['photographs']} photographs of split {source['split']!r}"
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "command": subject.facts["command"],
        "run": subject.facts["run"],
        "checkpoint": f"{m['checkpoint']}, step {m['step']}",
        "split": m["split"],
        "data": m["data"]["directory"],
        "data, SHA-256": str(m["data"]["sha256"]),
        "test-time augmentation": m["tta"],
        "calibrated": calibrated,
        "examples": f"{len(subject.raw.id)}, on {_count(subject.raw)} photographs with labels",
    }
    whole = m["errors"]["all"]
    numbers = {"mean error": _length(whole, "mean"), "median error": _length(whole, "median")}
    names = ("nme", "failure_rate_10", "auc_10", "pckh_0.5", "pckh_0.1", "nll", "coverage_90")
    numbers |= {name: f"{m[name]:.4g}" for name in names if name in m}
    tiles = "".join(
        f"<div><b>{html.escape(value)}</b>{html.escape(name)}</div>"
        for name, value in numbers.items()
    )
    rows = [[name, value] for name, value in facts.items()]
    return (
        f'<h1>{html.escape(title)}</h1><div class="tiles">{tiles}</div>'
        f"<details open><summary>Where this is from</summary>{_table(None, rows)}</details>"
    )


def _coverage(subject: Subject) -> str:
    """Return the table of the labels inside, raw against calibrated, by part."""
    found = subject.metrics["coverage"]
    head = ["", "labels", "", *(f"{100 * level:g} %" for level in detail.LEVELS)]
    parts: list[tuple[str, tuple[str, ...]]] = [("all", ("all",))]
    for kind, word in (("groups", ""), ("thirds", "third: "), ("subsets", "subset: ")):
        parts += [(word + name, (kind, name)) for name in found["raw"][kind]]
    for which in ("best", "worst"):
        name = found[next(reversed(found))][which]
        parts.append((f"{which} landmark: {name}", ("landmarks", name)))
    rows = []
    for label, keys in parts:
        for i, (kind, each) in enumerate(found.items()):
            values = functools.reduce(operator.getitem, keys, each)
            shares = [f"{100 * values[f'{100 * level:g}']:.1f}" for level in detail.LEVELS]
            first = ["", ""] if i else [label, f"{values['labels']:,}"]
            rows.append([*first, kind, *shares])
    return (
        "<h2>Labels inside the ellipses, in percent</h2><p>Of a calibrated model as many as the head says. "
        "Thirds are of the predicted size of the regions: easy is where the model is surest.</p>"
        f"{_table(head, rows)}"
    )


def _figures(subject: Subject) -> str:
    cdfs, count = subject.probabilities(), _count(subject.raw)
    errors = _example_errors(subject)
    known = np.isfinite(errors)
    drawn = {
        "The nearer to the diagonal, the better. Chance alone keeps a calibrated model inside the "
        f"band 95 times in 100, at {count} photographs.": curves.coverage_curve(cdfs, count),
        "Flat if calibrated; high on the left: too unsure; high on the right: too sure.": (
            curves.pit_histogram(cdfs, count)
        ),
        "Mean error if only the examples that the model is surest of are answered.": (
            curves.risk_curve(errors[known], subject.raw.size[known], _unit(subject))
        ),
    }
    figures = "".join(
        f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, svg in drawn.items()
    )
    return f'<h2>Curves</h2><div class="figures">{figures}</div>'


def _photographs(subject: Subject) -> str:
    p, errors = subject.predictions, _example_errors(subject)
    distribution = p.predicted.distribution(subject.predictor.energy)
    labelled = p.weights > 0
    radius = np.where(labelled, distribution.radius(p.truth).numpy(), np.nan)
    distance = metrics.point_errors(p.landmarks, p.truth)
    picks = photographs.choose(errors, radius)
    wanted = {i for chosen in picks.values() for i in chosen}
    crops = examples.crops(subject.predictor, subject.split, p, wanted, photographs.SIDE)

    def shown(i: int) -> str:
        error = f"{errors[i]:.2f} {_unit(subject)}" if np.isfinite(errors[i]) else "error unknown"
        return photographs.figure(
            subject.predictor,
            photographs.Chosen(
                crop=crops[i],
                name=bytes(p.id[i]).decode(errors="replace"),
                error=f"{error}, {distance[i][labelled[i]].mean():.1f} px",
                distance=distance[i],
                radius=radius[i],
                probability=p.radial_cdf[i],
            ),
        )

    rows = "".join(
        f'<h3>{kind}</h3><div class="photographs">{"".join(map(shown, chosen))}</div>'
        for kind, chosen in picks.items()
    )
    return (
        "<h2>Photographs</h2><p>As the network sees them. Predictions are <i class=dot></i> with their "
        "90 % ellipses, labels are <i class=square></i>; a line joins the two. Click on one to enlarge "
        "it; point at a landmark for its name. Most surprising is the label farthest outside its "
        f"region.</p>{rows}"
    )


def _shapes(subject: Subject) -> str:
    """Return photographs with shapes drawn from the predicted joint distribution of their landmarks."""
    if subject.draw is None:
        return ""
    p, errors = subject.predictions, _example_errors(subject)
    picks = photographs.choose(errors, np.full(p.weights.shape, np.nan))
    wanted = {kind: chosen[0] for kind, chosen in picks.items() if chosen}
    seen = examples.views(
        subject.split, wanted.values(), photographs.SIDE, subject.predictor.batch_size
    )
    drawn = "".join(
        photographs.shapes(
            seen[i], subject.draw(i, _SHAPES), subject.predictor.landmark_set.edges, kind
        )
        for kind, i in wanted.items()
    )
    return (
        "<h2>Whole shapes</h2><p>Each line is one shape, drawn from what the model predicts for the "
        f"landmarks together: where they agree, it is sure.</p><div class=photographs>{drawn}</div>"
    )


def _errors(subject: Subject) -> str:
    found = subject.metrics["errors"]
    inside = subject.metrics["coverage"]
    units = ("mean_pixels", "median_pixels", "mean_percent", "median_percent")
    head = ["landmark", "labels", "mean, px", "median, px", "mean, %", "median, %"]
    head += [f"inside 90 %, {kind}" for kind in inside]
    rows = []
    for name, values in {"all": found["all"], **found["landmarks"]}.items():
        numbers = ["" if values[unit] is None else f"{values[unit]:.2f}" for unit in units]
        of = [
            each["landmarks"][name] if values is not found["all"] else each["all"]
            for each in inside.values()
        ]
        shares = [f"{100 * each['90']:.1f}" for each in of]
        rows.append([name, f"{values['labels']:,}", *numbers, *shares])
    unit = error_unit(subject.predictor)
    note = f"Pixels (px) are those of the original photographs. Relative errors are in {unit}."
    return f"<h2>Errors by landmark</h2><p>{html.escape(note)}</p>{_table(head, rows)}"


def _example_errors(subject: Subject) -> np.ndarray:
    """Return each example's mean error [N], in percent of its normaliser, or in pixels if none has any."""
    p = subject.predictions
    pixels = metrics.point_errors(p.landmarks, p.truth)
    if subject.metrics["errors"]["all"]["mean_percent"] is None:
        return metrics.nme(pixels, np.ones(len(pixels)), p.weights)
    return 100 * metrics.nme(pixels, p.normalizer, p.weights)


def _unit(subject: Subject) -> str:
    return "px" if subject.metrics["errors"]["all"]["mean_percent"] is None else "%"


def _count(predictions: Predictions) -> int:
    """Return how many photographs the labelled examples are of."""
    labelled = (predictions.weights > 0).any(axis=1)
    return len({photograph_name(each) for each in predictions.id[labelled]})


def _length(values: Mapping[str, Any], which: str) -> str:
    pixels, percent = values[f"{which}_pixels"], values[f"{which}_percent"]
    return f"{pixels:.2f} px" + ("" if percent is None else f" · {percent:.2f} %")


def _table(head: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table of texts, escaped."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    kind = ' class="facts"' if head is None else ""
    top = f"<thead>{line(head, 'th')}</thead>" if head else ""
    body = "".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table{kind}>{top}<tbody>{body}</tbody></table></div>'
