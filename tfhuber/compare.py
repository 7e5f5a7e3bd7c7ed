"""Show training runs side by side: `python -m tfhuber.compare RUN RUN ... [--all] [--json]`.

Shows what differs in the runs' configurations, their results with the best marked by *, their time, what
tfhuber.evaluate measured of them, and which versions, commit and data they come from; - where a run has no
such value (yet). A run that goes on shows its latest results. Runs that differ in their seeds alone are
followed by means and deviations.
"""

import argparse
import json
import shutil

from tfhuber.console.cli import run_main
from tfhuber.runs.comparison import as_json, over_seeds, read_run, rows, seeds_text, table, warnings

__all__ = ["main"]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tfhuber.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a directory that tfhuber.train wrote"
    )
    parser.add_argument("--all", action="store_true", help="also what is the same in all runs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    runs = [read_run(directory) for directory in arguments.runs]
    if arguments.json:
        print(json.dumps(as_json(runs, arguments.all), indent=2))
        return 0
    width = shutil.get_terminal_size().columns
    print(table(runs, rows(runs, arguments.all), width))
    for group, spreads in over_seeds(runs):
        print(f"\n\n{seeds_text(group, spreads)}")
    for warning in warnings(runs):
        print(f"\nwarning: {warning}")
    return 0


if __name__ == "__main__":
    run_main(main)
