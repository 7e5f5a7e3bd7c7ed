"""A SavedModel as the local server runs it: as TensorFlow Serving does, without a look at shapes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import error_codes_pb2

from serving.errors import HTTP_STATUS, RequestError
from tfhuber.saved_model import session

__all__ = ["SavedModel", "explain"]


class SavedModel(session.SavedModel):
    """One version of a model, whose errors are those that TensorFlow Serving answers with."""

    def input_types(self, signature: str) -> dict[str, str]:
        """Return the types, by numpy's names or `string`, of a signature's inputs by name.

        Raises:
          RequestError: the model has no such signature.
        """
        if signature not in self.signatures:
            raise RequestError(f'Serving signature name: "{signature}" not found in signature def')
        inputs = self.signatures[signature].inputs
        return {name: tf.as_dtype(inputs[name].dtype).name for name in sorted(inputs)}

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], *, timeout_ms: int = 0
    ) -> dict[str, np.ndarray]:
        """Return a signature's outputs by name, as the base class does.

        Raises:
          RequestError: the graph does not take these inputs or could not compute them, or not in time,
            with the status that TensorFlow Serving answers with.
        """
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


def explain(error: Exception) -> tuple[str, str]:
    """Return the name of an error's code, TensorFlow's, and its message on one line."""
    if isinstance(error, tf.errors.OpError):
        lines = [line for line in error.message.splitlines() if not line.startswith("\t [[")]
        return error_codes_pb2.Code.Name(error.error_code), " ".join(" ".join(lines).split())
    if isinstance(error, RequestError):
        return error.code, error.message
    code = "NOT_FOUND" if isinstance(error, OSError) else "UNKNOWN"
    return code, " ".join(str(error).split()) or type(error).__name__
