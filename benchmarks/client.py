"""The client's rate on a video: `python -m benchmarks.client`.

A video of 200 frames, 640 x 480 pixels with a drawn face of 240, goes through `serving.client` to the local
server in a process of its own, and comes back as JSON lines and as a video with the landmarks drawn on
it. In turns with that, this process runs the same model on the same JPEGs in batches of the same size, one
after the other, and does nothing else. Both have the same cores, the client together with the server;
the fastest of the rounds counts, as what else a machine does only ever slows it down.

The client's time is what it prints itself: from the first frame that it reads until the results are in
place. The time to start Python and to connect, however long a video is, is told apart.

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
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.make_tfrecords import lines_of
from benchmarks.serving import export_one, server
from pipelines.sample_data import write_sample_data
from serving.sources import Boxes, Video, import_av
from tfhuber.cli import import_tensorflow, progress, run_main
from tfhuber.savedmodel import find_version

__all__ = ["main", "make_video"]

MOST_OVER_MODEL = 1.2
SIZE, RATE, FACES = (640, 480), Fraction(25), 10
BOX = (200, 120, 440, 360)
TRAIN = {"epochs": 8, "batch_size": 8, "learning_rate": [[0, 1e-3]], "evaluation_epochs": 8}


def main() -> int:
    """Measures both in turns, prints them and says whether the bound holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_base_path", type=Path, help="what tfhuber.export wrote")
    parser.add_argument(
        "--backbone", default="resnet50", help="of the model that is made otherwise"
    )
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8, help="frames in a request")
    parser.add_argument("--parallel", type=int, default=3, help="requests at a time")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed")
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
        frames = [frame.encoded() for frame in Video(video, Boxes())]
        import_tensorflow()
        from serving.runner import SavedModel

        model = SavedModel(find_version(base))
        run_model(model, frames[: arguments.batch], arguments.batch)
        rounds = []
        with server(base, scratch / "log") as (_, (host, port)):
            command = [sys.executable, "-m", "serving.client", str(video)]
            command += [f"--url=http://{host}:{port}", f"--batch={arguments.batch}"]
            command += [f"--parallel={arguments.parallel}", f"--jsonl={scratch / 'found.jsonl'}"]
            command += [f"--overlay={scratch / 'drawn.mp4'}", f"--box={','.join(map(str, BOX))}"]
            run_client(command, arguments.frames)
            for _ in progress(range(arguments.rounds), desc="in turns", unit=" rounds"):
                alone = run_model(model, frames, arguments.batch)
                rounds.append((alone, *run_client(command, arguments.frames)))
    return report(rounds, arguments.frames)


def make_video(path: Path, count: int) -> Path:
    """Writes a video in which drawn faces, one after the other, move within the box."""
    av = import_av()
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


def whole_face(source: Path, fields: list[str]) -> Image.Image:
    """What is in the box of a drawn picture's label."""
    box = [float(field) for field in fields[196:200]]
    with Image.open(source / "WFLW_images" / fields[-1]) as picture:
        return picture.convert("RGB").crop(box)


def run_model(model, frames: list[bytes], batch: int) -> float:
    """Seconds that the model takes for all frames."""
    started = time.perf_counter()
    for start in range(0, len(frames), batch):
        images = np.array(frames[start : start + batch], object)
        boxes = np.array([BOX] * len(images), np.float32)
        outputs = model.run("serving_default", {"image_bytes": images, "box": boxes})
        if not outputs["valid"].all():
            raise ChildProcessError("the model cannot decode a frame")
    return time.perf_counter() - started


def run_client(command: list[str], count: int) -> tuple[float, float]:
    """Seconds that the client says it took, and those of its whole process."""
    started = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True)
    whole = time.perf_counter() - started
    told = re.search(rf"^{count} of {count} frames in ([0-9.]+) seconds", result.stdout)
    if result.returncode or not told:
        raise ChildProcessError(f"the client failed: {result.stderr.strip()[-500:]}")
    return float(told[1]), whole


def report(rounds: list[tuple[float, float, float]], frames: int) -> int:
    """Prints the times and the bound; returns the exit status."""
    alone, client, whole = (min(times) for times in zip(*rounds, strict=True))
    print(f"{frames} frames of {SIZE[0]} x {SIZE[1]} pixels")
    for name, seconds in (
        ("the model alone", alone),
        ("through the client", client),
        ("and its start", whole),
    ):
        print(f"  {name:20}{seconds:8.2f} s{1000 * seconds / frames:8.1f} ms a frame")
    ratio = client / alone
    print(f"the client over the model: {ratio:.2f} (<= {MOST_OVER_MODEL} is required)")
    return 0 if ratio <= MOST_OVER_MODEL else 1


if __name__ == "__main__":
    run_main(main)
