"""64 clients on TensorFlow Serving itself, every fifth request junk: who else is hurt."""

import collections
import itertools
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from fake_server import b64
from real_server import SERVING, compose_flags, tf_serving

from tfhuber.saved_model import session

CLIENTS = 64
PATH = "/v1/models/wflw:predict"


def threads_as_deployed() -> list[str]:
    """The compose file's, for a server that is started with a model's name alone."""
    return [flag for flag in compose_flags() if "parallelism" in flag or "threads" in flag]


def junk(picture: bytes, *, without_rows: bool) -> list[bytes]:
    """Bodies that cannot be answered, or of which a row cannot."""
    image, box = b64(picture), [0, 0, 0, 0]
    bodies = [
        {"instances": [{"image_bytes": b64(b"junk"), "box": box}]},
        {"instances": [{"image_bytes": image, "box": [9, 9, 5, 5]}]},
        {"instances": [{"image_bytes": image, "box": [0, 0, 0]}]},
        {"instances": [{"image_bytes": image, "box": [[0, 0, 0, 0]]}]},
        {"inputs": {"image_bytes": [image], "box": [box] * 2}},
        {"instances": [{"image_bytes": image}]},
        {"instances": []},
        {"signature_name": "tensor", "inputs": np.zeros((1, 60, 60, 3), int).tolist()},
        {"signature_name": "tensor", "inputs": np.zeros((1, 32, 32, 1), int).tolist()},
        {"signature_name": "median", "instances": [1]},
        {"signature_name": "metadata", "inputs": ["a"] * 257},
        *([{"inputs": {"image_bytes": [], "box": []}}] if without_rows else []),
    ]
    return [b"{", b"", b"\xff" * 1000, *(json.dumps(body).encode() for body in bodies)]


def cut_short(url: str) -> None:
    """Hangs up in the middle of a body."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n"
        connection.sendall(head.encode() + b'{"instances": [')


def storm(server, good, expected, bad, seconds: float) -> collections.Counter:
    """Count what became of the good requests: "right", "wrong", or the error."""
    found: collections.Counter = collections.Counter()
    end = time.monotonic() + seconds
    body = json.dumps(good).encode()

    def ask(client: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for number in itertools.count(client):
                if time.monotonic() > end:
                    return
                if number % 5:
                    answer = http.post(PATH, content=body)
                    found[outcome(answer, expected)] += 1
                elif chosen := (number // 5) % (len(bad) + 1):
                    http.post(PATH, content=bad[chosen - 1])
                    found["junk"] += 1
                else:
                    cut_short(server.url)
                    found["junk"] += 1

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(dict(found))
    return found


def outcome(answer: httpx.Response, expected: np.ndarray) -> str:
    if answer.status_code != 200:
        return answer.json()["error"]
    (row,) = answer.json()["predictions"]
    right = row["valid"] and np.allclose(row["landmarks"], expected, rtol=1e-4, atol=1e-2)
    return "right" if right else "wrong"


@pytest.fixture(scope="module")
def good(exported, faces):
    """A request, and the landmarks that are its answer."""
    picture = next(iter(sorted((faces / "WFLW_images").rglob("*.jpg")))).read_bytes()
    box = [49.0, 60.0, 191.0, 217.0]
    expected = session.run(exported / "1", [picture], [box])["landmarks"][0]
    return picture, {"instances": [{"image_bytes": b64(picture), "box": box}]}, expected


@pytest.mark.slow
def test_as_deployed_nobody_is_hurt(exported, good, tmp_path):
    picture, body, expected = good
    flags = [f"--model_base_path={exported}", "--model_name=wflw", *threads_as_deployed()]
    with tf_serving(tmp_path, *flags) as server:
        found = storm(server, body, expected, junk(picture, without_rows=True), seconds=60)
        assert server.http.get("/v1/models/wflw/metadata").status_code == 200
    assert found["junk"] > 100 and found["right"] > 400
    assert set(found) == {"junk", "right"}


@pytest.mark.slow
def test_with_batching_those_are_hurt_whom_the_guide_names(exported, good, tmp_path):
    """Nobody without rows asks here: that would stop the server, which `test_batching` shows."""
    picture, body, expected = good
    flags = [f"--model_base_path={exported}", "--model_name=wflw", *threads_as_deployed()]
    flags += ["--enable_batching=true"]
    flags += [f"--batching_parameters_file={SERVING / 'batching.config'}"]
    with tf_serving(tmp_path, *flags) as server:
        found = storm(server, body, expected, junk(picture, without_rows=False), seconds=30)
        assert server.http.get("/v1/models/wflw/metadata").status_code == 200
    hurt = {error for error in found if error not in ("junk", "right")}
    assert found["junk"] > 50 and found["right"] > 100
    assert all("from different tasks have different shapes" in error for error in hurt)
