"""Converts a data set in its official layout to TFRecords.

    python -m pipelines.make_tfrecords --dataset wflw --source DIR --output DIR

Whatever cannot be used is counted, and listed with its reason in `rejects.jsonl`; everything else
becomes an example. The output appears under its name when it is complete.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

import tfhuber
from pipelines import lp300w, mpii, wflw
from pipelines.annotation import Annotation, Reject, Unread
from tfhuber import landmarks, records
from tfhuber.cli import import_tensorflow, progress, run_main

__all__ = ["DATASETS", "REJECTS", "main"]

DATASETS = {"300w_lp": lp300w, "mpii": mpii, "wflw": wflw}
SPLITS = ("train", "valid", "test")
REJECTS = "rejects.jsonl"


def main(argv: list[str] | None = None) -> None:
    """The command; `argv` defaults to the process's arguments."""
    args, beam_options = _parse(argv)
    _check_output(args.output, args.overwrite)
    items = _read(args)
    with _written_aside(args.output) as directory:
        splits = _convert(items, directory, args, beam_options)
    _report(splits, args.output)
    if not any(books["examples"] for books in splits.values()):
        raise ValueError(f"nothing could be used; {args.output / REJECTS} says why")


def _parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.make_tfrecords",
        description="Converts a data set in its official layout to TFRecords.",
        epilog="Any other option is Beam's own, such as --project for --runner DataflowRunner.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--dataset", required=True, choices=sorted(DATASETS))
    add("--source", required=True, type=Path, metavar="DIR", help="the data set, unpacked")
    add("--output", required=True, type=Path, metavar="DIR", help="directory to make")
    add("--overwrite", action="store_true", help="replace a data set made before")
    add("--size", type=int, default=256, help="at most so many pixels for the box's square (256)")
    add("--margin", type=float, help="stored side over the square's (enough to augment)")
    add("--quality", type=int, default=95, help="of the stored JPEGs (95)")
    add("--shard-examples", type=int, default=256, metavar="N", help="examples a shard (256)")
    add("--processes", type=int, default=1, metavar="N", help="local worker processes (1)")
    add("--runner", default="FnApiRunner", help="Beam's runner (FnApiRunner: on this machine)")
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument(
        "--validation-fraction",
        type=float,
        metavar="F",
        help="part of the training photographs to hold out as split `valid` (wflw 0, others 0.1)",
    )
    held_out.add_argument(
        "--validation-images", type=Path, metavar="FILE", help="or their names, one a line"
    )
    args, beam_options = parser.parse_known_args(argv)
    for name, least, most in (
        ("size", 16, 4096),
        ("margin", 1, 100),
        ("quality", 1, 100),
        ("shard_examples", 1, 1_000_000),
        ("processes", 1, 1024),
        ("validation_fraction", 0, 1),
    ):
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option} must be between {least} and {most}, got {value}")
    return args, beam_options


def _check_output(output: Path, overwrite: bool) -> None:
    if (output / records.MANIFEST).is_file():
        if not overwrite:
            raise ValueError(f"{output} already holds a data set; --overwrite replaces it")
    elif output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ValueError(f"{output} exists and is no converted data set; choose another --output")
    if output.is_mount():
        raise ValueError(f"{output} is a mount point; choose a directory below it as --output")


def _read(args: argparse.Namespace) -> list[Annotation | Unread | Reject]:
    """The source's entries in its order, some photographs' ones moved to the split "valid"."""
    reader = DATASETS[args.dataset]
    fraction = args.validation_fraction
    if args.validation_images:
        is_held_out = _listed(args.validation_images, reader.photograph)
    else:
        is_held_out = _hashed(reader.VALIDATION_FRACTION if fraction is None else fraction)
    items = [
        dataclasses.replace(item, split="valid")
        if item.split == "train" and item.image and is_held_out(reader.photograph(item.image))
        else item
        for item in progress(reader.read(args.source), desc="read", unit=" labels")
    ]
    if args.validation_images and not any(item.split == "valid" for item in items):
        raise ValueError(f"{args.validation_images} names no training image of {args.source}")
    return items


def _listed(path: Path, photograph: Callable[[str], str]) -> Callable[[str], bool]:
    return set(map(photograph, path.read_text("utf-8-sig").splitlines())).__contains__


def _hashed(fraction: float) -> Callable[[str], bool]:
    """Takes that fraction of all names; the same ones whatever else is in the data set."""

    def is_held_out(photograph: str) -> bool:
        digest = hashlib.sha256(photograph.encode()).digest()
        return int.from_bytes(digest[:8]) < fraction * 2**64

    return is_held_out


def _convert(
    items: list[Annotation | Unread | Reject],
    directory: Path,
    args: argparse.Namespace,
    beam_options: list[str],
) -> dict[str, dict]:
    """Writes shards, rejects and manifest into `directory`; returns the manifest's splits."""
    # Beam logs even while it is imported, and each failure before it is raised.
    logging.getLogger().setLevel(logging.CRITICAL)
    import_tensorflow()
    from pipelines.crops import MARGIN
    from pipelines.runners import make_pipeline, run_job
    from pipelines.shards import CropParameters, plan_shards, write_shards

    reader = DATASETS[args.dataset]
    landmark_set = landmarks.get(reader.LANDMARK_SET)
    parameters = CropParameters(
        rule=landmark_set.square,
        size=args.size,
        margin=args.margin or MARGIN,
        quality=args.quality,
    )
    annotations = [item for item in items if not isinstance(item, Reject)]
    plans = plan_shards(annotations, args.shard_examples)
    pipeline = make_pipeline(args.runner, beam_options, args.processes)
    images = args.source / reader.IMAGES
    job = partial(write_shards, plans, images, directory, parameters, pipeline)
    with progress(total=len(annotations), desc="crop", unit=" examples") as bar:

        def follow_files():
            finished = (plan for plan in plans if (directory / plan.name).exists())
            bar.update(sum(len(plan.annotations) for plan in finished) - bar.n)

        shards, rejects = run_job(job, follow_files)
        follow_files()
    rejects += [item for item in items if isinstance(item, Reject)]
    splits = _close_books(items, shards, rejects)
    _write_rejects(items, rejects, directory / REJECTS)
    manifest = {
        "landmark_set": landmark_set.name,
        "splits": splits,
        "parameters": {
            "dataset": args.dataset,
            **dataclasses.asdict(parameters),
            "shard_examples": args.shard_examples,
        },
        "versions": {
            "tfhuber": tfhuber.__version__,
            **{name: metadata.version(name) for name in ("apache-beam", "pillow", "tensorflow")},
        },
    }
    records.write_manifest(directory, manifest)
    return splits


def _close_books(
    items: list[Annotation | Unread | Reject], shards: list[dict], rejects: list[Reject]
) -> dict[str, dict]:
    """The manifest's splits; an entry that is in neither count is a defect of ours."""
    splits = {}
    for split in SPLITS:
        read = sum(item.split == split for item in items)
        written = [shard for shard in shards if shard["split"] == split]
        reasons = Counter(reject.reason for reject in rejects if reject.split == split)
        books = {
            "examples": sum(shard["examples"] for shard in written),
            "rejects": reasons.total(),
            "rejects_by_reason": dict(sorted(reasons.items())),
            "shards": sorted(shard["name"] for shard in written),
        }
        if books["examples"] + books["rejects"] != read:
            raise RuntimeError(
                f"split {split}: {read} entries were read, but its books say {books}"
            )
        if read:
            splits[split] = books
    return splits


def _write_rejects(
    items: list[Annotation | Unread | Reject], rejects: list[Reject], path: Path
) -> None:
    """One JSON object a line, in the order in which the source has them."""
    order = {(item.source, item.position): number for number, item in enumerate(items)}
    with open(path, "w", encoding="utf-8") as lines:
        for reject in sorted(rejects, key=lambda r: order[r.source, r.position]):
            print(json.dumps(dataclasses.asdict(reject)), file=lines)


@contextlib.contextmanager
def _written_aside(output: Path) -> Iterator[Path]:
    """A new directory beside `output` that takes its name at the end, or goes if anything fails."""
    output = output.resolve()
    aside = output.with_name(f".{output.name}.partial")
    old = output.with_name(f".{output.name}.replaced")
    for leftover in (aside, old):  # Of a run that was killed.
        if leftover.exists():
            shutil.rmtree(leftover)
    aside.mkdir(parents=True)
    try:
        yield aside
        if output.exists():
            output.rename(old)
        aside.rename(output)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _report(splits: dict[str, dict], output: Path) -> None:
    print(f"{'split':8}{'examples':>10}{'rejects':>10}  reasons")
    for split, books in splits.items():
        reasons = ", ".join(f"{name} {count}" for name, count in books["rejects_by_reason"].items())
        print(f"{split:8}{books['examples']:10d}{books['rejects']:10d}  {reasons}".rstrip())
    print(f"{output} is ready; {REJECTS} in it lists what was left out, and why")


if __name__ == "__main__":
    run_main(main)
