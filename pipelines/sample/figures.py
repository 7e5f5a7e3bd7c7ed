"""Procedural drawing of whole figures with MPII's 16 joints and the spread of their labels.

A figure faces the viewer, so that its right side is on the picture's left. It is built from limbs
whose lengths are fractions of the standing height, and drawn at the size that fits the picture.
"""

from dataclasses import dataclass

import numpy as np
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
from pipelines.sample.label_noise import label_covariance

__all__ = ["Figure", "draw_figures"]

# Indices of the 16 joints; a pair is the person's (right, left).
ANKLES, KNEES, HIPS, WRISTS, ELBOWS, SHOULDERS = (
    (0, 5),
    (1, 4),
    (2, 3),
    (10, 15),
    (11, 14),
    (12, 13),
)
PELVIS, THORAX, NECK, HEAD_TOP = 6, 7, 8, 9

# Fractions of the standing height.
TORSO, UPPER_ARM, FOREARM, THIGH, SHIN, HEAD = 0.285, 0.165, 0.150, 0.235, 0.225, 0.150

# Noise of a plainly visible label along the limb and across it, as fractions of the height.
SPREAD = {
    **dict.fromkeys(ANKLES, (0.016, 0.010)),
    **dict.fromkeys(KNEES, (0.013, 0.008)),
    **dict.fromkeys(HIPS, (0.013, 0.009)),
    **dict.fromkeys(WRISTS, (0.017, 0.011)),
    **dict.fromkeys(ELBOWS, (0.014, 0.009)),
    **dict.fromkeys(SHOULDERS, (0.010, 0.007)),
    PELVIS: (0.011, 0.008),
    THORAX: (0.008, 0.006),
    NECK: (0.007, 0.006),
    HEAD_TOP: (0.007, 0.005),
}


@dataclass(frozen=True)
class Pose:
    """Ranges to draw a pose's angles from, in degrees.

    Arms and thighs: 0 hangs down, 90 points outwards. Elbows and knees: how far the lower part
    turns on outwards; negative turns it inwards. `thigh`: the share of its length that is seen.
    """

    arm: tuple[float, float]
    elbow: tuple[float, float]
    leg: tuple[float, float]
    knee: tuple[float, float]
    lean: tuple[float, float] = (-8, 8)
    thigh: tuple[float, float] = (0.92, 1.0)


POSES = (
    Pose(arm=(6, 28), elbow=(-25, 12), leg=(1, 10), knee=(-6, 4)),  # standing
    Pose(arm=(5, 45), elbow=(-35, 20), leg=(-4, 26), knee=(-28, 0)),  # striding
    Pose(arm=(120, 172), elbow=(-35, 35), leg=(1, 16), knee=(-8, 4)),  # arms up
    Pose(arm=(35, 55), elbow=(-115, -85), leg=(4, 14), knee=(-8, 2)),  # hands on the hips
    Pose(arm=(75, 115), elbow=(-15, 55), leg=(14, 34), knee=(-12, 4)),  # star
    Pose(arm=(10, 60), elbow=(-60, 60), leg=(5, 25), knee=(-10, 4), lean=(-38, 38)),  # leaning
    Pose(
        arm=(15, 35), elbow=(-45, -10), leg=(20, 48), knee=(-48, -22), thigh=(0.45, 0.65)
    ),  # sitting
)


@dataclass(frozen=True)
class Figure:
    """One drawn person, in pixels of the picture.

    Attributes:
      landmarks: [16, 2] exact positions of MPII's joints.
      covariance: [16, 2, 2] of the label noise, pixels^2.
      visible: [16] bool, whether nothing is in front of the joint.
      height: the standing height.
      head_box: x0, y0, x1, y1 about the head.
    """

    landmarks: np.ndarray
    covariance: np.ndarray
    visible: np.ndarray
    height: float
    head_box: tuple[float, float, float, float]


def draw_figures(rng: np.random.Generator, count: int = 1) -> tuple[Image.Image, list[Figure]]:
    """Draw a picture with `count` people side by side."""
    width, height = (int(n) for n in rng.integers((180, 200), (261, 311)))
    if count > 1:
        width = int(rng.integers(150, 181)) * count
    canvas = Canvas(width, height)
    paint_background(canvas, rng)
    slot = width / count
    bodies = [_Body(rng, np.array([index * slot, 0.0]), slot, height) for index in range(count)]
    feet = max(body.joints[list(ANKLES), 1].max() for body in bodies)
    ground = feet - rng.uniform(0.0, 0.2) * bodies[0].height
    floor = hsv(rng.random(), rng.uniform(0.1, 0.4), rng.uniform(0.35, 0.8))
    corners = [[-1, ground], [width, ground], [width, height], [-1, height]]
    canvas.polygon(np.array(corners), (*floor, 200))
    haze = Haze.random(rng)

    for body in bodies:
        body.paint(canvas, rng)
    occluders = []
    for body in bodies:
        if rng.random() < 0.4:
            occluders.append(_occluder(rng, body))
            occluders[-1].paint(canvas)
    figures = [_figure(body, haze, occluders) for body in bodies]
    return haze.apply(canvas.finish(), 0.6 * bodies[0].height), figures


def _figure(body: "_Body", haze: Haze, occluders: list[Occluder]) -> Figure:
    joints = body.joints
    depth = depth_behind(occluders, joints)
    along, across = np.array([SPREAD[joint] for joint in range(16)]).T
    direction = np.tile(joints[NECK] - joints[PELVIS], (16, 1))
    for side in (0, 1):
        for upper, lower in ((SHOULDERS, ELBOWS), (ELBOWS, WRISTS), (HIPS, KNEES), (KNEES, ANKLES)):
            direction[lower[side]] = joints[lower[side]] - joints[upper[side]]
    covariance = label_covariance(along, across, direction, haze.factor, depth, body.height)
    centre = (joints[NECK] + joints[HEAD_TOP]) / 2
    half = 0.56 * HEAD * body.height
    x0, y0, x1, y1 = (float(value) for value in (*(centre - half), *(centre + half)))
    return Figure(joints, covariance, depth == 0, body.height, (x0, y0, x1, y1))


class _Body:
    """A random person in a random pose, placed in a slot of the picture."""

    def __init__(self, rng: np.random.Generator, corner: np.ndarray, width: float, height: float):
        self.build = rng.uniform(0.85, 1.2)  # width of limbs and torso
        joints = self._bend(rng)
        low, high = joints.min(axis=0) - 0.04, joints.max(axis=0) + 0.04
        fit = np.min(np.array([width, height]) / (high - low))
        self.height = float(fit * rng.uniform(0.7, 0.95))
        room = np.array([width, height]) - self.height * (high - low)
        overhang = 0.2 * self.height if rng.random() < 0.1 else 0.0  # a few stick out a little
        shift = rng.random(2) * (room + 2 * overhang) - overhang
        self.joints = corner + shift + self.height * (joints - low)

    def _bend(self, rng: np.random.Generator) -> np.ndarray:
        """Return the joints [16, 2] about the pelvis, in standing heights."""
        pose = POSES[rng.integers(len(POSES))]
        lean = np.radians(rng.uniform(*pose.lean))
        turn = np.cos(rng.uniform(0.0, 0.9))  # shoulders and hips seen from a little aside
        up, right = _heading(np.pi - lean), _heading(np.pi / 2 - lean)
        joints = np.zeros((16, 2))
        joints[THORAX] = TORSO * up
        joints[NECK] = joints[THORAX] + 0.05 * up
        joints[HEAD_TOP] = joints[NECK] + HEAD * _heading(np.pi - lean - rng.uniform(-0.3, 0.3))
        thigh = THIGH * rng.uniform(*pose.thigh)
        for side, out in ((0, -1), (1, 1)):
            joints[SHOULDERS[side]] = joints[THORAX] + out * 0.11 * turn * right - 0.012 * up
            joints[HIPS[side]] = out * 0.062 * turn * right
            for start, middle, end, first, second, lengths in (
                (SHOULDERS, ELBOWS, WRISTS, pose.arm, pose.elbow, (UPPER_ARM, FOREARM)),
                (HIPS, KNEES, ANKLES, pose.leg, pose.knee, (thigh, SHIN)),
            ):
                # Arms lean with the torso; legs stand on the ground.
                base = -lean if start is SHOULDERS else 0.3 * lean
                angle = base + out * np.radians(rng.uniform(*first))
                joints[middle[side]] = joints[start[side]] + lengths[0] * _heading(angle)
                angle += out * np.radians(rng.uniform(*second))
                joints[end[side]] = joints[middle[side]] + lengths[1] * _heading(angle)
        return joints

    def paint(self, canvas: Canvas, rng: np.random.Generator) -> None:
        """Draw the person, with random clothes."""
        skin = skin_tone(rng)
        hair = mix((35, 25, 22), (215, 175, 110), rng.random() ** 2)
        shirt = hsv(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.35, 0.95))
        trousers = hsv(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(0.15, 0.6))
        shoes = hsv(rng.random(), rng.uniform(0.0, 0.8), rng.uniform(0.1, 0.9))
        long_sleeves, shorts = rng.random() < 0.5, rng.random() < 0.35
        for side in (0, 1):
            self._paint_leg(canvas, side, trousers, skin if shorts else trousers, shoes)
        self._paint_torso(canvas, shirt, trousers)
        self._paint_head(canvas, rng, skin, hair)
        for side in (0, 1):
            self._paint_arm(canvas, side, shirt, shirt if long_sleeves else skin, skin)

    def _limb(
        self,
        canvas: Canvas,
        start: np.ndarray,
        end: np.ndarray,
        radii: tuple[float, float],
        colour: Colour,
    ) -> None:
        start_radius, end_radius = (self.build * self.height * radius for radius in radii)
        canvas.limb(start, end, start_radius, end_radius, colour)

    def _paint_leg(
        self, canvas: Canvas, side: int, thigh: Colour, shin: Colour, shoe: Colour
    ) -> None:
        hip, knee, ankle = (self.joints[pair[side]] for pair in (HIPS, KNEES, ANKLES))
        toe = ankle + self.height * np.array([0.03 * (2 * side - 1), 0.03])
        self._limb(canvas, knee, ankle, (0.031, 0.020), shin)
        self._limb(canvas, ankle, toe, (0.022, 0.022), shoe)
        self._limb(canvas, hip, knee, (0.046, 0.034), thigh)
        canvas.ellipse(knee, 0.016 * self.height, mix(thigh, (255, 255, 255), 0.14))

    def _paint_arm(
        self, canvas: Canvas, side: int, sleeve: Colour, forearm: Colour, skin: Colour
    ) -> None:
        shoulder, elbow, wrist = (self.joints[pair[side]] for pair in (SHOULDERS, ELBOWS, WRISTS))
        edge = mix(sleeve, (0, 0, 0), 0.18)
        hand = wrist + 0.2 * (wrist - elbow)
        self._limb(canvas, wrist, hand, (0.018, 0.023), skin)
        self._limb(canvas, elbow, wrist, (0.024, 0.018), mix(forearm, (0, 0, 0), 0.06))
        self._limb(canvas, shoulder, elbow, (0.033, 0.026), edge)
        self._limb(canvas, shoulder, elbow, (0.027, 0.020), sleeve)

    def _paint_torso(self, canvas: Canvas, shirt: Colour, trousers: Colour) -> None:
        right_shoulder, left_shoulder = self.joints[list(SHOULDERS)]
        right_hip, left_hip = self.joints[list(HIPS)]
        self._limb(canvas, right_hip, left_hip, (0.048, 0.048), trousers)
        out = 0.045 * self.build
        outline = [
            right_shoulder + 0.25 * (right_hip - right_shoulder) + out * (right_hip - left_hip),
            right_hip + 0.4 * (right_hip - left_hip),
            left_hip + 0.4 * (left_hip - right_hip),
            left_shoulder + 0.25 * (left_hip - left_shoulder) + out * (left_hip - right_hip),
            left_shoulder,
            self.joints[NECK] * 0.6 + self.joints[THORAX] * 0.4,
            right_shoulder,
        ]
        canvas.polygon(smooth_curve(np.array(outline), closed=True), shirt)
        self._limb(canvas, right_shoulder, left_shoulder, (0.034, 0.034), shirt)
        collar = self.joints[THORAX]
        canvas.ellipse(collar, 0.026 * self.height, mix(shirt, (0, 0, 0), 0.25))

    def _paint_head(
        self, canvas: Canvas, rng: np.random.Generator, skin: Colour, hair: Colour
    ) -> None:
        neck, top = self.joints[NECK], self.joints[HEAD_TOP]
        size = HEAD * self.height
        up = (top - neck) / size
        right = np.array([-up[1], up[0]])
        angle = np.arctan2(right[1], right[0])

        def at(x: float, y: float) -> np.ndarray:
            """Return the point x to the picture's right of the head's axis and y up from the neck."""
            return neck + size * (x * right + y * up)

        if rng.random() < 0.4:  # long hair
            canvas.ellipse(at(0, 0.5), (0.47 * size, 0.5 * size), hair, angle)
            self._limb(canvas, at(0, 0.5), at(0, 0.05), (0.06, 0.06), hair)
        self._limb(
            canvas, self.joints[THORAX], at(0, 0.2), (0.030, 0.028), mix(skin, (60, 25, 20), 0.25)
        )
        canvas.ellipse(at(0, 0.52), (0.39 * size, 0.48 * size), hair, angle)
        canvas.ellipse(at(0, 0.43), (0.345 * size, 0.43 * size), skin, angle)
        for x in (-0.13, 0.13):
            canvas.ellipse(at(x, 0.47), 0.048 * size, (35, 25, 25))
        canvas.ellipse(at(0, 0.2), (0.12 * size, 0.04 * size), mix(skin, (170, 40, 50), 0.6), angle)


def _occluder(rng: np.random.Generator, body: _Body) -> Occluder:
    """Return a post, board, ball or bush in front of some part of the body."""
    aim = body.joints[rng.integers(16)] + body.height * rng.normal(0.0, 0.03, 2)
    kind = rng.choice(["post", "board", "ball", "bush"])
    if kind == "post":
        offset = body.height * np.array([rng.uniform(-0.1, 0.1), rng.uniform(0.5, 1.5)])
        bars = [[*(aim - offset), *(aim + offset), rng.uniform(0.03, 0.07)]]
    elif kind == "board":
        offset = body.height * np.array([rng.uniform(0.2, 0.5), rng.uniform(-0.1, 0.1)])
        bars = [[*(aim - offset), *(aim + offset), rng.uniform(0.04, 0.1)]]
    elif kind == "ball":
        bars = [[*aim, *aim, rng.uniform(0.08, 0.17)]]
    else:
        leaves = aim + body.height * rng.normal(0.0, 0.06, (6, 2))
        bars = [[*leaf, *leaf, rng.uniform(0.06, 0.12)] for leaf in leaves]
    shape = np.array(bars)
    shape[:, 4] *= body.height
    colour = hsv(rng.random(), rng.uniform(0.3, 0.8), rng.uniform(0.25, 0.9))
    return Occluder(shape, colour, rng.uniform(0.0, 0.3))


def _heading(angle: float) -> np.ndarray:
    """Return the unit vector that points down at 0 and to the picture's right at pi / 2."""
    return np.array([np.sin(angle), np.cos(angle)])
