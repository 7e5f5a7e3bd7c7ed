"""Three synthetic cameras about a box of space, with lenses, for the tests of triangulation."""

import numpy as np

from tfhuber.cameras.camera import Camera, rotation_of

BROWN = np.array([-0.21, 0.08, 0.001, -0.002, 0.01, 0.02, -0.01, 0.003])
FISHEYE = np.array([0.05, -0.02, 0.004, -0.001])


def rig(count: int = 3) -> list[Camera]:
    """Cameras 4 units from the origin, which they look at; the last has a fish-eye's lens."""
    cameras = []
    for i in range(count):
        rotation = rotation_of(np.array([0.1, 0.6 * (i - (count - 1) / 2), 0.05 * i]))
        fisheye = i == count - 1
        matrix = np.array([[620.0, 0, 319.5], [0, 610.0, 239.5], [0, 0, 1]])
        lens = FISHEYE if fisheye else BROWN
        cameras.append(
            Camera(f"cam{i}", matrix, lens, rotation, np.array([0.02 * i, -0.1, 4.0]), fisheye)
        )
    return cameras


def seen_by(cameras, points, deviation=1.0, seed=0):
    """Pixels [V, N, 2] with noise, and covariances [V, N, 2, 2] of many shapes."""
    rng = np.random.default_rng(seed)
    shape = len(cameras), len(points)
    axes = deviation * np.exp(rng.normal(0, 0.4, (*shape, 2)))
    angle = rng.uniform(0, np.pi, shape)
    c, s = np.cos(angle), np.sin(angle)
    q = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    root = (q * axes[..., None, :]) @ q.mT
    pixels = np.stack([camera.project(points)[0] for camera in cameras])
    noise = rng.standard_normal((*shape, 2, 1))
    return pixels + (root @ noise)[..., 0], root @ root.mT
