"""The distributions that an answer of an exported model describes: NumPy and float64, no TensorFlow."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tfhuber.calibration.dependence import correlation, draw_errors
from tfhuber.calibration.law import Law
from tfhuber.saved_model.metadata import ModelMetadata, joint_factor

__all__ = ["LandmarkDistribution", "joint_covariance", "load_distribution"]


@dataclass(frozen=True)
class LandmarkDistribution:
    """Distributions [N, K] of landmarks, in the pixels of the answer, and how they go together.

    The density at y is |A| exp(-rho(|A (y - mu)|)) / c (eq. 3). Whole shapes follow a Gaussian copula
    (`tfhuber.calibration.dependence`), in which each landmark keeps its own distribution.

    Attributes:
      loc: [N, K, 2] mu.
      precision_factor: [N, K, 2, 2] A, symmetric positive definite.
      law: of the radius |A (y - mu)|.
      kappa: the covariance of a landmark is kappa inv(A A).
      joint: [2K, r] F of the dependence; None from models that know nothing of it.
    """

    loc: np.ndarray
    precision_factor: np.ndarray
    law: Law
    kappa: float
    joint: np.ndarray | None = None

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
        """Draw points [count, N, K, 2], each landmark for itself; the same for the same seed.

        Raises:
          ValueError: `count` is not positive.
        """
        _check_count(count)
        generator = np.random.default_rng(seed)
        shape = (count, *self.loc.shape[:-1])
        radius, angle = self.law.quantile(generator.random(shape)), generator.random(shape)
        circle = np.stack([np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)], axis=-1)
        return self._placed(radius[..., np.newaxis] * circle)

    def joint_covariance(self) -> np.ndarray:
        """Compute the covariances [N, 2K, 2K] of (x0, y0, x1, y1, ...), in square pixels of the answer.

        Blocks of a landmark are its covariance. The others take the correlation of whitened errors for
        that of their normal scores.

        Raises:
          ValueError: the model knows nothing of how landmarks go together.
        """
        root = math.sqrt(self.kappa) * np.linalg.inv(self.precision_factor)
        count = 2 * self.loc.shape[1]
        blocks = correlation(self._factor()).reshape(count // 2, 2, count // 2, 2)
        covariance = np.einsum("njab,jbkc,nkcd->njakd", root, blocks, root)
        return covariance.reshape(-1, count, count)

    def sample_shapes(self, count: int, seed: int | None = None) -> np.ndarray:
        """Draw whole shapes [count, N, K, 2] in the answer's pixels; the same for the same seed.

        Raises:
          ValueError: as `joint_covariance`, or `count` is not positive.
        """
        _check_count(count)
        generator, shape = np.random.default_rng(seed), (count, len(self.loc))
        return self._placed(draw_errors(self._factor(), self.law, shape, generator))

    def _factor(self) -> np.ndarray:
        if self.joint is None:
            raise ValueError(
                "the model knows nothing of how landmarks go together: calibrate its run again "
                "with this version, and export it without --uncalibrated"
            )
        return self.joint

    def _placed(self, white: np.ndarray) -> np.ndarray:
        """Return the points [..., N, K, 2] of whitened errors."""
        inverse = np.linalg.inv(self.precision_factor)
        return self.loc + np.einsum("nkab,...nkb->...nka", inverse, white)


def joint_covariance(
    answer: Mapping[str, ArrayLike],
    metadata: Mapping[str, Any],
    signature: str | None = None,
) -> np.ndarray:
    """Return the covariances [N, 2K, 2K] of an answer's (x0, y0, x1, y1, ...), in its square pixels.

    Args, and Raises: as `load_distribution` and `LandmarkDistribution.joint_covariance`.
    """
    return load_distribution(answer, metadata, signature).joint_covariance()


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
    joint = joint_factor(metadata, signature or "serving_default")
    return LandmarkDistribution(loc, factor, Law(about.family, about.delta), about.kappa, joint)


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")


def _finite(answer: Mapping[str, ArrayLike], name: str) -> np.ndarray:
    if name not in answer:
        raise ValueError(f"answer has no {name}")
    value = np.asarray(answer[name], np.float64)
    if not np.all(np.isfinite(value)):
        raise ValueError(f"{name} must be finite")
    return value
