"""Warm-up requests: what TensorFlow Serving replays before a version serves, so that no client waits.

They lie in a SavedModel's `assets.extra/tf_serving_warmup_requests`, a TFRecord of `PredictionLog`s.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from google.protobuf.message import DecodeError

from tfhuber.console.lazy import lazy_module
from tfhuber.data.tfrecord import frame, read_records

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow_serving.apis import prediction_log_pb2
else:  # the local server's --help needs neither
    tf = lazy_module("tensorflow")
    prediction_log_pb2 = lazy_module("tensorflow_serving.apis.prediction_log_pb2")

__all__ = ["FILE", "MAX_RECORDS", "make", "requests", "write"]

FILE = "assets.extra/tf_serving_warmup_requests"

# TensorFlow Serving's own bound; the bytes are ours: a claimed shape must not become an allocation.
MAX_RECORDS = 1000
_MAX_BYTES = 1 << 28

# One alone and a few together: convolutions prepare themselves for each size of a batch.
_BATCHES = (1, 4)

Request = tuple[str, Mapping[str, np.ndarray]]


def make(examples: Mapping[str, np.ndarray]) -> list[Request]:
    """Make requests for each of an exported model's signatures: of one row, and of a few.

    Args:
      examples: `image_bytes` [N] files, `box` [N, 4] in their pixels and `image` [N, S, S, 3] uint8
        network crops; N is 1 at least.
    """
    image_bytes, box, image = (examples[name] for name in ("image_bytes", "box", "image"))
    batches = sorted({min(batch, len(box)) for batch in _BATCHES})
    found: list[Request] = []
    for rows in map(slice, batches):
        files = {"image_bytes": image_bytes[rows], "box": box[rows]}
        found += [("serving_default", files), ("tta", files), ("tensor", {"image": image[rows]})]
    return [*found, ("metadata", {"query": np.array([b""], object)})]


def write(directory: Path, records: Iterable[Request]) -> None:
    """Write the warm-up requests of the SavedModel in a directory.

    Args:
      directory: the SavedModel's.
      records: signatures with their inputs by name.

    Raises:
      ValueError: if there are more than `MAX_RECORDS`.
      OSError: if the file cannot be written.
    """
    records = list(records)
    if len(records) > MAX_RECORDS:
        raise ValueError(f"records must be {MAX_RECORDS} at most, got {len(records)}")
    (directory / FILE).parent.mkdir(exist_ok=True)
    with (directory / FILE).open("wb") as file:
        for signature, inputs in records:
            file.write(frame(_log(signature, inputs).SerializeToString()))


def requests(directory: str | Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield each warm-up request of a SavedModel, if it has any: the signature and its inputs by name.

    Strings are arrays of `bytes` with dtype object.

    Raises:
      ValueError: naming the record and what is wrong with it: its bytes or its length are damaged, it
        is no request to predict, or it is beyond the bounds.
      OSError: if the file cannot be read.
    """
    path = Path(directory) / FILE
    if not path.exists():
        return
    for number, record in enumerate(_records(path), 1):
        if number > MAX_RECORDS:
            raise ValueError(f"{path} holds more than {MAX_RECORDS} records")
        try:
            yield _request(record)
        except ValueError as error:
            raise ValueError(f"{path}, record {number}: {error}") from error


def _log(signature: str, inputs: Mapping[str, np.ndarray]) -> "prediction_log_pb2.PredictionLog":
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    # Which model is asked, the server knows.
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log


def _request(record: bytes) -> tuple[str, dict[str, np.ndarray]]:
    try:
        log = prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise ValueError(f"it is no PredictionLog ({error})") from error
    kind = log.WhichOneof("log_type")
    if kind != "predict_log":
        raise ValueError(f"it must be a predict_log, got {kind}")
    request = log.predict_log.request
    signature = request.model_spec.signature_name or "serving_default"
    return signature, {name: _array(request.inputs[name], name) for name in sorted(request.inputs)}


def _array(proto: "TensorProto", name: str) -> np.ndarray:
    """Return a tensor's values; ValueError if there are not as many as it claims, or too many."""
    try:
        shape = tf.TensorShape(proto.tensor_shape)
        dtype = tf.dtypes.as_dtype(proto.dtype)
        claimed = shape.num_elements() if shape.is_fully_defined() else None
        # A single value may stand for all, so that a few bytes could claim any amount of memory.
        if claimed is None or claimed * max(dtype.size or 0, 1) > _MAX_BYTES:
            raise ValueError(f"its shape is {shape}")
        return tf.make_ndarray(proto)
    except (ValueError, TypeError) as error:
        raise ValueError(f"input {name!r} cannot be read ({error})") from error


def _records(path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file, both checksums of each compared."""
    with path.open("rb") as file:
        try:
            yield from read_records(file)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
