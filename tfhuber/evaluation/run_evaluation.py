"""The evaluation of a training run: its metrics and pictures, in the run's `evaluations/`."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tfhuber.config.schema import Config
from tfhuber.console.files import read_json, write_json
from tfhuber.console.table import aligned
from tfhuber.data import dataset, records
from tfhuber.data.dataset import Split
from tfhuber.drawing import overlay
from tfhuber.evaluation import detail, examples, plots, reliability
from tfhuber.evaluation.predictions import Predictions, collect
from tfhuber.evaluation.report import page
from tfhuber.evaluation.summary import calibration_errors, error_unit, evaluate
from tfhuber.model.predictor import Predictor
from tfhuber.runs.load import load_run, read_config
from tfhuber.runs.results import data_name, evaluation_path

__all__ = ["Correct", "Corrected", "evaluate_run", "table"]


@dataclass(frozen=True)
class Corrected:
    """What a calibration makes of a run's predictions.

    Attributes:
      predictor: with the energy that the corrected predictions have.
      predictions: corrected.
      facts: for the metrics: where the calibration is from, and `raw` against `calibrated`.
      draw: for the report: from an example's index and a count to shapes [count, K, 2] in original
        pixels; None where nothing is known of how landmarks go together.
    """

    predictor: Predictor
    predictions: Predictions
    facts: dict[str, Any]
    draw: page.Draw | None = None


# From the predictor, the split and its predictions, as the model makes them.
Correct: TypeAlias = Callable[[Predictor, Split, Predictions], Corrected]


def evaluate_run(
    run: Path,
    *,
    tta: str = "none",
    checkpoint: str = "latest",
    data: str | None = None,
    split: str | None = None,
    correct: Correct | None = None,
) -> tuple[dict, list[Path]]:
    """Measure a run and write `evaluations/SPLIT-TTA-CHECKPOINT.json`, two pictures and a report.

    The file says what was measured: `split`, `tta`, the `checkpoint` and its `step`, the directory of the
    data set and the checksum of its manifest in `data`, then every metric of `summary.evaluate`, and
    `errors` and `coverage` as in `detail`. The pictures are of the best, median and worst examples with
    their 90 % ellipses, and of the calibration (figure 3: expected against empirical error). The report
    is `SPLIT-TTA-CHECKPOINT/report.html`.

    Args:
      run: what `python -m tfhuber.train --run` wrote.
      tta: as in `Predictor.predict`.
      checkpoint: "latest" or "best".
      data: the converted data set; the run's if None. Where it is another, the files are
        `...-on-FOLDER-CHECKSUM`.
      split: the split to measure on; the run's if None.
      correct: the run's calibration; the files are then `...-calibrated`.

    Returns:
      What the file holds, and the files.

    Raises:
      ValueError: if the run or the split cannot be read, or its landmarks are not the run's.
      OSError: if a file cannot be written.
    """
    predictor, config = load_run(run, checkpoint), read_config(run)
    directory = config.data.directory if data is None else data
    name = config.data.evaluation_split if split is None else split
    examples_split = dataset.open_split(directory, name)
    raw = collect(predictor, examples_split, tta)
    made = correct(predictor, examples_split, raw) if correct else Corrected(predictor, raw, {})
    predictor, predictions = made.predictor, made.predictions
    sha256 = records.read_manifest(directory).get("sha256")
    metrics = {
        "split": name,
        "tta": tta,
        "checkpoint": checkpoint,
        "step": predictor.step,
        "data": {"directory": str(directory), "sha256": sha256},
        **evaluate(predictor, examples_split, tta, predictions),
        **_details(predictor, raw, predictions),
        **({"calibrated": made.facts} if correct else {}),
    }
    other = "" if _is_own(run, config, directory, sha256) else data_name(directory, sha256)
    calibrated = correct is not None
    path = evaluation_path(run, name, tta, checkpoint, calibrated=calibrated, other=other)
    path.parent.mkdir(exist_ok=True)
    write_json(path, metrics)
    facts = {"run": str(run), "command": _command(run, metrics, calibrated=calibrated)}
    subject = page.Subject(raw, predictor, predictions, examples_split, metrics, facts, made.draw)
    return metrics, [path, *_pictures(path, subject, f"{config.train.epochs} epochs")]


def _pictures(path: Path, subject: page.Subject, title: str) -> list[Path]:
    """Write the two pictures and the report beside the metrics' file, and return their names."""
    predictor, predictions = subject.predictor, subject.predictions
    sheet, plot = (
        path.with_name(f"{path.stem}-{kind}.png") for kind in ("examples", "calibration")
    )
    best_median_worst = examples.best_median_worst(predictor, subject.split, predictions)
    overlay.save_image(best_median_worst, sheet)
    _plot(predictor, predictions, title, plot)
    report = path.with_name(path.stem) / "report.html"
    page.write_report(report, subject)
    return [sheet, plot, report]


def _details(predictor: Predictor, raw: Predictions, predictions: Predictions) -> dict[str, Any]:
    """Return errors, and coverage of the raw predictions and, if they are others, the calibrated ones."""
    landmark_set = predictor.landmark_set
    coverage = {"raw": detail.coverage_detail(landmark_set, raw)}
    if predictions is not raw:
        coverage["calibrated"] = detail.coverage_detail(landmark_set, predictions)
    return {"errors": detail.error_detail(landmark_set, predictions), "coverage": coverage}


def _is_own(run: Path, config: Config, directory: str | Path, sha256: str | None) -> bool:
    """Return whether a data set is the one that the run was made for, wherever that lies now."""
    if Path(directory).resolve() == Path(config.data.directory).resolve():
        return True
    facts = read_json(run / "run.json").get("provenance", {}).get("data", {})
    return sha256 is not None and facts.get("sha256") == sha256


def _command(run: Path, metrics: dict, *, calibrated: bool) -> str:
    """Return the command that measures this again."""
    words = ["tfhuber", "evaluate", "--run", str(run), "--data", metrics["data"]["directory"]]
    words += [f"--{key}={metrics[key]}" for key in ("split", "tta", "checkpoint")]
    return shlex.join(words + ([] if calibrated else ["--uncalibrated"]))


def _plot(predictor: Predictor, predictions: Predictions, title: str, path: Path) -> None:
    """Write the picture of expected against empirical errors."""
    curve = reliability.calibration_curve(*calibration_errors(predictor, predictions))
    plots.save_figure(plots.calibration_figure({title: curve}, error_unit(predictor)), path)


def table(metrics: dict) -> str:
    """Return the metrics as aligned text."""
    rows = [
        (name, f"{value:.4g}" if isinstance(value, float) else str(value))
        for name, value in metrics.items()
        if not isinstance(value, dict)
    ]
    for section in ("subsets", "joints"):
        for name, values in metrics.get(section, {}).items():
            rows.append((f"{section[:-1]} {name}", _cells(values)))
    for name, values in metrics["sharpness"].items():
        rows.append((f"sharpness, {name}", _cells(values)))
    numbers = {key: v for key, v in metrics["calibration"].items() if isinstance(v, float)}
    rows.append(("calibration", _cells(numbers)))
    compared = metrics.get("calibrated", {})
    for name in ("raw", "calibrated"):
        if name in compared:
            values = compared[name]
            inside = [f"{level} % {100 * part:.1f}" for level, part in values["coverage"].items()]
            rows.append((f"inside, {name}", f"{'  '.join(inside)}  nll/label {values['nll']:.3f}"))
    for level, region in compared.get("regions", {}).items():
        rows.append((f"guaranteed {level} %", _cells(region)))
    if compared.get("abstention"):
        rows.append(("reliable, foreign", _cells(compared["abstention"])))
    if compared.get("joint"):
        joint = compared["joint"]
        for name, values in joint["distances"].items():
            rows.append((f"distances, {name}", _cells({f"{k} %": v for k, v in values.items()})))
        rows.append(
            ("landmarks together", _cells({"nats": joint["gain"], "length": joint["length"]}))
        )
    lines = aligned(rows)
    if "errors" in metrics:
        lines += "\n" + detail.text(metrics["errors"], metrics["coverage"])
    return lines


def _cells(values: dict) -> str:
    return "  ".join(
        f"{key} {v:.2f}" if isinstance(v, float) else f"{key} {v}" for key, v in values.items()
    )
