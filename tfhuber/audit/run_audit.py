"""The audit of a split's labels by a run that was not trained on them: its table and its pictures."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tfhuber.audit.hypotheses import Annotation, Verdict, judge
from tfhuber.calibration.law import Law
from tfhuber.console.cli import progress
from tfhuber.console.files import Aside
from tfhuber.data.split import Split, open_split, stored_examples
from tfhuber.drawing import overlay
from tfhuber.drawing.ellipses import standard_deviation
from tfhuber.evaluation.examples import crops
from tfhuber.evaluation.predictions import Predictions, collect
from tfhuber.model.predictor import Predictor
from tfhuber.runs.folds import HELD, Folds
from tfhuber.runs.load import load_run

__all__ = ["Suspect", "annotation", "cross_fitted", "sheet", "suspects", "write_table"]

_TILE = 320
_COLUMNS = 6
_HEADER = ["rank", "example", "kind", "score", "landmark", "label_x", "label_y"]
_HEADER += ["predicted_x", "predicted_y", "distance", "deviation"]


@dataclass(frozen=True)
class Suspect:
    """An annotation, or one label of it, that is likelier wrong than right.

    Attributes:
      index: of the example in its split.
      kind: one of `hypotheses.KINDS`; "points" of a single label.
      landmark: the label's place, or None of a whole annotation.
      score: by how many nats it is likelier wrong.
    """

    index: int
    kind: str
    landmark: int | None
    score: float


def suspects(predictions: Predictions, law: Law, mirror: Sequence[int]) -> list[Suspect]:
    """Return what is likelier wrong than right, the most suspicious first.

    Args:
      predictions: of examples that the model was not trained on.
      law: of the predicted distributions.
      mirror: [K] which landmark each one becomes in a mirror image.

    Raises:
      ValueError: a prediction is not finite, by which nothing can be judged.
    """
    broken = ~(np.isfinite(predictions.landmarks) & np.isfinite(predictions.covariance).all(-1))
    if broken.any():
        example = predictions.id[broken.any(axis=(1, 2))][0].decode(errors="replace")
        raise ValueError(f"the run's prediction for {example} is not finite; train it again")
    found: list[Suspect] = []
    rows = np.flatnonzero((predictions.weights > 0).any(axis=1))
    for index in progress(rows.tolist(), desc="audit", unit=" annotations"):
        found += _suspects_of(index, judge(annotation(predictions, index), law, np.array(mirror)))
    return sorted(found, key=lambda suspect: -suspect.score)


def cross_fitted(folds: Folds, checkpoint: str = "latest") -> tuple[Predictor, Split, Predictions]:
    """Return what each fold's run predicts of the part that it did not see, all in the split's order.

    Args:
      folds: of the split.
      checkpoint: of the runs, "latest" or "best".

    Returns:
      The predictor of the first fold, whose law is that of all; the split; its predictions.

    Raises:
      ValueError: a run or the split cannot be read, or the split has changed since.
    """
    split = open_split(folds.data, folds.split)
    parts = []
    for directory in progress(folds.directories, desc="predict", unit=" folds"):
        predictor = load_run(directory / "run", checkpoint)
        parts.append(collect(predictor, open_split(directory / "data", HELD)))
    ids = [example["id"].numpy() for example in stored_examples(split)]
    return load_run(folds.directories[0] / "run"), split, Predictions.joined(parts, ids)


def annotation(predictions: Predictions, index: int) -> Annotation:
    """Return one example's labels with what is predicted of them."""
    predicted = predictions.predicted
    return Annotation(
        predictions.truth[index].astype(np.float64),
        predictions.weights[index] > 0,
        np.asarray(predicted.loc[index], np.float64),
        np.asarray(predicted.precision_factor[index], np.float64),
        np.asarray(predicted.log_det[index], np.float64),
    )


def _suspects_of(index: int, verdict: Verdict) -> Iterator[Suspect]:
    if verdict.kind not in ("right", "points"):
        yield Suspect(index, verdict.kind, None, verdict.score)
    if verdict.kind != "other":
        for k in np.flatnonzero(verdict.points > 0).tolist():
            yield Suspect(index, "points", k, float(verdict.points[k]))


def write_table(
    path: Path, found: Sequence[Suspect], predictions: Predictions, names: Sequence[str]
) -> None:
    """Write suspects as CSV, whole or not at all: places in original pixels, the predicted deviation.

    Raises:
      OSError: it cannot be written.
    """
    deviation = standard_deviation(predictions.covariance)
    path.parent.mkdir(parents=True, exist_ok=True)
    with Aside(path) as aside, aside.path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(_HEADER)
        for rank, suspect in enumerate(found, 1):
            i, k = suspect.index, suspect.landmark
            example = predictions.id[i].decode(errors="replace")
            row = [rank, example, suspect.kind, f"{suspect.score:.2f}"]
            if k is not None:
                label, place = predictions.truth[i, k], predictions.landmarks[i, k]
                distance = float(np.hypot(*(label - place)))
                numbers = (*label, *place, distance, deviation[i, k])
                row += [names[k], *(f"{number:.2f}" for number in numbers)]
            table.writerow(row)


def sheet(
    found: Sequence[Suspect], predictor: Predictor, split: Split, predictions: Predictions
) -> Image.Image:
    """Return a sheet of the first suspects' examples: predictions with 90 % ellipses, labels as crosses.

    Args:
      found: as `suspects` returns them, one at least; an example is drawn once.
      predictor: whose predictions these are.
      split: whose examples.
      predictions: of that split.
    """
    first: dict[int, Suspect] = {}
    for suspect in found:
        first.setdefault(suspect.index, suspect)
    chosen = list(first.values())[: 4 * _COLUMNS]
    shown = crops(predictor, split, predictions, [s.index for s in chosen], size=_TILE)
    names, tiles = predictor.landmark_set.names, []
    for suspect in chosen:
        crop = shown[suspect.index]
        picture = overlay.draw_overlay(
            Image.fromarray(crop.image),
            crop.landmarks,
            crop.covariance,
            edges=predictor.landmark_set.edges,
            family=predictor.options.family,
            delta=predictor.options.delta,
            truth=crop.truth,
            min_side=_TILE,
            max_side=_TILE,
            legend=False,
        )
        what = suspect.kind if suspect.landmark is None else names[suspect.landmark]
        tiles.append((picture, f"{what}: {suspect.score:.0f} nats"))
    rows = [tiles[i : i + _COLUMNS] for i in range(0, len(tiles), _COLUMNS)]
    numbered = {
        f"{_COLUMNS * i + 1} to {_COLUMNS * i + len(row)}": row for i, row in enumerate(rows)
    }
    return overlay.evaluation_sheet(numbered, title="labels in doubt", tile=_TILE)
