"""The one schema that `pipelines` and `tfhuber` share: how an example is written, read and counted.

An example is a piece of the original image around one annotated box (the stored crop), and labels in
the ORIGINAL image's pixels; `crop_to_original` says where the stored pixels lie in the original.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from tfhuber.files import read_json, write_json

__all__ = ["MANIFEST", "encode", "parse", "read_manifest", "shard_paths", "write_manifest"]

MANIFEST = "manifest.json"
FORMAT = 1


class _Books(BaseModel):
    """What reading needs to know of a split; the shards lie in the manifest's own directory."""

    examples: int = Field(ge=0, lt=2**31)
    shards: list[Annotated[str, Field(pattern=r"^[^/]+$")]]


class _Manifest(BaseModel):
    landmark_set: str
    splits: dict[str, _Books] = Field(min_length=1)


def encode(
    *,
    id: str,
    image: bytes,
    landmarks: np.ndarray,
    weights: np.ndarray,
    box: np.ndarray,
    crop_to_original: np.ndarray,
    normalizer: float,
    attributes: np.ndarray,
) -> bytes:
    """A serialized `tf.train.Example`.

    Args:
      id: stable name of the example, unique in its data set.
      image: JPEG bytes of the stored crop.
      landmarks: [K, 2] in original pixels; 0 where there is no label.
      weights: [K] 1 where labelled, else 0.
      box: [4] x0, y0, x1, y1 in original pixels.
      crop_to_original: [3, 3] map from stored-crop pixels to original pixels.
      normalizer: the length in original pixels that errors are divided by; 0 if unknown.
      attributes: [A] 0/1 flags in the landmark set's order.
    """
    import tensorflow as tf

    def floats(values):
        return tf.train.Feature(
            float_list=tf.train.FloatList(value=np.asarray(values, np.float32).ravel())
        )

    def binary(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    feature = {
        "id": binary(id.encode()),
        "image": binary(image),
        "landmarks": floats(landmarks),
        "weights": floats(weights),
        "box": floats(box),
        "crop_to_original": floats(crop_to_original),
        "normalizer": floats([normalizer]),
        "attributes": tf.train.Feature(
            int64_list=tf.train.Int64List(value=np.asarray(attributes, np.int64).ravel())
        ),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


def parse(serialized, landmark_set):
    """The example's tensors, as `encode` names them: `image` still JPEG bytes, shapes static.

    Args:
      serialized: scalar string, one example.
      landmark_set: `LandmarkSet` of the data set; gives K and the number of attributes.

    Raises:
      tf.errors.InvalidArgumentError: if it is no such example, or one of its numbers is not finite.
    """
    import tensorflow as tf

    k, a = landmark_set.count, len(landmark_set.attributes)
    example = tf.io.parse_single_example(
        serialized,
        {
            "id": tf.io.FixedLenFeature([], tf.string),
            "image": tf.io.FixedLenFeature([], tf.string),
            "landmarks": tf.io.FixedLenFeature([k, 2], tf.float32),
            "weights": tf.io.FixedLenFeature([k], tf.float32),
            "box": tf.io.FixedLenFeature([4], tf.float32),
            "crop_to_original": tf.io.FixedLenFeature([3, 3], tf.float32),
            "normalizer": tf.io.FixedLenFeature([], tf.float32),
            "attributes": tf.io.FixedLenFeature([a], tf.int64),
        },
    )
    for name in ("landmarks", "weights", "box", "crop_to_original", "normalizer"):
        example[name] = tf.debugging.assert_all_finite(example[name], f"{name} is not finite")
    return example


def write_manifest(directory: str | Path, manifest: dict) -> None:
    """Writes `manifest.json`: the last file of a data set, so that its presence means completeness.

    Args:
      directory: the data set's directory.
      manifest: with `landmark_set` (a name), `splits` (name -> `examples`, `rejects`,
        `rejects_by_reason`, `shards` as file names), `parameters` and `versions`.
    """
    write_json(Path(directory) / MANIFEST, {"format": FORMAT, **manifest})


def read_manifest(directory: str | Path) -> dict:
    """The manifest of a converted data set.

    Raises:
      ValueError: if the directory holds none, or not one of this format; the message says what to run.
    """
    directory = Path(directory)
    path = directory / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"{directory} holds no {MANIFEST}, so it is no converted data set; make one with "
            f"`python -m pipelines.make_tfrecords --dataset NAME --source DIR --output {directory}`"
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise ValueError(f"{path} is not a manifest of this project: it names no format")
    if manifest["format"] != FORMAT:
        raise ValueError(f"{path} has format {manifest['format']!r}; this version reads {FORMAT}")
    try:
        _Manifest.model_validate(manifest, strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise ValueError(
            f"{path} is damaged, {where}: {fault['msg']}; convert the data set again"
        ) from error
    return manifest


def shard_paths(directory: str | Path, manifest: dict, split: str) -> list[str]:
    """The TFRecord files of a split, in order.

    Raises:
      ValueError: if the data set has no such split, the split is empty, or a file is missing.
    """
    splits = manifest["splits"]
    filled = [name for name, books in splits.items() if books["examples"]]
    if split not in filled:
        state = "is empty" if split in splits else "does not exist"
        raise ValueError(
            f"split {split!r} of {directory} {state}; splits with examples: {', '.join(filled)}"
        )
    paths = [Path(directory) / name for name in splits[split]["shards"]]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing:
        raise ValueError(f"{missing} is missing; convert the data set again")
    return [str(path) for path in paths]
