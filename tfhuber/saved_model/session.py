"""Exported models in a v1 Session, which is how TensorFlow Serving's C++ loader runs them."""

import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike
from tensorflow.core.protobuf import config_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from tfhuber.console.cli import import_tensorflow
from tfhuber.console.files import reason

__all__ = ["SavedModel", "answers", "blamed", "fresh_process", "run"]

# 24 days. The runtime counts in microseconds, which must fit into 64 bits.
_LONGEST_TIMEOUT_MS = 2**31 - 1


class SavedModel:
    """A SavedModel, loaded into a session of its own, and run as TensorFlow Serving runs it.

    The session is closed when the last reference goes, so that whoever still runs it comes to an end.

    Args:
      directory: the one with `saved_model.pb`.

    Attributes:
      graph: what was loaded.
      signatures: each `SignatureDef` by name.

    Raises:
      Exception: whatever TensorFlow raises for a model that it cannot load.
    """

    def __init__(self, directory: str | Path):
        self.graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self.graph)
        with self.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(directory))
        self.signatures = dict(meta_graph.signature_def)
        self._callables: dict[tuple[str, int], Callable[..., list]] = {}

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], *, timeout_ms: int = 0
    ) -> dict[str, np.ndarray]:
        """Return a signature's outputs by name, sorted. May be called from several threads.

        It is the graph alone that looks at shapes: nothing compares them with what the signature declares.

        Args:
          signature: one of `signatures`.
          inputs: an array for each of its inputs, by name.
          timeout_ms: how long it may take; 0 for no limit.

        Raises:
          Exception: whatever TensorFlow raises where the graph cannot take the inputs or compute.
        """
        key = (signature, timeout_ms)
        if key not in self._callables:
            self._callables[key] = self._callable(signature, timeout_ms)
        values = self._callables[key](*(inputs[name] for name in sorted(inputs)))
        names = sorted(self.signatures[signature].outputs)
        # TensorFlow returns a string of rank 0 as bytes.
        return {
            name: np.array(value, object) if isinstance(value, bytes) else np.asarray(value)
            for name, value in zip(names, values, strict=True)
        }

    def _callable(self, signature: str, timeout_ms: int) -> Callable[..., list]:
        # `Session.run` would refuse what is not of the signature's shape. The name is not TensorFlow's API.
        definition = self.signatures[signature]
        options = config_pb2.CallableOptions(
            feed=[info.name for _, info in sorted(definition.inputs.items())],
            fetch=[info.name for _, info in sorted(definition.outputs.items())],
        )
        options.run_options.timeout_in_ms = min(timeout_ms, _LONGEST_TIMEOUT_MS)
        return self._session._make_callable_from_options(options)


def run(
    directory: str | Path,
    image_bytes: Sequence[bytes],
    boxes: ArrayLike,
    signature: str = "serving_default",
) -> dict[str, np.ndarray]:
    """Return the outputs of a signature for image files, in original pixels: `landmarks`, `covariance`, ...

    Args:
      directory: the SavedModel itself.
      image_bytes: N whole JPEG or PNG files.
      boxes: [N, 4] x0, y0, x1, y1 in original pixels; all zeros: the whole image.
      signature: "serving_default", or "tta" for each image fused with its mirror image.

    Raises:
      ValueError: as `answers`.
    """
    inputs = {"image_bytes": np.array(image_bytes, object), "box": np.asarray(boxes, np.float32)}
    return answers(directory, [(signature, inputs)])[0]


def answers(
    directory: str | Path, requests: Iterable[tuple[str, Mapping[str, np.ndarray]]]
) -> list[dict[str, np.ndarray]]:
    """Return all outputs by name for each request to a SavedModel: a signature and its inputs by name.

    Raises:
      ValueError: the directory holds no such model, it has no such signature, or it cannot take
        these inputs.
    """
    with blamed(directory):
        model = SavedModel(directory)
        return [_answer(model, signature, inputs) for signature, inputs in requests]


@contextlib.contextmanager
def blamed(directory: str | Path) -> Iterator[None]:
    """Turn what TensorFlow raises for a model into a ValueError that names its directory."""
    try:
        yield
    except (KeyError, OSError, tf.errors.OpError, RuntimeError, ValueError) as error:
        raise ValueError(f"{directory}: {reason(error)}") from error


def _answer(
    model: SavedModel, signature: str, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    if signature not in model.signatures:
        raise ValueError(f"it has no signature {signature!r}; export the model again")
    wanted = set(model.signatures[signature].inputs)
    if set(inputs) != wanted:
        raise ValueError(f"{signature} takes {sorted(wanted)}, got {sorted(inputs)}")
    fed = {
        name: _fitting(value, model.signatures[signature].inputs[name], name)
        for name, value in inputs.items()
    }
    return model.run(signature, fed)


def _fitting(value: np.ndarray, declared: TensorInfo, name: str) -> np.ndarray:
    """Return an input in its declared type; ValueError if it has not its declared shape."""
    array = np.asarray(value, tf.as_dtype(declared.dtype).as_numpy_dtype)
    shape = tf.TensorShape(declared.tensor_shape)
    if not shape.is_compatible_with(array.shape):
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array


@contextlib.contextmanager
def fresh_process() -> Iterator[Callable[..., Any]]:
    """Start a new Python process with nothing but TensorFlow in it, in the background.

    Yields:
      A function that calls its first argument with the others there, and returns or raises what that
      does; ValueError if the process dies of it.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, import_tensorflow) as pool:
        pool.submit(int)

        def call(function: Callable[..., Any], *arguments: Any) -> Any:
            try:
                return pool.submit(function, *arguments).result()
            except concurrent.futures.BrokenExecutor as error:
                raise ValueError("the process that loaded the model has died") from error

        yield call
