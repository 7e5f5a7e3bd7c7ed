"""The overhead and the patience of the servers: `python -m benchmarks.serving`.

First one client asks for one JPEG of 100 KB, again and again, in turns with the same model run in this
process as the local server runs it; what a server takes more is its overhead. TensorFlow Serving takes
part where it is at hand (`TFHUBER_TFSERVING`), with batching and without. Then 1, 8 and 64 clients ask each
of them in turns. At last many clients ask the local server, and every fifth request is bad: every good
answer is compared with the numbers of the model in this process, every bad one with the error that it
should get (a truncated JPEG is not a bad request, but gets a 200 with `valid` false), and the memory of
the server is watched.

Without --model_base_path, a ResNet-18 for 224 pixels is trained for a step on drawn faces and exported,
which takes a minute or two. The exit status is 1 if the local server's overhead is above 1.5 ms, an answer
is wrong, or the mean memory in the last third of the time is above 1.1 times that in the first.
"""

import argparse
import base64
import contextlib
import functools
import http.client
import io
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.bad_requests import BadRequest, bad_requests, damaged_images
from benchmarks.make_tfrecords import memory
from benchmarks.serving_rates import Address, binary, measure_rates, tensorflow_serving
from tfhuber.console.cli import import_tensorflow, progress, run_main
from tfhuber.console.lazy import lazy_module
from tfhuber.saved_model.versions import find_version

if TYPE_CHECKING:
    from serving.local_server import saved_model
    from serving.local_server.saved_model import SavedModel
else:
    saved_model = lazy_module("serving.local_server.saved_model")

__all__ = ["main"]

MOST_OVERHEAD_MS, MOST_GROWTH = 1.5, 1.1
LOCAL = "the local server"
REQUESTS_IN_A_ROW, BAD_SHARE = 20, 0.2
# Between two processes: absolute in positions, in pixels, and relative in covariances.
ABSOLUTE, RELATIVE = 1e-3, 1e-3
CONFIG = {
    "about": "A network to be served; what it predicts doesn't matter.",
    "model": {"backbone": "resnet18", "image_size": 224},
    "train": {"epochs": 1, "batch_size": 4, "learning_rate": [[0, 1e-5]]},
}


@dataclass(frozen=True)
class Question:
    """A request, and what a model answers to it.

    Attributes:
      body: of the request.
      inputs: of the model.
      outputs: of the model in this process.
    """

    body: bytes
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


@dataclass
class Tally:
    """Counts of what a client saw.

    Attributes:
      milliseconds: of good requests.
      counts: answers by kind, `good` or the bad request's name.
      faults: what was wrong with wrong ones.
    """

    milliseconds: list[float] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def main() -> int:
    """Measure, print, and return 0 if the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_base_path", type=Path, help="what tfhuber.export wrote")
    parser.add_argument("--requests", type=int, default=500, help="of the one client")
    parser.add_argument("--clients", type=int, default=64, help="that ask together")
    parser.add_argument("--seconds", type=float, default=60, help="for which they do")
    parser.add_argument("--turn", type=float, default=10, help="seconds of a server's turn")
    arguments = parser.parse_args()
    for name in ("requests", "clients", "seconds", "turn"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    with tempfile.TemporaryDirectory() as scratch:
        base = arguments.model_base_path or export_one(Path(scratch))
        version = find_version(base)
        import_tensorflow()
        model = saved_model.SavedModel(version)
        with server(base, Path(scratch) / "log") as (process, address):
            with real_servers(base, Path(scratch)) as others:
                servers = {LOCAL: address, **others}
                fast = measure_overhead(model, servers, arguments.requests)
                question = ask_for(model, [picture(size=100_000)])
                measure_rates(servers, question.body, seconds=arguments.turn)
            right = measure_patience(model, process, address, arguments.clients, arguments.seconds)
    return 0 if fast and right else 1


def export_one(
    scratch: Path,
    *,
    backbone: str = CONFIG["model"]["backbone"],
    count: int = 4,
    train: dict = CONFIG["train"],
) -> Path:
    """Make a model to be served, by the commands that make any, and return its directory.

    Args:
      scratch: a folder for what comes before it.
      backbone: of the network, as in a configuration.
      count: of drawn faces to train on.
      train: how, as in a configuration.
    """
    print(f"making a model to serve: {backbone} at 224 pixels, {count} drawn faces", flush=True)
    faces, data, run, base = (scratch / name for name in ("faces", "data", "run", "wflw"))
    config = scratch / "config.json"
    model = CONFIG["model"] | {"backbone": backbone}
    changes = {"data": {"directory": str(data)}, "model": model, "train": train}
    config.write_text(json.dumps(CONFIG | changes))
    for command in (
        [
            "pipelines.sample_data",
            "--dataset=wflw",
            f"--output={faces}",
            f"--train={count}",
            "--test=4",
        ],
        ["pipelines.make_tfrecords", "--dataset=wflw", f"--source={faces}", f"--output={data}"],
        ["tfhuber.train", f"--config={config}", f"--run={run}"],
        ["tfhuber.export", f"--run={run}", f"--output={base}"],
    ):
        result = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        if result.returncode:
            last = result.stderr.strip().rpartition("\n")[2]
            raise ChildProcessError(f"{' '.join(command)} failed: {last}")
    return base


@contextlib.contextmanager
def server(base: Path, log: Path) -> Iterator[tuple[subprocess.Popen, Address]]:
    """Run the local server; yield its process and its address once it serves."""
    command = [sys.executable, "-m", "serving.local_server", "--model_name=wflw"]
    command += [f"--model_base_path={base}", "--rest_api_port=0"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        line = next((line for line in process.stdout if "serves at http://" in line), None)
        if line is None:
            raise ChildProcessError(f"the server stopped: {log.read_text().strip()}")
        host, _, port = line.partition("serves at http://")[2].partition("/")[0].partition(":")
        yield process, (host, int(port))
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@contextlib.contextmanager
def real_servers(base: Path, scratch: Path) -> Iterator[dict[str, Address]]:
    """Run TensorFlow Serving with batching and without, where it is at hand; yield their addresses."""
    with contextlib.ExitStack() as stack:
        kinds = {"TensorFlow Serving": False, "  with batching": True} if binary() else {}
        yield {
            name: stack.enter_context(
                tensorflow_serving(base, scratch / f"log{batching}", batching=batching)
            )
            for name, batching in kinds.items()
        }


# --- one client


def measure_overhead(model: "SavedModel", servers: dict[str, Address], count: int) -> bool:
    """Print how long a request takes, and the model alone; return whether the bound holds."""
    question = ask_for(model, [picture(size=100_000)])
    connections = {
        name: http.client.HTTPConnection(*address, timeout=30) for name, address in servers.items()
    }

    def run() -> None:
        model.run("serving_default", question.inputs)

    def request(name: str) -> None:
        connections[name].request("POST", "/v1/models/wflw:predict", question.body)
        answer = connections[name].getresponse()
        if answer.status != 200 or not answer.read():
            raise ChildProcessError(f"{name} answers {answer.status} to a good request")

    steps = {"the model": run} | {name: functools.partial(request, name) for name in servers}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(REQUESTS_IN_A_ROW):
            step()
    for _ in progress(range(0, count, REQUESTS_IN_A_ROW), desc="one client", unit=" turns"):
        for name, step in steps.items():
            for _ in range(REQUESTS_IN_A_ROW):
                start = time.perf_counter()
                step()
                times[name].append(1000 * (time.perf_counter() - start))
    for connection in connections.values():
        connection.close()
    print(f"one client, one JPEG of {len(question.inputs['image_bytes'][0]) / 1000:.0f} KB:")
    medians = {name: statistics.median(milliseconds) for name, milliseconds in times.items()}
    for name, milliseconds in times.items():
        overhead = medians[name] - medians["the model"]
        print(f"  {name:20}{quantiles(milliseconds)}   overhead {overhead:5.2f} ms")
    overhead = medians[LOCAL] - medians["the model"]
    print(f"  overhead at p50: {overhead:.2f} ms (<= {MOST_OVERHEAD_MS} is required)", flush=True)
    return overhead <= MOST_OVERHEAD_MS


def quantiles(milliseconds: list[float]) -> str:
    p50, p95, p99 = np.quantile(milliseconds, [0.5, 0.95, 0.99])
    return f"p50 {p50:7.1f} ms   p95 {p95:7.1f} ms   p99 {p99:7.1f} ms"


# --- many clients


def measure_patience(
    model: "SavedModel",
    process: subprocess.Popen,
    address: Address,
    clients: int,
    seconds: float,
) -> bool:
    """Print what many clients at once get; return whether the bounds hold."""
    shots = [picture(size=size) for size in (20_000, 60_000, 100_000, 140_000)]
    questions = [ask_for(model, [shot]) for shot in shots]
    questions += [
        ask_for(model, shots[:2]),
        ask_for(model, shots),
        ask_for(model, damaged_images(shots)),
    ]
    bad = bad_requests(json.loads(questions[0].body)["instances"][0])
    tallies = [Tally() for _ in range(clients)]
    stop = threading.Event()
    threads = [
        threading.Thread(target=ask_on, args=(address, questions, bad, tally, seed, stop))
        for seed, tally in enumerate(tallies)
    ]
    for thread in threads:
        thread.start()
    time.sleep(max(2.0, seconds / 10))  # until the server has what so many clients need
    samples, started = [], time.monotonic()
    with progress(total=round(seconds), desc=f"{clients} clients", unit=" s") as bar:
        while (passed := time.monotonic() - started) < seconds and process.poll() is None:
            samples.append(memory(process.pid) / 1e6)
            bar.update(round(passed) - bar.n)
            time.sleep(0.5)  # To ask for memory takes time from the server.
    stop.set()
    for thread in threads:
        thread.join()
    alive = process.poll() is None
    return report(tallies, samples, clients, alive) and alive


def ask_on(
    address: Address,
    questions: list[Question],
    bad: list[BadRequest],
    tally: Tally,
    seed: int,
    stop: threading.Event,
) -> None:
    """Ask good questions and bad ones until told to stop."""
    rng = random.Random(seed)
    connection = http.client.HTTPConnection(*address, timeout=60)
    while not stop.is_set():
        try:
            if rng.random() < BAD_SHARE:
                kind = rng.choice(bad)
                tally.counts[kind.name] += 1
                if fault := kind.fault(address):
                    tally.faults.append(f"{kind.name}: {fault}")
            else:
                tally.counts["good"] += 1
                ask(connection, rng.choice(questions), tally)
        except (OSError, http.client.HTTPException) as error:
            tally.faults.append(f"{type(error).__name__}: {error}")
            connection.close()
    connection.close()


def ask(connection: http.client.HTTPConnection, question: Question, tally: Tally) -> None:
    start = time.perf_counter()
    connection.request("POST", "/v1/models/wflw:predict", question.body)
    answer = connection.getresponse()
    content = answer.read()
    tally.milliseconds.append(1000 * (time.perf_counter() - start))
    if answer.status != 200:
        tally.faults.append(f"good: {answer.status} {content[:100]}")
    elif not agrees(json.loads(content)["predictions"], question.outputs):
        tally.faults.append("good: other numbers than the model's")


def agrees(rows: list[dict], outputs: dict[str, np.ndarray]) -> bool:
    """Return whether an answer, by rows, has the numbers of the model in this process."""
    if any(row.keys() != outputs.keys() for row in rows):
        return False
    columns = {name: [row[name] for row in rows] for name in outputs}
    return all(
        np.shape(columns[name]) == array.shape
        and np.allclose(columns[name], array, rtol=RELATIVE, atol=ABSOLUTE)
        for name, array in outputs.items()
    )


def report(tallies: list[Tally], samples: list[float], clients: int, alive: bool) -> bool:
    """Print what the clients saw and the memory; return whether the bounds hold."""
    counts = sum((tally.counts for tally in tallies), Counter())
    faults = [fault for tally in tallies for fault in tally.faults]
    milliseconds = [each for tally in tallies for each in tally.milliseconds]
    bad = sum(counts.values()) - counts["good"]
    print(f"{clients} clients: {counts['good']} good requests, {bad} bad ones")
    print(f"  {'good':12}{quantiles(milliseconds or [float('nan')])}")
    print("  " + ", ".join(f"{name} {n}" for name, n in sorted(counts.items()) if name != "good"))
    print(f"  wrong answers: {len(faults)} (0 is required)")
    for fault, count in Counter(faults).most_common(5):
        print(f"    {count} x {fault}")
    third = max(1, len(samples) // 3)
    first, last = statistics.mean(samples[:third]), statistics.mean(samples[-third:])
    print(
        f"  memory: {first:.0f} MB in the first third, {last:.0f} MB in the last: "
        f"{last / first:.3f} (<= {MOST_GROWTH} is required)"
    )
    if not alive:
        print("  THE SERVER STOPPED")
    return not faults and last / first <= MOST_GROWTH and counts["good"] > 0


# --- questions


def picture(size: int) -> bytes:
    """Return a JPEG of about so many bytes: noise, which takes a decoder longest."""
    image = Image.effect_noise((640, 480), 50).convert("RGB")
    buffers = []
    for quality in range(2, 96, 3):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        buffers.append(buffer.getvalue())
    return min(buffers, key=lambda data: abs(len(data) - size))


def ask_for(model: "SavedModel", pictures: list[bytes]) -> Question:
    """Return a question about pictures, each with another box, and the model's answer."""
    boxes = [[100 + 20 * i, 60, 420 + 20 * i, 400] for i in range(len(pictures))]
    images = np.empty(len(pictures), object)
    images[:] = pictures
    inputs = {"image_bytes": images, "box": np.float32(boxes)}
    encoded = [{"b64": base64.b64encode(each).decode()} for each in pictures]
    rows = [{"image_bytes": i, "box": box} for i, box in zip(encoded, boxes, strict=True)]
    body = json.dumps({"instances": rows}).encode()
    return Question(body, inputs, model.run("serving_default", inputs))


if __name__ == "__main__":
    run_main(main)
