"""Drawn sample data in WFLW's, MPII's or 300W-LP's official layout, with the truth beside it.

    python -m pipelines.sample_data --dataset wflw --output DIR [--train 2000] [--test 200]

The published labels are exact positions plus noise from the L2 multivariate Huber distribution,
whose covariance can be told from the picture: it grows with haze and beneath whatever hides a part,
and differs between landmarks. `DIR/truth_train.jsonl` and `DIR/truth_test.jsonl` hold one object
a line:

    {"id": ..., "landmarks": [K][2], "covariance": [K][2][2]}

with the exact positions in original pixels (centres at integers, from 0, for MPII as well) and the
noise's covariance in those pixels squared; the ids are those of `pipelines.make_tfrecords`. For
MPII the people of the test split are listed too, though their labels aren't published. 300W-LP has
no splits, so that there the pictures of both parts lie together, each face in a file of its own for
each of two poses.
"""

import argparse
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.output import written_aside
from pipelines.sample.face_views import face_views
from pipelines.sample.faces import draw_faces
from pipelines.sample.figures import draw_figures
from pipelines.sample.label_noise import huber_noise
from pipelines.sample.layouts import (
    Picture,
    people,
    write_lp300w_mats,
    write_mpii_mat,
    write_wflw_list,
)
from tfhuber.console.cli import progress, run_main
from tfhuber.console.cpus import available_cpus

__all__ = ["read_truth", "write_sample_data"]

DATASETS = ("wflw", "mpii", "300w_lp")
SPLITS = ("train", "test")
FOLDERS = ("AFW", "HELEN", "IBUG", "LFPW")  # 300W-LP's
# All names in a directory of sample data, the first of them in no other one.
FILES = (
    "truth_train.jsonl",
    "truth_test.jsonl",
    "WFLW_*",
    "images",
    "*.mat",
    *FOLDERS,
    "landmarks",
)
IMAGES = {"wflw": "WFLW_images", "mpii": "images", "300w_lp": "."}
EVENTS = ("0--Portrait", "1--Parade", "2--Market", "3--Studio", "4--Street", "5--Concert")
JPEG_QUALITY = 90

_Job = tuple[str, int]  # A split, and a picture's number in it.


def write_sample_data(
    dataset: str,
    output: str | os.PathLike,
    *,
    train: int = 2000,
    test: int = 200,
    seed: int = 0,
    processes: int | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Draw pictures, write them with their labels and the truth, and count the examples.

    Picture i of a split depends on (seed, dataset, split, i) alone. An example is a labelled face
    or person, of which a picture may hold two, and, in MPII's layout, none; in 300W-LP's, a file.

    Args:
      dataset: "wflw", "mpii" or "300w_lp".
      output: directory to write; it appears when everything is written.
      train, test: numbers of pictures.
      seed: at least 0.
      processes: how many draw at a time; default: one for each processor, at most 8.
      overwrite: whether to replace sample data that is already there.

    Returns:
      The number of lines in each split's truth.

    Raises:
      ValueError: if an argument is out of range, or `output` is not empty and may not be replaced.

    Example:
      >>> write_sample_data("wflw", "data/wflw", train=100, test=10)
      {'train': 111, 'test': 10}
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
    processes = min(available_cpus(), 8) if processes is None else processes
    for name, value, least in (
        ("train", train, 1),
        ("test", test, 1),
        ("seed", seed, 0),
        ("processes", processes, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")

    output = str(Path(output).resolve())
    with written_aside(output, "sample data", FILES, overwrite=overwrite) as work:
        work.clear("data")  # Of a run that was killed.
        scratch = Path(work.path("data"))
        scratch.mkdir()
        jobs = [("train", index) for index in range(train)]
        jobs += [("test", index) for index in range(test)]
        pictures = list(_draw_all(partial(_draw, dataset, seed, scratch), jobs, processes))
        drawn = {"train": pictures[:train], "test": pictures[train:]}
        ids = _write_labels(dataset, scratch, drawn)
        return {
            split: _write_truth(scratch, split, drawn[split], split_ids)
            for split, split_ids in zip(SPLITS, ids, strict=True)
        }


def read_truth(
    directory: str | os.PathLike, split: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read exact landmarks [K, 2] and noise covariances [K, 2, 2], by id, in original pixels."""
    with open(Path(directory) / f"truth_{split}.jsonl") as lines:
        entries = [json.loads(line) for line in lines]
    return {
        entry["id"]: (np.array(entry["landmarks"]), np.array(entry["covariance"]))
        for entry in entries
    }


def _draw_all(
    draw: Callable[[_Job], Picture], jobs: list[_Job], processes: int
) -> Iterator[Picture]:
    """Yield the picture of each job, in their order."""
    bar = partial(progress, total=len(jobs), desc="drawing", unit="image")
    if processes == 1:
        yield from bar(map(draw, jobs))
        return
    # Spawned, not forked: whoever calls may have threads running. Ctrl-C is the parent's to handle.
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from bar(pool.imap(draw, jobs, chunksize=16))


def _draw(dataset: str, seed: int, directory: Path, job: _Job) -> Picture:
    """Draw one picture, store it or its views below `directory`, and return it with its labels."""
    split, index = job
    subjects: Any  # A list of faces or figures, and of views in the end.
    rng = np.random.default_rng((seed, DATASETS.index(dataset), SPLITS.index(split), index))
    if dataset == "wflw":
        event = EVENTS[index % len(EVENTS)]
        number, title = event.split("--")
        name = f"{event}/{number}_{title}_{split}_{index:05d}.jpg"
        image, subjects = draw_faces(rng)
    elif dataset == "mpii":
        name = f"{SPLITS.index(split)}{index:08d}.jpg"
        image, subjects = draw_figures(rng, people(index))
    else:
        folder = FOLDERS[index % len(FOLDERS)]
        name = f"{folder}/{folder}_{SPLITS.index(split)}{index:06d}"
        image, subjects = draw_faces(rng)
    labels = [subject.landmarks + huber_noise(rng, subject.covariance) for subject in subjects]
    files = {name: image}
    if dataset == "300w_lp":
        views = list(face_views(image, subjects, labels))
        files = {f"{name}_{view.suffix}.jpg": picture for picture, view, _ in views}
        subjects, labels = [view for _, view, _ in views], [points for _, _, points in views]
    for file, content in files.items():
        path = directory / IMAGES[dataset] / file
        path.parent.mkdir(parents=True, exist_ok=True)
        content.save(path, quality=JPEG_QUALITY)
    return Picture(name, index, image.size, subjects, labels)


def _write_labels(
    dataset: str, directory: Path, drawn: dict[str, list[Picture]]
) -> list[list[str]]:
    """Write the labels in the data set's layout; return the ids of each split's subjects."""
    if dataset == "wflw":
        return [write_wflw_list(directory, split, drawn[split]) for split in SPLITS]
    if dataset == "mpii":
        return write_mpii_mat(directory, drawn["train"], drawn["test"])
    return [write_lp300w_mats(directory, drawn[split]) for split in SPLITS]


def _write_truth(directory: Path, split: str, pictures: list[Picture], ids: list[str]) -> int:
    """Write a line for each subject that has an id; return how many these are."""
    subjects = [subject for picture in pictures for subject in picture.subjects]
    lines = []
    for identity, subject in zip(ids, subjects, strict=True):
        if identity:
            landmarks = np.round(subject.landmarks, 4).tolist()
            covariance = np.round(subject.covariance, 6).tolist()
            entry = {"id": identity, "landmarks": landmarks, "covariance": covariance}
            lines.append(json.dumps(entry) + "\n")
    (directory / f"truth_{split}.jsonl").write_text("".join(lines))
    return len(lines)


def main() -> None:
    """Run the command with the process's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.sample_data",
        description="Draw faces or figures and write them in a data set's official layout.",
    )
    parser.add_argument("--dataset", required=True, choices=DATASETS)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--train", type=int, default=2000, metavar="N", help="training pictures")
    parser.add_argument("--test", type=int, default=200, metavar="N", help="test pictures")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--processes", type=int, metavar="N", help="default: one a processor")
    parser.add_argument("--overwrite", action="store_true", help="replace sample data in DIR")
    arguments = parser.parse_args()
    counts = write_sample_data(**vars(arguments))
    total = " + ".join(f"{count} {split}" for split, count in counts.items())
    layout = arguments.dataset.upper().replace("_", "-")
    print(f"{arguments.output}: {total} examples in {layout}'s layout")


if __name__ == "__main__":
    run_main(main)
