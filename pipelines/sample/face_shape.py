"""The shape of a random face: WFLW's 98 landmarks, and how far labels stray from them.

A face is a set of points in three dimensions (unit: half the width of the head; x to the right of
the picture, y down, z towards the viewer, origin between the eyes) that is turned and projected.
"""

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["FaceShape", "contour_spread", "rotated"]

HEAD_TOP = -1.2

# First index, one past the last, closed contour, and the noise of a plainly visible label along
# the contour and across it, as fractions of the face's size.
CONTOURS = (
    (0, 33, False, 0.0180, 0.0070),  # jaw
    (33, 42, True, 0.0110, 0.0060),  # eyebrow on the picture's left
    (42, 51, True, 0.0110, 0.0060),  # eyebrow on the picture's right
    (51, 55, False, 0.0100, 0.0055),  # nose bridge
    (55, 60, False, 0.0075, 0.0055),  # nose base
    (60, 68, True, 0.0060, 0.0050),  # eye on the picture's left
    (68, 76, True, 0.0060, 0.0050),  # eye on the picture's right
    (76, 88, True, 0.0080, 0.0055),  # outer lips
    (88, 96, True, 0.0070, 0.0050),  # inner lips
)
# Corners of the eyes and the mouth, and the pupils, are precise in all directions.
CORNERS = [60, 64, 68, 72, 76, 82, 96, 97]
CORNER_SPREAD = 0.0045


class FaceShape:
    """A random face at `centre` [2] in the picture, `unit` pixels from its middle line to its side.

    Attributes:
      landmarks: [98, 2] in pixels.
      yaw, pitch, roll: how the head is turned, in radians; roll turns x towards y.
      mouth: 0 (closed) to 1 (wide open).
      lids: 0 (closed) to 1.3 (wide open).
    """

    def __init__(self, rng: np.random.Generator, centre: np.ndarray, unit: float):
        self.centre, self.unit = centre, unit
        self.yaw = float(np.clip(rng.normal(0.0, 0.26), -0.6, 0.6))
        self.pitch = float(np.clip(rng.normal(0.0, 0.12), -0.3, 0.3))
        self.roll = float(np.clip(rng.normal(0.0, 0.18), -0.44, 0.44))
        self.mouth = rng.uniform(0.3, 1.0) if rng.random() < 0.35 else 0.0
        self.lids = rng.uniform(0.05, 0.3) if rng.random() < 0.12 else rng.uniform(0.7, 1.3)
        self.smile = rng.uniform(-0.4, 1.0)
        self.brow = rng.uniform(-0.05, 0.09)
        self.length = rng.uniform(0.92, 1.08)
        self.chin = rng.uniform(0.95, 1.15)
        self.eye_gap = rng.uniform(0.41, 0.46)
        self.eye_width = rng.uniform(0.165, 0.195)
        self.nose = rng.uniform(0.9, 1.1)
        self.nose_width = rng.uniform(0.18, 0.25)
        self.lips = rng.uniform(0.75, 1.3)
        self.mouth_width = rng.uniform(0.32, 0.4)
        self.gaze = rng.uniform(-0.05, 0.05)
        self.make_up = bool(rng.random() < 0.25)
        self.landmarks = self.place()

    def project(self, points: ArrayLike) -> np.ndarray:
        """Return the pixels [..., 2] of `points` [..., 3]."""
        x, y, z = np.moveaxis(np.asarray(points, np.float64), -1, 0)
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        x, z = x * cos + z * sin, z * cos - x * sin
        y = y * np.cos(self.pitch) - z * np.sin(self.pitch)
        # The face's middle, rather than the point between the eyes, is at the centre.
        return self.centre + self.unit * rotated(np.stack([x, y - 0.4], axis=-1), self.roll)

    def place(self) -> np.ndarray:
        """Return the landmarks [98, 2] in pixels, as the attributes are now."""
        eyes = [self._eye(side) for side in (-1, 1)]
        pupils = [self.eye_surface(side, self.gaze / self.eye_width, 0.0) for side in (-1, 1)]
        brows = [self._brow(side) for side in (-1, 1)]
        solid = np.concatenate([*brows, self._nose(), *eyes, self._mouth(), pupils])
        return np.concatenate([self._jaw(), self.project(solid)])

    def _jaw(self) -> np.ndarray:
        """Return 33 pixel positions, each half evenly spaced along the contour that is seen."""
        angle = np.linspace(-np.pi / 2, np.pi / 2, 401)
        x = np.sign(angle) * np.abs(np.sin(angle)) ** self.chin
        y = -0.12 + 1.85 * self.length * np.cos(angle) ** 0.85
        y += 0.12 * self.mouth * np.cos(angle) ** 4  # an open mouth lowers the chin
        curve = self.project(np.stack([x, y, 0.1 - 0.6 * x**2], axis=-1))
        halves = [_evenly_spaced(curve[:201], 17), _evenly_spaced(curve[200:], 17)]
        return np.concatenate([halves[0], halves[1][1:]])

    def _brow(self, side: int) -> np.ndarray:
        """Return 9 points; the left brow starts at its outer end, the right one at its inner end."""
        u = np.array([1.0, 0.75, 0.5, 0.25, 0.0])  # 1 is the outer end
        x = side * (0.17 + u * 0.57)
        y = -0.24 - self.brow - 0.09 * np.sin(np.pi * np.minimum(u + 0.15, 1.0)) + 0.05 * u**3
        upper = np.stack([x, y, 0.15 - 0.3 * x**2], axis=-1)
        # From the inner end outwards, without the tip, which both edges share.
        lower = upper[:0:-1] + np.array([0.0, 0.085, 0.0])
        if side < 0:
            return np.concatenate([upper, lower])
        return np.concatenate([upper[::-1], lower[::-1]])

    def _eye(self, side: int) -> np.ndarray:
        """Return 8 points, from the corner on the picture's left over the upper lid and back below."""
        u = np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 0.5, 0.0, -0.5])
        lids = self.lid_heights(u)
        return self.eye_surface(side, u, np.where(np.arange(8) < 4, *lids))

    def eye_surface(self, side: int, u: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
        """Return points [..., 3] of an eye: `u` from -1 to 1 across it, height `y` between its lids."""
        x = side * self.eye_gap + u * self.eye_width
        y = np.clip(y, *self.lid_heights(u)) - 0.02 * side * u  # outer corners lie a little higher
        return np.stack([x, y, 0.1 - 0.15 * x**2], axis=-1)

    def lid_heights(self, u: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return y of the upper and of the lower lid at `u`, which runs from -1 to 1 across an eye."""
        arch = np.maximum(1.0 - u**2, 0.0)
        return 0.055 - (0.135 * self.lids + 0.02) * arch, 0.055 + 0.035 * arch * min(self.lids, 1.0)

    def _nose(self) -> np.ndarray:
        bridge = [[0.0, 0.17 * i * self.nose, 0.2 + 0.09 * i] for i in range(4)]
        w, y = self.nose_width, 0.66 * self.nose
        base = [[-w, y - 0.03, 0.2], [-w / 2, y + 0.03, 0.28], [0.0, y + 0.06, 0.32]]
        base += [[w / 2, y + 0.03, 0.28], [w, y - 0.03, 0.2]]
        return np.array(bridge + base)

    def _mouth(self) -> np.ndarray:
        """Return 12 points of the outer and 8 of the inner lip line, clockwise from the left corner."""
        w, opening = self.mouth_width * (1 + 0.12 * self.smile), 0.26 * self.mouth
        thick = 0.085 * self.lips
        lift = 0.09 * self.smile  # of the corners
        u = np.array([-1.0, -0.6, -0.22, 0.0, 0.22, 0.6, 1.0])
        upper = -thick * np.array([0.0, 0.75, 1.15, 1.0, 1.15, 0.75, 0.0])
        outer_u = np.concatenate([u, [0.6, 0.3, 0.0, -0.3, -0.6]])
        lower = (1.25 * thick + opening) * (1 - outer_u[7:] ** 2) ** 0.8
        outer_y = np.concatenate([upper, lower])
        inner_u = np.array([-0.88, -0.45, 0.0, 0.45, 0.88, 0.45, 0.0, -0.45])
        gap = (0.01 + opening) * (1 - inner_u[5:] ** 2)
        inner_y = np.concatenate([[0.0], -0.01 * np.ones(3), [0.0], gap])
        x = w * np.concatenate([outer_u, inner_u])
        y = 1.04 * self.length + np.concatenate([outer_y, inner_y]) - lift * (x / w) ** 2
        return np.stack([x, y, 0.2 - 0.5 * x**2], axis=-1)

    def forehead(self, grow: float) -> np.ndarray:
        """Return the head's contour over the top, from the picture's right to its left, in pixels."""
        angle = np.linspace(0.0, np.pi, 25)
        x = grow * np.cos(angle)
        y = -0.12 + (grow * HEAD_TOP + 0.12) * np.sin(angle) ** 0.9
        return self.project(np.stack([x, y, 0.1 - 0.6 * np.cos(angle) ** 2], axis=-1))


def contour_spread(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the fractions [98] along and across each landmark's contour, and its direction [98, 2]."""
    along, across = np.empty(98), np.empty(98)
    direction = np.tile([1.0, 0.0], (98, 1))
    for first, last, closed, along_contour, across_contour in CONTOURS:
        contour = points[first:last]
        along[first:last], across[first:last] = along_contour, across_contour
        if closed:
            direction[first:last] = np.roll(contour, -1, axis=0) - np.roll(contour, 1, axis=0)
        else:
            direction[first:last] = np.gradient(contour, axis=0)
    along[CORNERS] = across[CORNERS] = CORNER_SPREAD
    return along, across, direction


def rotated(points: np.ndarray, angle: float) -> np.ndarray:
    """Turn `points` [..., 2] about the origin by `angle` (radians, x towards y)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def _evenly_spaced(curve: np.ndarray, count: int) -> np.ndarray:
    """Return `count` points at equal distances along the polyline `curve` [N, 2], both ends included."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    at = np.linspace(0.0, length[-1], count)
    return np.stack([np.interp(at, length, curve[:, i]) for i in range(2)], axis=-1)
