"""What many clients get of the local server and TensorFlow Serving in turns, for `benchmarks.serving`."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tabulate import tabulate

from tfhuber.console.cli import progress
from tfhuber.console.cpus import available_cpus

__all__ = ["Address", "binary", "measure_rates", "tensorflow_serving"]

Address = tuple[str, int]

ROOT = Path(__file__).resolve().parents[1]
PREDICT = "/v1/models/wflw:predict"
CLIENTS = (1, 8, 64)
_START_SECONDS = 300


def binary() -> Path | None:
    """Return what starts TensorFlow Serving's REST half; None where it is not at hand."""
    folder = Path(os.environ.get("TFHUBER_TFSERVING", ROOT / "../shared/tfserving"))
    return run if (run := folder.resolve() / "run").is_file() else None


@contextlib.contextmanager
def tensorflow_serving(base: Path, log: Path, *, batching: bool) -> Iterator[Address]:
    """Run TensorFlow Serving with a thread a core; yield its address once it serves.

    `serving/kubernetes/cpu` says the same for its four cores.
    """
    with socket.create_server(("localhost", 0)) as listener:
        port = listener.getsockname()[1]
    cores = available_cpus()
    flags = [f"--rest_api_port={port}", "--model_name=wflw", f"--model_base_path={base.resolve()}"]
    flags += [f"--tensorflow_{kind}_op_parallelism={cores}" for kind in ("intra", "inter")]
    flags += [f"--rest_api_num_threads={4 * cores}"]
    if batching:
        parameters = ROOT / "serving" / "batching.config"
        flags += ["--enable_batching=true", f"--batching_parameters_file={parameters}"]
    environment = {**os.environ, "PYTHON": sys.executable, "TF_ENABLE_ONEDNN_OPTS": "1"}
    with log.open("wb") as output:
        command = [str(binary()), *flags]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        last = time.monotonic() + _START_SECONDS
        while not _serves(port):
            if process.poll() is not None or time.monotonic() > last:
                raise ChildProcessError(f"TensorFlow Serving does not start; {log} says why")
            time.sleep(0.2)
        yield "localhost", port
    finally:
        process.kill()  # it ignores SIGTERM
        process.wait()


def measure_rates(
    servers: dict[str, Address], body: bytes, *, seconds: float, rounds: int = 3
) -> None:
    """Print what 1, 8 and 64 clients get who each ask the same again and again.

    Servers take turns, so that what else a machine does strikes all of them.

    Args:
      servers: addresses by name.
      body: of a request for one image.
      seconds: that a turn takes.
      rounds: turns of each server.
    """
    milliseconds: dict[tuple[int, str], list[float]] = defaultdict(list)
    turns = [(n, name) for n in CLIENTS for _ in range(rounds) for name in servers]
    for count, name in progress(turns, desc="servers in turns", unit=" turns"):
        milliseconds[count, name] += _ask_together(servers[name], body, count, seconds)
    rows = [
        (name, count, *np.quantile(times, [0.5, 0.99]), len(times) / (seconds * rounds))
        for (count, name), times in milliseconds.items()
    ]
    print(f"one image a request, {rounds} turns of {seconds:g} s each:")
    headers = ["server", "clients", "p50 ms", "p99 ms", "images/s"]
    print(tabulate(rows, headers, floatfmt=".1f"), flush=True)


def _ask_together(address: Address, body: bytes, count: int, seconds: float) -> list[float]:
    """Return the milliseconds of all requests that so many clients could make."""
    found: list[list[float] | Exception] = []
    last = time.perf_counter() + seconds

    def run() -> None:
        try:
            found.append(_ask_until(last, address, body))
        except (OSError, http.client.HTTPException) as error:
            found.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for times in found:
        if isinstance(times, Exception):
            raise ChildProcessError(f"{address} fails: {times}")
    return [each for times in found if isinstance(times, list) for each in times]


def _ask_until(last: float, address: Address, body: bytes) -> list[float]:
    times = []
    with contextlib.closing(http.client.HTTPConnection(*address, timeout=120)) as connection:
        while (start := time.perf_counter()) < last:
            connection.request("POST", PREDICT, body)
            answer = connection.getresponse()
            if not answer.read() or answer.status != 200:
                raise http.client.HTTPException(f"{answer.status} to a good request")
            times.append(1000 * (time.perf_counter() - start))
    return times


def _serves(port: int) -> bool:
    connection = http.client.HTTPConnection("localhost", port, timeout=60)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("GET", "/v1/models/wflw/metadata")
        return connection.getresponse().status == 200
    return False
