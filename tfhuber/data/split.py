"""A split of a converted data set: its TFRecord files and what they hold."""

from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from tfhuber.data import records
from tfhuber.landmarks import known_sets
from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = ["Split", "open_split", "stored_examples", "stored_records"]


@dataclass(frozen=True)
class Split:
    """One split of a converted data set: its TFRecord files, their example count, their landmarks."""

    directory: Path
    name: str
    paths: list[str]
    examples: int
    landmark_set: LandmarkSet


def open_split(directory: str | Path, name: str) -> Split:
    """Open the split `name` of the converted data set in `directory`.

    Raises:
      ValueError: if there is no such data set or split, it is empty, or a file of it is missing.
    """
    manifest = records.read_manifest(directory)
    paths = records.shard_paths(directory, manifest, name)
    return Split(
        Path(directory),
        name,
        paths,
        manifest["splits"][name]["examples"],
        known_sets.parse(manifest["landmark_set"], f"{directory}/{records.MANIFEST}"),
    )


def stored_records(split: Split) -> tf.data.Dataset:
    """Return the split's serialized examples in the order of its files."""
    stored = tf.data.TFRecordDataset(split.paths)
    return stored.apply(tf.data.experimental.assert_cardinality(split.examples))


def stored_examples(split: Split) -> tf.data.Dataset:
    """Return the split's parsed examples in the order of its files."""
    return stored_records(split).map(lambda record: records.parse(record, split.landmark_set))
