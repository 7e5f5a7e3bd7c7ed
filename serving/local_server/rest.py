"""TensorFlow Serving's REST API: the answers to requests below `/v1/`.

https://www.tensorflow.org/tfx/serving/api_rest: predict, status and metadata, for the latest version,
one by number, or one by label.
"""

import asyncio
import json
import re
import secrets
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.requests import Request

from serving.errors import RequestError
from serving.local_server import json_codec
from serving.local_server.service import Service

__all__ = ["Call", "RestApi"]

_VERSION = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(rf"(?i)/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>[a-z]+)")
_GET = re.compile(rf"(?i)/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<metadata>metadata))?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class Call:
    """What is known of a request, more while it is answered; for the log and the metrics.

    Attributes:
      id: the client's `X-Request-ID` where that is short and plain, or a random one.
      method: the HTTP method.
      target: the path and query as they came.
      received: bytes of the body.
      api: `predict`, `status` or `metadata`; empty for all else.
      model: the name that the path has.
      version: the number of the version that answered.
      rows: the examples in the request.
    """

    id: str
    method: str
    target: str
    received: int = 0
    api: str = ""
    model: str = ""
    version: int | None = None
    rows: int | None = None

    @classmethod
    def of(cls, request: Request) -> "Call":
        """Return what is known at the start."""
        id_ = request.headers.get("x-request-id", "")
        target = request.scope["raw_path"].decode("latin-1")
        if query := request.scope["query_string"]:
            target += f"?{query.decode('latin-1')}"
        return cls(
            id_ if _REQUEST_ID.fullmatch(id_) else secrets.token_hex(8), request.method, target
        )


class RestApi:
    """The REST API over a `Service`.

    Args:
      service: the models.
      max_request_bytes: the largest body that is read.
      max_held_bytes: what the bodies of all requests may take together.
      body_seconds: how long a body may take to arrive.
    """

    def __init__(
        self,
        service: Service,
        *,
        max_request_bytes: int,
        max_held_bytes: int,
        body_seconds: float,
    ):
        self._service = service
        self._max_request_bytes = max_request_bytes
        self._max_held_bytes = max_held_bytes
        self._body_seconds = body_seconds
        self._held_bytes = 0
        service.metrics.watch(
            "local_server_body_bytes",
            "Bytes of request bodies in memory",
            lambda: self._held_bytes,
        )

    async def answer(self, request: Request, call: Call) -> bytes:
        """Return the JSON that a request is answered with, and note in `call` what it was.

        Raises:
          RequestError: it is answered with an error.
          starlette.requests.ClientDisconnect: the client left before its request was whole.
        """
        malformed = RequestError(f"Malformed request: {call.method} {call.target}")
        if "?" in call.target:
            raise malformed
        if call.method == "POST" and (match := _POST.fullmatch(call.target)):
            call.model = unquote(match["name"])
            method = match["method"].lower()
            if method == "predict":
                call.api = method
                return await self._read_and_predict(request, call, match)
            if method in ("classify", "regress"):
                raise RequestError(f"{method} is not implemented by the local server", status=501)
        if call.method == "GET" and (match := _GET.fullmatch(call.target)):
            if match["name"] is None:
                raise RequestError("Missing model name in request.")
            call.model = unquote(match["name"])
            if match["metadata"]:
                call.api = "metadata"
                return self._metadata(call, match)
            call.api = "status"
            return self._status(call, match)
        raise malformed

    async def _read_and_predict(self, request: Request, call: Call, match: re.Match) -> bytes:
        body = bytearray()
        try:
            await self._read_body(request, body)
            return await self._service.compute(self._predict, call, match, body)
        finally:
            call.received = len(body)
            self._held_bytes -= len(body)

    async def _read_body(self, request: Request, body: bytearray) -> None:
        """Read the body into `body`, every byte of which counts as held from now on."""
        limit = self._max_request_bytes
        too_large = RequestError(f"The request's body is larger than {limit} bytes", status=413)
        if int(request.headers.get("content-length", 0)) > limit:
            raise too_large
        try:
            async with asyncio.timeout(self._body_seconds):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > limit:
                        raise too_large
                    if self._held_bytes + len(chunk) > self._max_held_bytes:
                        raise RequestError(
                            "The server is busy: the requests that it was sent fill its memory; "
                            "try again later",
                            status=503,
                        )
                    body += chunk
                    self._held_bytes += len(chunk)
        except TimeoutError:
            raise RequestError(
                f"The request's body did not arrive within {self._body_seconds:g} seconds",
                status=408,
            ) from None

    def _predict(self, call: Call, match: re.Match, body: bytearray) -> bytes:
        document = json_codec.parse_body(body)
        signature = json_codec.signature_name(document)
        call.version, model = self._service.find(*_model_asked_for(call, match))
        inputs, rows = json_codec.decode_inputs(document, model.input_specs(signature))
        call.rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
        outputs = self._service.run(call.model, model, signature, inputs)
        return json_codec.encode_outputs(outputs, rows=rows)

    def _metadata(self, call: Call, match: re.Match) -> bytes:
        call.version, model = self._service.find(*_model_asked_for(call, match))
        spec = {"name": call.model, "signature_name": "", "version": str(call.version)}
        signatures = {"signature_def": {"signature_def": model.describe_signatures()}}
        return json.dumps({"model_spec": spec, "metadata": signatures}, indent=1).encode()

    def _status(self, call: Call, match: re.Match) -> bytes:
        described = [
            {
                "version": str(status.version),
                "state": status.state,
                "status": {
                    "error_code": status.error_code,
                    "error_message": status.error_message,
                },
            }
            for status in self._service.statuses(*_model_asked_for(call, match))
        ]
        return json.dumps({"model_version_status": described}, indent=1).encode()


def _model_asked_for(call: Call, match: re.Match) -> tuple[str, int | None, str | None]:
    """Return the model, version and label that a path names."""
    digits, label = match["version"], match["label"]
    if digits is not None and (len(digits) > 19 or int(digits) >= 2**63):
        raise RequestError(f"Failed to convert version: {digits} to numeric.")
    return (
        call.model,
        None if digits is None else int(digits),
        None if label is None else unquote(label),
    )
