"""What the tests of the client share: pictures, servers that answer by a script, a small model."""

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from fake_server import COUNT, FakeModel, running
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.client import __main__ as client_module
from serving.client import base
from tfhuber.landmarks.known_sets import WFLW

METADATA = {
    "format": 1,
    "landmark_set": {
        "name": "mine",
        "names": [f"point {k}" for k in range(COUNT)],
        "edges": [[0, 1], [1, 2]],
        "mirror": list(WFLW.mirror),
    },
    "family": "huber",
    "delta": 1.0,
    "kappa": 3.0765,
    "image_size": 64,
    # Of these toys' boxes of 100 x 100 pixels, 1 pixel is 0.01.
    "uncertainty": {"examples": 10, "levels": [0.5, 0.95], "values": [0.005, 0.02]},
}


def good_rows(count: int) -> list[dict]:
    """What a model of three landmarks answers for so many images, as JSON has it."""
    row = {
        "landmarks": np.zeros((3, 2)).tolist(),
        "covariance": np.tile(np.eye(2), (3, 1, 1)).tolist(),
        "valid": True,
    }
    return [dict(row) for _ in range(count)]


@dataclass
class Script:
    """What a server answers, one thing after the other, and then well; and what it was asked."""

    answers: list[Response] = field(default_factory=list)
    bodies: list[dict] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.paths.append(request.url.path)
        self.bodies.append(body)
        if self.answers:
            return self.answers.pop(0)
        return JSONResponse({"predictions": good_rows(len(body["instances"]))})


@contextlib.contextmanager
def scripted(*answers: Response) -> Iterator[tuple[str, Script]]:
    """A server that gives these answers first; its URL, and what it notes down."""
    script = Script(list(answers))
    app = Starlette(routes=[Route("/{path:path}", script.answer, methods=["POST"])])
    with running(app) as http:
        yield str(http.base_url).rstrip("/"), script


class FullModel(FakeModel):
    """A fake model with all that an exported one has; it refuses requests with an image `refuse me`.

    Landmark k is at (x0 + k, y0 + k) of the box, so that every picture's answer is its own. Images that
    begin with `invalid` are not valid.
    """

    def input_types(self, signature):
        if signature == "metadata":
            return {"query": "string"}
        return super().input_types("serving_default" if signature == "tta" else signature)

    def run(self, signature, inputs, *, timeout_ms):
        if signature == "metadata":
            text = json.dumps(METADATA).encode()
            return {"json": np.array([text] * len(inputs["query"]), object)}
        if any(data.startswith(b"refuse") for data in inputs["image_bytes"]):
            from serving.errors import RequestError

            raise RequestError("cannot be decoded")
        found = super().run("serving_default", inputs, timeout_ms=timeout_ms)
        factor = np.tile(
            np.float32([[1.5, 0.25], [0.25, 1]]), (*found["landmarks"].shape[:2], 1, 1)
        )
        valid = np.array([not data.startswith(b"invalid") for data in inputs["image_bytes"]])
        return {**found, "precision_factor": factor, "valid": valid}


def noise(path: Path, size: tuple[int, int] = (120, 100), seed: int = 0) -> Path:
    """Writes a picture of coloured noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), np.uint8)
    Image.fromarray(pixels).resize(size).save(path)
    return path


def run_client(monkeypatch, *arguments: object) -> int:
    """Runs the command in this process; its exit status, or what it raises."""
    monkeypatch.setattr(sys, "argv", ["client", *map(str, arguments)])
    return client_module.main()


def record_pauses(monkeypatch) -> list[float]:
    """Keeps clients made from now on from pausing; how long they would have, in seconds."""
    seconds = []

    class Event(threading.Event):
        def wait(self, timeout=None):
            seconds.append(timeout)
            return self.is_set()

    monkeypatch.setattr(base, "threading", SimpleNamespace(Event=Event))
    return seconds


def read_lines(path: Path) -> list[dict]:
    """The objects in a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
