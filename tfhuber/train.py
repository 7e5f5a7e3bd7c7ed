"""Train a model: `python -m tfhuber.train --config configs/wflw.json --data DIR --run DIR`.

The same command started again continues where the last checkpoint stands, and ends with the same
weights as an undisturbed run. SIGTERM and an interrupt (Ctrl-C) save the step that is under way first.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tfhuber.config import schema
from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module
from tfhuber.console.signals import undisturbed

if TYPE_CHECKING:
    from tfhuber.evaluation import summary
    from tfhuber.training import trainer
else:
    summary = lazy_module("tfhuber.evaluation.summary")
    trainer = lazy_module("tfhuber.training.trainer")

__all__ = ["main"]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.train", description=__doc__)
    parser.add_argument("--config", required=True, help="a JSON file such as configs/wflw.json")
    parser.add_argument("--data", help="the converted data set; replaces data.directory")
    parser.add_argument("--run", help="the run's directory (default: runs/NAME of the config file)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY.PATH=VALUE",
        help="replaces one value, e.g. --set train.epochs=3; may be repeated",
    )
    arguments = parser.parse_args()
    config = schema.load(arguments.config, arguments.set, data=arguments.data)
    run = Path(arguments.run or Path("runs") / Path(arguments.config).stem)
    train = undisturbed(_load)
    metrics = train(config, run)
    if metrics:
        print(f"run {run}: {summary.headline(metrics)}")
    return 0


def _load() -> Callable[[schema.Config, Path], dict]:
    import_tensorflow()
    return trainer.train


if __name__ == "__main__":
    run_main(main)
