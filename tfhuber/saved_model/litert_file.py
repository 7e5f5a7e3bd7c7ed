"""LiteRT files (`.tflite`): a network and what follows it as one, with metadata, sealed with a checksum.

Such a file is a flatbuffer, which apps load as it is. The metadata lie in it as a buffer named
`tfhuber`, and the SHA-256 of the flatbuffer behind it, where loaders do not look: they check neither
weights nor, fully, the structure. Without TensorFlow.
"""

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

__all__ = ["METADATA", "joined", "litert_library", "metadata_of", "read", "sealed"]

METADATA = b"tfhuber"

_IDENTIFIER = b"TFL3"
_SEAL = b"\ntfhuber sha256 "
_SEAL_BYTES = len(_SEAL) + 64
_MOST_BYTES = 2**30
_RUNTIME = b"min_runtime_version"


def litert_library(name: str) -> Any:
    """Return a module of `ai_edge_litert`.

    Raises:
      ValueError: the package is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(f"ai_edge_litert.{name}")
    except ImportError as error:
        raise ValueError(
            "LiteRT models need the package ai-edge-litert: "
            f"pip install -e '.[litert]' -c constraints.txt ({error})"
        ) from error


def joined(network: bytes, head: bytes, metadata: str) -> bytes:
    """Return two LiteRT models as one, in which the second takes what the first gives.

    Each has one signature; that of the result has the inputs of the first and the outputs of the second.

    Args:
      network: a model with one output.
      head: a model with one input, of the same shape and type.
      metadata: what `metadata_of` returns of the result.
    """
    schema = litert_library("schema_py_generated")
    first, second = (schema.ModelT.InitFromPackedBuf(model, 0) for model in (network, head))
    graph, added = first.subgraphs[0], second.subgraphs[0]
    places = {-1: -1, added.inputs[0]: graph.outputs[0]}  # -1 is an input that is left out
    for index, tensor in enumerate(added.tensors):
        if index not in places:
            places[index] = len(graph.tensors)
            tensor.buffer += len(first.buffers)
            graph.tensors.append(tensor)
    for operator in added.operators:
        operator.opcodeIndex += len(first.operatorCodes)
        operator.inputs = [places[index] for index in operator.inputs]
        operator.outputs = [places[index] for index in operator.outputs]
    graph.operators += added.operators
    graph.outputs = [places[index] for index in added.outputs]
    outputs = second.signatureDefs[0].outputs
    for output in outputs:
        output.tensorIndex = places[output.tensorIndex]
    first.signatureDefs[0].outputs = outputs
    newest = max((_named(model, _RUNTIME) for model in (first, second)), key=_version)
    first.operatorCodes += second.operatorCodes
    first.buffers += second.buffers
    first.metadata = []
    _name(schema, first, _RUNTIME, newest)
    _name(schema, first, METADATA, metadata.encode())
    builder = flatbuffers.Builder()
    builder.Finish(first.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def metadata_of(model: bytes) -> dict[str, Any]:
    """Return the metadata that `joined` put into a model.

    Raises:
      ValueError: it has none.
    """
    root = litert_library("schema_py_generated").Model.GetRootAs(model)
    for index in range(root.MetadataLength()):
        entry = root.Metadata(index)
        if entry.Name() == METADATA:
            return json.loads(root.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    raise ValueError("it has no metadata")


def sealed(model: bytes) -> bytes:
    """Return a model as the content of a file that `read` takes."""
    return model + _SEAL + hashlib.sha256(model).hexdigest().encode()


def read(path: Path) -> bytes:
    """Return the model in a file of `sealed`.

    Raises:
      ValueError: it is another file, or damaged.
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES or content[4:8] != _IDENTIFIER:
        raise ValueError(f"{path} is no LiteRT model")
    model, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    if not seal.startswith(_SEAL):
        raise ValueError(
            f"{path} is cut short, or was not made by tfhuber; make one with "
            "`python -m tfhuber.export --format litert --run DIR --output FILE.tflite`"
        )
    if sealed(model) != content:
        raise ValueError(f"{path} is damaged: its checksum differs; copy or export it again")
    return model


def _named(model: Any, name: bytes) -> bytes:
    """Return the content of a named buffer; empty where there is none."""
    for entry in model.metadata or []:
        if entry.name == name:
            return bytes(model.buffers[entry.buffer].data)
    return b""


def _name(schema: Any, model: Any, name: bytes, content: bytes) -> None:
    """Add a named buffer to a model."""
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = name, len(model.buffers)
    buffer.data = np.frombuffer(content, np.uint8)
    model.buffers.append(buffer)
    model.metadata.append(entry)


def _version(text: bytes) -> list[int]:
    """Return the numbers of a version that ends in zeros, such as b"1.14.0", for comparison."""
    return [int(part) for part in text.rstrip(b"\0").split(b".") if part]
