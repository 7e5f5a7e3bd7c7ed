"""The distributions that an answer of an exported model describes: NumPy and float64, no TensorFlow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tfhuber.calibration.law import Law
from tfhuber.saved_model.metadata import ModelMetadata

__all__ = ["LandmarkDistribution", "load_distribution"]


@dataclass(frozen=True)
class LandmarkDistribution:
    """Independent distributions [N, K] of landmarks, in the pixels of the answer.

    The density at y is |A| exp(-rho(|A (y - mu)|)) / c (eq. 3).

    Attributes:
      loc: [N, K, 2] mu.
      precision_factor: [N, K, 2, 2] A, symmetric positive definite.
      law: of the radius |A (y - mu)|.
    """

    loc: np.ndarray
    precision_factor: np.ndarray
    law: Law

    def radius(self, points: ArrayLike) -> np.ndarray:
        """Compute |A (y - mu)| [..., N, K] of points [..., N, K, 2] in the answer's pixels."""
        offset = np.asarray(points, np.float64) - self.loc
        return np.linalg.norm(
            np.einsum("nkab,...nkb->...nka", self.precision_factor, offset), axis=-1
        )

    def log_prob(self, points: ArrayLike) -> np.ndarray:
        """Compute the log-density [..., N, K], per square pixel, at points [..., N, K, 2]."""
        log_det = np.linalg.slogdet(self.precision_factor)[1]
        return log_det - self.law.nll(self.radius(points))

    def radial_cdf(self, points: ArrayLike) -> np.ndarray:
        """Compute the probability [..., N, K] inside the ellipse through each of points [..., N, K, 2]."""
        return self.law.cdf(self.radius(points))

    def sample(self, count: int, seed: int | None = None) -> np.ndarray:
        """Draw points [count, N, K, 2] in the answer's pixels; the same for the same seed.

        Raises:
          ValueError: `count` is not positive.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        generator = np.random.default_rng(seed)
        shape = (count, *self.loc.shape[:-1])
        radius, angle = self.law.quantile(generator.random(shape)), generator.random(shape)
        circle = np.stack([np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)], axis=-1)
        white = radius[..., np.newaxis] * circle
        return self.loc + np.einsum(
            "nkab,...nkb->...nka", np.linalg.inv(self.precision_factor), white
        )


def load_distribution(
    answer: Mapping[str, ArrayLike],
    metadata: Mapping[str, Any],
    signature: str | None = None,
) -> LandmarkDistribution:
    """Return the distributions [N, K] that an answer describes, in its pixels.

    They are calibrated where the model is. Answers without `precision_factor`, such as those of the
    signature `tensor`, have it computed from `covariance`.

    Args:
      answer: of N images, as `Client.predict` returns it.
      metadata: of the model that gave it, as `Client.metadata` or `assets.extra/model.json` has it.
      signature: the one that was asked. A calibrated model may have another law for each, and must then
        be told.

    Raises:
      ValueError: the answer is incomplete, has rows that are not valid, or is no distribution; the
        metadata make no sense, or know no such signature.
    """
    about = ModelMetadata.parse(metadata)
    laws = about.laws
    if laws and signature not in laws and (signature is not None or len(set(laws.values())) > 1):
        raise ValueError(f"signature must be one of {', '.join(laws)}, got {signature!r}")
    about = about.of(signature or "serving_default")
    invalid = np.flatnonzero(~np.asarray(answer.get("valid", True), bool))
    if invalid.size:
        raise ValueError(
            f"answer has no numbers for image {invalid[0]}, which is not valid; leave it out"
        )
    loc = _finite(answer, "landmarks")
    if loc.ndim != 3 or loc.shape[1:] != (len(about.names), 2):
        raise ValueError(f"landmarks must be [N, {len(about.names)}, 2], got shape {loc.shape}")
    name = "precision_factor" if "precision_factor" in answer else "covariance"
    matrix = _finite(answer, name)
    if matrix.shape != (*loc.shape, 2):
        raise ValueError(f"{name} must be {[*loc.shape, 2]}, got shape {matrix.shape}")
    values, vectors = np.linalg.eigh((matrix + np.swapaxes(matrix, -1, -2)) / 2)
    if np.any(values <= 0):
        raise ValueError(f"{name} must be positive definite")
    if name == "covariance":
        values = np.sqrt(about.kappa / values)
    factor = np.einsum("...ab,...b,...cb->...ac", vectors, values, vectors)
    return LandmarkDistribution(loc, factor, Law(about.family, about.delta))


def _finite(answer: Mapping[str, ArrayLike], name: str) -> np.ndarray:
    if name not in answer:
        raise ValueError(f"answer has no {name}")
    value = np.asarray(answer[name], np.float64)
    if not np.all(np.isfinite(value)):
        raise ValueError(f"{name} must be finite")
    return value
