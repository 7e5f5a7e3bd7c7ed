"""Measure a run: `python -m tfhuber.evaluate --run DIR [--split test] [--tta none|mean|ml]`.

Prints a table and writes `DIR/evaluations/SPLIT-TTA-CHECKPOINT.json`, which says what was measured, and
beside it the best, median and worst examples with their 90 % ellipses (`...-examples.png`) and the
calibration (`...-calibration.png`, figure 3: expected against empirical error).
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    from tfhuber.evaluation import run_evaluation, summary
else:
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
    arguments = parser.parse_args()

    import_tensorflow()
    metrics, files = run_evaluation.evaluate_run(
        Path(arguments.run),
        tta=arguments.tta,
        checkpoint=arguments.checkpoint,
        data=arguments.data,
        split=arguments.split,
    )
    print(run_evaluation.table(metrics))
    print(f"{', '.join(map(str, files))}: {summary.headline(metrics)}")
    return 0


if __name__ == "__main__":
    run_main(main)
