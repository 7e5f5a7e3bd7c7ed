"""A drawn film: one face that turns, nods, speaks and wanders, and a bar that passes in front of it."""

from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from pipelines.sample.canvas import Canvas, Haze, Occluder, hsv, paint_background
from pipelines.sample.faces import Head

__all__ = ["SIDE", "draw_film"]

SIDE = 256  # of a frame, in pixels

# How far each part of the pose strays, and for about how many frames it keeps its course.
_WANDERS = {
    "x": (0.04 * SIDE, 14.0),
    "y": (0.03 * SIDE, 14.0),
    "yaw": (0.25, 12.0),
    "pitch": (0.10, 12.0),
    "roll": (0.12, 14.0),
    "mouth": (0.35, 5.0),
}


def draw_film(seed: int, frames: int) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """Yield each frame with the exact landmarks [98, 2] in its pixels; the same for the same seed."""
    course = {
        name: _wander(np.random.default_rng([seed, i]), frames, keeps) * deviation
        for i, (name, (deviation, keeps)) in enumerate(_WANDERS.items())
    }
    haze = Haze(0.15, (224, 224, 226))
    for i in range(frames):
        here = {name: float(values[i]) for name, values in course.items()}
        head = _head(seed, here)
        canvas = Canvas(SIDE, SIDE)
        # Whatever is drawn by chance is the same in every frame.
        paint_background(canvas, np.random.default_rng([seed, 100]))
        head.paint(canvas, np.random.default_rng([seed, 101]), 0.1)
        _bar(seed, i / max(1, frames - 1)).paint(canvas)
        yield haze.apply(canvas.finish(), 2.0 * head.unit), head.landmarks


def _head(seed: int, here: dict[str, float]) -> Head:
    centre = np.array([0.5 * SIDE + here["x"], 0.47 * SIDE + here["y"]])
    head = Head(np.random.default_rng([seed, 102]), centre, 0.24 * SIDE)
    head.yaw = float(np.clip(here["yaw"], -0.55, 0.55))
    head.pitch = float(np.clip(here["pitch"], -0.25, 0.25))
    head.roll = float(np.clip(here["roll"], -0.4, 0.4))
    head.mouth = float(np.clip(0.3 + here["mouth"], 0.0, 1.0))
    head.lids = 1.0
    head.landmarks = head.place()
    return head


def _bar(seed: int, time: float) -> Occluder:
    """Return the bar, which passes from left to right after a quarter of the film."""
    colour = hsv(np.random.default_rng([seed, 103]).random(), 0.6, 0.6)
    x = (1.9 * (time - 0.25) - 0.1) * SIDE
    bar = [x, -0.1 * SIDE, x + 0.1 * SIDE, 1.1 * SIDE, 0.07 * SIDE]
    return Occluder(np.array([bar]), colour)


def _wander(rng: np.random.Generator, frames: int, keeps: float) -> np.ndarray:
    """Return a smooth course [frames] of unit variance over long times."""
    margin = round(4 * keeps)
    noise = gaussian_filter1d(rng.standard_normal(frames + 2 * margin), keeps)
    return noise[margin : margin + frames] * np.sqrt(2 * keeps * np.sqrt(np.pi))
