"""The client's rate: `python -m benchmarks.client`.

A video of 200 frames, 640 x 480 pixels with a drawn face of 240, goes through `serving.client` to the local
server in a process of its own, and comes back as JSON lines and as a video with the landmarks drawn on
it; and so does a folder of the same frames, as JPEGs. In turns with them, this process runs the same
model on the JPEGs that the client sends, in batches of the same size, one after the other, and does
nothing else. Both have the same cores, the client together with the server.

The client's time is what it prints itself: from the first frame that it reads until the results are in
place. The time to start Python and to connect, however long a video is, is told apart. A ratio is the
median of the rounds' own ratios.

Without --model_base_path, a network for 224 pixels is trained on a few drawn faces and exported, which
takes some minutes; one that has learned nothing would cover the pictures with its ellipses. ResNet-50 is
the middle one of the paper's three. What the client adds to a frame does not depend on the network, so
that its share is larger with a ResNet-18. The exit status is 1 if the client takes more than 1.2 times
as long as the model.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.make_tfrecords import lines_of
from benchmarks.paired_timing import Times, Turn, median_and_least, ratio, time_in_turns
from benchmarks.serving import export_one, server
from pipelines.sample_data import write_sample_data
from serving.client.boxes import Boxes
from serving.client.sources import Video, check_av
from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module
from tfhuber.saved_model.metadata import ModelMetadata
from tfhuber.saved_model.versions import find_version

if TYPE_CHECKING:
    from serving.local_server import saved_model
    from serving.local_server.saved_model import SavedModel
else:
    saved_model = lazy_module("serving.local_server.saved_model")

__all__ = ["main", "make_video"]

av = lazy_module("av")  # of an extra

MOST_OVER_MODEL = 1.2
SIZE, RATE, FACES = (640, 480), Fraction(25), 10
BOX = (200, 120, 440, 360)
TRAIN = {"epochs": 8, "batch_size": 8, "learning_rate": [[0, 1e-3]], "evaluation_epochs": 8}


def main() -> int:
    """Time client and model in turns, print the times, and return 0 if the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_base_path", type=Path, help="what tfhuber.export wrote")
    parser.add_argument(
        "--backbone", default="resnet50", help="of the model that is made otherwise"
    )
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8, help="frames in a request")
    parser.add_argument("--parallel", type=int, default=3, help="requests at a time")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed")
    arguments = parser.parse_args()
    for name in ("frames", "batch", "parallel", "rounds"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        base = arguments.model_base_path or export_one(
            scratch, backbone=arguments.backbone, count=64, train=TRAIN
        )
        video = make_video(scratch / "clip.mp4", arguments.frames)
        folder = make_folder(scratch / "frames", video)
        import_tensorflow()
        version = find_version(base)
        model, square = saved_model.SavedModel(version), ModelMetadata.read(version).square
        sent = {
            "video": [frame.file(square) for frame in Video(video, Boxes(np.array(BOX)))],
            "folder": [(path.read_bytes(), (0, 0)) for path in sorted(folder.iterdir())],
        }
        options = [f"--batch={arguments.batch}", f"--parallel={arguments.parallel}"]
        options += [f"--box={','.join(map(str, BOX))}", f"--jsonl={scratch / 'found.jsonl'}"]
        with server(base, scratch / "log") as (_, (host, port)):
            client = [sys.executable, "-m", "serving.client", f"--url=http://{host}:{port}"]
            clients = {
                "video": [*client, str(video), *options, f"--overlay={scratch / 'drawn.mp4'}"],
                "folder": [*client, str(folder), *options, f"--overlay={scratch / 'drawn'}"],
            }
            turns: dict[str, Turn] = {}
            whole: Times = {name: [] for name in clients}
            for name, command in clients.items():
                turns[f"{name}: model"] = partial(run_model, model, sent[name], arguments.batch)
                turns[f"{name}: client"] = partial(
                    run_client, command, len(sent[name]), whole[name]
                )
            for turn in turns.values():
                turn()
            for started in whole.values():
                started.clear()
            times = time_in_turns(turns, arguments.rounds, "in turns")
    return report(times, whole, arguments.frames)


def make_video(path: Path, count: int) -> Path:
    """Write a video in which drawn faces, one after the other, move within the box."""
    check_av()
    side = BOX[2] - BOX[0]
    with tempfile.TemporaryDirectory() as drawn:
        drawn = Path(drawn)
        write_sample_data("wflw", drawn, train=FACES, test=1)
        faces = [whole_face(drawn, fields) for fields in lines_of(drawn)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", RATE)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for i in range(count):
            face, moved = faces[i * len(faces) // count], i % 10
            picture = face.resize(SIZE)
            picture.paste(face.resize((side, side)), (BOX[0] + moved, BOX[1] + moved))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
    return path


def make_folder(path: Path, video: Path) -> Path:
    """Write each frame of a video as a JPEG, and return their folder."""
    path.mkdir()
    for frame in Video(video, Boxes()):
        (path / f"{frame.number:04d}.jpg").write_bytes(frame.file()[0])
    return path


def whole_face(source: Path, fields: list[str]) -> Image.Image:
    """Return what is in the box of a drawn picture's label."""
    box = [float(field) for field in fields[196:200]]
    with Image.open(source / "WFLW_images" / fields[-1]) as picture:
        return picture.convert("RGB").crop(box)


def run_model(
    model: "SavedModel", sent: list[tuple[bytes, tuple[int, int]]], batch: int
) -> list[float]:
    """Return the milliseconds that the model takes for all files, each a part of its picture."""
    started = time.perf_counter()
    for start in range(0, len(sent), batch):
        files, corners = zip(*sent[start : start + batch], strict=True)
        boxes = np.array(BOX, np.float32) - np.tile(np.array(corners, np.float32), 2)
        inputs = {"image_bytes": np.array(files, object), "box": boxes}
        if not model.run("serving_default", inputs)["valid"].all():
            raise ChildProcessError("the model cannot decode a frame")
    return [1000 * (time.perf_counter() - started)]


def run_client(command: list[str], count: int, whole: list[list[float]]) -> list[float]:
    """Return the milliseconds that the client says it took; add those of its process to `whole`."""
    started = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True)
    whole.append([1000 * (time.perf_counter() - started)])
    told = re.search(rf"^{count} of {count} [a-z]+ in ([0-9.]+) seconds", result.stdout)
    if result.returncode or not told:
        raise ChildProcessError(f"the client failed: {result.stderr.strip()[-500:]}")
    return [1000 * float(told[1])]


def report(times: Times, whole: Times, frames: int) -> int:
    """Print the times and the bounds; return the exit status."""
    print(f"{frames} frames of {SIZE[0]} x {SIZE[1]} pixels; milliseconds for a frame")
    ratios = {}
    for name, started in whole.items():
        model, client = f"{name}: model", f"{name}: client"
        rows = {"the model alone": times[model], "the client": times[client]}
        for step, rounds in (rows | {"with its start": started}).items():
            print(f"  {name:8}{step:18}{median_and_least(rounds)[0] / frames:8.1f}")
        ratios[name] = ratio(times, client, model)
    for name, value in ratios.items():
        print(f"{name}: the client over the model {value:.2f} (<= {MOST_OVER_MODEL} is required)")
    return 0 if max(ratios.values()) <= MOST_OVER_MODEL else 1


if __name__ == "__main__":
    run_main(main)
