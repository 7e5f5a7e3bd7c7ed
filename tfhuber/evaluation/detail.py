"""Coverage and errors in detail: by landmark and group of landmarks, by subset, by difficulty."""

import functools
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfhuber.console.table import aligned
from tfhuber.evaluation import metrics, reliability
from tfhuber.evaluation.predictions import Predictions
from tfhuber.landmarks.landmark_set import LandmarkSet

__all__ = [
    "LEVELS",
    "THIRDS",
    "coverage_detail",
    "difficulty",
    "error_detail",
    "in_percent",
    "text",
]

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
THIRDS = ("easy", "middling", "hard")


def coverage_detail(landmark_set: LandmarkSet, predictions: Predictions) -> dict[str, Any]:
    """Return the fraction of labels inside the ellipses of each of `LEVELS`, overall and by part.

    A part is a dict of the number of `labels` and, for each level, as "90", the fraction inside. A part
    without labels is left out.

    Returns:
      `all`; `groups`, `landmarks`, `subsets` and `thirds` by name; `best` and `worst`, the names of the
      landmarks whose 90 % ellipses hold nearest to, and farthest from, 90 %.
    """
    p = predictions
    labelled = p.weights > 0
    masks: dict[str, dict[str, np.ndarray]] = {
        "groups": {
            name: labelled & np.isin(np.arange(landmark_set.count), members)
            for name, members in landmark_set.groups.items()
        },
        "landmarks": {
            name: labelled & (np.arange(landmark_set.count) == k)
            for k, name in enumerate(landmark_set.names)
        },
        "subsets": {
            name: labelled & (flags > 0)[:, np.newaxis]
            for name, flags in zip(landmark_set.attributes, p.attributes.T, strict=False)
        },
        "thirds": {
            name: labelled & (difficulty(p) == i)[:, np.newaxis] for i, name in enumerate(THIRDS)
        },
    }
    parts = {
        kind: {name: _coverage(p.radial_cdf, mask) for name, mask in members.items() if mask.any()}
        for kind, members in masks.items()
    }
    gap = {name: abs(values["90"] - 0.9) for name, values in parts["landmarks"].items()}
    return {
        "all": _coverage(p.radial_cdf, labelled),
        **parts,
        "best": min(gap, key=gap.__getitem__),
        "worst": max(gap, key=gap.__getitem__),
    }


def difficulty(predictions: Predictions) -> np.ndarray:
    """Return the third of the labelled examples [N] by predicted size: 0 easy to 2 hard, -1 unlabelled."""
    labelled = np.flatnonzero((predictions.weights > 0).any(axis=1))
    order = labelled[np.argsort(predictions.size[labelled], kind="stable")]
    thirds = np.full(len(predictions.size), -1)
    thirds[order] = np.arange(len(order)) * 3 // max(1, len(order))
    return thirds


def error_detail(landmark_set: LandmarkSet, predictions: Predictions) -> dict[str, Any]:
    """Return mean and median errors in the photograph's pixels and in percent of the normaliser.

    Percentages leave out examples without a normaliser, and are None where there is none at all.

    Returns:
      `all`, and `landmarks` by name, each with `labels`, `mean_pixels`, `median_pixels`, `mean_percent`
      and `median_percent`. A landmark without labels is left out.
    """
    p = predictions
    labelled = p.weights > 0
    pixels = metrics.point_errors(p.landmarks, p.truth)
    percent = in_percent(p, pixels)

    def of(mask: np.ndarray) -> dict[str, Any]:
        relative = percent[mask]
        relative = relative[np.isfinite(relative)]
        return {
            "labels": int(mask.sum()),
            "mean_pixels": float(pixels[mask].mean()),
            "median_pixels": float(np.median(pixels[mask])),
            "mean_percent": float(relative.mean()) if relative.size else None,
            "median_percent": float(np.median(relative)) if relative.size else None,
        }

    by_name = {
        name: of(labelled & (np.arange(landmark_set.count) == k))
        for k, name in enumerate(landmark_set.names)
        if labelled[:, k].any()
    }
    return {"all": of(labelled), "landmarks": by_name}


def in_percent(predictions: Predictions, pixels: np.ndarray) -> np.ndarray:
    """Return errors [N, K] in percent of the example's normaliser; NaN where it has none."""
    length = predictions.normalizer.astype(np.float64)
    known = np.isfinite(length) & (length > 0)
    return 100 * pixels / np.where(known, length, np.nan)[:, np.newaxis]


def text(errors: Mapping[str, Any], coverage: Mapping[str, Mapping[str, Any]]) -> str:
    """Return both details as aligned lines for a terminal.

    Args:
      errors: of `error_detail`.
      coverage: of `coverage_detail`, by "raw" and, where there is one, "calibrated".
    """
    units = ("mean_pixels", "median_pixels", "mean_percent", "median_percent")
    table = [["error", "labels", *(unit.replace("_", ", ") for unit in units)]]
    for name, values in {"all landmarks": errors["all"], **errors["landmarks"]}.items():
        numbers = ["-" if values[unit] is None else f"{values[unit]:.2f}" for unit in units]
        table.append([name, str(values["labels"]), *numbers])
    levels = " / ".join(f"{100 * level:g}" for level in LEVELS)
    rows = [(f"inside the {levels} % ellipses", "  ->  ".join(coverage))]
    rows.append(("all", _shares(coverage, "all")))
    for kind, word in (("groups", "group"), ("subsets", "subset"), ("thirds", "third")):
        for name in coverage["raw"][kind]:
            rows.append((f"{word} {name}", _shares(coverage, kind, name)))
    for which in ("best", "worst"):
        for kind, found in coverage.items():
            name = found[which]
            title = f"{which} landmark {kind}, {name}"
            rows.append((title, _shares(coverage, "landmarks", name)))
    return f"{aligned(table, right=range(1, 6))}\n{aligned(rows)}"


def _coverage(radial_cdf: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    found = reliability.coverage(radial_cdf, mask, LEVELS)
    return {"labels": int(mask.sum()), **{f"{100 * level:g}": v for level, v in found.items()}}


def _shares(coverage: Mapping[str, Mapping[str, Any]], *keys: str) -> str:
    """Return the percentages of a part, which the keys lead to, of each kind of prediction."""
    parts = [functools.reduce(operator.getitem, keys, found) for found in coverage.values()]
    return "  ->  ".join(
        " / ".join(f"{100 * part[f'{100 * level:g}']:.1f}" for level in LEVELS) for part in parts
    )
