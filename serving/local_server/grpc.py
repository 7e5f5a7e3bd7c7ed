"""Predict of TensorFlow Serving's gRPC API over the same model, to test the client with."""

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.errors import RequestError
from serving.local_server.service import Service

__all__ = ["serving"]

logger = logging.getLogger(__name__)

_SHUTDOWN_SECONDS = 10


@contextlib.contextmanager
def serving(service: Service, address: str, *, max_request_bytes: int) -> Iterator[int]:
    """Serve while the context lasts, yield the port, and let what is running then come to its end.

    Args:
      service: the model, whose bounds hold for these requests too.
      address: host and port; port 0 takes a free one.
      max_request_bytes: the largest message that is read, and the largest tensor that one may mean.

    Raises:
      ValueError: the address cannot be listened at.
    """
    waiting = ThreadPoolExecutor(service.capacity, thread_name_prefix="grpc")
    server = grpc.server(
        waiting,
        maximum_concurrent_rpcs=service.capacity,
        options=[
            ("grpc.max_receive_message_length", max_request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _PredictionService(service, max_request_bytes), server
    )
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        raise ValueError(f"{address} cannot be listened at; choose another --port") from None
    server.start()
    try:
        yield port
    finally:
        server.stop(_SHUTDOWN_SECONDS).wait()
        waiting.shutdown(wait=False)


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, service: Service, max_tensor_bytes: int):
        self._service = service
        self._max_tensor_bytes = max_tensor_bytes

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        try:
            with self._service.counted(request.model_spec.name, "predict", "GRPC"):
                return self._predict(request)
        except RequestError as error:
            context.abort(grpc.StatusCode[error.code], error.message)
        except Exception:
            logger.exception("a request failed")
            message = "Internal error; the server's log says more"
            context.abort(grpc.StatusCode.INTERNAL, message)

    def _predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        spec = request.model_spec
        signature = spec.signature_name or "serving_default"
        number = spec.version.value if spec.HasField("version") else None
        label = spec.version_label if spec.HasField("version_label") else None
        version, model = self._service.find(spec.name, number, label)
        with self._service.turn():
            inputs = self._inputs(request.inputs, model.input_types(signature))
            outputs = self._service.run(model, signature, inputs)
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.signature_name = spec.name, signature
        response.model_spec.version.value = version
        for output in request.output_filter or outputs:
            if output not in outputs:
                raise RequestError(f"output tensor alias not found in signature: {output}")
            response.outputs[output].CopyFrom(tf.make_tensor_proto(outputs[output]))
        return response

    def _inputs(
        self, protos: Mapping[str, TensorProto], types: Mapping[str, str]
    ) -> dict[str, np.ndarray]:
        """Return the tensors of a request, checked against the signature."""
        if set(protos) != set(types):
            extra, missing = set(protos) - set(types), set(types) - set(protos)
            raise RequestError(
                f"Sent extra: {{{','.join(sorted(extra))}}}. "
                f"Missing but required: {{{','.join(sorted(missing))}}}."
            )
        return {name: self._tensor(protos[name], name, wanted) for name, wanted in types.items()}

    def _tensor(self, proto: TensorProto, name: str, wanted: str) -> np.ndarray:
        shape = [dim.size for dim in proto.tensor_shape.dim]
        try:
            dtype = tf.as_dtype(proto.dtype)
        except TypeError:
            raise RequestError(f'Input "{name}" has no type') from None
        if dtype.name != wanted:
            raise RequestError(f'Input "{name}": expects {wanted} but {dtype.name} is provided')
        # A message of a few bytes may stand for one value, repeated without end.
        size = math.prod(max(side, 0) for side in shape) * (dtype.size or 1)
        if min(shape, default=0) < 0 or size > self._max_tensor_bytes:
            raise RequestError(f'Input "{name}": shape {shape} is not possible here')
        try:
            return tf.make_ndarray(proto)
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise RequestError(
                f'Input "{name}" of type {dtype.name} cannot be parsed: {error}'
            ) from None
