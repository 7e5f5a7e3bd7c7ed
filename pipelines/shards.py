"""The Beam job: each element is the plan of one shard, which is cropped, encoded and written whole.

Memory is bounded by one image, whatever the data set's size, and a shard's bytes depend on its plan
alone: neither the runner nor the number of workers changes them.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import apache_beam as beam
from apache_beam.metrics import Metrics

from pipelines.annotation import Annotation, Reject, Unread, Unusable
from pipelines.crops import load_image, store_crop

__all__ = ["CropParameters", "ShardPlan", "WriteShard", "plan_shards", "write_shards"]


@dataclass(frozen=True)
class ShardPlan:
    """One shard before it is written: its file name and what goes into it, in order."""

    name: str
    split: str
    annotations: tuple[Annotation | Unread, ...]


@dataclass(frozen=True)
class CropParameters:
    """How crops are stored; see `crops.store_crop`."""

    rule: str
    size: int
    margin: float
    quality: int


def plan_shards(annotations: list[Annotation | Unread], shard_examples: int) -> list[ShardPlan]:
    """Plans of shards of at most that many examples; each split keeps its order."""
    splits = {}
    for annotation in annotations:
        splits.setdefault(annotation.split, []).append(annotation)
    return [
        ShardPlan(
            f"{split}-{index:05d}-of-{-(-len(members) // shard_examples):05d}.tfrecord",
            split,
            tuple(members[start : start + shard_examples]),
        )
        for split, members in splits.items()
        for index, start in enumerate(range(0, len(members), shard_examples))
    ]


class WriteShard(beam.DoFn):
    """`ShardPlan` -> the books of the shard it writes; and, tagged "rejects", what was lost.

    Args:
      images: the data set's image folder.
      directory: where shards go; written aside and renamed, so that a shard there is complete.
      parameters: `CropParameters`.
    """

    def __init__(self, images: Path, directory: Path, parameters: CropParameters):
        self._images, self._directory, self._parameters = images, directory, parameters

    def process(self, plan: ShardPlan) -> Iterator[dict | beam.pvalue.TaggedOutput]:
        import tensorflow as tf

        examples = 0
        path = self._directory / plan.name
        aside = path.with_suffix(".partial")
        try:
            with tf.io.TFRecordWriter(str(aside)) as writer:
                for item in self._encode(plan):
                    if isinstance(item, Reject):
                        Metrics.counter("rejects", item.reason).inc()
                        yield beam.pvalue.TaggedOutput("rejects", item)
                    else:
                        Metrics.counter("examples", plan.split).inc()
                        writer.write(item)
                        examples += 1
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
        aside.replace(path)
        yield {"split": plan.split, "name": plan.name, "examples": examples}

    def _encode(self, plan: ShardPlan) -> Iterator[bytes | Reject]:
        # Neighbours in the list are often boxes of one image, which is then decoded once.
        for name, annotations in groupby(plan.annotations, key=lambda a: a.image):
            try:
                image = load_image(self._images, name)
            except Unusable as unusable:
                yield from (Reject.of(annotation, unusable) for annotation in annotations)
                continue
            for annotation in annotations:
                try:
                    labelled = annotation.read() if isinstance(annotation, Unread) else annotation
                    crop = store_crop(image, labelled.box, **vars(self._parameters))
                    yield _example(labelled, *crop)
                except Unusable as unusable:
                    yield Reject.of(annotation, unusable)


def _example(annotation: Annotation, jpeg: bytes, crop_to_original) -> bytes:
    from tfhuber import records

    return records.encode(
        id=annotation.id,
        image=jpeg,
        landmarks=annotation.landmarks,
        weights=annotation.weights,
        box=annotation.box,
        crop_to_original=crop_to_original,
        normalizer=annotation.normalizer,
        attributes=annotation.attributes,
    )


def write_shards(
    plans: list[ShardPlan],
    images: Path,
    directory: Path,
    parameters: CropParameters,
    pipeline: beam.Pipeline,
) -> tuple[list[dict], list[Reject]]:
    """Runs the job; returns the books of the shards written, and what was rejected on the way.

    Args:
      plans: one a shard.
      images: the data set's image folder.
      directory: existing directory for the shards.
      parameters: `CropParameters`.
      pipeline: a new one, which is run to its end.

    Raises:
      OSError: if a shard cannot be written.
    """
    books, rejects = directory / "books.jsonl", directory / "lost.jsonl"
    write_shard = beam.ParDo(WriteShard(images, directory, parameters))
    written = (
        pipeline
        | "Plans" >> beam.Create(plans)
        | "Spread" >> beam.Reshuffle()
        | "WriteShard" >> write_shard.with_outputs("rejects", main="books")
    )
    _ = written.books | "Books" >> _write_lines(books)
    _ = (
        written.rejects
        | "AsDict" >> beam.Map(dataclasses.asdict)
        | "Rejects" >> _write_lines(rejects)
    )
    try:
        pipeline.run().wait_until_finish()
    except RuntimeError as error:
        # What a worker raised arrives as the text of its traceback.
        last_line = str(error).strip().rpartition("\n")[2]
        kind, _, message = last_line.partition(": ")
        if kind in {each.__name__ for each in (OSError, *OSError.__subclasses__())}:
            raise OSError(message) from error
        raise
    return _take_lines(books), [Reject(**fields) for fields in _take_lines(rejects)]


@beam.ptransform_fn
def _write_lines(items, path: Path):
    return (
        items
        | "ToJson" >> beam.Map(json.dumps)
        | "Write" >> beam.io.WriteToText(str(path), num_shards=1, shard_name_template="")
    )


def _take_lines(path: Path) -> list[dict]:
    lines = path.read_text().splitlines()
    path.unlink()
    return [json.loads(line) for line in lines]
