"""The real TensorFlow Serving, its REST half, as a process of its own."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("TFHUBER_TFSERVING", ROOT / "../shared/tfserving")).resolve() / "run"
SERVING = ROOT / "serving"

# It replays the warm-up on a machine that may be busy.
_SECONDS_TO_START = 180


def compose_flags(**changed: str) -> list[str]:
    """Return the flags of the compose file, with other values where they are given by name."""
    compose = yaml.safe_load((SERVING / "docker-compose.yml").read_text())
    pairs = (
        flag[2:].split("=", 1) for flag in compose["services"]["tensorflow-serving"]["command"]
    )
    values = {name: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value) for name, value in pairs}
    assert changed.keys() <= values.keys()
    return [f"--{name}={value}" for name, value in (values | changed).items()]


class RealServer:
    """A running server.

    Attributes:
      process: what runs.
      http: a client that knows its address.
      before: what those got who asked before it was ready, each kind once.
    """

    def __init__(self, process: subprocess.Popen, port: int, log: Path):
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=60)
        self.before: set[str | int] = set()
        self._log = log

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, path: str) -> None:
        """Asks for a path until it is 200."""
        deadline = time.monotonic() + _SECONDS_TO_START
        while (status := self._status(path)) != 200:
            self.before.add(status)
            assert self.process.poll() is None, self.log()[-2000:]
            assert time.monotonic() < deadline, self.log()[-2000:]
            time.sleep(0.05)

    def _status(self, path: str) -> str | int:
        try:
            return self.http.get(path).status_code
        except httpx.ConnectError:
            return "refused"

    def ask(self, body: dict, path: str = "/v1/models/wflw", **options) -> tuple[int, dict]:
        """Return the status and the JSON of a prediction."""
        answer = self.http.post(f"{path}:predict", json=body, **options)
        return answer.status_code, answer.json()


@contextlib.contextmanager
def tf_serving(folder: Path, *flags: str, ready: str | None = "/v1/models/wflw/metadata"):
    """Start the server with flags, wait until a path is answered, and kill it in the end.

    Skips where the binary is absent.

    Args:
      folder: where its log goes.
      flags: tensorflow_model_server's, but for the port.
      ready: the path; None to wait for nothing.
    """
    if not BINARY.is_file():
        pytest.skip(f"no TensorFlow Serving at {BINARY} (set TFHUBER_TFSERVING to its folder)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Its log is what tests read; theirs is quiet.
    settings = {"PYTHON": sys.executable, "TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "0"}
    log = folder / "server.log"
    with log.open("wb") as output:
        command = [str(BINARY), f"--rest_api_port={port}", *flags]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | settings)
    try:
        server = RealServer(process, port, log)
        with server.http:
            if ready:
                server.wait_for(ready)
            yield server
    finally:
        process.kill()
        process.wait()
