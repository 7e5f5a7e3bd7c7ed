"""What TensorFlow Serving would refuse in a SavedModel, or not serve as meant."""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfhuber.console.files import reason
from tfhuber.saved_model import session, shape_trials, warmup

__all__ = ["check", "examine", "faults"]

_PYTHON = {"EagerPyFunc", "PyFunc", "PyFuncStateless"}

_RANDOM = {
    "AnonymousRandomSeedGenerator",
    "AnonymousSeedGenerator",
    "DummySeedGenerator",
    "Multinomial",
    "NonDeterministicInts",
    "ParameterizedTruncatedNormal",
    "RandomDataset",
    "RandomGamma",
    "RandomPoisson",
    "RandomPoissonV2",
    "RandomShuffle",
    "RandomStandardNormal",
    "RandomUniform",
    "RandomUniformInt",
    "RngReadAndSkip",
    "RngSkip",
    "ShuffleDataset",
    "ShuffleDatasetV2",
    "ShuffleDatasetV3",
    "StatefulRandomBinomial",
    "StatefulStandardNormal",
    "StatefulStandardNormalV2",
    "StatefulTruncatedNormal",
    "StatefulUniform",
    "StatefulUniformFullInt",
    "StatefulUniformInt",
    "TruncatedNormal",
}

_FILES = {
    "FixedLengthRecordDataset",
    "FixedLengthRecordDatasetV2",
    "FixedLengthRecordReaderV2",
    "InitializeTableFromTextFile",
    "InitializeTableFromTextFileV2",
    "MatchingFiles",
    "MatchingFilesDataset",
    "ReadFile",
    "RestoreV2",
    "SaveV2",
    "TFRecordDataset",
    "TFRecordDatasetV2",
    "TFRecordReaderV2",
    "TextLineDataset",
    "TextLineReaderV2",
    "WholeFileReaderV2",
    "WriteFile",
}

# The share of a model's variables that may be alike by chance: normalisations whose outputs are added
# have the same gradients, and with them the same offsets.
_ALIKE = 0.02

# What TensorFlow calls an output that was given no name.
_UNNAMED = re.compile(r"output_\d+")

# A SavedModel of TensorFlow 2 lists its initialisation among the signatures.
_OWN_SIGNATURES = "__saved_model_"


def faults(directory: str | Path) -> list[str]:
    """List what is wrong with the SavedModel in a directory, one line each; nothing if it can be served.

    Refused are: Python and XLA in the graph, operations that are not TensorFlow's own, inputs and
    outputs that cannot be batched or not be sent (scalars, a first dimension that is not open, half,
    bfloat16 and float64, outputs without a name), randomness that differs from call to call, files
    other than the model's own, and variables that are stored twice or that no signature uses.

    A model without these faults is loaded, and its signatures are asked in wrong shapes, which they
    must refuse because the server does not (`shape_trials`).

    Example:
      >>> faults("exports/wflw/1")
      []

    Raises:
      ValueError: if there is no SavedModel that can be read and loaded.
    """
    directory = Path(directory)
    meta_graph = _read(directory)
    signatures = _own_signatures(meta_graph)
    found = _written_faults(directory, meta_graph, signatures)
    if not found:
        with session.blamed(directory):
            model = session.SavedModel(directory)
            for name in signatures:
                found += [f"{name}: {fault}" for fault in shape_trials.accepted(model, name)]
    return found


def _own_signatures(meta_graph: MetaGraphDef) -> dict[str, SignatureDef]:
    return {
        name: definition
        for name, definition in sorted(meta_graph.signature_def.items())
        if not name.startswith(_OWN_SIGNATURES)
    }


def _written_faults(
    directory: Path, meta_graph: MetaGraphDef, signatures: Mapping[str, SignatureDef]
) -> list[str]:
    """Return the faults that the model's files show without being loaded."""
    graph = _Graph(meta_graph.graph_def)
    found: list[str] = []
    seen: set[tuple[str, str]] = set()
    variables: dict[str, NodeDef] = {}
    if not signatures:
        found.append("it has no signature")
    for name, definition in signatures.items():
        found += [f"{name}: {fault}" for fault in _tensor_faults(definition)]
        for place, node in graph.needed_by(definition):
            if node.op == "VarHandleOp":
                variables[node.name] = node
            if (place, node.name) not in seen:
                seen.add((place, node.name))
                fault = graph.fault(node) or _fault_in_a_signature(node)
                found += _located(name, place, node, fault)
    for place, node in graph.everything():
        if (place, node.name) not in seen:
            found += _located("outside the signatures", place, node, graph.fault(node))
    found += _variable_faults(directory, variables.values())
    found += _asset_faults(directory, meta_graph)
    return found


def check(directory: str | Path) -> None:
    """Raise ValueError, naming signature, operation and node, if the SavedModel has `faults`."""
    found = faults(directory)
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(
            f"the SavedModel is not fit for TensorFlow Serving: {'; '.join(found[:3])}{more}"
        )


def examine(directory: str | Path) -> list[dict[str, np.ndarray]]:
    """Return a SavedModel's answers to its warm-up requests.

    In a process of its own, into which nothing but TensorFlow has been imported, it loads the model as
    TensorFlow Serving does.

    Raises:
      ValueError: if the model has `faults`, cannot be loaded or does not answer.
    """
    check(directory)
    return session.answers(directory, warmup.requests(directory))


class _Graph:
    """A graph with its functions, and which of their nodes a signature needs."""

    def __init__(self, graph_def: GraphDef):
        self._nodes = {node.name: node for node in graph_def.node}
        self._functions = {f.signature.name: f for f in graph_def.library.function}

    def everything(self) -> Iterator[tuple[str, NodeDef]]:
        """Yield all nodes, each with the function that it is in; "" is the graph itself."""
        yield from (("", node) for node in self._nodes.values())
        for name, function in self._functions.items():
            yield from ((name, node) for node in function.node_def)

    def needed_by(self, definition: SignatureDef) -> Iterator[tuple[str, NodeDef]]:
        """Yield the nodes that a signature's outputs depend on, as `everything` does."""
        pending = [info.name for info in definition.outputs.values()]
        nodes: set[str] = set()
        functions: set[str] = set()
        called: list[str] = []
        while pending:
            name = pending.pop().lstrip("^").split(":")[0]
            if name in self._nodes and name not in nodes:
                nodes.add(name)
                pending += self._nodes[name].input
                called += self._called(self._nodes[name])
                yield "", self._nodes[name]
        while called:
            name = called.pop()
            if name not in functions:
                functions.add(name)
                for node in self._functions[name].node_def:
                    called += self._called(node)
                    yield name, node

    def fault(self, node: NodeDef) -> str | None:
        """Say why no server could load or run this node; None if one could."""
        if node.op in _PYTHON:
            return "calls Python, which a server has not got"
        compiled = [node, *(self._functions[name] for name in self._called(node))]
        if node.op.lstrip("_").startswith("Xla") or any(map(_must_compile, compiled)):
            return "demands XLA, which a stock server refuses"
        if node.op not in self._functions and not hasattr(tf.raw_ops, node.op):
            return "is no operation of TensorFlow's own"
        return None

    def _called(self, node: NodeDef) -> list[str]:
        """Return the functions that a node names."""
        names = [node.op]
        for value in node.attr.values():
            names += [f.name for f in (value.func, *value.list.func)]
        return [name for name in names if name in self._functions]


def _fault_in_a_signature(node: NodeDef) -> str | None:
    """Say why this node should not be part of an answer; None if it may."""
    if node.op in _RANDOM:
        return "gives the same request another answer each time"
    if node.op in _FILES:
        return "reads or writes files of the server's machine"
    return None


def _must_compile(node_or_function: NodeDef | FunctionDef) -> bool:
    return "_XlaMustCompile" in node_or_function.attr and node_or_function.attr["_XlaMustCompile"].b


def _located(where: str, place: str, node: NodeDef, fault: str | None) -> list[str]:
    if fault is None:
        return []
    function = f" of function {place!r}" if place else ""
    return [f"{where}: {node.op} (node {node.name!r}{function}) {fault}"]


def _tensor_faults(definition: SignatureDef) -> Iterator[str]:
    refused = {tf.float16, tf.bfloat16, tf.float64}
    for kind, tensors in (("input", definition.inputs), ("output", definition.outputs)):
        for name, info in sorted(tensors.items()):
            where = f"{kind} {name!r} (node {info.name.split(':')[0]!r})"
            shape = tf.TensorShape(info.tensor_shape)
            if info.WhichOneof("encoding") != "name":
                yield f"{kind} {name!r} is no plain tensor"
            elif shape.rank is None:
                yield f"{where} has no known rank"
            elif shape.rank == 0:
                yield f"{where} is a scalar; rows need a first dimension"
            elif shape[0] is not None:
                yield f"{where} has shape {shape}, whose first dimension is not open"
            dtype = tf.dtypes.as_dtype(info.dtype)
            if kind == "output" and dtype in refused:
                yield f"{where} is {dtype.name}; it must be float32"
            if kind == "output" and _UNNAMED.fullmatch(name):
                yield f"{where} was given no name"


def _variable_faults(directory: Path, used: Iterable[NodeDef]) -> Iterator[str]:
    """Yield faults of the checkpoint; `used` are the nodes of the variables that the signatures need."""
    prefix = directory / "variables" / "variables"
    if not prefix.with_suffix(".index").is_file():
        return
    stored = 0
    copies: list[tuple[int, str, str]] = []
    first_with: dict[tuple, str] = {}
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        for key in sorted(reader.get_variable_to_shape_map()):
            values = reader.get_tensor(key)
            if not isinstance(values, np.ndarray) or values.dtype == object:
                continue  # the list of what is stored
            stored += values.nbytes
            # All zeros or all ones, values say nothing.
            if values.size and (values != values.flat[0]).any():
                content = (values.dtype.str, values.shape, hashlib.sha256(values.data).digest())
                if first_with.setdefault(content, key) != key:
                    copies.append((values.nbytes, key, first_with[content]))
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise ValueError(f"the variables in {directory} cannot be read: {reason(error)}") from error
    twice = sum(size for size, _, _ in copies)
    if twice > _ALIKE * (stored - twice):
        _, key, same = max(copies)
        yield f"{twice:,} of {stored:,} bytes of variables are copies: {key} equals {same}"
    needed = sum(_variable_bytes(node) for node in used)
    if stored > needed:
        yield f"{stored:,} bytes of variables are stored, of which the signatures use {needed:,}"


def _variable_bytes(node: NodeDef) -> float:
    """Return how much a variable's node holds; infinity if its shape is not known."""
    shape = tf.TensorShape(node.attr["shape"].shape)
    size = tf.dtypes.as_dtype(node.attr["dtype"].type).size
    return shape.num_elements() * size if shape.is_fully_defined() else math.inf


def _asset_faults(directory: Path, meta_graph: MetaGraphDef) -> Iterator[str]:
    assets = (directory / "assets").resolve()
    for asset in meta_graph.asset_file_def:
        path = (assets / asset.filename).resolve()
        if not path.is_relative_to(assets) or not path.is_file():
            yield f"its file {asset.filename!r} is not in {directory / 'assets'}"


def _read(directory: Path) -> MetaGraphDef:
    """Read the graph that TensorFlow Serving loads."""
    path = directory / "saved_model.pb"
    if not path.is_file():
        raise ValueError(f"{directory} holds no saved_model.pb")
    try:
        saved_model = SavedModel.FromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"{path} is no SavedModel: {error}") from error
    tag = tf.saved_model.SERVING
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == {tag}:
            return meta_graph
    raise ValueError(f"{path} has no graph with the tag {tag!r}")
