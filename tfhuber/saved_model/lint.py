"""What TensorFlow Serving would refuse in a SavedModel, or not serve as meant.

Operations count as TensorFlow's own if this process knows them, so nothing that brings others may be
imported before.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfhuber.console.files import reason

__all__ = ["check", "faults"]

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

# So much of a model's variables may be alike by chance: normalisations whose outputs are added have
# the same gradients, and with them the same offsets.
_ALIKE = 0.02

# Of an output that nobody named.
_UNNAMED = re.compile(r"output_\d+")

# A SavedModel of TensorFlow 2 lists its initialisation among the signatures.
_OWN_SIGNATURES = "__saved_model_"


def faults(directory: str | Path) -> list[str]:
    """What is wrong with the SavedModel in a directory, one line each; none if it is fit to be served.

    Refused are: Python and XLA in the graph, operations that are not TensorFlow's own, inputs and
    outputs that cannot be batched or not be sent (scalars, a first dimension that is not open, half,
    bfloat16 and float64, outputs without a name), randomness that differs from call to call, files
    other than the model's own, and variables that are stored twice or that no signature uses.

    Example:
      >>> faults("exports/wflw/1")
      []

    Raises:
      ValueError: if there is no SavedModel that can be read.
    """
    directory = Path(directory)
    meta_graph = _read(directory)
    graph = _Graph(meta_graph.graph_def)
    found, seen, variables = [], set(), {}
    signatures = {
        name: definition
        for name, definition in sorted(meta_graph.signature_def.items())
        if not name.startswith(_OWN_SIGNATURES)
    }
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
    """Raises ValueError, naming signature, operation and node, if the SavedModel has `faults`."""
    found = faults(directory)
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(
            f"the SavedModel is not fit for TensorFlow Serving: {'; '.join(found[:3])}{more}"
        )


class _Graph:
    """A graph with its functions, and which of their nodes a signature needs."""

    def __init__(self, graph_def):
        self._nodes = {node.name: node for node in graph_def.node}
        self._functions = {f.signature.name: f for f in graph_def.library.function}

    def everything(self) -> Iterator[tuple[str, object]]:
        """All nodes, each with the function that it is in; "" is the graph itself."""
        yield from (("", node) for node in self._nodes.values())
        for name, function in self._functions.items():
            yield from ((name, node) for node in function.node_def)

    def needed_by(self, definition) -> Iterator[tuple[str, object]]:
        """The nodes that a signature's outputs depend on, as `everything` yields them."""
        pending = [info.name for info in definition.outputs.values()]
        nodes, functions = set(), set()
        called = []
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

    def fault(self, node) -> str | None:
        """Why no server could load or run this node."""
        from tensorflow.python.framework import op_def_registry

        if node.op in _PYTHON:
            return "calls Python, which a server has not got"
        compiled = [node, *(self._functions[name] for name in self._called(node))]
        if node.op.lstrip("_").startswith("Xla") or any(map(_must_compile, compiled)):
            return "demands XLA, which a stock server refuses"
        if node.op not in self._functions and op_def_registry.get(node.op) is None:
            return "is no operation of TensorFlow's own"
        return None

    def _called(self, node) -> list[str]:
        """The functions that a node names."""
        names = [node.op]
        for value in node.attr.values():
            names += [f.name for f in (value.func, *value.list.func)]
        return [name for name in names if name in self._functions]


def _fault_in_a_signature(node) -> str | None:
    """Why this node should not be part of an answer."""
    if node.op in _RANDOM:
        return "gives the same request another answer each time"
    if node.op in _FILES:
        return "reads or writes files of the server's machine"
    return None


def _must_compile(node_or_function) -> bool:
    return "_XlaMustCompile" in node_or_function.attr and node_or_function.attr["_XlaMustCompile"].b


def _located(where: str, place: str, node, fault: str | None) -> list[str]:
    if fault is None:
        return []
    function = f" of function {place!r}" if place else ""
    return [f"{where}: {node.op} (node {node.name!r}{function}) {fault}"]


def _tensor_faults(definition) -> Iterator[str]:
    import tensorflow as tf

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


def _variable_faults(directory: Path, used) -> Iterator[str]:
    """Faults of the checkpoint, where `used` are the variables' nodes that the signatures need."""
    import tensorflow as tf

    prefix = directory / "variables" / "variables"
    if not prefix.with_suffix(".index").is_file():
        return
    stored, copies, first_with = 0, [], {}
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        for key in sorted(reader.get_variable_to_shape_map()):
            values = reader.get_tensor(key)
            if not isinstance(values, np.ndarray) or values.dtype == object:
                continue  # the list of what is stored
            stored += values.nbytes
            # All zeros or all ones, values say nothing.
            if values.size and (values != values.flat[0]).any():
                content = (values.dtype.str, values.shape, hashlib.sha256(values).digest())
                if first_with.setdefault(content, key) != key:
                    copies.append((values.nbytes, key, first_with[content]))
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise ValueError(f"the variables in {directory} cannot be read: {reason(error)}") from error
    twice = sum(size for size, _, _ in copies)
    if twice > _ALIKE * (stored - twice):
        _, key, same = max(copies)
        yield f"{twice:,} of {stored:,} bytes of variables are copies: {key} equals {same}"
    sizes = [_variable_bytes(node) for node in used]
    if None not in sizes and stored > sum(sizes):
        yield f"{stored:,} bytes of variables are stored, of which the signatures use {sum(sizes):,}"


def _variable_bytes(node) -> int | None:
    """How much a variable's node holds; None if its shape is not known."""
    import tensorflow as tf

    shape = tf.TensorShape(node.attr["shape"].shape)
    size = tf.dtypes.as_dtype(node.attr["dtype"].type).size
    return shape.num_elements() * size if shape.is_fully_defined() else None


def _asset_faults(directory: Path, meta_graph) -> Iterator[str]:
    assets = (directory / "assets").resolve()
    for asset in meta_graph.asset_file_def:
        path = (assets / asset.filename).resolve()
        if not path.is_relative_to(assets) or not path.is_file():
            yield f"its file {asset.filename!r} is not in {directory / 'assets'}"


def _read(directory: Path):
    """The MetaGraphDef that TensorFlow Serving loads."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = directory / "saved_model.pb"
    if not path.is_file():
        raise ValueError(f"{directory} holds no saved_model.pb")
    try:
        saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"{path} is no SavedModel: {error}") from error
    tag = tf.saved_model.SERVING
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == {tag}:
            return meta_graph
    raise ValueError(f"{path} has no graph with the tag {tag!r}")
