"""A calibrated camera: the pixel of a point in space, with lens distortion and exact derivatives."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Camera", "rotation_of"]

_LEAST_DEPTH = 1e-9
_UNDISTORTING_STEPS = 20


@dataclass(frozen=True)
class Camera:
    """A pinhole with OpenCV's lens: its pixels have integer centres, as everywhere in this project.

    Attributes:
      name: which lines are its.
      matrix: [3, 3] of focal lengths, skew and principal point, in pixels.
      distortion: [8] k1, k2, p1, p2, k3, k4, k5, k6; or [4] k1 to k4 of a fish-eye.
      rotation: [3, 3] from the world to the camera.
      translation: [3], in the world's unit.
      is_fisheye: which of the two lenses.
    """

    name: str
    matrix: np.ndarray
    distortion: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    is_fisheye: bool = False

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels [..., 2] of points [..., 3] of the world, and their derivatives [..., 2, 3].

        A point that is not in front of the camera has NaN.
        """
        local = points @ self.rotation.T + self.translation
        depth = np.where(local[..., 2] > _LEAST_DEPTH, local[..., 2], np.nan)
        plane = local[..., :2] / depth[..., None]
        bent, bending = self.distort(plane)
        pixels = bent @ self.matrix[:2, :2].T + self.matrix[:2, 2]
        perspective = np.zeros((*depth.shape, 2, 3))
        perspective[..., 0, 0] = perspective[..., 1, 1] = 1 / depth
        perspective[..., 2] = -plane / depth[..., None]
        return pixels, self.matrix[:2, :2] @ bending @ perspective @ self.rotation

    def distort(self, plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the lens bends points [..., 2] at depth 1, and the derivatives [..., 2, 2]."""
        return (self._distort_fisheye if self.is_fisheye else self._distort_brown)(plane)

    def _distort_brown(self, plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k1, k2, p1, p2, k3, k4, k5, k6 = self.distortion
        x, y = plane[..., 0], plane[..., 1]
        square = x * x + y * y
        above = 1 + square * (k1 + square * (k2 + square * k3))
        below = 1 + square * (k4 + square * (k5 + square * k6))
        radial = above / below
        slope = (
            k1
            + square * (2 * k2 + 3 * k3 * square)
            - radial * (k4 + square * (2 * k5 + 3 * k6 * square))
        ) / below  # of radial, by the square
        bent = np.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
                y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
            ],
            axis=-1,
        )
        bending = np.empty((*square.shape, 2, 2))
        bending[..., 0, 0] = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
        bending[..., 1, 1] = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
        bending[..., 0, 1] = bending[..., 1, 0] = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
        return bent, bending

    def _distort_fisheye(self, plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        radius = np.maximum(np.linalg.norm(plane, axis=-1), 1e-12)
        angle = np.arctan(radius)
        powers = angle[..., None] ** np.array([2, 4, 6, 8])
        bent_angle = angle * (1 + powers @ self.distortion)
        slope = (1 + powers @ (self.distortion * [3, 5, 7, 9])) / (1 + radius * radius)
        scale = bent_angle / radius
        direction = plane / radius[..., None]
        outer = direction[..., :, None] * direction[..., None, :]
        bending = scale[..., None, None] * np.eye(2) + (slope - scale)[..., None, None] * outer
        return plane * scale[..., None], bending

    def to_plane(self, pixels: np.ndarray) -> np.ndarray:
        """Return the points [..., 2] of the plane at depth 1 that are seen at pixels [..., 2].

        By Newton's steps; NaN where the lens sees nothing there, as far outside of a picture.
        """
        inverse = np.linalg.inv(self.matrix[:2, :2])
        bent = (pixels - self.matrix[:2, 2]) @ inverse.T
        plane = bent.copy()
        with np.errstate(all="ignore"):
            for _ in range(_UNDISTORTING_STEPS):
                found, bending = self.distort(plane)
                determinant = bending[..., 0, 0] * bending[..., 1, 1] - bending[..., 0, 1] ** 2
                a, b = np.moveaxis(bent - found, -1, 0)
                step = np.stack(
                    [
                        bending[..., 1, 1] * a - bending[..., 0, 1] * b,
                        bending[..., 0, 0] * b - bending[..., 0, 1] * a,
                    ],
                    axis=-1,
                )
                plane = plane + step / determinant[..., None]
            missed = np.abs(self.distort(plane)[0] - bent).max(-1)
        return np.where((missed < 1e-6)[..., None], plane, np.nan)

    @property
    def centre(self) -> np.ndarray:
        """Where the camera is [3], in the world."""
        return -self.rotation.T @ self.translation


def rotation_of(vector: np.ndarray) -> np.ndarray:
    """Return the rotation [3, 3] about a vector [3] by its length in radians (Rodrigues)."""
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.linalg.norm(vector)
    # sin(a) / a and (1 - cos(a)) / a^2, also at 0.
    return (
        np.eye(3)
        + np.sinc(angle / np.pi) * cross
        + np.sinc(angle / 2 / np.pi) ** 2 / 2 * cross @ cross
    )
