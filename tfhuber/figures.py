"""The paper's figures: `python -m tfhuber.figures figure5 --output figure5.svg`.

Figures 4 to 6 show distributions and need nothing else. Figure 2 (a certain and an uncertain example,
with ellipses of one standard deviation) needs a run, and figure 3 (expected against empirical error) one
or more; both measure on the run's own data set and evaluation split unless --data and --split say
otherwise.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.evaluation import plots
from tfhuber.evaluation.reliability import BIN_SIZE
from tfhuber.paper.figures import OF_DISTRIBUTIONS, contours, distributions, figure2, figure3

__all__ = ["main"]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.figures", description=__doc__)
    parser.add_argument("name", choices=("figure2", "figure3", *OF_DISTRIBUTIONS))
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
    _check_runs(name, runs)
    if arguments.bin_size < 1:
        raise ValueError(f"--bin-size must be at least 1, got {arguments.bin_size}")
    import_tensorflow()
    if name == "figure2":
        figure = figure2(runs[0], arguments.data, arguments.split)
    elif name == "figure3":
        figure = figure3(runs, arguments.data, arguments.split, arguments.bin_size)
    else:
        panels = distributions(name).items()
        figure = plots.contour_figure([contours(shown, caption) for caption, shown in panels])
    plots.save_figure(figure, arguments.output)
    print(f"wrote {arguments.output}")
    return 0


def _check_runs(name: str, runs: Sequence[str]) -> None:
    """Raises ValueError unless the figure can be drawn from that many runs."""
    if name in OF_DISTRIBUTIONS and runs:
        raise ValueError(f"{name} shows distributions, not a run; leave --run out")
    if name not in OF_DISTRIBUTIONS and not runs:
        raise ValueError(
            f"{name} shows a run: give --run DIR; make one with "
            "`python -m tfhuber.train --config configs/NAME.json --data DATA --run DIR`"
        )
    if name == "figure2" and len(runs) > 1:
        raise ValueError(f"figure2 shows one run, got --run {len(runs)} times")


if __name__ == "__main__":
    run_main(main)
