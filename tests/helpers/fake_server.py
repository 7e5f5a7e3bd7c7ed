"""What the tests of serving share: a small SavedModel, a model without TensorFlow, a server."""

import base64
import contextlib
import io
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import uvicorn
from PIL import Image

from serving.errors import RequestError
from serving.local_server.http_server import Server
from serving.local_server.metrics import Metrics
from serving.local_server.service import Service

COUNT = 98


def jpeg(width=60, height=40) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


def b64(data: bytes) -> dict:
    return {"b64": base64.b64encode(data).decode()}


def row(box=(1, 2, 30, 40), image=b"x") -> dict:
    return {"image_bytes": b64(image), "box": list(box)}


def save_toy(directory: Path, shift: float = 0.0) -> None:
    """Writes a SavedModel with the exported model's signature and some that are harder to serve.

    `serving_default` puts 98 landmarks on an ellipse within the box, moved to the right by `shift`.
    """
    import tensorflow as tf

    toy = tf.Module()
    toy.shift = tf.Variable(shift, dtype=tf.float32)
    signatures = {"serving_default": landmark_signature(toy.shift), **harder_signatures()}
    for name, function in signatures.items():
        setattr(toy, name, function)
    tf.saved_model.save(toy, str(directory), signatures=signatures)


def landmark_signature(shift):
    """The exported model's `serving_default`: landmarks on an ellipse, by arithmetic alone."""
    import tensorflow as tf

    angles = np.linspace(0, 2 * np.pi, COUNT, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)

    def size(image):
        return tf.cond(
            tf.strings.substr(image, 0, 3) == b"\xff\xd8\xff",
            lambda: tf.cast(tf.io.extract_jpeg_shape(image), tf.float32)[1::-1],
            lambda: tf.zeros(2),
        )

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="image_bytes"),
            tf.TensorSpec([None, 4], tf.float32, name="box"),
        ]
    )
    def landmarks(image_bytes, box):
        tf.debugging.assert_equal(tf.shape(box), [tf.size(image_bytes), 4])
        sizes = tf.map_fn(size, image_bytes, fn_output_signature=tf.float32)
        whole = tf.concat([tf.zeros_like(sizes), sizes], -1)
        box = tf.where(tf.reduce_all(box == 0, -1, keepdims=True), whole, box)
        centre, half = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]) / 2
        points = centre[:, None] + 0.8 * half[:, None] * circle
        covariance = tf.linalg.diag(tf.square(0.02 * half))[:, None]
        return {
            "landmarks": points + shift * tf.constant([1.0, 0.0]),
            "covariance": tf.tile(covariance, [1, COUNT, 1, 1]),
            "valid": sizes[:, 0] > 0,
        }

    return landmarks


def harder_signatures() -> dict:
    """Signatures with a fixed width, strings out, half precision, and an output without rows."""
    import tensorflow as tf

    def signature(shape, dtype, name):
        return tf.function(input_signature=[tf.TensorSpec(shape, dtype, name=name)])

    @signature([None, 3], tf.float32, "x")
    def double(x):
        return {"y": 2 * x}

    @signature([None], tf.string, "image_bytes")
    def strict(image_bytes):
        shapes = tf.map_fn(tf.io.extract_jpeg_shape, image_bytes, fn_output_signature=tf.int32)
        return {"size": shapes, "copy_bytes": image_bytes}

    @signature([None], tf.float32, "x")
    def half(x):
        return {"y": tf.cast(x, tf.float16)}

    @signature([None], tf.float32, "x")
    def total(x):
        return {"y": tf.reduce_sum(x)}

    return {"double": double, "strict": strict, "half": half, "total": total}


class FakeModel:
    """Answers as a landmark model would, without TensorFlow; `delay` tells how slowly."""

    delay: float = 0.0
    error: Exception | None = None

    def input_types(self, signature):
        if signature != "serving_default":
            raise RequestError(f'Serving signature name: "{signature}" not found in signature def')
        return {"box": "float32", "image_bytes": "string"}

    def run(self, signature, inputs, *, timeout_ms):
        time.sleep(self.delay)
        if self.error:
            raise self.error
        count = inputs["image_bytes"].size
        if inputs["box"].shape != (count, 4) or inputs["image_bytes"].ndim != 1:
            raise RequestError("no boxes, each of an image")
        steps = np.arange(COUNT, dtype=np.float32)[None, :, None]
        return {
            "landmarks": inputs["box"][:, None, :2] + steps,
            "covariance": np.tile(np.eye(2, dtype=np.float32), (count, COUNT, 1, 1)),
            "valid": np.array([data != b"" for data in inputs["image_bytes"]]),
        }

    def describe_signatures(self):
        return {"serving_default": {"method_name": "tensorflow/serving/predict"}}


def wait_for(condition, seconds=60):
    """What a condition returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


class HeldModel(FakeModel):
    """Answers nobody until it is let go; `held` counts those that it has been asked for."""

    def __init__(self):
        self.go = threading.Event()
        self.held = 0

    def run(self, *args, **kwargs):
        self.held += 1
        assert self.go.wait(30)
        return super().run(*args, **kwargs)


@dataclass
class FakeVersions:
    """One loaded version, 3, of a fake model."""

    name: str = "wflw"
    model: FakeModel = field(default_factory=FakeModel)
    serving: int = 3

    def get(self, version=None):
        return (3, self.model) if version in (None, 3) else None

    def statuses(self):
        status = SimpleNamespace(version=3, state="AVAILABLE", error_code="OK", error_message="")
        return [status]

    def poll(self):
        pass


def local_server(
    versions, *, threads=4, max_waiting=128, timeout_ms=30_000, metrics=None, **options
) -> Server:
    """The local server over versions, on a free port; `running` runs it."""
    bounds = {"threads": threads, "max_waiting": max_waiting, "timeout_ms": timeout_ms}
    service = Service(versions, metrics=metrics or Metrics(), **bounds)
    return Server(service, socket.create_server(("127.0.0.1", 0), backlog=2048), **options)


@contextlib.contextmanager
def running(server):
    """Runs a local server, or an ASGI application; yields a client with its base URL."""
    run = serving if isinstance(server, Server) else serving_asgi
    with (
        run(server) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        yield client


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.drain()
        thread.join(timeout=15)


@contextlib.contextmanager
def serving_asgi(app):
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=15)
