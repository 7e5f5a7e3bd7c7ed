"""The record schema, which `pipelines` writes and `tfhuber` reads: examples and the manifest.

An example is a piece of the original image around one annotated box (the stored crop), and labels in
the ORIGINAL image's pixels; `crop_to_original` says where the stored pixels lie in the original.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError
from pydantic import BaseModel, Field, ValidationError

from tfhuber.console.files import read_json
from tfhuber.console.lazy import lazy_module
from tfhuber.landmarks.landmark_set import LandmarkSet

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = lazy_module("tensorflow")  # Only `parse` needs it.

__all__ = [
    "MANIFEST",
    "decode",
    "encode",
    "manifest_text",
    "parse",
    "read_manifest",
    "shard_paths",
]

MANIFEST = "manifest.json"
FORMAT = 2

# Features in the order in which they are written; kinds are the fields of `tf.train.Feature`.
_KINDS = {
    "attributes": "int64_list",
    "box": "float_list",
    "crop_to_original": "float_list",
    "id": "bytes_list",
    "image": "bytes_list",
    "image_size": "int64_list",
    "landmarks": "float_list",
    "normalizer": "float_list",
    "people": "int64_list",
    "weights": "float_list",
}
_DTYPES = {"float_list": np.float32, "int64_list": np.int64}


# The protocol buffer `tf.train.Example`, declared here, since TensorFlow's own module imports all of it.
# The bytes mean the same; the package's name is not part of them. Features are a list of entries, which
# is what a map is on the wire, so that their order does not depend on protobuf's implementation.
_EXAMPLE_PROTO = """
name: "tfhuber/example.proto" package: "tfhuber" syntax: "proto3"
message_type {
  name: "BytesList"
  field { name: "value" number: 1 type: TYPE_BYTES label: LABEL_REPEATED }
}
message_type {
  name: "FloatList"
  field { name: "value" number: 1 type: TYPE_FLOAT label: LABEL_REPEATED }
}
message_type {
  name: "Int64List"
  field { name: "value" number: 1 type: TYPE_INT64 label: LABEL_REPEATED }
}
message_type {
  name: "Feature"
  oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 type_name: ".tfhuber.BytesList" oneof_index: 0 }
  field { name: "float_list" number: 2 type_name: ".tfhuber.FloatList" oneof_index: 0 }
  field { name: "int64_list" number: 3 type_name: ".tfhuber.Int64List" oneof_index: 0 }
}
message_type {
  name: "Features"
  field { name: "feature" number: 1 type_name: ".tfhuber.Features.FeatureEntry" label: LABEL_REPEATED }
  nested_type {
    name: "FeatureEntry"
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2 type_name: ".tfhuber.Feature" }
  }
}
message_type {
  name: "Example"
  field { name: "features" number: 1 type_name: ".tfhuber.Features" }
}
"""
_pool = descriptor_pool.DescriptorPool()
_pool.Add(text_format.Parse(_EXAMPLE_PROTO, descriptor_pb2.FileDescriptorProto()))
_Example = message_factory.GetMessageClass(_pool.FindMessageTypeByName("tfhuber.Example"))


class _Shard(BaseModel):
    name: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    examples: int = Field(ge=0)


class _Split(BaseModel):
    """What reading needs to know of a split; the shards lie in the manifest's own directory."""

    examples: int = Field(ge=0, lt=2**40)
    shards: list[_Shard]


class _Manifest(BaseModel):
    landmark_set: dict
    splits: dict[str, _Split] = Field(min_length=1)


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
    image_size: tuple[int, int],
    people: int,
) -> bytes:
    """Return a serialized `tf.train.Example`, made without importing TensorFlow.

    Args:
      id: stable name of the example, unique in its split.
      image: JPEG bytes of the stored crop.
      landmarks: [K, 2] in original pixels; 0 where there is no label.
      weights: [K] 1 where labelled, else 0.
      box: [4] x0, y0, x1, y1 in original pixels.
      crop_to_original: [3, 3] map from stored-crop pixels to original pixels.
      normalizer: the length in original pixels that errors are divided by; 0 if unknown.
      attributes: [A] 0/1 flags in the landmark set's order.
      image_size: the original image's width and height in pixels.
      people: how many annotated subjects the original image holds, as far as is known.
    """
    values = {
        "attributes": attributes,
        "box": box,
        "crop_to_original": crop_to_original,
        "id": id.encode(),
        "image": image,
        "image_size": image_size,
        "landmarks": landmarks,
        "normalizer": normalizer,
        "people": people,
        "weights": weights,
    }
    example = _Example()
    for name, kind in _KINDS.items():
        feature = getattr(example.features.feature.add(key=name).value, kind)
        feature.SetInParent()  # Without attributes it is an empty list, and not nothing.
        if kind == "bytes_list":
            feature.value.append(values[name])
        else:
            feature.value.extend(np.asarray(values[name], _DTYPES[kind]).ravel().tolist())
    return example.SerializeToString()


def decode(serialized: bytes) -> dict[str, Any]:
    """Return what `encode` was given, by name: bytes, or flat arrays of float32 and int64.

    For tools that read records without TensorFlow; graphs use `parse`.

    Raises:
      ValueError: if it is no such example; the message names the feature.
    """
    try:
        example = _Example.FromString(serialized)
    except DecodeError as error:
        raise ValueError(f"it is no tf.train.Example: {error}") from error
    features = {entry.key: entry.value for entry in example.features.feature}
    values: dict[str, Any] = {}
    for name, kind in _KINDS.items():
        if name not in features or not features[name].HasField(kind):
            kind = kind.removesuffix("_list")
            raise ValueError(f"feature {name!r} is missing or does not hold {kind} values")
        found = getattr(features[name], kind).value
        if kind != "bytes_list":
            values[name] = np.array(found, _DTYPES[kind])
        elif len(found) == 1:
            values[name] = found[0]
        else:
            raise ValueError(f"feature {name!r} holds {len(found)} values instead of one")
    return values


def parse(serialized: "tf.Tensor | bytes", landmark_set: LandmarkSet) -> "dict[str, tf.Tensor]":
    """Return the example's tensors, as `encode` names them: `image` still JPEG bytes, shapes static.

    Args:
      serialized: scalar string, one example.
      landmark_set: of the data set; gives K and the number of attributes.

    Raises:
      tf.errors.InvalidArgumentError: if it is no such example, or one of its numbers is not finite.
    """
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
            "image_size": tf.io.FixedLenFeature([2], tf.int64),
            "people": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    for name in (name for name, kind in _KINDS.items() if kind == "float_list"):
        finite = tf.reduce_all(tf.math.is_finite(example[name]))
        # Beside an assertion, which has a state, a deterministic tf.data runs one step at a time; so
        # what is raised is that this is no number.
        example[name] += tf.strings.to_number(tf.where(finite, "0", f"{name} is not finite"))
    return example


def manifest_text(manifest: dict) -> str:
    """Return the text of `manifest.json`, the last file of a data set: its presence means completeness.

    It ends with a checksum of all the rest, so that `pipelines.verify` sees any change.

    Args:
      manifest: with `landmark_set` (its description, as `known_sets.describe` gives it), `splits`
        (name -> `examples`, `shards` and whatever else is counted), and where the data came from.
    """
    values = {"format": FORMAT, **manifest}
    values.pop("sha256", None)
    digest = hashlib.sha256(json.dumps(values).encode()).hexdigest()
    return json.dumps({**values, "sha256": digest}, indent=1) + "\n"


def read_manifest(directory: str | Path) -> dict:
    """Read the manifest of a converted data set.

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
        raise ValueError(
            f"{path} has format {manifest['format']!r}; this version reads {FORMAT}: convert the data "
            "set again with `python -m pipelines.make_tfrecords`"
        )
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
    """Return the TFRecord files of a split, in order.

    Raises:
      ValueError: if the data set has no such split, the split is empty, or a file is missing.
    """
    splits = manifest["splits"]
    filled = [name for name, values in splits.items() if values["examples"]]
    if split not in filled:
        state = "is empty" if split in splits else "does not exist"
        raise ValueError(
            f"split {split!r} of {directory} {state}; splits with examples: {', '.join(filled)}"
        )
    paths = [Path(directory) / shard["name"] for shard in splits[split]["shards"]]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing:
        raise ValueError(f"{missing} is missing; convert the data set again")
    return [str(path) for path in paths]
