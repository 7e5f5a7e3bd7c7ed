"""Requests of wrong shapes, tried on a model's signatures: whatever is answered is answered wrongly.

TensorFlow Serving compares no request with the shapes that a signature declares. A network takes crops of
another size, or grey ones, as long as its operations do, and finds landmarks in them.
"""

import itertools
import math
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo

from tfhuber.console.files import reason
from tfhuber.saved_model.session import SavedModel

__all__ = ["accepted", "refusal"]

_ROWS = 2

# No declared shape may become an allocation that hurts.
_MOST_BYTES = 1 << 28


def accepted(model: SavedModel, signature: str) -> Iterator[str]:
    """Yield what a signature answers and should refuse, one line for each input.

    Tried are, with zeros and empty strings: each declared side less or more by one and as 1, alone and
    together, a rank less and more, and another number of rows than the other inputs have.
    """
    definition = model.signatures[signature]
    inputs = sorted(definition.inputs.items())
    if sum(math.prod(_shape(info)) * 8 for _, info in inputs) > _MOST_BYTES:
        yield "its inputs are too large to be tried"
        return
    right = {name: _zeros(info, _shape(info)) for name, info in inputs}
    if why := refusal(model, signature, right):
        yield f"it refuses zeros in the shapes that it declares ({why})"
        return
    for name, info in inputs:
        for shape in _wrong_shapes(definition, name):
            if refusal(model, signature, right | {name: _zeros(info, shape)}) is None:
                declared = tf.TensorShape(info.tensor_shape)
                beside = f", beside {_ROWS} rows of the others" if len(inputs) > 1 else ""
                yield (
                    f"input {name!r} is answered in shape {shape}{beside}, and declared as {declared}; "
                    "the graph must check it (tf.ensure_shape); an older export, export again"
                )
                break


def refusal(model: SavedModel, signature: str, inputs: Mapping[str, np.ndarray]) -> str | None:
    """Return why a signature's graph cannot take these inputs; None if it can."""
    try:
        model.run(signature, inputs)
    except tf.errors.OpError as error:
        return reason(error)
    return None


def _wrong_shapes(definition: SignatureDef, name: str) -> Iterator[tuple[int, ...]]:
    """Yield shapes that a server should refuse for an input, beside right ones for the others."""
    info = definition.inputs[name]
    right = _shape(info)
    sides = (
        (side,) if declared.size < 0 else (side, side - 1, side + 1, 1)
        for side, declared in zip(right[1:], info.tensor_shape.dim[1:], strict=True)
    )
    for chosen in itertools.product(*sides):
        if (_ROWS, *chosen) != right:
            yield (_ROWS, *chosen)
    yield right[:-1]
    yield (*right, 1)
    if len(definition.inputs) > 1:
        yield (_ROWS + 1, *right[1:])


def _shape(info: TensorInfo) -> tuple[int, ...]:
    """Return a shape that an input declares, with 1 for sides that are open."""
    return (_ROWS, *(max(side.size, 1) for side in info.tensor_shape.dim[1:]))


def _zeros(info: TensorInfo, shape: tuple[int, ...]) -> np.ndarray:
    dtype = tf.dtypes.as_dtype(info.dtype)
    return (
        np.full(shape, b"", object) if dtype == tf.string else np.zeros(shape, dtype.as_numpy_dtype)
    )
