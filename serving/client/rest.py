"""The client for TensorFlow Serving's REST API, without TensorFlow."""

import email.utils
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import orjson
import pybase64

from serving.client.base import LandmarkClient, ServerError
from serving.client.proxies import http_proxy, mention

__all__ = ["Client"]


class Client(LandmarkClient):
    """A landmark model behind TensorFlow Serving's REST API; a context manager, or call `close`.

    Example:
      >>> with Client("http://localhost:8501", "wflw") as client:
      ...     found = client.predict([Path("photo.jpg").read_bytes()])
      >>> found["landmarks"].shape
      (1, 98, 2)

    Args:
      url: where the server is, without a path.
      model: the name under which it serves the model.
      options: `version`, `label`, `timeout`, `retries` and `patience` of `LandmarkClient`.

    Raises:
      ValueError: `url` is not one, another argument is out of range, or the environment names a proxy
        that cannot be used.
    """

    def __init__(self, url: str = "http://localhost:8501", model: str = "wflw", **options: Any):
        self.url = url.rstrip("/")
        super().__init__(self.url, model, **options)
        which = "" if self.version is None else f"/versions/{self.version}"
        which = which if self.label is None else f"/labels/{quote(self.label, safe='')}"
        path = f"/v1/models/{quote(model, safe='')}{which}:predict"
        try:
            target = httpx.URL(self.url + path)
        except httpx.InvalidURL as error:
            raise ValueError(f"{url} is no URL: {error}") from None
        if target.scheme not in ("http", "https") or not target.host:
            raise ValueError(f"{url} is no URL such as http://localhost:8501")
        self._target = target
        proxy = http_proxy(target.scheme, target.host, target.port)
        self._proxy = mention(proxy, target.host)
        timeout = httpx.Timeout(self.timeout, connect=min(self.timeout, 5.0))
        try:
            # A transport of its own, as httpx would otherwise open every proxy of the environment.
            self._http = (
                httpx.Client(timeout=timeout, proxy=proxy)
                if proxy
                else httpx.Client(timeout=timeout, transport=httpx.HTTPTransport())
            )
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            fault = str(error).partition(" Make sure")[0].rstrip(".")
            raise ValueError(f"{url} cannot be asked: {fault}{self._proxy}") from None

    def close(self) -> None:
        super().close()
        self._http.close()

    def _call(self, signature: str, inputs: Mapping[str, Sequence | np.ndarray]) -> Any:
        # By rows: TensorFlow Serving writes columns one number a line, four times as much.
        columns = zip(*map(_json_values, inputs.values()), strict=True)
        rows = [dict(zip(inputs, values, strict=True)) for values in columns]
        body = json.dumps({"signature_name": signature, "instances": rows})
        try:
            response, content = self._post(body)
        except httpx.TimeoutException as error:
            raise TimeoutError(f"no answer from {self.url} in time: {error}{self._proxy}") from None
        except (httpx.TransportError, UnicodeError) as error:  # UnicodeError: of a host's name
            raise ConnectionError(self._unreachable(error)) from None
        try:
            document = _parsed(content)
            reason = document.get("error")
        except (ValueError, AttributeError, RecursionError):
            document, reason = {}, None
        if response.is_error or not isinstance(document.get("predictions"), list):
            nothing = "an answer without predictions"
            nothing = response.reason_phrase if response.is_error else nothing
            raise ServerError(
                f"{self.url} answered {response.status_code}: {reason or nothing}{self._proxy}",
                response.status_code,
                _seconds(response.headers.get("retry-after", "")),
            )
        return _outputs(document["predictions"])

    def _post(self, body: str) -> tuple[httpx.Response, bytes]:
        """Return the answer and its content; httpx's own timeout would bound each piece only."""
        last = time.monotonic() + self.timeout
        with self._http.stream("POST", self._target, content=body) as response:
            pieces = []
            for piece in response.iter_bytes():
                pieces.append(piece)
                if time.monotonic() > last:
                    raise httpx.ReadTimeout(f"only a part within {self.timeout:g} seconds")
        return response, b"".join(pieces)

    def _unreachable(self, error: Exception) -> str:
        """Return what to do where no answer came."""
        if self._proxy:
            return f"no answer from {self.url} ({error}){self._proxy}"
        if isinstance(error, httpx.RemoteProtocolError) and "illegal" in str(error):
            return (
                f"what answers at {self.url} does not speak HTTP ({error}); if that is a server's gRPC "
                "port, ask there with --grpc HOST:PORT or GrpcClient"
            )
        return (
            f"no server at {self.url} ({error}); start one with "
            f"`python -m serving.local_server --model_name={self.model} --model_base_path=DIR "
            f"--rest_api_port={self._target.port or 80}`"
        )


def _parsed(body: bytes) -> Any:
    """Return the JSON of an answer; ValueError if it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body)  # TensorFlow Serving writes NaN and Infinity


def _outputs(predictions: list) -> Any:
    """Return the outputs by name of an answer by rows; the rows themselves where they have no names."""
    first = predictions[0] if predictions else None
    if not isinstance(first, dict):
        return predictions
    try:
        return {name: [row[name] for row in predictions] for name in first}
    except (KeyError, TypeError):
        return None  # no two models answer one request


def _json_values(values: Sequence | np.ndarray) -> list:
    """Return an input's values as JSON has them."""
    if isinstance(values, np.ndarray):
        return values.tolist()
    return [
        {"b64": pybase64.b64encode_as_string(value)} if isinstance(value, bytes) else value
        for value in values
    ]


def _seconds(retry_after: str) -> float | None:
    """Return the seconds that a Retry-After header, a number or a date, asks for; None if it is neither."""
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
