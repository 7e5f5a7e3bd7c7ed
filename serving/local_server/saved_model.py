"""A SavedModel in a v1 Session, as TensorFlow Serving's loader runs it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import error_codes_pb2

from serving.errors import HTTP_STATUS, RequestError
from serving.local_server.json_codec import TensorSpec

__all__ = ["SavedModel"]


# 24 days. The runtime counts in microseconds, which must fit into 64 bits.
_LONGEST_TIMEOUT_MS = 2**31 - 1


# What has no form as an array.
_OPAQUE = (tf.resource, tf.variant)


class SavedModel:
    """One version of a model, loaded into a session of its own.

    The session is closed when the last reference goes, so requests that are still running when a
    newer version takes over end normally.

    Args:
      directory: the version's directory, the one with `saved_model.pb`.

    Raises:
      Exception: whatever TensorFlow raises for a model that it cannot load.
    """

    def __init__(self, directory: Path | str):
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(directory))
        self._signatures = dict(meta_graph.signature_def)

    def input_specs(self, signature: str) -> dict[str, TensorSpec]:
        """Returns the inputs of a signature by name.

        Raises:
          RequestError: the model has no such signature.
        """
        if signature not in self._signatures:
            raise RequestError(f'Serving signature name: "{signature}" not found in signature def')
        inputs = self._signatures[signature].inputs
        return {name: _spec(inputs[name]) for name in sorted(inputs)}

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], *, timeout_ms: int = 0
    ) -> dict[str, np.ndarray]:
        """Returns a signature's outputs by name. May be called from several threads.

        Args:
          signature: a name for which `input_specs` answers.
          inputs: one array for each input, as `serving.local_server.json_codec.decode_inputs` makes them.
          timeout_ms: how long it may take; 0 for no limit.

        Raises:
          RequestError: the inputs have other types or shapes than the graph's, the model could not
            compute them, or not in time, with the status that TensorFlow Serving answers with; or
            the signature has tensors that are not implemented here (501).
        """
        definition = self._signatures[signature]
        feeds = self._feeds(definition.inputs, inputs)
        outputs = sorted(definition.outputs.items())
        fetches = {name: self._tensor(info, name).name for name, info in outputs}
        for fetched in fetches.values():
            if fetched in feeds:
                raise RequestError(f"{fetched} is both fed and fetched.")
        options = tf.compat.v1.RunOptions(timeout_in_ms=min(timeout_ms, _LONGEST_TIMEOUT_MS))
        try:
            values = self._session.run(fetches, feeds, options=options)
        except tf.errors.OpError as error:
            code, message = _explain(error)
            raise RequestError(message, HTTP_STATUS.get(code, 500), code) from error
        # A string of rank 0 comes as mere bytes.
        return {
            name: np.array(value, object) if isinstance(value, bytes) else value
            for name, value in values.items()
        }

    def describe_signatures(self) -> dict:
        """Returns all signatures as the JSON object of a `SignatureDefMap` message."""
        return {
            name: json_format.MessageToDict(
                definition,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, definition in sorted(self._signatures.items())
        }

    def _feeds(self, infos: Mapping, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the inputs by tensor; the session alone would cast what has another type."""
        feeds = {}
        for name, array in inputs.items():
            tensor = self._tensor(infos[name], name)
            if array.dtype != tensor.dtype.as_numpy_dtype:
                wanted, got = tensor.dtype.base_dtype.name, tf.as_dtype(array.dtype).name
                raise RequestError(f'Input "{name}": expects {wanted} but {got} is provided')
            if not tensor.shape.is_compatible_with(array.shape):
                raise RequestError(
                    f'Input "{name}": expecting shape {tensor.shape} but got {array.shape}'
                )
            feeds[tensor.name] = array
        return feeds

    def _tensor(self, info: tf.compat.v1.TensorInfo, name: str) -> tf.Tensor:
        """Returns the tensor of the graph that a signature means by a name."""
        if info.WhichOneof("encoding") != "name":
            raise RequestError(f'"{name}" is not dense, which is not implemented', status=501)
        try:
            tensor = self._session.graph.get_tensor_by_name(info.name)
        except (KeyError, ValueError):
            raise RequestError(f'"{name}": node {info.name}: not found', status=404) from None
        dtype = tensor.dtype.base_dtype
        if dtype in _OPAQUE:
            raise RequestError(
                f'"{name}" is of type {dtype.name}, which is not implemented', status=501
            )
        return tensor


def _spec(info: tf.compat.v1.TensorInfo) -> TensorSpec:
    shape = tf.TensorShape(info.tensor_shape)
    dims = None if shape.rank is None else tuple(shape.as_list())
    return TensorSpec(tf.as_dtype(info.dtype).name, dims)


def _explain(error: Exception) -> tuple[str, str]:
    """Returns the name of an error's code and its message on one line."""
    if isinstance(error, tf.errors.OpError):
        # Python raises the runtime's error anew, with headings and tracebacks around its message.
        while isinstance(error.__context__, tf.errors.OpError):
            error = error.__context__
        lines = [line for line in error.message.splitlines() if not line.startswith("\t [[")]
        return error_codes_pb2.Code.Name(error.error_code), " ".join(" ".join(lines).split())
    if isinstance(error, RequestError):
        return error.code, error.message
    code = "NOT_FOUND" if isinstance(error, OSError) else "UNKNOWN"
    return code, " ".join(str(error).split()) or type(error).__name__
