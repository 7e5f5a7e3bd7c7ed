"""The client for TensorFlow Serving's gRPC API, with its own protocol buffers.

Those import TensorFlow. What goes over the wire is smaller than with REST, and both ends spend less
time on writing and reading it.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

# Otherwise its C++ core writes to stderr about each connection that fails. It reads this when imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.client.base import LandmarkClient, ServerError
from serving.client.proxies import grpc_proxy, mention
from serving.errors import HTTP_STATUS

__all__ = ["GrpcClient"]

_UNLIMITED = -1


class GrpcClient(LandmarkClient):
    """A landmark model behind TensorFlow Serving's gRPC API; a context manager, or call `close`.

    The connection is not encrypted.

    Example:
      >>> with GrpcClient("localhost:8500", "wflw") as client:
      ...     found = client.predict([Path("photo.jpg").read_bytes()])
      >>> found["landmarks"].shape
      (1, 98, 2)

    Args:
      target: the server's host and port.
      model: the name under which it serves the model.
      options: `version`, `label`, `timeout`, `retries` and `patience` of `LandmarkClient`.

    Raises:
      ValueError: `target` is not a host and port, or another argument is out of range.
    """

    def __init__(self, target: str = "localhost:8500", model: str = "wflw", **options: Any):
        host, _, port = target.rpartition(":")
        if not host or "/" in target or not (port.isascii() and port.isdecimal()):
            raise ValueError(f"{target} is no host and port such as localhost:8500")
        super().__init__(target, model, **options)
        settings = [
            ("grpc.max_send_message_length", _UNLIMITED),
            ("grpc.max_receive_message_length", _UNLIMITED),
            ("grpc.enable_retries", 0),  # `LandmarkClient` retries
        ]
        proxy = grpc_proxy(host)
        if proxy is None:
            settings.append(("grpc.enable_http_proxy", 0))
        self._proxy = mention(proxy, host)
        self._channel = grpc.insecure_channel(target, settings)
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(self._channel).Predict

    def close(self) -> None:
        super().close()
        self._channel.close()

    def _call(
        self, signature: str, inputs: Mapping[str, Sequence | np.ndarray]
    ) -> dict[str, np.ndarray]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        if self.label is not None:
            request.model_spec.version_label = self.label
        for name, values in inputs.items():
            kind = tf.float32 if name == "box" else tf.string
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values, kind))
        try:
            response = self._predict(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise self._explain(error) from None
        try:
            return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}
        except (TypeError, ValueError):
            raise self._no_prediction() from None

    def _explain(self, error: grpc.RpcError) -> Exception:
        """Return the error to raise for one of gRPC's."""
        code, details = error.code(), " ".join((error.details() or "").split())
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return TimeoutError(f"no answer from {self.address} in time: {details}{self._proxy}")
        if code == grpc.StatusCode.UNAVAILABLE:
            if self._proxy:
                return ConnectionError(f"no answer from {self.address} ({details}){self._proxy}")
            return ConnectionError(
                f"no server at {self.address} ({details}); tensorflow_model_server listens for gRPC at "
                "its --port, 8500 by default"
            )
        message = f"{self.address} answered {code.name}: {details}{self._proxy}"
        return ServerError(message, HTTP_STATUS.get(code.name, 500))
