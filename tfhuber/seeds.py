"""The same training with several seeds: `python -m tfhuber.seeds --config C --seeds 0 1 2 [--run DIR]`.

Trains DIR/seed-0, DIR/seed-1 and so on, one after the other, then prints the mean and standard deviation
of every metric and writes them to DIR/seeds.json. The same command started again continues where it stands.
"""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from tfhuber.config import schema
from tfhuber.console.cli import run_main
from tfhuber.console.files import read_json, write_json
from tfhuber.runs.spread import summarise, table

__all__ = ["main"]


def _train(command: list[str]) -> int:
    """Runs a training in a process of its own, passes SIGTERM on to it, and returns its exit status.

    A process each, because TensorFlow never gives up the graphs, memory and random state of a training.

    Raises:
      KeyboardInterrupt: once the training has saved what it must, if it or we were asked to end.
    """
    received = []

    def note(number, _):
        received.append(number)
        if (
            number == signal.SIGTERM
        ):  # a terminal's interrupt goes to both of us, and a second one kills
            process.terminate()

    process = subprocess.Popen(command)
    before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt
    return status


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.seeds", description=__doc__)
    parser.add_argument("--config", required=True, help="a JSON file such as configs/wflw.json")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="such as 0 1 2")
    parser.add_argument("--data", help="the converted data set; replaces data.directory")
    parser.add_argument("--run", help="a directory for the runs (default: runs/NAME-seeds)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="as tfhuber.train's"
    )
    arguments = parser.parse_args()
    if len(set(arguments.seeds)) < len(arguments.seeds):
        raise ValueError(f"--seeds must differ, got {' '.join(map(str, arguments.seeds))}")
    for seed in arguments.seeds:  # before the first one has trained for hours
        overrides = [*arguments.set, f"train.seed={seed}"]
        config = schema.load(arguments.config, overrides, data=arguments.data)
    if config.train.distribution == "multi_worker":
        raise ValueError(
            "several workers train one seed at a time: start tfhuber.launch with tfhuber.train and "
            "--set train.seed=N for each, then compare the runs with tfhuber.compare"
        )
    directory = Path(arguments.run or Path("runs") / f"{Path(arguments.config).stem}-seeds")
    if (directory / "run.json").exists():
        raise ValueError(f"{directory} is itself a training run; choose another --run")

    runs = [directory / f"seed-{seed}" for seed in arguments.seeds]
    for seed, run in zip(arguments.seeds, runs, strict=True):
        command = [sys.executable, "-m", "tfhuber.train", "--config", arguments.config]
        command += ["--data", arguments.data] if arguments.data is not None else []
        for override in (*arguments.set, f"train.seed={seed}"):
            command += ["--set", override]
        if status := _train([*command, "--run", str(run)]):
            return status if status > 0 else 128 - status
    summary = summarise([read_json(run / "metrics.json") for run in runs])
    write_json(directory / "seeds.json", {"seeds": arguments.seeds, "metrics": summary})
    print(table(summary))
    print(f"{directory / 'seeds.json'}: {len(runs)} seeds")
    return 0


if __name__ == "__main__":
    run_main(main)
