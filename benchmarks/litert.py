"""LiteRT files beside the SavedModel they are like: `python -m benchmarks.litert --model DIR FILE...`.

For one network crop at a time, with one thread and with two, each in a process of its own. All models
take turns, so that what else the machine does slows all alike; a ratio is the median over the rounds.
"""

import argparse
import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import paired_timing
from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module
from tfhuber.saved_model import litert_file, versions

if TYPE_CHECKING:
    import tensorflow as tf

    from tfhuber.saved_model import litert
else:
    tf = lazy_module("tensorflow")
    litert = lazy_module("tfhuber.saved_model.litert")

__all__ = ["main"]

SAVED_MODEL = "SavedModel"
REPEATS = 20  # of a turn


def main() -> int:
    """Print a table for one thread and one for two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", required=True, help="an exported model, as tfhuber.export writes"
    )
    parser.add_argument("--rounds", type=int, default=10, help="turns that each model has")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="*.tflite of that run")
    args = parser.parse_args()
    if args.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, got {args.rounds}.")
    if len({file.name for file in args.files}) < len(args.files):
        raise ValueError("the files need different names")
    saved_model = versions.find_version(args.model)
    for file in args.files:
        litert_file.read(file)
    for threads in (1, 2):
        # TensorFlow's threads are set once a process.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, import_tensorflow) as pool:
            times = pool.submit(measure, saved_model, args.files, threads, args.rounds).result()
        print(f"\none network crop, {threads} thread{'s' if threads > 1 else ''}")
        print_table(times, {file.name: file.stat().st_size for file in args.files})
    return 0


def measure(saved_model: Path, files: list[Path], threads: int, rounds: int) -> paired_timing.Times:
    """Return the milliseconds that each model takes for a crop of noise; call it once in a process."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns of gradients, which nobody takes
    loaded = tf.saved_model.load(str(saved_model))
    tensor = loaded.signatures["tensor"]
    runners = {file.name: litert.Runner(litert_file.read(file), threads) for file in files}
    size = next(iter(runners.values())).size
    image = np.random.default_rng(0).integers(0, 256, [size, size, 3], np.uint8)
    row = tf.constant(image[np.newaxis])
    steps = {SAVED_MODEL: lambda: tensor(image=row)["landmarks"].numpy()}
    steps |= {name: lambda runner=runner: runner(image) for name, runner in runners.items()}
    turns = {
        name: lambda step=step: paired_timing.time_repeats(step, REPEATS)
        for name, step in steps.items()
    }
    return paired_timing.time_in_turns(turns, rounds, f"{threads} threads")


def print_table(times: paired_timing.Times, sizes: dict[str, int]) -> None:
    """Print each model's time, its ratio to the SavedModel's, and its size."""
    print(f"  {'':24}{'median':>12}{'fastest':>12}{'ratio':>8}{'size':>11}")
    for name, turns in times.items():
        median, fastest = paired_timing.median_and_least(turns)
        ratio = paired_timing.ratio(times, name, SAVED_MODEL)
        size = f"{sizes[name] / 1e6:8.1f} MB" if name in sizes else ""
        print(f"  {name:24}{median:9.2f} ms{fastest:9.2f} ms{ratio:8.2f}{size}")


if __name__ == "__main__":
    run_main(main)
