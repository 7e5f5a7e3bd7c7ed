"""What predictions are used for: a Kalman filter's measurements, and a watch on their uncertainty."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tfhuber.drawing.ellipses import standard_deviation
from tfhuber.saved_model.metadata import uncertainty_quantiles

__all__ = ["Drift", "box_area", "drift", "measurements"]


def measurements(
    found: Mapping[str, np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray] | None]:
    """Yield each image's measurement z [2K] = (x0, y0, x1, ...) and its covariance R [2K, 2K], in pixels.

    R is block diagonal: the model predicts each landmark's distribution, and says nothing of how the
    errors of two landmarks go together. For a filter per landmark, the pair of landmark k in image i is
    `found["landmarks"][i, k], found["covariance"][i, k]` as it is.

    R is the covariance of the landmarks' places in one image, given that image. In a video most of the
    error is a slow bias that neighbouring frames share; what is new in each frame is far smaller than R (on
    a mouse's film by a factor of 50). A filter that takes R for white noise follows the motion too
    slowly, and still becomes surer of the place than it should be, because it averages a bias that does not
    go away. No single factor on R mends both: the error must be split in two, as `tfhuber.track` does,
    which also has Huber's longer tails.

    Args:
      found: what `predict` returned, with N images of K landmarks.

    Yields:
      z and R, float64; None for an image that is not valid, for which a filter only predicts.

    Example:
      >>> found = {
      ...     "landmarks": np.array([[[3, 4], [5, 6]]]),
      ...     "covariance": np.array([[[[4, 1], [1, 2]], [[1, 0], [0, 1]]]]),
      ...     "valid": np.array([True]),
      ... }
      >>> for z, R in measurements(found):
      ...     print(z, R.tolist())
      [3. 4. 5. 6.] [[4.0, 1.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    rows = zip(found["landmarks"], found["covariance"], found["valid"], strict=True)
    for landmarks, covariance, valid in rows:
        if not valid:
            yield None
            continue
        count = len(landmarks)
        blocks = np.zeros((count, 2, count, 2))
        blocks[np.arange(count), :, np.arange(count), :] = covariance
        yield np.asarray(landmarks, np.float64).ravel(), blocks.reshape(2 * count, 2 * count)


@dataclass
class Drift:
    """Counts of landmarks that are less certain than the model was on the examples of its export.

    The uncertainty of a landmark is the root of half its covariance's trace over the root of the
    box's area. The model's metadata hold quantiles of that over real examples; where the pictures are
    like those, 5 % of the landmarks are beyond the quantile of 95 %.

    Attributes:
      levels: of the quantiles, ascending.
      values: the quantiles.
      landmarks: how many have been looked at.
      beyond: of these, how many were beyond each value.
    """

    levels: Sequence[float]
    values: Sequence[float]
    landmarks: int = 0
    beyond: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    def __post_init__(self):
        if len(self.beyond) != len(self.values):
            self.beyond = np.zeros(len(self.values), int)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "Drift | None":
        """Return the watch for a model, from what `metadata()` returns; None if it has no quantiles.

        Raises:
          ValueError: they have some that make no sense.
        """
        quantiles = uncertainty_quantiles(metadata)
        return cls([*quantiles], [*quantiles.values()]) if quantiles else None

    def add(self, covariance: np.ndarray, area: float) -> None:
        """Count the landmarks of a picture.

        Args:
          covariance: [K, 2, 2] in square pixels.
          area: of the box that was looked at, in square pixels.
        """
        relative = standard_deviation(covariance) / math.sqrt(max(area, 1e-9))
        self.landmarks += relative.size
        self.beyond = self.beyond + (relative[:, None] > np.asarray(self.values)).sum(0)

    @property
    def shares(self) -> dict[float, float]:
        """The share of landmarks beyond each level's value, by level; 1 - level is expected."""
        counts = self.beyond / max(self.landmarks, 1)
        return dict(zip(map(float, self.levels), counts.tolist(), strict=True))

    def describe(self, level: float = 0.95) -> str:
        """Return a line such as "3 % of landmarks are beyond the model's 95 % reference; 5 % expected"."""
        nearest = min(self.shares, key=lambda known: abs(known - level))
        percent = 100 * self.shares[nearest]
        share = f"{percent:.2g}" if percent < 10 else f"{percent:.0f}"
        return (
            f"{share} % of landmarks are beyond the model's "
            f"{100 * nearest:g} % reference; {100 * (1 - nearest):.2g} % expected"
        )


def drift(
    found: Mapping[str, np.ndarray],
    boxes: ArrayLike | None,
    sizes: Sequence[Sequence[int]] | np.ndarray,
    metadata: Mapping[str, Any],
) -> dict[float, float] | None:
    """Return the share of landmarks that are less certain than each of the model's reference quantiles.

    Args:
      found: what `predict` returned, with N images.
      boxes: [N, 4] as they were given to it; None, or zeros, for whole images.
      sizes: [N, 2] width and height of each image in pixels.
      metadata: what `metadata()` returned.

    Returns:
      For each level the share of the valid images' landmarks that are beyond its value, where
      1 - level is expected; None if the model has no reference.
    """
    watch = Drift.of(metadata)
    if watch is None:
        return None
    boxes = np.zeros((len(sizes), 4)) if boxes is None else np.asarray(boxes, np.float64)
    rows = zip(found["covariance"], found["valid"], boxes, sizes, strict=True)
    for covariance, valid, box, size in rows:
        if valid:
            watch.add(covariance, box_area(box if np.any(box) else None, size))
    return watch.shares


def box_area(box: np.ndarray | None, size: Sequence[int]) -> float:
    """Return the square pixels of a box, or of the whole picture of that width and height."""
    return float(size[0] * size[1] if box is None else (box[2] - box[0]) * (box[3] - box[1]))
