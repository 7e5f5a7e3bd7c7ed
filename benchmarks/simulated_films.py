"""Films whose truth is known, for the benchmark of tracks: motion, a bias that persists, jitter, hiding."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, signal

__all__ = ["LANDMARKS", "Film", "draw_film", "huber", "wander"]

LANDMARKS, SHARE, TIME, HIDDEN_TIMES = 20, 0.9, 20.0, 8.0


@dataclass
class Film:
    """Truth and measurements [T, K, 2], covariances [T, K, 2, 2], and which are hidden [T, K]."""

    truth: np.ndarray
    places: np.ndarray
    covariance: np.ndarray
    hidden: np.ndarray


def draw_film(rng: np.random.Generator, frames: int, is_smooth: bool = False) -> Film:
    """Draw a film: of a head that wanders and turns, whose landmarks move a little by themselves.

    Args:
      rng: the source of chance.
      frames: their number.
      is_smooth: whether all derivatives of the motion are continuous, not only the velocity.
    """
    angle = np.linspace(0, 2 * np.pi, LANDMARKS, endpoint=False)
    shape = 80 * np.stack([np.cos(angle), 1.3 * np.sin(angle)], -1)
    centre = wander(rng, (frames, 2), 90.0, 40.0, is_smooth)
    turn = wander(rng, (frames,), 0.3, 30.0, is_smooth)
    c, s = np.cos(turn), np.sin(turn)
    rotation = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    speech = wander(rng, (frames, LANDMARKS, 2), 3.0, 8.0, is_smooth)
    truth = 300 + centre[:, None] + shape @ rotation.mT + speech
    hidden = np.zeros((frames, LANDMARKS), bool)
    for _ in range(round(frames / 60)):  # something passes in front of a third of the face
        first, length = rng.integers(frames), rng.integers(10, 40)
        k = (rng.integers(LANDMARKS) + np.arange(LANDMARKS // 3)) % LANDMARKS
        hidden[first : first + length, k] = True
    deviation = rng.uniform(1.5, 4, (1, LANDMARKS, 2)) * np.exp(
        rng.normal(0, 0.25, (frames, LANDMARKS, 1))
    )
    deviation = np.where(hidden[..., None], HIDDEN_TIMES * deviation, deviation)
    axes = rng.uniform(0, np.pi, LANDMARKS) + turn[:, None]
    c, s = np.cos(axes), np.sin(axes)
    q = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    root = (q * deviation[..., None, :]) @ q.mT
    error = np.sqrt(SHARE) * persistent(rng, truth.shape) + np.sqrt(1 - SHARE) * huber(
        rng, truth.shape
    )
    return Film(truth, truth + (root @ error[..., None])[..., 0], root @ root.mT, hidden)


def wander(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    deviation: float,
    frames: float,
    is_smooth: bool = False,
) -> np.ndarray:
    """Draw motion with that standard deviation, whose course is forgotten in so many frames.

    Its velocity is continuous and its acceleration is not, as of a mass on a damped spring that is pushed
    at random (Matern's process of 3/2), unless it `is_smooth`.
    """
    noise = rng.standard_normal((shape[0] + 400, *shape[1:]))
    if is_smooth:
        course = ndimage.gaussian_filter1d(noise, frames / 2, axis=0)
    else:
        keep = np.exp(-2 / frames)
        course = signal.lfilter([1], [1, -2 * keep, keep**2], noise, axis=0)
    return deviation * (course / course.std())[200:-200]


def persistent(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw the bias: unit variance, autocorrelation 1 / e after `TIME` frames."""
    keep = np.exp(-1 / TIME)
    noise = np.sqrt(1 - keep**2) * rng.standard_normal(shape)
    noise[0] = rng.standard_normal(shape[1:])
    return signal.lfilter([1], [1, -keep], noise, axis=0)


def huber(rng: np.random.Generator, shape: tuple[int, ...], delta: float = 1.0) -> np.ndarray:
    """Draw from Huber's law with unit covariance in two dimensions."""
    r = np.linspace(0, 40, 100_001)
    mass = np.cumsum(r * np.exp(-np.where(r < delta, r * r / 2, delta * (r - delta / 2))))
    radius = np.interp(rng.random(shape[:-1]), mass / mass[-1], r)
    angle = rng.uniform(0, 2 * np.pi, shape[:-1])
    kappa = np.average(r * r, weights=np.gradient(mass)) / 2
    return (radius / np.sqrt(kappa))[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
