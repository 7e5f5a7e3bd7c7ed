"""How many damaged labels the audit finds: `python -m benchmarks.audit --run RUN [--split valid]`.

Of a split that the run was not trained on, a part of the annotations is damaged in memory: one point
moved by 10 % of the object, left and right exchanged, points shifted by one, or another object's labels in
this one's box. Annotations are then ranked, and the precision among the first N says how many of the N
damaged ones stand there: by the audit's score, by the mean distance of prediction and label, by the
farthest point's, and by the training loss. The mean and the least of several draws are printed.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfhuber.calibration.law import Law
from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module
from tfhuber.console.table import aligned

if TYPE_CHECKING:
    from tfhuber.audit import run_audit
    from tfhuber.calibration import corrected
    from tfhuber.data import dataset
    from tfhuber.evaluation.predictions import Predictions
    from tfhuber.runs import load
else:
    run_audit = lazy_module("tfhuber.audit.run_audit")
    corrected = lazy_module("tfhuber.calibration.corrected")
    dataset = lazy_module("tfhuber.data.dataset")
    load = lazy_module("tfhuber.runs.load")

__all__ = ["damaged", "main", "rankings"]

KINDS = ("point", "left-right", "shifted", "other")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a directory that tfhuber.train wrote")
    parser.add_argument("--data", help="the converted data set (default: the run's)")
    parser.add_argument("--split", help="the split to damage (default: the run's, to evaluate on)")
    parser.add_argument("--part", type=float, default=0.05, help="of the annotations (0.05)")
    parser.add_argument("--draws", type=int, default=20, help="of which ones are damaged (20)")
    arguments = parser.parse_args()
    if not 0 < arguments.part < 1 or arguments.draws < 1:
        raise ValueError("--part must be between 0 and 1, and --draws at least 1")

    import_tensorflow()
    run = Path(arguments.run)
    predictor, config = load.load_run(run), load.read_config(run)
    name = arguments.split or config.data.evaluation_split
    split = dataset.open_split(arguments.data or config.data.directory, name)
    predictor, found = corrected.collect_corrected(run, predictor, split)
    law = Law(predictor.options.family, predictor.options.delta)
    mirror = np.array(predictor.landmark_set.mirror)
    count = max(1, round(arguments.part * len(found.id)))
    print(f"{count} of {len(found.id)} annotations damaged, {arguments.draws} draws:")
    rows = []
    for kind in KINDS:
        hits: dict[str, list[float]] = {}
        for seed in range(arguments.draws):
            rng = np.random.default_rng(seed)
            labels, wrong = damaged(found, kind, count, mirror, rng)
            for way, rank in rankings(labels, law, mirror).items():
                hits.setdefault(way, []).append(float(np.isin(rank[:count], wrong).mean()))
        rows.append(
            (kind, "  ".join(f"{way} {np.mean(h):.2f} ({min(h):.2f})" for way, h in hits.items()))
        )
    print(aligned(rows))
    return 0


def damaged(
    found: "Predictions", kind: str, count: int, mirror: np.ndarray, rng: np.random.Generator
) -> tuple["Predictions", np.ndarray]:
    """Return predictions with `count` annotations damaged, and which ones these are."""
    change: dict[str, Callable[[int], None]]
    truth, weights = found.truth.copy(), found.weights.copy()
    usable = np.flatnonzero((weights > 0).sum(axis=1) >= 3)
    chosen = rng.choice(usable, min(count, len(usable)), replace=False)

    def extent(i: int) -> np.ndarray:
        return np.ptp(found.truth[i][found.weights[i] > 0], axis=0)

    def move_point(i: int) -> None:
        k, angle = rng.choice(np.flatnonzero(weights[i] > 0)), rng.uniform(0, 2 * np.pi)
        truth[i, k] += 0.1 * np.sqrt(np.prod(extent(i))) * np.array([np.cos(angle), np.sin(angle)])

    def exchange(i: int) -> None:
        truth[i], weights[i] = truth[i][mirror], weights[i][mirror]

    def shift(i: int) -> None:
        truth[i], weights[i] = np.roll(truth[i], 1, axis=0), np.roll(weights[i], 1)

    def replace(i: int) -> None:
        j = rng.choice(np.setdiff1d(usable, [i]))
        low, theirs = (found.truth[n][found.weights[n] > 0].min(axis=0) for n in (i, j))
        truth[i] = (found.truth[j] - theirs) * extent(i) / np.maximum(extent(j), 1e-6) + low
        weights[i] = found.weights[j]

    change = {"point": move_point, "left-right": exchange, "shifted": shift, "other": replace}
    for i in chosen.tolist():
        change[kind](i)
    return dataclasses.replace(found, truth=truth, weights=weights), chosen


def rankings(labels: "Predictions", law: Law, mirror: np.ndarray) -> dict[str, np.ndarray]:
    """Return the examples in the order of each way to suspect them, the most suspicious first."""
    labelled = labels.weights > 0
    distance = np.linalg.norm(labels.truth - labels.landmarks, axis=-1)
    relative = np.where(labelled, distance / labels.normalizer[:, None].clip(1e-6), np.nan)
    audit, loss = np.zeros(len(labels.id)), np.zeros(len(labels.id))
    for i in np.flatnonzero(labelled.any(axis=1)).tolist():
        annotation = run_audit.annotation(labels, i)
        verdict = run_audit.judge(annotation, law, mirror)
        audit[i] = max(verdict.score, float(verdict.points.max()))
        loss[i] = annotation.nll(annotation.labels, annotation.labelled, law)[labelled[i]].sum()
    scores = {
        "audit": audit,
        "mean distance": np.nan_to_num(np.nanmean(relative, axis=1)),
        "farthest point": np.nan_to_num(np.nanmax(relative, axis=1)),
        "loss": loss,
    }
    return {way: np.argsort(-score) for way, score in scores.items()}


if __name__ == "__main__":
    run_main(main)
