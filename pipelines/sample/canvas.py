"""What drawn faces and drawn figures share: canvas, colours, backgrounds, occluders, haze.

Every coordinate is in pixels of the finished picture, pixel centres at integers; the canvas works
at `SUPERSAMPLING` times that size and shrinks at the end, so that edges are smooth and sit right.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

__all__ = [
    "Canvas",
    "Colour",
    "Haze",
    "Occluder",
    "depth_behind",
    "hsv",
    "mix",
    "paint_background",
    "skin_tone",
    "smooth_curve",
]

SUPERSAMPLING = 2

Colour = tuple[int, ...]


class Canvas:
    """A picture to draw on; `finish` returns it at its own size."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.image = Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING))
        self._use(self.image)

    def _use(self, image: Image.Image) -> None:
        self.image = image
        self._pen = ImageDraw.Draw(image, "RGBA")  # a fourth colour component blends

    def _scaled(self, points: ArrayLike) -> list[float]:
        # Pillow cuts coordinates off to integers, which would move everything up and left.
        return np.rint((np.asarray(points) + 0.5) * SUPERSAMPLING - 0.5).ravel().tolist()

    def polygon(self, points: np.ndarray, colour: Colour) -> None:
        """Fill the polygon through `points` [N, 2]."""
        self._pen.polygon(self._scaled(points), fill=colour)

    def stroke(self, points: ArrayLike, colour: Colour, width: float) -> None:
        """Draw a line through `points` [N, 2]."""
        pixels = max(1, round(width * SUPERSAMPLING))
        self._pen.line(self._scaled(points), fill=colour, width=pixels, joint="curve")

    def ellipse(
        self, centre: ArrayLike, radii: ArrayLike, colour: Colour, angle: float = 0.0
    ) -> None:
        """Fill an ellipse with half axes `radii`, turned by `angle` (radians, x towards y)."""
        turn = np.linspace(0.0, 2.0 * np.pi, 40, endpoint=False)
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]])
        first, second = np.broadcast_to(radii, 2)
        offsets = np.outer(np.cos(turn) * first, along) + np.outer(np.sin(turn) * second, across)
        self.polygon(np.asarray(centre) + offsets, colour)

    def limb(
        self,
        start: ArrayLike,
        end: ArrayLike,
        start_radius: float,
        end_radius: float,
        colour: Colour,
    ) -> None:
        """Fill a tapering bar with round ends."""
        first, last = np.asarray(start, float), np.asarray(end, float)
        direction = (last - first) / max(np.hypot(*(last - first)), 1e-6)
        normal = np.array([-direction[1], direction[0]])
        corners = [
            first + normal * start_radius,
            last + normal * end_radius,
            last - normal * end_radius,
            first - normal * start_radius,
        ]
        self.polygon(np.stack(corners), colour)
        self.ellipse(first, start_radius, colour)
        self.ellipse(last, end_radius, colour)

    def gradient(self, corners: np.ndarray) -> None:
        """Fill the canvas with colours that run between those of its `corners` [2, 2, 3]."""
        small = Image.fromarray(np.asarray(corners, np.uint8))
        between_centres = (0.5, 0.5, 1.5, 1.5)
        self._use(small.resize(self.image.size, Image.Resampling.BILINEAR, between_centres))

    def snapshot(self) -> Image.Image:
        """Return a copy of what is drawn so far, at the canvas's own scale."""
        return self.image.copy()

    def fade_to(self, earlier: Image.Image, share: float) -> None:
        """Let a share of the `earlier` snapshot show through what was drawn since."""
        self._use(Image.blend(self.image, earlier, share))

    def finish(self) -> Image.Image:
        """Return the picture at its own size."""
        return self.image.reduce(SUPERSAMPLING)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the RGB colour (0..255) of a hue, saturation and value in 0..1; the hue wraps around."""
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour with this share of `second` in it."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first[:3], second[:3], strict=True))


def skin_tone(rng: np.random.Generator) -> Colour:
    """Return a random skin colour between deep brown and pale pink."""
    tones = [(92, 56, 38), (141, 92, 62), (188, 131, 94), (224, 172, 133), (244, 207, 178)]
    position = rng.uniform(0.0, len(tones) - 1.001)
    return mix(tones[int(position)], tones[int(position) + 1], position % 1.0)


def smooth_curve(points: np.ndarray, closed: bool = False, steps: int = 6) -> np.ndarray:
    """Return a Catmull-Rom curve [M, D] through `points` [N, D], in `steps` pieces from one to the next."""
    points = np.asarray(points, np.float64)
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([points[:1], points, points[-1:]])
    before, start, end, after = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    t = (np.arange(steps) / steps)[:, None]
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * (start - end) + after - before) * t**3
    )
    curve = curve.reshape(-1, points.shape[1])
    return curve if closed else np.concatenate([curve, points[-1:]])


def paint_background(canvas: Canvas, rng: np.random.Generator) -> None:
    """Fill the canvas with a gradient and a few large soft shapes."""
    hue = rng.random()
    saturation, value = rng.uniform(0.1, 0.45), rng.uniform(0.45, 0.95)
    corners = [
        hsv(hue + rng.uniform(-0.06, 0.06), saturation, np.clip(value + shift, 0.2, 1.0))
        for shift in rng.uniform(-0.15, 0.15, 4)
    ]
    canvas.gradient(np.reshape(corners, (2, 2, 3)))
    size = min(canvas.width, canvas.height)
    for _ in range(rng.integers(2, 7)):
        colour = hsv(hue + rng.uniform(-0.2, 0.2), rng.uniform(0.1, 0.5), rng.uniform(0.4, 1.0))
        centre = rng.uniform(0.0, 1.0, 2) * (canvas.width, canvas.height)
        opacity = int(rng.integers(50, 130))
        if rng.random() < 0.6:
            canvas.ellipse(centre, rng.uniform(0.08, 0.35) * size, (*colour, opacity))
        else:
            reach = rng.uniform(0.5, 1.5) * size
            angle = rng.uniform(0.0, np.pi)
            offset = reach * np.array([np.cos(angle), np.sin(angle)])
            width = rng.uniform(0.03, 0.15) * size
            canvas.stroke([centre - offset, centre + offset], (*colour, opacity), width)


@dataclass(frozen=True)
class Occluder:
    """Something in front of the subject: a union of round-ended bars.

    Attributes:
      bars: [N, 5], each x0, y0, x1, y1 of its axis and its radius, in pixels.
      colour: RGB, 0..255.
      transparency: the share of what lies behind that shows through, 0..1.
    """

    bars: np.ndarray
    colour: Colour
    transparency: float = 0.0

    def paint(self, canvas: Canvas) -> None:
        """Draw the shape, darker at its rim, with what lies behind it showing through."""
        behind = canvas.snapshot()
        for share, shade in ((1.0, mix(self.colour, (0, 0, 0), 0.3)), (0.88, self.colour)):
            for x0, y0, x1, y1, radius in self.bars:
                canvas.limb((x0, y0), (x1, y1), share * radius, share * radius, shade)
        canvas.fade_to(behind, self.transparency)

    def depth(self, points: np.ndarray) -> np.ndarray:
        """Return how far [K] inside the shape each of `points` [K, 2] lies, in pixels; 0 outside."""
        start, end, radius = self.bars[:, :2], self.bars[:, 2:4], self.bars[:, 4]
        axis = end - start
        offset = points[:, None] - start
        along = np.sum(offset * axis, -1) / np.maximum(np.sum(axis**2, -1), 1e-9)
        nearest = np.clip(along, 0.0, 1.0)[..., None] * axis
        inside = radius - np.linalg.norm(offset - nearest, axis=-1)
        return np.maximum(inside.max(axis=1), 0.0)


def depth_behind(occluders: list[Occluder], points: np.ndarray) -> np.ndarray:
    """Return how far [K] inside any occluder each of `points` [K, 2] lies, in pixels; 0 outside all."""
    return np.max([np.zeros(len(points)), *(o.depth(points) for o in occluders)], axis=0)


@dataclass(frozen=True)
class Haze:
    """Fog over the whole picture: pale, flat and out of focus, the more the less sure a label is.

    Attributes:
      level: 0 (clear) to 1 (thick).
      colour: what it fades to.
    """

    level: float
    colour: Colour

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Haze":
        """Return haze of a random thickness, mostly thin."""
        # The power keeps thick fog rare enough that positions can be learned.
        return cls(rng.random() ** 1.4, hsv(rng.uniform(0.5, 0.65), rng.uniform(0, 0.06), 0.88))

    @property
    def factor(self) -> float:
        """What the label noise's standard deviation is multiplied by: 1 to 4.5."""
        return 4.5**self.level

    def apply(self, image: Image.Image, subject: float) -> Image.Image:
        """Return the image seen through the haze; `subject` is the subject's size in pixels."""
        blurred = image.filter(ImageFilter.GaussianBlur(float(0.022 * self.level * subject)))
        return Image.blend(blurred, Image.new("RGB", image.size, self.colour), 0.72 * self.level)
