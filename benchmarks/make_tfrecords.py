"""Rate and memory of the conversion: `python -m benchmarks.make_tfrecords`.

Drawn faces, enlarged to the 1,024 pixels of WFLW's photographs, are converted by a plain script (one
loop that parses a line, decodes, crops and writes, with Pillow and TensorFlow), by `make_tfrecords` with
one process, and with two; few of them and many. Each is a process of its own, timed from its start to
its end, in turn; the fastest of its rounds counts, as what else a machine does only ever slows it
down. The rate beyond the start is that of the images which many has more than few.

The exit status is 1 if two processes are not 1.7 times as fast as one, one process is not as fast as the
script, memory for many is above 1.3 times that for few, or shards differ in a single byte.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from tabulate import tabulate

from pipelines.crops import store_crop
from pipelines.sample_data import write_sample_data
from tfhuber.console.cli import progress, run_main
from tfhuber.console.lazy import lazy_module
from tfhuber.data import records

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = lazy_module("tensorflow")

__all__ = ["main"]

LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{}.txt"
LONGER_SIDE, PICTURES = 1024, 250
PYTHON = [sys.executable, "-m"]
COMMAND = [*PYTHON, "pipelines.make_tfrecords", "--dataset", "wflw", "--processes"]
WAYS = {
    "plain script": [*PYTHON, "benchmarks.make_tfrecords", "--plain"],
    "1 process": [*COMMAND, "1"],
    "2 processes": [*COMMAND, "2"],
}
LEAST_SPEED_UP, LEAST_OVER_PLAIN, MOST_MEMORY = 1.7, 1.0, 1.3


@dataclass(frozen=True)
class Measurement:
    """Wall seconds of a process and its children, and the most memory they had together, in MB."""

    seconds: float
    megabytes: float

    def better_of(self, other: "Measurement | None") -> "Measurement":
        """Return the shorter of both times with the larger of both memories."""
        if other is None:
            return self
        return Measurement(min(self.seconds, other.seconds), max(self.megabytes, other.megabytes))


def main() -> int:
    """Make the data, run everything, print the table and return whether a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=500, help="images of the small data set")
    parser.add_argument("--many", type=int, default=5000, help="images of the large one")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plain:
        return convert_plainly(args.source, args.output)
    if not 1 <= args.few < args.many:
        raise ValueError(f"--few must be at least 1 and less than --many, got {args.few}")
    if args.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, got {args.rounds}")
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        counts = {"few": args.few, "many": args.many}
        make_sources(directory, counts)
        results = {}
        runs = [(way, size) for _ in range(args.rounds) for size in counts for way in WAYS]
        for way, size in progress(runs, desc="run", unit=" runs"):
            output = directory / way / size
            shutil.rmtree(output, ignore_errors=True)
            result = measure(WAYS[way], directory / size, output)
            results[way, size] = result.better_of(results.get((way, size)))
        same = len({contents(directory / way / "many") for way in WAYS}) == 1
    return report(results, counts, same)


def make_sources(directory: Path, counts: dict[str, int]) -> None:
    """Write data sets of so many images, whose files are links to a few different pictures."""
    drawn = directory / "drawn"
    write_sample_data("wflw", drawn, train=PICTURES, test=1)
    pictures = [enlarge(drawn, line) for line in lines_of(drawn)]
    for name, count in counts.items():
        folder = directory / name / "WFLW_images"
        folder.mkdir(parents=True)
        lines = []
        for i in range(count):
            path, fields = pictures[i % len(pictures)]
            os.link(path, folder / f"{i}.jpg")
            lines.append(" ".join([*fields, f"{i}.jpg"]))
        for split, content in (("train", lines), ("test", [])):
            path = directory / name / LISTS.format(split)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(content))


def lines_of(source: Path) -> list[list[str]]:
    """Return the training list's lines, one for each image, as fields."""
    lines = (line.split() for line in (source / LISTS.format("train")).read_text().splitlines())
    return list({fields[-1]: fields for fields in lines}.values())


def enlarge(source: Path, fields: list[str]) -> tuple[Path, list[str]]:
    """Enlarge a picture to the size of WFLW's; return its path and the labels that match."""
    path = source / "WFLW_images" / fields[-1]
    with Image.open(path) as picture:
        scale = LONGER_SIDE / max(picture.size)
        size = [round(side * scale) for side in picture.size]
        picture.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    numbers = [f"{(float(field) + 0.5) * scale - 0.5:.4f}" for field in fields[:200]]
    return path, [*numbers, *fields[200:-1]]


def convert_plainly(source: Path, output: Path) -> int:
    """Write the same shards in one loop, as anybody would for images that are all good."""

    class Whole:
        """A decoded image as `store_crop` wants it."""

        def __init__(self, path: Path):
            self._image = Image.open(path).convert("RGB")
            self.size = self._image.size

        def region(self, *box: int) -> Image.Image:
            return self._image.crop(box)

    output.mkdir(parents=True)
    lines = (source / LISTS.format("train")).read_text().splitlines()
    shards = -(-len(lines) // 256)
    for shard in range(shards):
        path = output / f"train-{shard:05d}-of-{shards:05d}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            start = 256 * shard
            for number, line in enumerate(lines[start : start + 256], start=start + 1):
                fields = line.split()
                numbers = np.array([float(field) for field in fields[:206]])
                points, box = numbers[:196].reshape(98, 2), numbers[196:200]
                image = Whole(source / "WFLW_images" / fields[206])
                jpeg, crop_to_original = store_crop(image, box, rule="diagonal", size=256)
                record = records.encode(
                    id=f"{fields[206]}#{number}",
                    image=jpeg,
                    landmarks=points,
                    weights=np.ones(98),
                    box=box,
                    crop_to_original=crop_to_original,
                    normalizer=np.linalg.norm(points[60] - points[72]),
                    attributes=numbers[200:206],
                    image_size=image.size,
                    people=1,
                )
                writer.write(record)
    return 0


def measure(command: list[str], source: Path, output: Path) -> Measurement:
    """Run a command on a source to its end.

    Raises:
      ChildProcessError: if it fails; the message ends with the last line that it printed.
    """
    command = [*command, "--source", str(source), "--output", str(output)]
    with tempfile.TemporaryFile() as printed:
        started, most = time.perf_counter(), 0
        process = subprocess.Popen(command, stdout=printed, stderr=printed)
        while process.poll() is None:
            most = max(most, sum(map(memory, [process.pid, *descendants(process.pid)])))
            time.sleep(0.5)  # To ask for memory takes time from the processes.
        seconds = time.perf_counter() - started
        if process.returncode:
            printed.seek(0)
            last = printed.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise ChildProcessError(f"{' '.join(command)} failed: {last}")
    return Measurement(seconds, most / 1e6)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and that these have started."""
    children = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # It may have ended by now.
            children += map(int, path.read_text().split())
    return children + [each for child in children for each in descendants(child)]


def memory(pid: int) -> int:
    """Return the bytes of memory of a process; a page that n processes share counts 1 / n."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


def contents(directory: Path) -> str:
    """Return a digest of all shards' names and bytes."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*.tfrecord")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def report(results: dict, counts: dict[str, int], same: bool) -> int:
    """Print the table and the bounds; return the exit status."""
    few, many = counts.values()
    rows: list[list] = []
    rates, beyond = {}, {}
    for way in WAYS:
        for size, count in counts.items():
            run = results[way, size]
            rates[way] = count / run.seconds
            rows.append([way, count, run.seconds, rates[way], round(run.megabytes)])
        beyond[way] = (many - few) / (run.seconds - results[way, "few"].seconds)
        rows[-1].append(f"{beyond[way]:.1f} images/s")
    headers = ["", "images", "seconds", "images/s", "MB", "beyond the start"]
    print(tabulate(rows, headers, tablefmt="plain", floatfmt=".1f"))
    plain, one, two = WAYS
    memory_ratio = max(
        results[way, "many"].megabytes / results[way, "few"].megabytes for way in (one, two)
    )
    bounds = [
        ("two processes over one", rates[two] / rates[one], LEAST_SPEED_UP, ">="),
        ("one process over the plain script", rates[one] / rates[plain], LEAST_OVER_PLAIN, ">="),
        (f"memory for {many} over {few} images", memory_ratio, MOST_MEMORY, "<="),
    ]
    for what, ratio, bound, relation in bounds:
        print(f"{what}: {ratio:.2f} ({relation} {bound} is required)")
    print(
        f"beyond the start: {beyond[two] / beyond[one]:.2f} and {beyond[one] / beyond[plain]:.2f}"
    )
    print("all shards are the same, byte for byte" if same else "SHARDS DIFFER")
    kept = all(r >= b if relation == ">=" else r <= b for _, r, b, relation in bounds)
    return 0 if kept and same else 1


if __name__ == "__main__":
    run_main(main)
