"""Measure a run: `python -m tfhuber.evaluate --run DIR [--split test] [--tta none|mean|ml]`.

Prints a table and writes `DIR/evaluations/SPLIT-TTA-CHECKPOINT.json`, which says what was measured, and
beside it the best, median and worst examples with their 90 % ellipses (`...-examples.png`), the
calibration (`...-calibration.png`, figure 3: expected against empirical error), and all of that and more
as one page (`.../report.html`). What `tfhuber.calibrate` has found out about the run is used, and the
files are `...-calibrated.json` and so on; `--uncalibrated` leaves it out. On another data set than the
run's own they are `...-on-FOLDER-CHECKSUM.json` and so on.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    from tfhuber.calibration import corrected
    from tfhuber.evaluation import run_evaluation, summary
else:
    corrected = lazy_module("tfhuber.calibration.corrected")
    run_evaluation = lazy_module("tfhuber.evaluation.run_evaluation")
    summary = lazy_module("tfhuber.evaluation.summary")

__all__ = ["main"]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.evaluate", description=__doc__)
    parser.add_argument("--run", required=True, help="a directory that tfhuber.train wrote")
    parser.add_argument("--data", help="the converted data set (default: the run's)")
    parser.add_argument("--split", help="the split to measure on (default: the run's)")
    parser.add_argument("--tta", choices=("none", "mean", "ml"), default="none")
    parser.add_argument("--checkpoint", choices=("latest", "best"), default="latest")
    parser.add_argument(
        "--uncalibrated", action="store_true", help="measure the model without its calibration.json"
    )
    arguments = parser.parse_args()

    import_tensorflow()
    run = Path(arguments.run)
    correct = None if arguments.uncalibrated else corrected.correction_of(run, arguments.tta)
    metrics, files = run_evaluation.evaluate_run(
        run,
        tta=arguments.tta,
        checkpoint=arguments.checkpoint,
        data=arguments.data,
        split=arguments.split,
        correct=correct,
    )
    print(run_evaluation.table(metrics))
    if correct:
        _print_source(metrics)
    print(f"{', '.join(map(str, files))}: {summary.headline(metrics)}")
    return 0


def _print_source(metrics: dict) -> None:
    source = metrics["calibrated"]["source"]
    print(f"calibrated by {source['photographs']} photographs of split {source['split']!r}")
    if (source["sha256"], source["split"]) == (metrics["data"]["sha256"], metrics["split"]):
        print(
            "note: that is the split that is measured, half of which the calibration was fitted to"
        )


if __name__ == "__main__":
    run_main(main)
