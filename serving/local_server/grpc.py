"""TensorFlow Serving's gRPC API over the same models: Predict, GetModelMetadata, GetModelStatus."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, TypeVar

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.errors import RequestError
from serving.local_server.json_codec import TensorSpec
from serving.local_server.service import Busy, Service

__all__ = ["serving"]

logger = logging.getLogger(__name__)

_DEFAULT_SIGNATURE = "serving_default"
_SHUTDOWN_SECONDS = 10

Result = TypeVar("Result")


@contextlib.contextmanager
def serving(service: Service, address: str, *, max_request_bytes: int) -> Iterator[int]:
    """Serve while the context lasts, and let what is running then come to its end.

    Args:
      service: the models; its threads compute these requests, and its bound holds for them.
      address: host and port; port 0 takes a free one.
      max_request_bytes: the largest message that is read, and the largest tensor that one may mean.

    Yields:
      The port.

    Raises:
      ValueError: the address cannot be listened at.
    """
    # A thread for each request, to receive it and to wait; the service's threads compute.
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
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(service), server)
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
        started = time.perf_counter()
        code = "INTERNAL"
        try:
            turn = self._service.submit
            response = _answer(context, lambda: turn(self._predict, request, context).result())
            code = "OK"
            return response
        finally:
            if code != "OK" and context.code() is not None:
                code = context.code().name
            seconds = time.perf_counter() - started
            self._service.count(request.model_spec.name, code, "predict", "GRPC", seconds)

    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        return _answer(context, lambda: self._metadata(request))

    def _predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        signature = request.model_spec.signature_name or _DEFAULT_SIGNATURE
        name = request.model_spec.name
        version, model = self._service.find(*_model_asked_for(request.model_spec))
        inputs = self._inputs(request.inputs, model.input_specs(signature))
        remaining = context.time_remaining()
        timeout_ms = None if remaining is None else max(1, int(1000 * remaining))
        outputs = self._service.run(name, model, signature, inputs, timeout_ms)
        response = predict_pb2.PredictResponse(model_spec=_spec(name, version, signature))
        for output in request.output_filter or outputs:
            if output not in outputs:
                raise RequestError(
                    f"output tensor alias not found in signature: {output} Outputs expected to be "
                    f"in the set {{{','.join(sorted(outputs))}}}."
                )
            response.outputs[output].CopyFrom(tf.make_tensor_proto(outputs[output]))
        return response

    def _inputs(
        self, protos: Mapping[str, TensorProto], specs: Mapping[str, TensorSpec]
    ) -> dict[str, np.ndarray]:
        """Return the tensors of a request, checked against the signature."""
        if set(protos) != set(specs):
            extra, missing = set(protos) - set(specs), set(specs) - set(protos)
            raise RequestError(
                f"input size does not match signature: {len(protos)}!={len(specs)}. "
                f"Sent extra: {{{','.join(sorted(extra))}}}. "
                f"Missing but required: {{{','.join(sorted(missing))}}}."
            )
        return {name: self._tensor(protos[name], name, spec) for name, spec in specs.items()}

    def _tensor(self, proto: TensorProto, name: str, spec: TensorSpec) -> np.ndarray:
        shape = [dim.size for dim in proto.tensor_shape.dim]
        try:
            dtype = tf.as_dtype(proto.dtype)
        except TypeError:
            raise RequestError(f'Input "{name}" has no type') from None
        if dtype.name != spec.dtype:
            raise RequestError(f'Input "{name}": expects {spec.dtype} but {dtype.name} is provided')
        # A message of a few bytes may stand for one value, repeated without end.
        size = math.prod(max(side, 0) for side in shape) * (dtype.size or 1)
        if min(shape, default=0) < 0 or size > self._max_tensor_bytes:
            raise RequestError(f'Input "{name}": shape {shape} is not possible here')
        if proto.tensor_shape.unknown_rank or not spec.admits(shape):
            raise RequestError(f'Input "{name}": expecting shape {spec.shape} but got {shape}')
        try:
            return tf.make_ndarray(proto)
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise RequestError(
                f'Input "{name}" of type {dtype.name} cannot be parsed: {error}'
            ) from None

    def _metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        if list(request.metadata_field) != ["signature_def"]:
            raise RequestError("GetModelMetadataRequest must ask for the field signature_def alone")
        version, model = self._service.find(*_model_asked_for(request.model_spec))
        response = get_model_metadata_pb2.GetModelMetadataResponse(
            model_spec=_spec(request.model_spec.name, version)
        )
        signatures = json_format.ParseDict(
            {"signature_def": model.describe_signatures()},
            get_model_metadata_pb2.SignatureDefMap(),
        )
        response.metadata["signature_def"].Pack(signatures)
        return response


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, service: Service):
        self._service = service

    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        return _answer(context, lambda: self._status(request))

    def _status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        state = get_model_status_pb2.ModelVersionStatus.State
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._service.statuses(*_model_asked_for(request.model_spec)):
            described = response.model_version_status.add(
                version=status.version, state=state.Value(status.state)
            )
            described.status.error_message = status.error_message
            described.status.error_code = error_codes_pb2.Code.Value(status.error_code)
        return response


def _answer(context: grpc.ServicerContext, function: Callable[[], Result]) -> Result:
    """Return what a function returns, or end the call with the error that it raises."""
    try:
        return function()
    except Busy as error:
        _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, error.message)
    except RequestError as error:
        _abort(context, grpc.StatusCode[error.code], error.message)
    except Exception:
        logger.exception("a request failed")
        message = "Internal error; the server's log says more"
        _abort(context, grpc.StatusCode.INTERNAL, message)


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)
    raise AssertionError("gRPC's abort raises")


def _model_asked_for(spec: ModelSpec) -> tuple[str, int | None, str | None]:
    """Return the model, version and label that a request names."""
    if not spec.name:
        raise RequestError("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    version = spec.version.value if choice == "version" else None
    return spec.name, version, spec.version_label if choice == "version_label" else None


def _spec(name: str, version: int, signature: str = "") -> ModelSpec:
    spec = ModelSpec(name=name, signature_name=signature)
    spec.version.value = version
    return spec
