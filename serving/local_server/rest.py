"""TensorFlow Serving's REST API: the answers to requests below `/v1/`.

https://www.tensorflow.org/tfx/serving/api_rest: predict, status and metadata, for the latest version or
one by number.
"""

import json
import re
from urllib.parse import unquote

from serving.errors import RequestError
from serving.local_server import json_codec
from serving.local_server.service import Service

__all__ = ["RestApi"]

# Capitals don't matter, but in what is asked for: `/METADATA` is a status.
_WHICH = (
    r"(?i)/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
)
_PATTERNS = {
    "POST": re.compile(rf"{_WHICH}:(?P<api>(?-i:predict|classify|regress))"),
    "GET": re.compile(rf"{_WHICH}(/((?P<api>(?-i:metadata))|metadata))?"),
}


class RestApi:
    """The REST API over a `Service`."""

    def __init__(self, service: Service):
        self._service = service

    def answer(self, method: str, target: str, body: bytes) -> bytes:
        """Return the JSON for a request to a target, the path as it came, and count the request.

        Raises:
          RequestError: it is answered with an error.
        """
        pattern = _PATTERNS.get(method)
        match = pattern and pattern.fullmatch(target)
        name, api = (unquote(match["name"]), match["api"] or "status") if match else ("", "")
        with self._service.counted(name, api, "REST"):
            if not match:
                raise RequestError(f"Malformed request: {method} {target}")
            return self._answer(api, name, match, body)

    def _answer(self, api: str, name: str, match: re.Match, body: bytes) -> bytes:
        version = _number(match["version"])
        label = match["label"] and unquote(match["label"])
        if api == "predict":
            with self._service.turn():
                return self._predict(name, version, label, body)
        if api == "metadata":
            return self._metadata(name, version, label)
        if api == "status":  # of the model, whatever the label
            return self._status(name, version)
        raise RequestError(f"{api} is not implemented by the local server", status=501)

    def _predict(self, name: str, version: int | None, label: str | None, body: bytes) -> bytes:
        document = json_codec.parse_body(body)
        signature = json_codec.signature_name(document)
        _, model = self._service.find(name, version, label)
        inputs, rows = json_codec.decode_inputs(document, model.input_types(signature))
        return json_codec.encode_outputs(self._service.run(model, signature, inputs), rows=rows)

    def _metadata(self, name: str, version: int | None, label: str | None) -> bytes:
        number, model = self._service.find(name, version, label)
        spec = {"name": name, "signature_name": "", "version": str(number)}
        signatures = {"signature_def": {"signature_def": model.describe_signatures()}}
        return json.dumps({"model_spec": spec, "metadata": signatures}, indent=1).encode()

    def _status(self, name: str, version: int | None) -> bytes:
        versions = self._service.versions
        described = [
            {
                "version": str(status.version),
                "state": status.state,
                "status": {"error_code": status.error_code, "error_message": status.error_message},
            }
            for status in versions.statuses()
            if name == versions.name and version in (None, status.version)
        ]
        if not described:
            which = "any versions" if version is None else f"version {version}"
            raise RequestError(f"Could not find {which} of model {name}", status=404)
        return json.dumps({"model_version_status": described}, indent=1).encode()


def _number(digits: str | None) -> int | None:
    if digits is None:
        return None
    if len(digits) > 19 or int(digits) >= 2**63:
        raise RequestError(f"Failed to convert version: {digits} to numeric.")
    return int(digits)
