"""Label noise of known covariance: how much there is, and samples of it.

The noise e of a label with covariance C follows the L2 multivariate Huber distribution with
delta = 1 in two dimensions, whose density is proportional to exp(-h(|A e|)) with h(r) = r^2 / 2 up
to 1 and r - 1/2 beyond, and with the precision factor A for which C = KAPPA inv(A A).
"""

import numpy as np

__all__ = ["KAPPA", "huber_noise", "label_covariance"]

# E[r^2] / 2 = I_3 / (2 I_1) with I_n the integral of r^n exp(-h(r)): I_1 = 1 + exp(-1/2) and
# I_3 = 2 + 13 exp(-1/2).
KAPPA = (2.0 + 13.0 * np.exp(-0.5)) / (2.0 * (1.0 + np.exp(-0.5)))  # 3.07647

MOST_NOISE = 0.065  # standard deviation of the heaviest noise, as a fraction of the subject's size


def huber_noise(rng: np.random.Generator, covariance: np.ndarray) -> np.ndarray:
    """Return a sample [..., 2] of Huber noise with `covariance` [..., 2, 2], in the same pixels."""
    shape = covariance.shape[:-2]
    angle = rng.uniform(0.0, 2.0 * np.pi, shape)
    radius = _huber_radius(rng, shape)
    standard = radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    # The density depends on e by e' inv(C) e alone, so that any square root of C will do.
    root = np.linalg.cholesky(covariance / KAPPA)
    return np.einsum("...ij,...j->...i", root, standard)


def _huber_radius(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return samples of r with density proportional to r exp(-h(r)), exactly."""
    inside_mass = 1.0 - np.exp(-0.5)
    inside = np.sqrt(-2.0 * np.log1p(-inside_mass * rng.random(shape)))  # Rayleigh, cut off at 1
    # Beyond 1, r - 1 has density (1 + t) exp(-t) / 2: an exponential or the sum of two.
    tail = (
        1.0 + rng.exponential(size=shape) + rng.exponential(size=shape) * (rng.random(shape) < 0.5)
    )
    is_inside = rng.random(shape) < inside_mass / (1.0 + np.exp(-0.5))
    return np.where(is_inside, inside, tail)


def label_covariance(
    along: np.ndarray,
    across: np.ndarray,
    direction: np.ndarray,
    factor: float,
    depth: np.ndarray,
    size: float,
) -> np.ndarray:
    """Return the covariance [K, 2, 2] of the label noise in pixels^2, from what the picture shows.

    Args:
      along, across: [K] standard deviations of a plainly visible landmark, along `direction` and
        across it, as fractions of `size`.
      direction: [K, 2] vectors in the picture, of any length.
      factor: what the whole picture multiplies them by (`Haze.factor`).
      depth: [K] how far inside an occluder each landmark lies, in pixels; the standard deviation
        grows up to 3.5 times at 15 % of `size`.
      size: the subject's size in pixels.
    """
    hidden = 1.0 + 2.5 * np.minimum(depth / (0.15 * size), 1.0)
    deviation = np.stack([along, across], axis=-1) * (factor * hidden)[:, None]
    deviation = size * np.minimum(deviation, MOST_NOISE)
    unit = direction / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-9)
    frame = np.stack([unit, np.stack([-unit[:, 1], unit[:, 0]], axis=-1)], axis=-1)
    return np.einsum("kij,kj,klj->kil", frame, deviation**2, frame)
