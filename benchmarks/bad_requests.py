"""Requests that nobody should send, and the answer that each deserves."""

import http.client
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["BadRequest", "bad_requests", "damaged_images"]

PREDICT = "/v1/models/wflw:predict"


@dataclass(frozen=True)
class BadRequest:
    """A kind of bad request.

    Attributes:
      name: what is bad about it.
      status: the HTTP status that it should get; 0 for no answer at all.
      send: sends it to a host and port, and returns the status of the answer.
    """

    name: str
    status: int
    send: Callable[[tuple[str, int]], int]

    def fault(self, address: tuple[str, int]) -> str:
        """Send it, and return what is wrong with the answer; empty if that is as it should be."""
        status = self.send(address)
        return "" if status == self.status else f"{status} instead of {self.status}"


def damaged_images(images: list[bytes]) -> list[bytes]:
    """Return an image that is cut off, an empty one, one of another format, and a good one."""
    first, *_, last = images
    return [first[: len(first) // 2], b"", b"GIF89a", last]


def bad_requests(good: dict) -> list[BadRequest]:
    """Return all kinds, made from a good row."""
    image, box = [good["image_bytes"]], [good["box"]]
    columns = {"image_bytes": image, "box": box}

    def document(name: str, status: int, path: str = PREDICT, **content: object) -> BadRequest:
        return body(name, status, json.dumps(content).encode(), path=path)

    def body(
        name: str, status: int, data: bytes, method: str = "POST", path: str = PREDICT
    ) -> BadRequest:
        return BadRequest(name, status, lambda address: _exchange(address, method, path, data))

    return [
        body("nothing", 400, b""),
        body("no JSON", 400, b'{"inputs": '),
        body("no text", 400, bytes(range(256)) * 100),
        body("deep JSON", 400, b"[" * 20_000),
        document("bad base64", 400, inputs={"image_bytes": [{"b64": "_-_-"}], "box": box}),
        document("wrong shape", 400, inputs={"image_bytes": image, "box": [[1.0, 2.0, 3.0]]}),
        document("wrong type", 400, inputs={"image_bytes": image, "box": [["a", "b", "c", "d"]]}),
        document("unequal batches", 400, inputs={"image_bytes": image * 2, "box": box}),
        document("missing input", 400, inputs={"image_bytes": image}),
        document("both forms", 400, inputs=columns, instances=[]),
        document("neither form", 400),
        document("unknown signature", 400, signature_name="classify", inputs=columns),
        document("unknown model", 404, "/v1/models/other:predict", inputs=columns),
        document("unknown version", 404, "/v1/models/wflw/versions/99:predict", inputs=columns),
        document("unknown label", 400, "/v1/models/wflw/labels/none:predict", inputs=columns),
        body("wrong method", 400, b"{}", method="PUT"),
        body("nowhere", 404, b"", method="GET", path="/nowhere"),
        BadRequest("too large", 413, lambda address: _raw(address, _head(10**10))),
        BadRequest("no HTTP", 400, lambda address: _raw(address, b"\x16\x03\x01 hello\r\n\r\n")),
        BadRequest("gone half way", 0, lambda address: _leave(address, _head(100_000) + b"{")),
    ]


def _head(length: int) -> bytes:
    return f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def _exchange(address: tuple[str, int], method: str, path: str, data: bytes) -> int:
    connection = http.client.HTTPConnection(*address, timeout=60)
    try:
        connection.request(method, path, data)
        answer = connection.getresponse()
        if answer.read().startswith(b'{"error": '):
            return answer.status
        raise http.client.HTTPException(f"an answer of {answer.status} without an error")
    finally:
        connection.close()


def _raw(address: tuple[str, int], data: bytes) -> int:
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(data)
        return int(client.recv(4096).split()[1])


def _leave(address: tuple[str, int], data: bytes) -> int:
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(data)
    return 0
