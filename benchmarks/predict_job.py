"""Rate and memory of the prediction job: `python -m benchmarks.predict_job --model exports/wflw`.

Drawn faces go through the model in one process that holds them in memory and does nothing else (the
network's own rate, with one thread, as a worker has), and through `pipelines.predict` with one process and
with two; few of them and many. Each is a process of its own, in turn; the fastest of its rounds counts, as
what else a machine does only ever slows it down. The rate beyond the start is that of the pictures which
many has more than few; seconds of the processor, which a busy machine changes little, are of the ways with
one process.

The exit status is 1 if the job with one process is, beyond its start and by the processor's seconds, below
0.85 of the network's own rate, if memory for many is above 1.3 times that for few, or if answers differ in
a single byte.
"""

import argparse
import hashlib
import os
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
from tabulate import tabulate

from benchmarks.make_tfrecords import Measurement, lines_of, measure
from pipelines.predict.model import ExportedModel
from pipelines.sample_data import write_sample_data
from tfhuber.console.cli import progress, run_main

__all__ = ["main"]

PICTURES, BATCH = 100, 32
PYTHON = [sys.executable, "-m"]
JOB = [*PYTHON, "pipelines.predict", "--processes"]
NETWORK = [*PYTHON, "benchmarks.predict_job", "--network"]
WAYS = {"network alone": NETWORK, "1 process": [*JOB, "1"], "2 processes": [*JOB, "2"]}
LEAST_OF_NETWORK, MOST_MEMORY = 0.85, 1.3


def main() -> int:
    """Make the pictures, run everything, print the table and return whether a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="an exported model")
    parser.add_argument("--few", type=int, default=500, help="pictures of the small folder")
    parser.add_argument("--many", type=int, default=5000, help="pictures of the large one")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is timed")
    parser.add_argument("--network", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.network:
        return run_network(args.model, args.source)
    if not 1 <= args.few < args.many:
        raise ValueError(f"--few must be at least 1 and less than --many, got {args.few}")
    if args.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, got {args.rounds}")
    model = ExportedModel.find(args.model, "serving_default").directory
    with tempfile.TemporaryDirectory() as directory:
        counts = {"few": args.few, "many": args.many}
        make_folders(Path(directory), counts)
        results: dict[tuple[str, str], Measurement] = {}
        processor: dict[tuple[str, str], float] = {}
        bytes_written = set()
        runs = [(way, size) for _ in range(args.rounds) for size in counts for way in WAYS]
        for number, (way, size) in enumerate(progress(runs, desc="run", unit=" runs")):
            output = Path(directory, f"output{number}")
            before = processor_seconds()
            result = measure([*WAYS[way], "--model", model], Path(directory, size), output)
            took = processor_seconds() - before
            processor[way, size] = min(took, processor.get((way, size), took))
            results[way, size] = result.better_of(results.get((way, size)))
            if size == "many" and output.exists():
                bytes_written.add(contents(output))
    return report(results, processor, counts, len(bytes_written) == 1)


def make_folders(directory: Path, counts: dict[str, int]) -> None:
    """Write folders of so many pictures, whose files are links to a few different ones."""
    drawn = directory / "drawn"
    write_sample_data("wflw", drawn, train=PICTURES, test=1)
    pictures = [drawn / "WFLW_images" / line[-1] for line in lines_of(drawn)]
    for name, count in counts.items():
        folder = directory / name
        folder.mkdir()
        for i in range(count):
            os.link(pictures[i % len(pictures)], folder / f"{i:06d}.jpg")


def run_network(directory: str, source: Path) -> int:
    """Give the model the folder's pictures, read before, in batches of whole pictures."""
    model = ExportedModel.find(directory, "serving_default").load()
    files = [path.read_bytes() for path in sorted(source.iterdir())[:PICTURES]]
    count = len(list(source.iterdir()))
    for start in range(0, count, BATCH):
        batch = [files[i % len(files)] for i in range(start, min(start + BATCH, count))]
        model.predict(batch, np.zeros((len(batch), 4), np.float32))
    return 0


def contents(directory: Path) -> str:
    """Return a digest of all files' names and bytes."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def processor_seconds() -> float:
    """Return what the processes that have ended so far have taken of the processor."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def report(
    results: dict[tuple[str, str], Measurement],
    processor: dict[tuple[str, str], float],
    counts: dict[str, int],
    same: bool,
) -> int:
    """Print the table and the bounds; return the exit status."""
    few, many = counts.values()
    network, one, two = WAYS
    rows, beyond = [], {}
    for way in WAYS:
        for size, count in counts.items():
            run = results[way, size]
            rows.append(
                [way, count, run.seconds, count / run.seconds, round(run.megabytes), "", ""]
            )
        beyond[way] = (many - few) / (run.seconds - results[way, "few"].seconds)
        rows[-1][5] = beyond[way]
    shares = {
        w: (many - few) / (processor[w, "many"] - processor[w, "few"]) for w in (network, one)
    }
    rows[1][6], rows[3][6] = shares[network], shares[one]
    headers = ["", "images", "s", "images/s", "MB", "beyond the start", "a processor's second"]
    print(tabulate(rows, headers, tablefmt="plain", floatfmt=".1f"))
    share = shares[one] / shares[network]
    memory = max(results[w, "many"].megabytes / results[w, "few"].megabytes for w in (one, two))
    print(f"one process over the network alone: {share:.2f} (>= {LEAST_OF_NETWORK} is required)")
    print(f"two processes over one: {beyond[two] / beyond[one]:.2f}")
    print(f"memory for {many} over {few} images: {memory:.2f} (<= {MOST_MEMORY} is required)")
    print("all answers are the same, byte for byte" if same else "ANSWERS DIFFER")
    return 0 if share >= LEAST_OF_NETWORK and memory <= MOST_MEMORY and same else 1


if __name__ == "__main__":
    run_main(main)
