"""Conversion of a data set in its official layout, COCO's or a pose project's, to TFRecords.

    python -m pipelines.make_tfrecords --dataset wflw --source DIR --output DIR

Whatever cannot be used is counted, and listed with its reason in `rejects.jsonl`; everything else
becomes an example. The output appears under its name when it is complete; a run that was cut short is
finished by the same command.
"""

import argparse
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import apache_beam as beam
from tabulate import tabulate

from pipelines.contact_sheet import CONTACT_SHEET, write_contact_sheet
from pipelines.crops import MARGIN
from pipelines.launcher import gather_rejects, run_shards
from pipelines.notes import explained
from pipelines.options import make_reader, parameters_of, parse_arguments
from pipelines.output import Work, written_aside
from pipelines.plans import (
    SPLITS,
    ShardPlan,
    first_photograph,
    hashed,
    hold_out,
    listed,
    some_photographs,
    write_plans,
)
from pipelines.readers.annotation import Entry
from pipelines.readers.base import Reader
from pipelines.readers.mirror_pairs import pairs_left_alone
from pipelines.readers.poses import PoseReader
from pipelines.runners import make_pipeline
from pipelines.shards import (
    REJECTS,
    SUMMARIES,
    CropParameters,
    WriteShard,
    keep_books,
    read_lines,
    spread,
    versions,
)
from pipelines.statistics import Statistics
from pipelines.storage import Source, create, open_file
from tfhuber.console.cli import progress, run_main
from tfhuber.data import records
from tfhuber.landmarks import known_sets

__all__ = ["REJECTS_FILE", "main"]

REJECTS_FILE = "rejects.jsonl"
_MOST_NAMED = 5
_SHARD_KEYS = ("name", "examples", "bytes", "crc32c", "sources")


def main(argv: list[str] | None = None) -> None:
    """Run the command; `argv` defaults to the process's arguments."""
    args, beam_options = parse_arguments(argv)
    reader, source = make_reader(args), Source(args.source)
    for remark in getattr(reader, "remarks", ()):
        print(remark)
    if pairs := pairs_left_alone(reader.landmark_set):
        print(_left_and_right_alike(pairs))
    crops = CropParameters(
        rule=reader.landmark_set.square,
        size=args.size,
        margin=args.margin or MARGIN,
        quality=args.quality,
    )
    pipeline = make_pipeline(args.runner, beam_options, args.processes)
    with written_aside(
        args.output,
        "a converted data set",
        (records.MANIFEST, REJECTS_FILE, CONTACT_SHEET, "*.tfrecord"),
        overwrite=args.overwrite,
        keep=SUMMARIES,
    ) as work:
        plans = _plan(reader, source, args, work)
        _run(WriteShard(reader, source, work, crops), plans, work, pipeline)
        splits, rejects = (
            _split_summaries(plans, reader, work),
            gather_rejects(plans, work, REJECTS_FILE),
        )
        if not any(split["examples"] for split in splits.values()):
            raise ValueError(_nothing_usable(splits, args.dataset, work))
        manifest = {
            "landmark_set": known_sets.describe(reader.landmark_set),
            "splits": splits,
            "rejects": rejects,
            "sources": {name: {"sha256": source.sha256(name)} for name in reader.lists},
            "parameters": parameters_of(args, reader) | dataclasses.asdict(crops),
            "versions": versions(),
        }
        write_contact_sheet(work.path("data"), manifest, work.path("data", CONTACT_SHEET))
        with create(work.path("data", records.MANIFEST)) as file:
            file.write(records.manifest_text(manifest).encode())
    _report(splits, args.output)
    if _fraction(reader, args) and not splits.get("valid", {}).get("examples"):
        print("note: no example is held out to validate with; --validation-fraction holds out more")
    if args.calibration_fraction and not splits.get("calibration", {}).get("examples"):
        print("note: no example is held out to calibrate with; raise --calibration-fraction")


def _left_and_right_alike(pairs: list[tuple[str, str]]) -> str:
    named = ", ".join(f"{one} - {other}" for one, other in pairs[:_MOST_NAMED])
    more = f" and {len(pairs) - _MOST_NAMED} more" if len(pairs) > _MOST_NAMED else ""
    return (
        f"note: {named}{more} keep their places in mirror images, which teaches a network left for right. "
        'List them under "mirror" of the landmark set, or train with --set augmentation.mirror=0'
    )


def _plan(reader: Reader, source: Source, args: argparse.Namespace, work: Work) -> list[ShardPlan]:
    """Plan all shards, with some training photographs' entries moved to "valid" and "calibration"."""

    by_video = isinstance(reader, PoseReader) and reader.by_video
    fraction, calibration_fraction = _fraction(reader, args), args.calibration_fraction

    def split_up(entries: Iterable[Entry], validates: Callable[[str], bool]) -> Iterator[Entry]:
        calibrates = hashed(calibration_fraction, "calibration/")
        if calibration_fraction and by_video:
            left = hold_out(reader.entries(source), reader, validates)
            calibrates = some_photographs(left, reader, calibration_fraction)
        return hold_out(hold_out(entries, reader, validates), reader, calibrates, "calibration")

    is_held_out = hashed(fraction)
    if fraction and by_video:
        is_held_out = some_photographs(reader.entries(source), reader, fraction)
    if args.validation_images:
        is_held_out = listed(args.validation_images, reader)
    entries = progress(reader.entries(source), desc="read", unit=" labels")
    plans = write_plans(split_up(entries, is_held_out), args.shard_examples, work)
    if not plans:
        raise ValueError(f"{args.source} lists nothing")
    if any(plan.split == "valid" for plan in plans):
        return plans
    if fraction and (one := first_photograph(reader.entries(source), reader)):
        # There are so few that the fraction is not one of them.
        held_out = split_up(reader.entries(source), one.__eq__)
        return write_plans(held_out, args.shard_examples, work)
    if args.validation_images:
        raise ValueError(f"{args.validation_images} names no training image of {args.source}")
    return plans


def _fraction(reader: Reader, args: argparse.Namespace) -> float:
    """Return which part of the training photographs is to be held out; 0 where a list says which."""
    if args.validation_images:
        return 0.0
    fraction = args.validation_fraction
    return reader.validation_fraction if fraction is None else fraction


def _run(job: WriteShard, plans: list[ShardPlan], work: Work, pipeline: beam.Pipeline) -> None:
    """Write the planned shards to the work's folder `data`."""
    written = spread(plans, pipeline) | "WriteShard" >> beam.ParDo(job).with_outputs(
        "rejects", main="summaries"
    )
    keep_books(written.summaries, written.rejects, work)
    run_shards(pipeline, plans, work, "crop")


def _split_summaries(plans: list[ShardPlan], reader: Reader, work: Work) -> dict[str, dict]:
    """Return the manifest's splits; RuntimeError if an entry is neither an example nor a reject."""
    splits = {}
    for split in SPLITS:
        statistics, shards = Statistics(reader.landmark_set), []
        reasons: Counter[str] = Counter()
        notes: Counter[str] = Counter()
        for plan in plans:
            if plan.split != split:
                continue
            (shard,) = read_lines(work.path(SUMMARIES, plan.name))
            reasons.update(each["reason"] for each in read_lines(work.path(REJECTS, plan.name)))
            if shard["examples"] + shard["rejects"] != plan.entries:
                raise RuntimeError(f"{plan}: its summary says {shard}")
            notes.update(shard.get("notes", {}))  # Version 0.1.0 wrote none.
            statistics.merge(shard)
            shards.append({name: shard[name] for name in _SHARD_KEYS})
        if shards:
            splits[split] = {
                "rejects": reasons.total(),
                "rejects_by_reason": dict(sorted(reasons.items())),
                **({"notes": dict(sorted(notes.items()))} if notes else {}),
                **statistics.summary(),
                "shards": shards,
            }
    return splits


def _nothing_usable(splits: dict[str, dict], dataset: str, work: Work) -> str:
    """Return what to say where all entries are rejects: the commonest reason, and the first of them."""
    path = work.path("data", REJECTS_FILE)
    counts = sum((Counter(split["rejects_by_reason"]) for split in splits.values()), Counter())
    ((reason, count),) = counts.most_common(1)
    with open_file(path) as file:
        first = next(each for each in map(json.loads, file) if each["reason"] == reason)
    hint = ""
    if reason == "missing_image" and dataset == "coco":
        hint = "; --images FOLDER names the folder in which file names begin"
    return (
        f"nothing could be used; {path} says why: {count:,} of {counts.total():,} are {reason}, first "
        f"{first['position']} of {first['source']}: {first['detail']}{hint}"
    )


def _report(splits: dict[str, dict], output: str) -> None:
    rows = []
    for name, split in splits.items():
        reasons = ", ".join(
            f"{reason} {count}" for reason, count in split["rejects_by_reason"].items()
        )
        rows.append([name, split["examples"], split["rejects"], reasons])
    print(tabulate(rows, ["split", "examples", "rejects", "reasons"], tablefmt="plain"))
    notes = sum((Counter(split.get("notes", {})) for split in splits.values()), Counter())
    for line in explained(notes):
        print(line)
    if turned := sum(
        split["rejects_by_reason"].get("turned_by_exif", 0) for split in splits.values()
    ):
        print(
            f"note: {turned:,} annotations were left out as they were made on photographs that EXIF's "
            "orientation turns; --apply-exif turns these (turned_by_exif)"
        )
    print(f"{output} is ready; {REJECTS_FILE} in it lists what was left out, and why")


if __name__ == "__main__":
    run_main(main)
