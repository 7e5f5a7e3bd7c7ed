"""Procedural drawing of faces with WFLW's 98 landmarks and the covariance of their labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from pipelines.sample.canvas import (
    Canvas,
    Colour,
    Haze,
    Occluder,
    depth_behind,
    hsv,
    mix,
    paint_background,
    skin_tone,
    smooth_curve,
)
from pipelines.sample.face_shape import FaceShape, contour_spread, rotated
from pipelines.sample.label_noise import label_covariance

__all__ = ["Face", "Head", "draw_faces"]


@dataclass(frozen=True)
class Face:
    """One drawn face, in pixels of its picture.

    Attributes:
      landmarks: [98, 2] exact positions.
      covariance: [98, 2, 2] of the label noise, pixels^2.
      box: x0, y0, x1, y1, integers, about the landmarks.
      attributes: pose, expression, illumination, make-up, occlusion, blur; each 0 or 1.
    """

    landmarks: np.ndarray
    covariance: np.ndarray
    box: tuple[int, ...]
    attributes: tuple[int, ...]


def draw_faces(rng: np.random.Generator) -> tuple[Image.Image, list[Face]]:
    """Draw a picture with one face, or in one of eight with two."""
    count = 2 if rng.random() < 0.125 else 1
    slot, height = int(rng.integers(160, 200)), int(rng.integers(190, 290))
    width = 2 * slot if count == 2 else int(rng.integers(190, 290))
    canvas = Canvas(width, height)
    paint_background(canvas, rng)
    haze = Haze.random(rng)
    shade = rng.uniform(0.0, 0.45) if rng.random() < 0.3 else 0.08

    heads = []
    for index in range(count):
        span = min(width / count, height)
        unit = span * (rng.uniform(0.20, 0.28) if count == 1 else rng.uniform(0.21, 0.25))
        middle = np.array([(index + 0.5) * width / count, 0.47 * height])
        room = np.array([0.5 * width / count - 1.35 * unit, 0.5 * height - 1.45 * unit])
        centre = middle + rng.uniform(-0.7, 0.7, 2) * np.maximum(room, 0.0)
        heads.append(Head(rng, centre, unit))
    for head in heads:
        head.paint(canvas, rng, shade)

    occluders = []
    for head in heads:
        if rng.random() < 0.45:
            occluders.append(_occluder(rng, head))
            occluders[-1].paint(canvas)

    faces = [_face(rng, head, haze, occluders, shade) for head in heads]
    return haze.apply(canvas.finish(), 2.0 * heads[0].unit), faces


def _face(
    rng: np.random.Generator, head: "Head", haze: Haze, occluders: list[Occluder], shade: float
) -> Face:
    points = head.landmarks
    depth = depth_behind(occluders, points)
    along, across, direction = contour_spread(points)
    covariance = label_covariance(along, across, direction, haze.factor, depth, 2.0 * head.unit)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = rng.uniform(-0.01, 0.04, 4) * (high - low).mean()
    box = np.round([*(low - margin[:2]), *(high + margin[2:])]).astype(int)
    attributes = (
        abs(head.yaw) > 0.35,
        head.mouth > 0.5 or head.lids < 0.3,
        shade > 0.15,
        head.make_up,
        bool((depth > 0).mean() > 0.05),
        haze.level > 0.6,
    )
    return Face(points, covariance, tuple(box.tolist()), tuple(int(a) for a in attributes))


class Head(FaceShape):
    """A face's shape together with the drawing of it."""

    def paint(self, canvas: Canvas, rng: np.random.Generator, shade: float) -> None:
        """Draw the head; `shade` is how dark its far side is, 0..1."""
        skin = skin_tone(rng)
        dark = mix(skin, (60, 20, 20), 0.35)
        hair = _hair_colour(rng)
        style = rng.choice(["short", "long", "bald", "bun"], p=[0.45, 0.3, 0.12, 0.13])
        outline = np.concatenate([smooth_curve(self.landmarks[:33]), self.forehead(1.0)])
        self._paint_behind(canvas, rng, style, hair, skin)
        canvas.polygon(outline, skin)
        if style in ("short", "bald") and rng.random() < 0.35:
            self._paint_beard(canvas, mix(skin, hair, rng.uniform(0.35, 0.8)))
        self._paint_shade(canvas, skin, shade)
        if self.make_up or rng.random() < 0.3:
            blush = (*mix(skin, (230, 70, 90), 0.5), 110)
            for side in (-1, 1):
                self._spot(canvas, (side * 0.55, 0.62, 0.0), (0.2, 0.13), blush)
        self._paint_nose(canvas, skin, dark)
        self._paint_mouth(canvas, rng, skin)
        shadow = hsv(rng.random(), 0.5, 0.6) if self.make_up else mix(skin, dark, 0.35)
        iris = [hsv(0.07, 0.7, 0.35), hsv(0.58, 0.6, 0.65), hsv(0.3, 0.4, 0.5)][rng.integers(3)]
        for side in (-1, 1):
            self._paint_eye(canvas, side, shadow, iris, skin)
        for first in (33, 42):
            brow = smooth_curve(self.landmarks[first : first + 9], closed=True, steps=3)
            canvas.polygon(brow, mix(hair, (40, 25, 20), 0.45))
        if style != "bald":
            self._paint_fringe(canvas, rng, hair)

    def _spot(self, canvas: Canvas, point: ArrayLike, radii: ArrayLike, colour: Colour) -> None:
        pixels = np.multiply(radii, (self.unit * np.cos(self.yaw), self.unit))
        canvas.ellipse(self.project(point), pixels, colour, self.roll)

    def _paint_behind(
        self, canvas: Canvas, rng: np.random.Generator, style: str, hair: Colour, skin: Colour
    ) -> None:
        """Draw hair behind the head, shoulders, neck and ears."""
        if style == "long":
            self._spot(canvas, (0.0, 0.0, -0.4), (1.3, 1.4), hair)
            locks = [[-1.3, 0.0], [1.3, 0.0], [1.35, 1.8], [0.9, 2.1], [-0.9, 2.1], [-1.35, 1.8]]
            canvas.polygon(self.project([[x, y, -0.4] for x, y in locks]), hair)
        elif style != "bald":
            self._spot(canvas, (0.0, -0.2, -0.3), (1.14, 1.2), hair)
            if style == "bun":
                self._spot(canvas, (0.0, -1.45, -0.3), (0.42, 0.4), hair)
        # The body follows a third of the head's tilt.
        body = self.centre + self.unit * rotated(np.array([0.0, 1.0]), self.roll)
        cloth = hsv(rng.random(), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.9))
        neck = np.array([[-0.5, -0.3], [0.5, -0.3], [0.58, 1.1], [-0.58, 1.1]])
        torso = [[-0.62, 0.75], [0.0, 1.05], [0.62, 0.75], [1.5, 1.0], [1.9, 1.7], [2.1, 5.0]]
        torso += [[-2.1, 5.0], [-1.9, 1.7], [-1.5, 1.0]]
        tilt = self.roll / 3
        canvas.polygon(body + self.unit * rotated(neck, tilt), mix(skin, (70, 30, 25), 0.28))
        canvas.polygon(body + self.unit * rotated(np.array(torso), tilt), cloth)
        for side in (-1, 1):
            ear = mix(skin, (70, 30, 25), 0.15)
            self._spot(canvas, (side, 0.25, -0.55), (0.17, 0.28), ear)

    def _paint_shade(self, canvas: Canvas, skin: Colour, shade: float) -> None:
        """Darken the half of the face that is turned away."""
        jaw, top = self.landmarks[:33], self.forehead(1.0)
        profile = [[0.0, -0.12, 0.2], [0.02, 0.5, 0.3], [0.0, 1.0, 0.2]]
        middle = smooth_curve(np.concatenate([top[12:13], self.project(profile), jaw[16:17]]))
        if self.yaw > 0:
            half = np.concatenate([middle, jaw[17:], top[:12]])
        else:
            half = np.concatenate([middle, jaw[15::-1], top[:12:-1]])
        canvas.polygon(half, (*mix(skin, (50, 20, 40), 0.5), round(255 * (0.08 + shade))))

    def _paint_beard(self, canvas: Canvas, colour: Colour) -> None:
        jaw = smooth_curve(self.landmarks[5:28])
        inner = [[0.72, 0.75], [0.5, 0.86], [0.0, 0.8], [-0.5, 0.86], [-0.72, 0.75]]
        edge = self.project([[x, y * self.length, 0.15 - 0.5 * x**2] for x, y in inner])
        canvas.polygon(np.concatenate([jaw, smooth_curve(edge)]), colour)

    def _paint_eye(
        self, canvas: Canvas, side: int, shadow: Colour, iris: Colour, skin: Colour
    ) -> None:
        u = np.linspace(-1.0, 1.0, 25)
        upper, lower = (self.project(self.eye_surface(side, u, y)) for y in self.lid_heights(u))
        arch = np.stack([np.zeros(25), -0.07 * self.unit * (1 - u**2)], axis=-1)
        canvas.polygon(np.concatenate([upper + rotated(arch, self.roll), upper[::-1]]), shadow)
        canvas.polygon(np.concatenate([upper, lower[::-1]]), (250, 248, 244))
        turn = np.linspace(0.0, 2.0 * np.pi, 32, endpoint=False)
        for radius, colour in ((0.1, iris), (0.05, (20, 14, 12))):
            around = (self.gaze + radius * np.cos(turn)) / self.eye_width
            disc = self.eye_surface(side, around, radius * np.sin(turn))
            canvas.polygon(self.project(disc), colour)
        canvas.stroke(upper, (45, 28, 24), 0.045 * self.unit)
        canvas.stroke(lower, mix(skin, (70, 30, 25), 0.5), 0.02 * self.unit)

    def _paint_nose(self, canvas: Canvas, skin: Colour, dark: Colour) -> None:
        bridge, base = self.landmarks[51:55], self.landmarks[55:60]
        flank = base[[0, 1, 2]] if self.yaw < 0 else base[[4, 3, 2]]
        canvas.polygon(np.concatenate([bridge, flank[::-1]]), (*dark, 90))
        canvas.stroke(smooth_curve(bridge), mix(skin, (255, 245, 230), 0.3), 0.05 * self.unit)
        canvas.stroke(smooth_curve(base), dark, 0.04 * self.unit)
        for nostril in base[[1, 3]]:
            radii = np.array([0.055, 0.03]) * self.unit
            middle = nostril - [0.0, 0.02 * self.unit]
            canvas.ellipse(middle, radii, mix(dark, (20, 5, 5), 0.5), self.roll)

    def _paint_mouth(self, canvas: Canvas, rng: np.random.Generator, skin: Colour) -> None:
        lips = mix(skin, (175, 50, 60), 0.5)
        if self.make_up:
            lips = hsv(rng.uniform(0.92, 1.02), 0.75, 0.75)
        outer, inner = self.landmarks[76:88], self.landmarks[88:96]
        canvas.polygon(_lip_line(outer, 6), lips)
        canvas.polygon(_lip_line(inner, 4), (70, 15, 22))
        if self.mouth > 0:
            upper = smooth_curve(inner[:5])
            share = 0.3 * np.sin(np.linspace(0.0, np.pi, len(upper)))[:, None]
            lower = smooth_curve(inner[[0, 7, 6, 5, 4]])
            teeth = np.concatenate([upper, (upper + share * (lower - upper))[::-1]])
            canvas.polygon(teeth, (245, 242, 235))
        else:
            canvas.stroke(smooth_curve(inner[:5]), (90, 25, 30), 0.03 * self.unit)

    def _paint_fringe(self, canvas: Canvas, rng: np.random.Generator, hair: Colour) -> None:
        parting, low = rng.uniform(-0.6, 0.6), rng.uniform(-0.75, -0.5)
        x = np.linspace(-1.05, 1.05, 9)
        y = low - 0.25 * np.exp(-(((x - parting) / 0.3) ** 2)) + 0.3 * np.abs(x / 1.05) ** 6
        y += rng.uniform(-0.04, 0.04, len(x))
        hairline = smooth_curve(self.project(np.stack([x, y, 0.12 - 0.6 * x**2], axis=-1)))
        canvas.polygon(np.concatenate([hairline, self.forehead(1.1)]), hair)


def _occluder(rng: np.random.Generator, head: Head) -> Occluder:
    """Return a ball, bar, hand, pair of sunglasses or mask in front of the head."""
    kind = rng.choice(["ball", "bar", "hand", "glasses", "mask"], p=[0.3, 0.25, 0.2, 0.12, 0.13])
    colour = hsv(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.95))
    aim = np.array([rng.uniform(-0.9, 0.9), rng.uniform(-0.3, 1.6)])
    if kind == "ball":
        bars = [[*aim, *(aim + rng.uniform(-0.15, 0.15, 2)), rng.uniform(0.3, 0.6)]]
    elif kind == "bar":
        angle = rng.uniform(0.0, np.pi)
        reach = rng.uniform(1.0, 2.5) * np.array([np.cos(angle), np.sin(angle)])
        bars = [[*(aim - reach), *(aim + reach), rng.uniform(0.14, 0.32)]]
    elif kind == "hand":
        colour = skin_tone(rng)
        bars = _hand(rng, aim)
    elif kind == "glasses":
        colour = hsv(rng.random(), rng.uniform(0.0, 0.6), rng.uniform(0.1, 0.3))
        bars = [[s * 0.36, 0.03, s * 0.56, 0.03, rng.uniform(0.2, 0.28)] for s in (-1, 1)]
        bars += [[-0.3, -0.02, 0.3, -0.02, 0.05], [-1.0, -0.05, 1.0, -0.05, 0.04]]
    else:
        bars = [
            [-0.5, 1.05, 0.5, 1.05, 0.5],
            [-0.2, 1.3, 0.2, 1.3, 0.5],
            [-1.0, 0.5, 1.0, 0.5, 0.04],
        ]
    flat = np.array(bars)
    solid = [np.insert(flat[:, i : i + 2], 2, 0.15, axis=1) for i in (0, 2)]
    ends = [head.project(points) for points in solid]
    return Occluder(np.column_stack([*ends, flat[:, 4] * head.unit]), colour, rng.uniform(0.0, 0.3))


def _hand(rng: np.random.Generator, palm: np.ndarray) -> list[list[float]]:
    """Return the bars of an open hand that reaches in from the side it is on."""
    out = np.array([np.sign(palm[0]) or 1.0, rng.uniform(0.3, 1.2)])
    angle = np.arctan2(out[1], out[0])
    bars = [[*palm, *(palm + 0.15 * out), 0.27], [*palm, *(palm + 2.0 * out), 0.2]]
    for spread in (-0.75, -0.28, 0.1, 0.48):
        tip = palm - 0.62 * np.array([np.cos(angle + spread), np.sin(angle + spread)])
        bars.append([*palm, *tip, 0.085])
    thumb = palm + 0.5 * np.array([np.cos(angle - 1.9), np.sin(angle - 1.9)])
    return [*bars, [*palm, *thumb, 0.09]]


def _hair_colour(rng: np.random.Generator) -> Colour:
    natural = [(30, 22, 20), (62, 40, 28), (110, 70, 40), (170, 120, 65), (214, 180, 110)]
    natural += [(150, 65, 35), (150, 148, 146), (230, 228, 222)]
    if rng.random() < 0.06:
        return hsv(rng.random(), 0.45, 0.7)
    return natural[rng.integers(len(natural))]


def _lip_line(points: np.ndarray, corner: int) -> np.ndarray:
    """Return a closed curve through `points`, smooth but for the corners at 0 and `corner`."""
    upper = smooth_curve(points[: corner + 1])
    return np.concatenate([upper, smooth_curve(np.concatenate([points[corner:], points[:1]]))])
