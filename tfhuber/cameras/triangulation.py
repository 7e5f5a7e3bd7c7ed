"""Points of space from several calibrated cameras, by maximum likelihood under the Huber energy.

A camera v sees a landmark at z_v with covariance `R_v = kappa inv(A_v A_v)`. The point X minimises
`sum_v rho(|A_v (project_v(X) - z_v)|)`: a camera that contradicts the others pulls with a bounded force,
and needs no threshold. The point's covariance is that of `tfhuber.distributions.fusion`,

    inv(sum_v min(1, w(r_v) / w(r_rms)) J_v' inv(R_v) J_v),    w(r) = rho'(r) / r,    r_rms^2 = 2 kappa,

with J_v the derivatives of its pixels: a camera counts fully unless it is further off than it expects.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfhuber.cameras.camera import Camera
from tfhuber.drawing.ellipses import kappa

__all__ = ["Points", "triangulate"]

_MOST_STEPS = 60
_MOST_PAIRS = 28  # of which starts are tried: those of eight cameras


@dataclass
class Points:
    """N points of space, in the unit of the calibration; NaN where fewer than two cameras see them.

    Attributes:
      place: [N, 3].
      covariance: [N, 3, 3].
      counts: [N, V], how far each camera counts, from 0 to 1.
      error: [N] root mean square, in pixels, of where they are seen less where the cameras say.
    """

    place: np.ndarray
    covariance: np.ndarray
    counts: np.ndarray
    error: np.ndarray


def triangulate(
    cameras: Sequence[Camera], places: np.ndarray, covariances: np.ndarray, delta: float = 1.0
) -> Points:
    """Return the points that N landmarks are, each seen by V cameras.

    Args:
      cameras: V of them, at least two.
      places: [V, N, 2] pixels; NaN where a camera doesn't see one.
      covariances: [V, N, 2, 2] in square pixels.
      delta: the knee of the energy.

    Raises:
      ValueError: shapes don't fit, there are fewer than two cameras, or delta is out of range.
    """
    places, covariances = np.asarray(places, float), np.asarray(covariances, float)
    if len(cameras) < 2 or places.shape[:1] != (len(cameras),) or places.ndim != 3:
        raise ValueError(
            f"places must be [{len(cameras)} cameras of 2 at least, N, 2], got {list(places.shape)}"
        )
    if places.shape[-1] != 2 or covariances.shape != (*places.shape, 2):
        raise ValueError(f"covariances must be {[*places.shape, 2]}, got {list(covariances.shape)}")
    views = _Views.of(cameras, places, covariances, delta)
    start = _best_start(views)
    found = _minimise(views, start)
    usable = (views.seen.sum(0) >= 2) & np.isfinite(views.energy(found))
    information, counts, error = _information(views, found, usable)
    matrices = np.where(usable[:, None, None], information, np.eye(3))
    usable &= np.linalg.cond(matrices) < 1e15  # not all on the line between two cameras
    matrices = np.where(usable[:, None, None], matrices, np.eye(3))
    covariance = np.linalg.inv(matrices)
    return Points(
        np.where(usable[:, None], found, np.nan),
        np.where(usable[:, None, None], (covariance + covariance.mT) / 2, np.nan),
        counts.T,
        np.where(usable, error, np.nan),
    )


@dataclass
class _Views:
    """What the cameras see, with A A [V, N, 2, 2]; 0 where a landmark is not seen [V, N]."""

    cameras: Sequence[Camera]
    places: np.ndarray
    precision: np.ndarray
    seen: np.ndarray
    delta: float
    kappa: float

    @classmethod
    def of(
        cls, cameras: Sequence[Camera], places: np.ndarray, covariances: np.ndarray, delta: float
    ) -> "_Views":
        finite = np.isfinite(places).all(-1) & np.isfinite(covariances).all((-1, -2))
        matrices = np.where(finite[..., None, None], covariances, np.eye(2))
        determinant = np.linalg.det(matrices)
        seen = finite & (determinant > 0) & (matrices[..., 0, 0] > 0)
        matrices = np.where(seen[..., None, None], matrices, np.eye(2))
        scale = kappa("huber", delta)
        precision = scale * np.linalg.inv(matrices) * seen[..., None, None]
        return cls(cameras, np.where(seen[..., None], places, 0), precision, seen, delta, scale)

    def take(self, points: np.ndarray) -> "_Views":
        """Return the views of some points, by their indices."""
        return _Views(
            self.cameras,
            self.places[:, points],
            self.precision[:, points],
            self.seen[:, points],
            self.delta,
            self.kappa,
        )

    def residuals(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return pixel errors [V, N, 2], their derivatives [V, N, 2, 3] and radii [V, N]."""
        projected = [camera.project(points) for camera in self.cameras]
        error = np.stack([pixels for pixels, _ in projected]) - self.places
        slopes = np.stack([slope for _, slope in projected])
        error = np.where(self.seen[..., None], error, 0)
        slopes = np.where(self.seen[..., None, None], slopes, 0)
        square = np.einsum("vni,vnij,vnj->vn", error, self.precision, error)
        return error, slopes, np.sqrt(np.maximum(square, 0))

    def energy(self, points: np.ndarray) -> np.ndarray:
        """Return the objective [N]; infinity behind a camera that sees the point."""
        _, _, radius = self.residuals(points)
        rho = np.where(radius < self.delta, radius**2 / 2, self.delta * (radius - self.delta / 2))
        return np.nan_to_num(rho.sum(0), nan=np.inf)

    def weight(self, radius: np.ndarray | float) -> np.ndarray:
        """Return rho'(r) / r."""
        return np.minimum(1.0, self.delta / np.maximum(radius, 1e-300))


def _best_start(views: _Views) -> np.ndarray:
    """Return the best of the linear solutions [N, 3] of all cameras and of each pair."""
    planes = np.stack(
        [
            camera.to_plane(pixels)
            for camera, pixels in zip(views.cameras, views.places, strict=True)
        ]
    )
    known = views.seen & np.isfinite(planes).all(-1)
    planes = np.where(known[..., None], planes, 0)
    count = len(views.cameras)
    pairs = list(itertools.combinations(range(count), 2))[:_MOST_PAIRS]
    best = _linear(views.cameras, planes, known)
    lowest = views.energy(best)
    for pair in pairs if count > 2 else []:
        only = np.zeros_like(known)
        only[list(pair)] = known[list(pair)]
        start = _linear(views.cameras, planes, only)
        energy = views.energy(start)
        lower = (energy < lowest) & (only.sum(0) == 2)
        best, lowest = np.where(lower[:, None], start, best), np.where(lower, energy, lowest)
    return best


def _linear(cameras: Sequence[Camera], planes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the points [N, 3] nearest to the rays through planes [V, N, 2], where known [V, N]."""
    matrix, pull = np.zeros((planes.shape[1], 3, 3)), np.zeros((planes.shape[1], 3))
    for camera, plane, is_known in zip(cameras, planes, known, strict=True):
        ray = np.concatenate([plane, np.ones((len(plane), 1))], axis=1) @ camera.rotation
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        across = (np.eye(3) - ray[:, :, None] * ray[:, None]) * is_known[:, None, None]
        matrix += across
        pull += across @ camera.centre
    trace = np.trace(matrix, axis1=1, axis2=2)
    matrix += (1e-12 * trace + 1e-12)[:, None, None] * np.eye(3)
    return np.linalg.solve(matrix, pull[..., None])[..., 0]


def _minimise(views: _Views, points: np.ndarray) -> np.ndarray:
    """Return the points after damped Newton steps, each of which lowers a point's energy or is not made."""
    points, energy = points.copy(), views.energy(points)
    damping = np.full(len(points), 1e-3)
    open_ = np.flatnonzero(np.isfinite(energy) & (views.seen.sum(0) >= 2))
    for _ in range(_MOST_STEPS):
        if not open_.size:
            break
        some, here = views.take(open_), points[open_]
        error, slopes, radius = some.residuals(here)
        weight = some.weight(radius)
        weighted = weight[..., None, None] * some.precision @ slopes
        pulls = np.einsum("vnij,vni->vnj", weighted, error)
        gradient = pulls.sum(0)
        curvature = np.einsum("vnij,vnik->njk", slopes, weighted)
        diagonal = np.einsum("nii->ni", curvature)
        scale = damping[open_, None] * diagonal + 1e-14 * diagonal.sum(1, keepdims=True) + 1e-300
        # Beyond the knee the energy does not bend along the force.
        flat = np.where(radius > some.delta, 1 / np.maximum(weight * radius**2, 1e-300), 0)
        curvature = curvature - np.einsum("vn,vni,vnj->nij", flat, pulls, pulls)
        damped = curvature + scale[:, :, None] * np.eye(3)
        step = np.linalg.solve(damped, gradient[..., None])[..., 0]
        trial = here - step
        found = some.energy(trial)
        lower = found < energy[open_]
        points[open_[lower]], energy[open_[lower]] = trial[lower], found[lower]
        damping[open_] = np.where(lower, damping[open_] / 10, damping[open_] * 10)
        # What a step promises, in units of the energy; and steps that rounding alone decides about.
        promised = np.einsum("ni,ni->n", step, gradient)
        done = (promised < 1e-12 * (1 + energy[open_])) | (damping[open_] > 1e12)
        open_ = open_[~done]
    return points


def _information(
    views: _Views, points: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the information [N, 3, 3], how far each camera counts [V, N], and the pixel error [N]."""
    error, slopes, radius = views.residuals(points)
    typical = views.weight(float(np.sqrt(2 * views.kappa)))
    share = np.minimum(1, views.weight(radius) / typical)
    counts = np.where(views.seen & usable, share, 0)
    precision = counts[..., None, None] * views.precision / views.kappa
    slopes = np.where(usable[:, None, None], slopes, 0)
    information = np.einsum("vnij,vnik,vnkl->njl", slopes, precision, slopes)
    seen = np.maximum(views.seen.sum(0), 1)
    return information, counts, np.sqrt((error**2).sum((0, 2)) / seen)
