"""Measures a run: `python -m tfhuber.evaluate --run DIR [--split test] [--tta none|mean|ml]`.

Prints a table and writes `metrics.json`, `evaluation.png` (best, median and worst examples with their
90 % ellipses) and `calibration.png` (figure 3: expected against empirical error) into the run's directory.
"""

import argparse
from pathlib import Path

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.files import write_json
from tfhuber.evaluation import reliability

__all__ = ["main"]


def _table(metrics: dict) -> str:
    """The metrics as aligned text."""
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
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _cells(values: dict) -> str:
    return "  ".join(
        f"{key} {v:.2f}" if isinstance(v, float) else f"{key} {v}" for key, v in values.items()
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.evaluate", description=__doc__)
    parser.add_argument("--run", required=True, help="a directory that tfhuber.train wrote")
    parser.add_argument("--data", help="the converted data set (default: the run's)")
    parser.add_argument("--split", help="the split to measure on (default: the run's)")
    parser.add_argument("--tta", choices=("none", "mean", "ml"), default="none")
    parser.add_argument("--checkpoint", choices=("latest", "best"), default="latest")
    arguments = parser.parse_args()

    import_tensorflow()
    from tfhuber.data import dataset
    from tfhuber.drawing import overlay
    from tfhuber.evaluation import examples, plots
    from tfhuber.evaluation.predictions import collect
    from tfhuber.evaluation.summary import calibration_errors, error_unit, evaluate, headline
    from tfhuber.runs import load

    run = Path(arguments.run)
    predictor, config = load.load_run(run, arguments.checkpoint), load.read_config(run)
    data = config.data
    split = dataset.open_split(
        data.directory if arguments.data is None else arguments.data,
        data.evaluation_split if arguments.split is None else arguments.split,
    )
    predictions = collect(predictor, split, arguments.tta)
    metrics = evaluate(predictor, split, arguments.tta, predictions)
    metrics["checkpoint"] = arguments.checkpoint
    write_json(run / "metrics.json", metrics)
    sheet = examples.best_median_worst(predictor, split, predictions)
    overlay.save_image(sheet, run / "evaluation.png")
    curve = reliability.calibration_curve(*calibration_errors(predictor, predictions))
    title = f"{config.train.epochs} epochs"
    plot = plots.calibration_figure({title: curve}, error_unit(predictor))
    plots.save_figure(plot, run / "calibration.png")
    print(_table(metrics))
    files = ", ".join(
        str(run / name) for name in ("metrics.json", "evaluation.png", "calibration.png")
    )
    print(f"{files}: {headline(metrics)}")
    return 0


if __name__ == "__main__":
    run_main(main)
