"""The Beam job: each element is the plan of one shard, which a worker reads, crops and writes whole.

Memory is bounded by one shard's labels and one image, whatever the data set's size, and a shard's
bytes depend on its plan and the source alone: neither the runner nor the number of workers changes
them.
"""

import hashlib
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import groupby

import apache_beam as beam
import google_crc32c
import numpy as np
from apache_beam.metrics import Metrics

import tfhuber
from pipelines.crops import store_crop
from pipelines.errors import Unusable
from pipelines.label_frame import in_pixels_of
from pipelines.output import Work
from pipelines.plans import ShardPlan, read_plan
from pipelines.readers.annotation import Entry, Labels, Reject
from pipelines.readers.base import MakesPictures, Reader
from pipelines.source_image import SourceImage
from pipelines.statistics import Statistics
from pipelines.storage import ReadSum, Source, create, digest, open_file, rename
from tfhuber.data import records
from tfhuber.data.tfrecord import frame

__all__ = [
    "REJECTS",
    "SUMMARIES",
    "CropParameters",
    "WriteShard",
    "finished_shard",
    "interrupt",
    "keep_books",
    "read_lines",
    "spread",
    "stop_if_interrupted",
    "versions",
]

# The work's folders of shards' summaries and rejects; runs that were cut short have them under these names.
SUMMARIES, REJECTS = "books", "rejects"

# Set when the job of this process is to end.
_INTERRUPTED = threading.Event()

# An image's content, and its entries with their labels; or what is wrong with them.
_Group = tuple[bytes | Unusable, list[tuple[Entry, Labels | Unusable]]]

# What `records.encode` takes, and codes of `pipelines.notes` about it.
_Example = tuple[dict, tuple[str, ...]]

# Bytes of an image file: a photograph of 80 megapixels without compression has 240 MB.
_LARGEST_IMAGE = 1 << 28


@dataclass(frozen=True)
class CropParameters:
    """How crops are stored: arguments of `crops.store_crop`."""

    rule: str
    size: int
    margin: float
    quality: int


def versions() -> dict[str, str]:
    """Return the versions of the programs that decide a shard's bytes."""
    names = ("apache-beam", "pillow", "pyvips", "pyvips-binary")
    return {name: metadata.version(name) for name in names} | {"tfhuber": tfhuber.__version__}


class WriteShard(beam.DoFn):
    """`ShardPlan` -> (its name, [the shard's summary]); tagged "rejects": (its name, rejects).

    A shard that an earlier run has finished is kept if its plan, the parameters, and every byte of
    the source that went into it are the same.

    Args:
      reader: makes labels of the plan's entries.
      source: the data set.
      work: where shards go; written aside and renamed, so that a shard in `data` is complete.
      parameters: `CropParameters`.
    """

    def __init__(self, reader: Reader, source: Source, work: Work, parameters: CropParameters):
        self._reader, self._source, self._work = reader, source, work
        self._parameters, self._versions = parameters, versions()

    def setup(self) -> None:
        if versions() != self._versions:
            raise OSError(f"a worker has {versions()}, and the launcher {self._versions}")

    def process(self, plan: ShardPlan) -> Iterator[tuple[str, list]]:
        made_of = self._made_of(plan)
        kept = self._kept(plan, made_of)
        summary, rejects = kept or self._write(plan, made_of)
        Metrics.counter("shards", "kept" if kept else "written").inc()
        Metrics.counter("examples", plan.split).inc(summary["examples"])
        for reject in rejects:
            Metrics.counter("rejects", reject["reason"]).inc()
        yield plan.name, [summary]
        yield beam.pvalue.TaggedOutput("rejects", (plan.name, rejects))

    def _made_of(self, plan: ShardPlan) -> str:
        """Return a digest of all that decides the shard's bytes, but for the source's files."""
        settings = (repr(self._reader), asdict(self._parameters), self._versions)
        return digest(plan.path, hashlib.sha256(json.dumps(settings).encode()))

    def _kept(self, plan: ShardPlan, made_of: str) -> tuple[dict, list[dict]] | None:
        """Return summary and rejects of a finished shard, if it is what would be written."""
        if not (finished := finished_shard(self._work, plan, made_of)):
            return None
        sources = _Sources(self._reader, self._source)
        for _ in sources.groups(read_plan(plan.path, Entry)):
            pass
        return finished if sources.summary() == finished[0]["sources"] else None

    def _write(self, plan: ShardPlan, made_of: str) -> tuple[dict, list[dict]]:
        statistics, rejects = Statistics(self._reader.landmark_set), []
        sources = _Sources(self._reader, self._source)
        checksum, size = google_crc32c.Checksum(), 0
        notes: Counter[str] = Counter()
        aside = self._work.path("writing", f"{plan.name}.{uuid.uuid4().hex}")
        with create(aside) as file:
            for item in self._examples(sources.groups(read_plan(plan.path, Entry))):
                if isinstance(item, Reject):
                    rejects.append(asdict(item))
                    continue
                example, codes = item
                notes.update(codes)
                statistics.add(example)
                framed = frame(records.encode(**example))
                Metrics.distribution("bytes", "record").update(len(framed))
                checksum.update(framed)
                size += len(framed)
                file.write(framed)
        rename(aside, self._work.path("data", plan.name))
        values = {
            "name": plan.name,
            "split": plan.split,
            "entries": plan.entries,
            "rejects": len(rejects),
            "bytes": size,
            "crc32c": checksum.digest().hex(),
            "sources": sources.summary(),
            "made_of": made_of,
            "notes": dict(notes),
        }
        return values | statistics.to_json(), rejects

    def _examples(self, groups: Iterable[_Group]) -> Iterator[_Example | Reject]:
        for content, labelled in groups:
            image = _open_image(content)
            for entry, labels in labelled:
                if isinstance(labels, Unusable):
                    yield Reject.of(entry, labels)
                elif isinstance(image, Unusable):
                    yield Reject.of(entry, image)
                else:
                    try:
                        yield self._example(entry, labels, image)
                    except Unusable as unusable:
                        yield Reject.of(entry, unusable)

    def _example(self, entry: Entry, labels: Labels, image: SourceImage) -> _Example:
        """Return the example, numbers rounded as records hold them."""
        labels, picture, notes = in_pixels_of(labels, image)
        box, normalizer = labels.box, labels.normalizer
        if box is None:
            box = np.array([-0.5, -0.5, picture.size[0] - 0.5, picture.size[1] - 0.5])
            length = self._reader.landmark_set.normalizer_length
            normalizer = length(labels.landmarks, labels.weights, box)
        jpeg, crop_to_original = store_crop(picture, box, **vars(self._parameters))
        example = {
            "id": entry.id,
            "image": jpeg,
            "landmarks": labels.landmarks.astype(np.float32),
            "weights": labels.weights,
            "box": box.astype(np.float32),
            "normalizer": normalizer,
            "attributes": labels.attributes,
            "people": labels.people,
            "crop_to_original": crop_to_original,
            "image_size": np.array(picture.size),
        }
        return example, labels.notes + notes


class _Sources:
    """The source's files that a plan's entries need, and the checksum of all that was read of them."""

    def __init__(self, reader: Reader, source: Source):
        self._reader, self._source = reader, source
        self._read = ReadSum()

    def groups(self, entries: Iterable[Entry]) -> Iterator[_Group]:
        """Yield for each image its file's content, and its entries with their labels; or what is wrong.

        Neighbours are often boxes of one image, which is then read once.
        """
        for name, group in groupby(entries, key=lambda entry: entry.image):
            stop_if_interrupted()
            content: bytes | Unusable
            try:
                content = self._picture(name)
                Metrics.distribution("bytes", "image").update(len(content))
            except Unusable as unusable:
                content = unusable
            yield content, [(entry, self._labels(entry)) for entry in group]

    def read(self, name: str, kind: str, most: int, folder: str = "") -> bytes:
        """Read as `Source.read` does."""
        return self._counted(lambda: self._source.read(name, kind, most, folder))

    def find(self, name: str, kind: str, folder: str = "") -> str:
        """Return what `Source.find` does."""
        return self._source.find(name, kind, folder)

    def has(self, name: str) -> bool:
        """Return what `Source.has` does."""
        return self._source.has(name)

    def summary(self) -> dict:
        """Return what `ReadSum.summary` does."""
        return self._read.summary()

    def _picture(self, name: str) -> bytes:
        """Return the content of an image's file, or of a picture that the reader makes, as of a video."""
        if isinstance(self._reader, MakesPictures) and self._reader.makes(name):
            make = self._reader.picture
            return self._counted(lambda: make(name, self))
        return self.read(name, "image", _LARGEST_IMAGE, self._reader.images)

    def _counted(self, content_of: Callable[[], bytes]) -> bytes:
        try:
            content = content_of()
        except Unusable as unusable:
            self._read.add_fault(unusable)
            raise
        self._read.add(content)
        return content

    def _labels(self, entry: Entry) -> Labels | Unusable:
        try:
            return self._reader.labels(entry, self)
        except Unusable as unusable:
            return unusable


class _WriteLines(beam.DoFn):
    """(name, JSON values) -> a file of that name with a value a line."""

    def __init__(self, work: Work, folder: str):
        self._work, self._folder = work, folder

    def process(self, element: tuple[str, list]) -> None:
        name, values = element
        aside = self._work.path("writing", f"{name}.{uuid.uuid4().hex}")
        with create(aside) as file:
            file.writelines(json.dumps(value).encode() + b"\n" for value in values)
        rename(aside, self._work.path(self._folder, name))


def read_lines(path: str) -> list:
    """Return the values of a file with JSON in each line."""
    with open_file(path) as file:
        return [json.loads(line) for line in file.read().splitlines()]


def finished_shard(work: Work, plan: ShardPlan, made_of: str) -> tuple[dict, list[dict]] | None:
    """Return summary and rejects of a shard that an earlier run has finished; None if it has not.

    Whether what it was made of is still the same in the source is not looked at.

    Args:
      work: where it would be.
      plan: the shard's.
      made_of: the digest of all else that decides its bytes, as its summary has it.
    """
    try:
        (summary,) = read_lines(work.path(SUMMARIES, plan.name))
        rejects = read_lines(work.path(REJECTS, plan.name))
        if summary["made_of"] != made_of or len(rejects) != summary["rejects"]:
            return None
        shard = digest(work.path("data", plan.name), google_crc32c.Checksum())
        return (summary, rejects) if shard == summary["crc32c"] else None
    except (OSError, ValueError, LookupError, TypeError):  # Cut short, or not there.
        return None


def spread(plans: list[ShardPlan], pipeline: beam.Pipeline) -> beam.PCollection:
    """Add the plans to a pipeline, each for whichever worker is free."""
    _INTERRUPTED.clear()
    return pipeline | "Plans" >> beam.Create(plans) | "Spread" >> beam.Reshuffle()


def keep_books(
    summaries: beam.PCollection, rejects: beam.PCollection, work: Work, step: str = "Keep"
) -> None:
    """Add the steps that write shards' summaries and rejects, each a (name, JSON values).

    Args:
      summaries: one value a shard.
      rejects: any number of values a shard.
      work: gets the files.
      step: how the steps' names begin; a pipeline has no name twice.
    """
    _ = rejects | f"{step}Rejects" >> beam.ParDo(_WriteLines(work, REJECTS))
    _ = summaries | f"{step}Summaries" >> beam.ParDo(_WriteLines(work, SUMMARIES))


def interrupt() -> None:
    """Make the shards that this process is writing fail at their next image."""
    _INTERRUPTED.set()


def stop_if_interrupted() -> None:
    """Raise `InterruptedError` after a call of `interrupt`."""
    if _INTERRUPTED.is_set():
        raise InterruptedError("the job was interrupted")


def _open_image(content: bytes | Unusable) -> SourceImage | Unusable:
    if isinstance(content, Unusable):
        return content
    try:
        return SourceImage(content)
    except Unusable as unusable:
        return unusable
