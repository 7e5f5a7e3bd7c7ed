"""The evaluation of a training run: its metrics and pictures, in the run's `evaluations/`."""

from pathlib import Path

from tfhuber.console.files import write_json
from tfhuber.console.table import aligned
from tfhuber.data import dataset, records
from tfhuber.drawing import overlay
from tfhuber.evaluation import examples, plots, reliability
from tfhuber.evaluation.predictions import collect
from tfhuber.evaluation.summary import calibration_errors, error_unit, evaluate
from tfhuber.runs.load import load_run, read_config
from tfhuber.runs.results import evaluation_path

__all__ = ["evaluate_run", "table"]


def evaluate_run(
    run: Path,
    *,
    tta: str = "none",
    checkpoint: str = "latest",
    data: str | None = None,
    split: str | None = None,
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
    predictions = collect(predictor, examples_split, tta)
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
    }
    path = evaluation_path(run, name, tta, checkpoint)
    sheet_path = path.with_name(f"{path.stem}-examples.png")
    plot_path = path.with_name(f"{path.stem}-calibration.png")
    path.parent.mkdir(exist_ok=True)
    write_json(path, metrics)
    sheet = examples.best_median_worst(predictor, examples_split, predictions)
    overlay.save_image(sheet, sheet_path)
    curve = reliability.calibration_curve(*calibration_errors(predictor, predictions))
    title = f"{config.train.epochs} epochs"
    plots.save_figure(plots.calibration_figure({title: curve}, error_unit(predictor)), plot_path)
    return metrics, [path, sheet_path, plot_path]


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
    return aligned(rows)


def _cells(values: dict) -> str:
    return "  ".join(
        f"{key} {v:.2f}" if isinstance(v, float) else f"{key} {v}" for key, v in values.items()
    )
