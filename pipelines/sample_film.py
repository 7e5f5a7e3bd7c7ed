"""A drawn film of a face that moves, with the truth beside it: `python -m pipelines.sample_film`.

    python -m pipelines.sample_film --output FILM.mp4 [--frames 75] [--seed 0]

`FILM.truth.jsonl` holds a line for each frame, `{"frame": 0, "box": [4], "landmarks": [98][2]}`, with the
exact positions in the frame's pixels. The client takes it for `--boxes`.
"""

import argparse
import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.sample.film import SIDE, draw_film
from tfhuber.console.cli import progress, run_main
from tfhuber.console.files import Aside, blamed
from tfhuber.console.lazy import lazy_module

__all__ = ["main", "truth_path", "write_film"]

_av = lazy_module("av")  # PyAV, from the extra `video`

_RATE = 25  # frames a second
_MARGIN = 0.03  # of the box around the landmarks


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.sample_film", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the film, ending in .mp4")
    parser.add_argument("--frames", type=int, default=75, help="how many (75: three seconds)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    arguments = parser.parse_args()
    path, frames = arguments.output, arguments.frames
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"--output {path} must end in .mp4")
    if frames < 1 or arguments.seed < 0:
        raise ValueError("--frames must be at least 1, and --seed at least 0")
    drawn = draw_film(arguments.seed, frames)
    write_film(path, progress(drawn, total=frames, desc="draw", unit=" frames"))
    print(f"{path}: {frames} frames; the truth is in {truth_path(path)}")
    return 0


def truth_path(film: Path) -> Path:
    """Return the name of the file of a film's truth."""
    return film.with_suffix(".truth.jsonl")


def write_film(path: Path, drawn: Iterable[tuple[Image.Image, np.ndarray]]) -> None:
    """Write frames of `SIDE` pixels with their landmarks as a film and its truth.

    Raises:
      ValueError: PyAV is not installed.
      OSError: a file cannot be written.
    """
    try:
        open_container = _av.open
    except ImportError:
        raise ValueError("videos need PyAV: pip install av") from None
    truth = truth_path(path)
    with (
        Aside(path) as film,
        Aside(truth) as lines,
        blamed(path),
        open_container(str(film.path.absolute()), "w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", _RATE)
        stream.width = stream.height = SIDE
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "12"}
        text = lines.open()
        for number, (image, landmarks) in enumerate(drawn):
            frame = _av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = number, Fraction(1, _RATE)
            container.mux(stream.encode(frame))
            text.write(json.dumps(_line(number, landmarks)) + "\n")
        container.mux(stream.encode(None))


def _line(number: int, landmarks: np.ndarray) -> dict[str, object]:
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    margin = _MARGIN * (high - low)
    box = np.round([*(low - margin), *(high + margin)], 1)
    return {"frame": number, "box": box.tolist(), "landmarks": np.round(landmarks, 3).tolist()}


if __name__ == "__main__":
    run_main(main)
