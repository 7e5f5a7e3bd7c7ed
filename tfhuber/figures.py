"""The paper's figures: `python -m tfhuber.figures figure5 --output figure5.svg`.

Figures 4 to 6 show distributions and need nothing else. Figure 2 (a certain and an uncertain example,
with ellipses of one standard deviation) needs a run, and figure 3 (expected against empirical error) one
or more; both measure on the run's own data set and evaluation split unless --data and --split say
otherwise.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module
from tfhuber.evaluation.reliability import BIN_SIZE

if TYPE_CHECKING:
    from tfhuber.evaluation import plots
    from tfhuber.paper import figures
else:
    plots = lazy_module("tfhuber.evaluation.plots")
    figures = lazy_module("tfhuber.paper.figures")

__all__ = ["main"]

_OF_RUNS = ("figure2", "figure3")
_OF_DISTRIBUTIONS = ("figure4", "figure5", "figure6")


def main() -> int:
    """Draw the figure that the command line names."""
    arguments = _arguments()
    import_tensorflow()
    if arguments.name == "figure2":
        figure = figures.figure2(arguments.run[0], arguments.data, arguments.split)
    elif arguments.name == "figure3":
        figure = figures.figure3(arguments.run, arguments.data, arguments.split, arguments.bin_size)
    else:
        figure = figures.figure4to6(arguments.name)
    plots.save_figure(figure, arguments.output)
    print(f"wrote {arguments.output}")
    return 0


def _arguments() -> argparse.Namespace:
    """Parse the command line; ValueError if its options don't fit the figure."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.figures", description=__doc__)
    parser.add_argument("name", choices=(*_OF_RUNS, *_OF_DISTRIBUTIONS))
    parser.add_argument("--output", required=True, type=Path, help="a .pdf, .png or .svg file")
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        help="a directory that tfhuber.train wrote; for figure3 it may be repeated",
    )
    parser.add_argument("--data", help="the converted data set (default: the run's)")
    parser.add_argument("--split", help="the split to measure on (default: the run's)")
    parser.add_argument(
        "--bin-size",
        type=int,
        default=BIN_SIZE,
        help="landmarks a bin of figure3 (default: the paper's %(default)s)",
    )
    arguments = parser.parse_args()
    name, runs = arguments.name, arguments.run
    plots.check_name(arguments.output)
    if name in _OF_DISTRIBUTIONS and runs:
        raise ValueError(f"{name} shows distributions, not a run; leave --run out")
    if name in _OF_RUNS and not runs:
        raise ValueError(
            f"{name} shows a run: give --run DIR; make one with "
            "`python -m tfhuber.train --config configs/NAME.json --data DATA --run DIR`"
        )
    if name == "figure2" and len(runs) > 1:
        raise ValueError(f"figure2 shows one run, got --run {len(runs)} times")
    if arguments.bin_size < 1:
        raise ValueError(f"--bin-size must be at least 1, got {arguments.bin_size}")
    return arguments


if __name__ == "__main__":
    run_main(main)
