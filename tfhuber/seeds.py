"""Train with several seeds: `python -m tfhuber.seeds --config C --seeds 0 1 2 [--run DIR]`.

Trains DIR/seed-0, DIR/seed-1 and so on, one after the other, then prints the mean and standard deviation
of every metric and writes them to DIR/seeds.json. The same command started again continues where it stands.
"""

import argparse
from pathlib import Path

from tfhuber.console.cli import run_main
from tfhuber.runs.seeds import check, summarise_seeds, train_seeds
from tfhuber.runs.spread import table

__all__ = ["main"]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.seeds", description=__doc__)
    parser.add_argument("--config", required=True, help="a JSON file such as configs/wflw.json")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="such as 0 1 2")
    parser.add_argument("--data", help="the converted data set; replaces data.directory")
    parser.add_argument("--run", help="a directory for the runs (default: runs/NAME-seeds)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="as tfhuber.train's"
    )
    arguments = parser.parse_args()
    seeds = arguments.seeds
    directory = Path(arguments.run or Path("runs") / f"{Path(arguments.config).stem}-seeds")
    options = (arguments.config, seeds, arguments.set, arguments.data, directory)
    check(*options)
    if status := train_seeds(*options):
        return status
    print(table(summarise_seeds(directory, seeds)))
    print(f"{directory / 'seeds.json'}: {len(seeds)} seeds")
    return 0


if __name__ == "__main__":
    run_main(main)
