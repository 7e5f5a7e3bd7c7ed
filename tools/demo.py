"""The whole way on drawn faces: data, training, evaluation, a served model, a picture and a tracked film.

Runs the project's own commands one after the other, each printed before it starts, and leaves
everything in `demo/`, where each run starts anew. `make demo` makes the environment first.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfhuber.console.cli import run_main
from tfhuber.drawing.ellipses import radius_for

__all__ = ["main"]

ROOT = Path(__file__).resolve().parent.parent
DEMO = Path("demo")
SAMPLE, DATA, RUN, MODELS = DEMO / "sample", DEMO / "data", DEMO / "run", DEMO / "model"
MODEL, OVERLAY, SERVER_LOG = MODELS / "wflw", DEMO / "overlay.png", DEMO / "server.log"
FILM, TRUTH = DEMO / "film.mp4", DEMO / "film.truth.jsonl"
FOUND, TRACKS, TRACKED = DEMO / "found.jsonl", DEMO / "tracks.jsonl", DEMO / "tracked.mp4"
METRICS = RUN / "evaluations/test-none-latest.json"
TEST_LIST = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt"

STEPS = 9
TRAIN_FACES, TEST_FACES = 2000, 200
SERVER_START_SECONDS = 120
STARTED = time.monotonic()
TIMES: dict[str, float] = {}  # seconds, by step


def main() -> None:
    """Run the steps; print how long each took, what was measured, and the picture's path.

    Raises:
      ChildProcessError: a step failed; the message names it.
    """
    sys.stdout.reconfigure(line_buffering=True)  # keeps the order with what the commands print
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that the server stops too
    os.chdir(ROOT)
    remove_earlier_results()

    with step(1, "Draw sample faces"):
        size = ["--train", TRAIN_FACES, "--test", TEST_FACES, "--seed", 0]
        run("pipelines.sample_data", "--dataset", "wflw", "--output", SAMPLE, *size)
    with step(2, "Convert them to TFRecords"):
        source = ["--dataset", "wflw", "--source", SAMPLE]
        run("pipelines.make_tfrecords", *source, "--output", DATA)
    with step(3, "Train"):
        run("tfhuber.train", "--config", "configs/demo.json", "--data", DATA, "--run", RUN)
    with step(4, "Evaluate"):
        run("tfhuber.evaluate", "--run", RUN)
    with step(5, "Export"):
        run("tfhuber.export", "--run", RUN, "--output", MODEL)
    with contextlib.ExitStack() as stack:
        with step(6, "Serve"):
            url = stack.enter_context(server())
        with step(7, "Predict over REST"):
            image, box = test_face()
            run("serving.client", image, f"--box={box}", "--url", url, "--output", OVERLAY)
        with step(8, "Draw a film, and predict it"):
            run("pipelines.sample_film", "--output", FILM)
            run("serving.client", FILM, "--boxes", TRUTH, "--url", url, "--jsonl", FOUND)
    with step(9, "Track"):
        run("tfhuber.track", FOUND, "--jsonl", TRACKS, "--overlay", TRACKED)

    metrics = json.loads(METRICS.read_text(encoding="utf-8"))
    print()
    for name, seconds in {**TIMES, "in all": time.monotonic() - STARTED}.items():
        print(f"{name:26}{duration(seconds):>12}")
    held = 100 * metrics["coverage_90"]
    print(f"\nNME {metrics['nme']:.2f} %, 90 % ellipses hold {held:.1f} % of the labels")
    print(film_errors())
    print(f"Picture: {OVERLAY.resolve()}")
    print(f"Film: {TRACKED.resolve()}")


def film_errors() -> str:
    """Return in words how far the film's landmarks are from the truth, and what their ellipses hold."""
    truth = {line["frame"]: np.array(line["landmarks"]) for line in lines_of(TRUTH)}
    said = []
    # The demo's model has Huber's law, and tracks have Gauss's.
    for file, kind, family in ((FOUND, "as predicted", "huber"), (TRACKS, "tracked", "gauss")):
        rows = [line for line in lines_of(file) if "landmarks" in line]
        error = np.array([truth[row["frame"]] - np.array(row["landmarks"]) for row in rows])
        inverse = np.linalg.inv(np.array([row["covariance"] for row in rows]))
        squares = np.einsum("nka,nkab,nkb->nk", error, inverse, error)
        inside = squares <= radius_for(0.9, family, 1.0) ** 2
        rmse = np.sqrt(np.mean(np.sum(error**2, axis=-1)))
        said.append(f"{kind} {rmse:.2f} px (90 % ellipses hold {100 * inside.mean():.1f} %)")
    return f"Film's RMSE: {', '.join(said)}"


def lines_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def remove_earlier_results() -> None:
    for directory in (SAMPLE, DATA, RUN, MODELS):
        shutil.rmtree(directory, ignore_errors=True)
    for file in (OVERLAY, SERVER_LOG, FILM, TRUTH, FOUND, TRACKS, TRACKED):
        file.unlink(missing_ok=True)
    DEMO.mkdir(exist_ok=True)


@contextlib.contextmanager
def step(number: int, title: str) -> Iterator[None]:
    """Print a heading and, in the end, how long it took; name the step where it fails."""
    start = time.monotonic()
    print(f"\n[{number}/{STEPS}] {title} ({duration(start - STARTED)} so far)")
    try:
        yield
    except OSError as error:
        raise ChildProcessError(f"step {number}, {title!r}, failed: {error}") from error
    TIMES[title] = time.monotonic() - start
    print(f"[{number}/{STEPS}] took {duration(TIMES[title])}")


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def run(module: str, *arguments: object) -> None:
    """Run `python -m module arguments`, its output passing through."""
    command = announced(module, *arguments)
    code = subprocess.run(command, check=False).returncode
    if code:
        raise ChildProcessError(f"exit code {code} from {shlex.join(command)}")


def announced(module: str, *arguments: object, background: str = "") -> list[str]:
    """Print and return a command line, as it can be typed in the project's root."""
    command = [os.path.relpath(sys.executable), "-m", module, *map(str, arguments)]
    print(f"$ {shlex.join(command)}{background}")
    return command


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Yield the local server's URL once the model answers; stop the server on the way out."""
    port = free_port()
    url = f"http://localhost:{port}"
    model = ["--model_name=wflw", f"--model_base_path={MODEL}", f"--rest_api_port={port}"]
    command = announced("serving.local_server", *model, background=f" > {SERVER_LOG} 2>&1 &")
    with SERVER_LOG.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for_model(process, f"{url}/v1/models/wflw/metadata")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_model(process: subprocess.Popen, url: str) -> None:
    """Return when `url` answers 200, which the server does once the model can be used."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + SERVER_START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ChildProcessError(
                f"the server stopped with exit code {process.returncode}, {log_end()}"
            )
        with contextlib.suppress(OSError):  # not listening yet, or 404 while it loads
            opener.open(url, timeout=5).close()
            return
        time.sleep(0.2)
    raise TimeoutError(f"no answer from {url} in {SERVER_START_SECONDS} s, {log_end()}")


def log_end() -> str:
    lines = SERVER_LOG.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "which is empty")
    return f"see {SERVER_LOG}: {last}"


def test_face() -> tuple[Path, str]:
    """Return an image of the test list and the box of its face: a large one, partly hidden but sharp.

    A line holds 196 coordinates, the box, six attributes (the last are occlusion and blur), and the
    image.
    """
    lines = (SAMPLE / TEST_LIST).read_text(encoding="utf-8").splitlines()
    faces = [line.split() for line in lines]
    hidden = [face for face in faces if face[204:206] == ["1", "0"]]
    fields = max(hidden or faces, key=lambda face: float(face[198]) - float(face[196]))
    return SAMPLE / "WFLW_images" / fields[206], ",".join(fields[196:200])


if __name__ == "__main__":
    run_main(main)
