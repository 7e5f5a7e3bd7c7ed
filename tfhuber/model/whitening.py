"""Normalised landmark coordinates: each landmark has zero mean and identity covariance in training."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import tensorflow as tf

from tfhuber.console.files import read_json, write_json
from tfhuber.distributions.location_scatter import LocationScatter
from tfhuber.linalg import small_matrix

__all__ = ["Whitening", "fit"]


@dataclass(frozen=True)
class Whitening:
    """The affine map of each landmark from network-crop pixels u to W (u - m).

    Attributes:
      mean: [K, 2] m, network-crop pixels.
      factor: [K, 2, 2] W, symmetric positive definite, 1 / pixels.
    """

    mean: np.ndarray
    factor: np.ndarray

    def normalise(self, points: tf.Tensor) -> tf.Tensor:
        """Return network-crop points [..., K, 2] in normalised coordinates."""
        mean, factor = tf.constant(self.mean, points.dtype), tf.constant(self.factor, points.dtype)
        return small_matrix.matvec(factor, points - mean)

    def to_network(self, outputs: Mapping[str, tf.Tensor]) -> LocationScatter:
        """Return a model's outputs as distributions [..., K] in network-crop pixels.

        Args:
          outputs: `nu`, `precision_factor` and `log_det`, in normalised coordinates.
        """
        normalised = LocationScatter.from_natural(**outputs)
        dtype = normalised.precision_factor.dtype
        inverse = tf.constant(np.linalg.inv(self.factor), dtype)
        return normalised.affine(inverse, tf.constant(self.mean, dtype))

    @property
    def log_det(self) -> np.ndarray:
        """log |W| [K]: a log-density in network-crop pixels is that much above its normalised one."""
        return np.linalg.slogdet(self.factor)[1]

    def save(self, path: str | Path) -> None:
        """Write the whitening as JSON."""
        values = {"mean": self.mean.tolist(), "factor": self.factor.tolist()}
        write_json(path, values, indent=None)

    @classmethod
    def load(cls, path: str | Path, landmark_count: int) -> Self:
        """Read what `save` wrote for that many landmarks.

        Raises:
          ValueError: if the file holds anything else.
          OSError: if it cannot be read.
        """
        values = read_json(path)
        try:
            mean = np.array(values["mean"], np.float64).reshape(landmark_count, 2)
            factor = np.array(values["factor"], np.float64).reshape(landmark_count, 2, 2)
            usable = bool(np.isfinite(mean).all() and (np.linalg.eigvalsh(factor) > 0).all())
        except (KeyError, TypeError, ValueError):
            usable = False
        if not usable:
            raise ValueError(
                f"{path} holds no whitening of {landmark_count} landmarks; delete it, and "
                "tfhuber.train, started as before, computes it again"
            )
        return cls(mean, factor)


def fit(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], landmark_count: int, size: int
) -> Whitening:
    """Compute the whitening of labels: their mean, and the symmetric root of their inverse covariance.

    Args:
      batches: of (landmarks [B, K, 2] in network-crop pixels, weights [B, K]).
      landmark_count: K.
      size: side of the network crop in pixels. A landmark's standard deviation is taken as at least
        1/100 of it in every direction, so that a landmark seen once or never stays usable.
    """
    count = np.zeros(landmark_count)
    total = np.zeros((landmark_count, 2))
    outer = np.zeros((landmark_count, 2, 2))
    # About the crop's centre, so that the difference of large squares keeps its digits.
    origin = (size - 1) / 2
    for points, weights in batches:
        p = np.asarray(points, np.float64) - origin
        w = np.asarray(weights, np.float64)
        count += w.sum(0)
        total += np.einsum("nk,nki->ki", w, p)
        outer += np.einsum("nk,nki,nkj->kij", w, p, p)
    n = np.maximum(count, 1)
    mean = total / n[:, None]
    covariance = outer / n[:, None, None] - np.einsum("ki,kj->kij", mean, mean)
    # A landmark that was never labelled: somewhere in the crop.
    covariance[count == 0] = np.eye(2) * (size / 4) ** 2
    eigenvalues, vectors = np.linalg.eigh(covariance)
    scale = 1 / np.sqrt(np.maximum(eigenvalues, (size / 100) ** 2))
    factor = np.einsum("kij,kj,klj->kil", vectors, scale, vectors)
    return Whitening(mean + origin, factor)
