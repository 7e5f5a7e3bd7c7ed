"""The evaluation of a training run: its metrics and pictures, in the run's `evaluations/`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tfhuber.console.files import write_json
from tfhuber.console.table import aligned
from tfhuber.data import dataset, records
from tfhuber.data.dataset import Split
from tfhuber.drawing import overlay
from tfhuber.evaluation import examples, plots, reliability
from tfhuber.evaluation.predictions import Predictions, collect
from tfhuber.evaluation.summary import calibration_errors, error_unit, evaluate
from tfhuber.model.predictor import Predictor
from tfhuber.runs.load import load_run, read_config
from tfhuber.runs.results import evaluation_path

__all__ = ["Correct", "Corrected", "evaluate_run", "table"]


@dataclass(frozen=True)
class Corrected:
    """What a calibration makes of a run's predictions.

    Attributes:
      predictor: with the energy that the corrected predictions have.
      predictions: corrected.
      facts: for the metrics: where the calibration is from, and `raw` against `calibrated`.
    """

    predictor: Predictor
    predictions: Predictions
    facts: dict[str, Any]


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
    """Measure a run and write `evaluations/SPLIT-TTA-CHECKPOINT.json` and two pictures beside it.

    The file says what was measured: `split`, `tta`, the `checkpoint` and its `step`, the directory of the
    data set and the checksum of its manifest in `data`, and then every metric of `summary.evaluate`. The
    pictures are of the best, median and worst examples with their 90 % ellipses, and of the calibration
    (figure 3: expected against empirical error).

    Args:
      run: what `python -m tfhuber.train --run` wrote.
      tta: as in `Predictor.predict`.
      checkpoint: "latest" or "best".
      data: the converted data set; the run's if None.
      split: the split to measure on; the run's if None.
      correct: the run's calibration; the file is then `...-calibrated.json`.

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
    predictions, facts = collect(predictor, examples_split, tta), {}
    if correct:
        made = correct(predictor, examples_split, predictions)
        predictor, predictions, facts = made.predictor, made.predictions, {"calibrated": made.facts}
    metrics = {
        "split": name,
        "tta": tta,
        "checkpoint": checkpoint,
        "step": predictor.step,
        "data": {
            "directory": str(directory),
            "sha256": records.read_manifest(directory).get("sha256"),
        },
        **evaluate(predictor, examples_split, tta, predictions),
        **facts,
    }
    path = evaluation_path(run, name, tta, checkpoint, calibrated=correct is not None)
    path.parent.mkdir(exist_ok=True)
    write_json(path, metrics)
    sheet = examples.best_median_worst(predictor, examples_split, predictions)
    sheet_path = path.with_name(f"{path.stem}-examples.png")
    overlay.save_image(sheet, sheet_path)
    plot_path = path.with_name(f"{path.stem}-calibration.png")
    _plot(predictor, predictions, f"{config.train.epochs} epochs", plot_path)
    return metrics, [path, sheet_path, plot_path]


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
    return aligned(rows)


def _cells(values: dict) -> str:
    return "  ".join(
        f"{key} {v:.2f}" if isinstance(v, float) else f"{key} {v}" for key, v in values.items()
    )
