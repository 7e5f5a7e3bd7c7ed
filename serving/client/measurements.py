"""What predictions are used for: measurements for a Kalman filter, a watch on their uncertainty."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Drift", "box_area", "drift", "measurements"]


def measurements(
    found: Mapping[str, np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray] | None]:
    """For each image the measurement z [2K] = (x0, y0, x1, ...) and its covariance R [2K, 2K], in pixels.

    R is block diagonal: the model predicts each landmark's distribution, and says nothing of how the
    errors of two landmarks go together. For a filter per landmark, the pair of landmark k in image i is
    `found["landmarks"][i, k], found["covariance"][i, k]` as it is.

    R is the covariance of the landmarks' places in one image, given that image. A filter takes the
    errors of successive images for independent; in a video they are not quite, so that a filter that is
    fed every frame becomes surer of itself than it should be. Fewer frames, or a larger R, mend that.
    The model's distributions have longer tails than the Gaussian that a Kalman filter assumes.

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
    """How many landmarks are less certain than the model was on the examples that it was exported with.

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
    def of(cls, metadata: Mapping) -> "Drift | None":
        """The watch for a model; None if its metadata, as `metadata()` returns them, have no quantiles."""
        reference = metadata.get("uncertainty")
        if not reference or not reference.get("levels"):
            return None
        return cls(reference["levels"], reference["values"])

    def add(self, covariance: np.ndarray, area: float) -> None:
        """Looks at the landmarks of a picture.

        Args:
          covariance: [K, 2, 2] in square pixels.
          area: of the box that was looked at, in square pixels.
        """
        trace = np.trace(covariance, axis1=-2, axis2=-1)
        relative = np.sqrt(np.maximum(trace, 0) / 2 / max(area, 1e-9))
        self.landmarks += relative.size
        self.beyond = self.beyond + (relative[:, None] > np.asarray(self.values)).sum(0)

    @property
    def shares(self) -> dict[float, float]:
        """For each level the share of landmarks beyond its value; 1 - level is expected."""
        counts = self.beyond / max(self.landmarks, 1)
        return dict(zip(map(float, self.levels), counts.tolist(), strict=True))

    def describe(self, level: float = 0.95) -> str:
        """A line such as "3 % of landmarks are beyond the model's 95 % reference; 5 % expected"."""
        nearest = min(self.shares, key=lambda known: abs(known - level))
        percent = 100 * self.shares[nearest]
        share = f"{percent:.2g}" if percent < 10 else f"{percent:.0f}"
        return (
            f"{share} % of landmarks are beyond the model's "
            f"{100 * nearest:g} % reference; {100 * (1 - nearest):.2g} % expected"
        )


def drift(
    found: Mapping[str, np.ndarray],
    boxes: np.ndarray | Sequence | None,
    sizes: np.ndarray | Sequence,
    metadata: Mapping,
) -> dict[float, float] | None:
    """The share of landmarks that are less certain than each of the model's reference quantiles.

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
    """Square pixels of a box, or of the whole picture of that width and height."""
    return float(size[0] * size[1] if box is None else (box[2] - box[0]) * (box[3] - box[1]))
