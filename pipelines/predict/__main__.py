"""Predict on any number of pictures, as a Beam job.

    python -m pipelines.predict --model exports/wflw --source photos --output found --processes 8

The answers are the client's JSON lines, or Parquet, in shards. A picture without one is listed with its
reason in `rejects.jsonl`. The output appears under its name when it is complete; a run that was cut short
is finished by the same command.
"""

import argparse
import hashlib
import json
from collections import Counter

from tabulate import tabulate

from pipelines.launcher import gather_rejects, run_shards
from pipelines.output import Work, written_aside
from pipelines.plans import SPLITS, ShardPlan, write_plans
from pipelines.predict.job import ShardPredictor, add_job, versions
from pipelines.predict.model import ExportedModel
from pipelines.predict.options import parse_arguments
from pipelines.predict.requests import PICTURES, find_requests
from pipelines.runners import make_pipeline
from pipelines.shards import REJECTS, SUMMARIES, read_lines
from pipelines.storage import create, digest, open_file
from tfhuber.console.cli import progress, run_main
from tfhuber.data import records
from tfhuber.geometry.boxes import Boxes, box_table, parse_box

__all__ = ["FORMAT", "REJECTS_FILE", "main"]

# What the manifest calls itself, so that nobody takes it for a data set's.
FORMAT = "predictions 1"
REJECTS_FILE = "rejects.jsonl"
_SHARD_KEYS = ("name", "predictions", "rejects", "bytes", "crc32c", "sources")


def main(argv: list[str] | None = None) -> None:
    """Run the command; `argv` defaults to the process's arguments."""
    args, beam_options = parse_arguments(argv)
    model = ExportedModel.find(args.model, args.signature)
    boxes = _read_boxes(args)
    pipeline = make_pipeline(args.runner, beam_options, args.processes)
    files = (records.MANIFEST, REJECTS_FILE, "*.jsonl", "*.parquet")
    with written_aside(
        args.output, "predictions", files, overwrite=args.overwrite, keep=SUMMARIES
    ) as work:
        plans = _plan(args, boxes, work)
        add_job(pipeline, plans, ShardPredictor(model, work, args.format, args.batch))
        run_shards(pipeline, plans, work, "predict")
        splits, rejects = _count(plans, work), gather_rejects(plans, work, REJECTS_FILE)
        if not any(split["predictions"] for split in splits.values()):
            raise ValueError(_nothing_predicted(splits, work))
        manifest = {
            "format": FORMAT,
            "model": {
                "version": model.version,
                "signature": model.signature,
                "sha256": model.sha256,
            },
            "splits": splits,
            "rejects": rejects,
            "parameters": _parameters(args),
            "versions": versions(),
        }
        with create(work.path("data", records.MANIFEST)) as file:
            file.write(records.manifest_text(manifest).encode())
    _report(splits, boxes, args.output)


def _read_boxes(args: argparse.Namespace) -> Boxes | None:
    """Return the boxes of `--box` and `--boxes`; None if there are neither."""
    if not (args.box or args.boxes):
        return None
    by_name = None
    if args.boxes:
        with open_file(args.boxes) as file:
            by_name = box_table(file, args.boxes)
    return Boxes(parse_box(args.box) if args.box else None, by_name)


def _plan(args: argparse.Namespace, boxes: Boxes | None, work: Work) -> list[ShardPlan]:
    requests = find_requests(args.source, boxes, args.images, args.split)
    plans = write_plans(
        progress(requests, desc="list", unit=" pictures"),
        args.shard_examples,
        work,
        splits=(PICTURES, *SPLITS),
        suffix=args.format,
    )
    if not plans:
        raise ValueError(
            f"{args.source} holds no picture: no .jpg, .jpeg or .png, no name, no record"
        )
    return plans


def _parameters(args: argparse.Namespace) -> dict:
    """Return the options as the manifest keeps them: of a path only what its file held."""
    names = ("format", "batch", "shard_examples", "box", "split")
    parameters = {name: getattr(args, name) for name in names if getattr(args, name)}
    if args.boxes:
        parameters["boxes_sha256"] = digest(args.boxes, hashlib.sha256())
    return parameters


def _count(plans: list[ShardPlan], work: Work) -> dict[str, dict]:
    """Return the manifest's splits; RuntimeError if a picture is neither predicted nor a reject."""
    splits: dict[str, dict] = {}
    for plan in plans:
        (shard,) = read_lines(work.path(SUMMARIES, plan.name))
        reasons = Counter(each["reason"] for each in read_lines(work.path(REJECTS, plan.name)))
        if not shard["predictions"] + reasons.total() == shard["entries"] == plan.entries:
            raise RuntimeError(f"{plan}: its summary says {shard}")
        split = splits.setdefault(
            plan.split,
            {"pictures": 0, "predictions": 0, "rejects": 0, "rejects_by_reason": {}, "shards": []},
        )
        split["pictures"] += plan.entries
        split["predictions"] += shard["predictions"]
        split["rejects"] += reasons.total()
        counts = Counter(split["rejects_by_reason"]) + reasons
        split["rejects_by_reason"] = dict(sorted(counts.items()))
        split["shards"].append({name: shard[name] for name in _SHARD_KEYS})
    return splits


def _nothing_predicted(splits: dict[str, dict], work: Work) -> str:
    """Return what to say where all pictures are rejects: the first of them."""
    path = work.path("data", REJECTS_FILE)
    with open_file(path) as file:
        first = json.loads(file.readline())
    count = sum(split["rejects"] for split in splits.values())
    return (
        f"nothing could be predicted; {path} says why for each of {count:,}, first "
        f"{first['source']}: {first['error']} ({first['reason']})"
    )


def _report(splits: dict[str, dict], boxes: Boxes | None, output: str) -> None:
    rows = []
    for name, split in splits.items():
        reasons = ", ".join(f"{why} {count}" for why, count in split["rejects_by_reason"].items())
        rows.append([name, split["predictions"], split["rejects"], reasons])
    print(tabulate(rows, ["", "predictions", "rejects", "reasons"], tablefmt="plain"))
    if boxes and (unused := boxes.unused()):
        print(
            f"note: {len(unused):,} of the boxes in --boxes belong to none of the pictures, the first "
            f"to {unused[0]}"
        )
    print(f"{output} is ready; {REJECTS_FILE} in it lists what has no prediction, and why")


if __name__ == "__main__":
    run_main(main)
