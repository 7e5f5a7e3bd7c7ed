"""A SavedModel as the local server runs it: its errors are in TensorFlow Serving's words."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import error_codes_pb2

from serving.errors import HTTP_STATUS, RequestError
from serving.local_server.json_codec import TensorSpec
from tfhuber.saved_model import session

__all__ = ["SavedModel", "explain"]

# Types of tensors that cannot become arrays.
_OPAQUE = (tf.resource, tf.variant)


class SavedModel(session.SavedModel):
    """One version of a model, as `session.SavedModel` loads it."""

    def input_specs(self, signature: str) -> dict[str, TensorSpec]:
        """Return the inputs of a signature by name.

        Raises:
          RequestError: the model has no such signature.
        """
        if signature not in self.signatures:
            raise RequestError(f'Serving signature name: "{signature}" not found in signature def')
        inputs = self.signatures[signature].inputs
        return {name: _spec(inputs[name]) for name in sorted(inputs)}

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], *, timeout_ms: int = 0
    ) -> dict[str, np.ndarray]:
        """Return a signature's outputs by name. May be called from several threads.

        Args:
          signature: a name for which `input_specs` answers.
          inputs: one array for each input, as `json_codec.decode_inputs` makes them.
          timeout_ms: how long it may take; 0 for no limit.

        Raises:
          RequestError: the inputs have other types or shapes than the graph's, the model could not
            compute them, or not in time, with the status that TensorFlow Serving answers with; or
            the signature has tensors that are not implemented here (501).
        """
        definition = self.signatures[signature]
        fed = {self._check_input(definition.inputs[n], n, array) for n, array in inputs.items()}
        for name, info in sorted(definition.outputs.items()):
            if self._tensor(info, name).name in fed:
                raise RequestError(f"{info.name} is both fed and fetched.")
        try:
            return super().run(signature, inputs, timeout_ms=timeout_ms)
        except tf.errors.OpError as error:
            code, message = explain(error)
            raise RequestError(message, HTTP_STATUS.get(code, 500), code) from error

    def describe_signatures(self) -> dict[str, Any]:
        """Return all signatures as the JSON object of a `SignatureDefMap` message."""
        return {
            name: json_format.MessageToDict(
                definition,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, definition in sorted(self.signatures.items())
        }

    def _check_input(self, info: tf.compat.v1.TensorInfo, name: str, array: np.ndarray) -> str:
        """Return the tensor that an input is fed to; the session alone would cast another type."""
        tensor = self._tensor(info, name)
        if array.dtype != tensor.dtype.as_numpy_dtype:
            wanted, got = tensor.dtype.base_dtype.name, tf.as_dtype(array.dtype).name
            raise RequestError(f'Input "{name}": expects {wanted} but {got} is provided')
        if not tensor.shape.is_compatible_with(array.shape):
            raise RequestError(
                f'Input "{name}": expecting shape {tensor.shape} but got {array.shape}'
            )
        return tensor.name

    def _tensor(self, info: tf.compat.v1.TensorInfo, name: str) -> tf.Tensor:
        """Return the tensor of the graph that a signature means by a name."""
        if info.WhichOneof("encoding") != "name":
            raise RequestError(f'"{name}" is not dense, which is not implemented', status=501)
        try:
            tensor = self.graph.get_tensor_by_name(info.name)
        except (KeyError, ValueError):
            raise RequestError(f'"{name}": node {info.name}: not found', status=404) from None
        dtype = tensor.dtype.base_dtype
        if dtype in _OPAQUE:
            raise RequestError(
                f'"{name}" is of type {dtype.name}, which is not implemented', status=501
            )
        return tensor


def explain(error: Exception) -> tuple[str, str]:
    """Return the name of an error's code, TensorFlow's, and its message on one line."""
    if isinstance(error, tf.errors.OpError):
        # TensorFlow raises the runtime's error again with headings and tracebacks around its message.
        cause: Any = error
        while isinstance(cause.__context__, tf.errors.OpError):
            cause = cause.__context__
        lines = [line for line in cause.message.splitlines() if not line.startswith("\t [[")]
        return error_codes_pb2.Code.Name(cause.error_code), " ".join(" ".join(lines).split())
    if isinstance(error, RequestError):
        return error.code, error.message
    code = "NOT_FOUND" if isinstance(error, OSError) else "UNKNOWN"
    return code, " ".join(str(error).split()) or type(error).__name__


def _spec(info: tf.compat.v1.TensorInfo) -> TensorSpec:
    shape = tf.TensorShape(info.tensor_shape)
    dims = None if shape.rank is None else tuple(shape.as_list())
    return TensorSpec(tf.as_dtype(info.dtype).name, dims)
