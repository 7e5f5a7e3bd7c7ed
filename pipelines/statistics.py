"""Statistics of examples, gathered by the job as it writes them and by `verify` as it reads them again."""

from collections import Counter

import numpy as np

from tfhuber.geometry.box_square import region_around
from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = ["Statistics"]

_PENDING = 256


class Statistics:
    """Counts and moments of a shard's or a split's examples; those of parts add up to those of the whole.

    Landmarks are counted, and their moments taken, relative to the square that the network sees for
    the box: 0 is its centre and 1 half its side.

    Args:
      landmark_set: what the examples' landmarks are.

    Example:
      >>> statistics = Statistics(landmark_set)
      >>> statistics.add(records.decode(record))
      >>> statistics.summary()["examples"]
      1
    """

    def __init__(self, landmark_set: LandmarkSet):
        count = landmark_set.count
        self._landmark_set = landmark_set
        self._examples = 0
        self._attributes = np.zeros(len(landmark_set.attributes), np.int64)
        self._labelled = np.zeros(count, np.int64)
        self._sums = np.zeros((count, 2))
        self._products = np.zeros((count, 3))  # xx, xy, yy
        self._image_sizes: Counter[str] = Counter()
        self._pending: list[list[np.ndarray]] = []

    def add(self, example: dict) -> None:
        """Count an example, as `records.encode` takes it or `records.decode` gives it."""
        self._examples += 1
        self._attributes += np.asarray(example["attributes"], np.int64)
        self._image_sizes[_size_class(int(example["image_size"].max()))] += 1
        self._pending.append([example[name] for name in ("box", "landmarks", "weights")])
        if len(self._pending) == _PENDING:
            self._add_pending()

    def to_json(self) -> dict:
        """Return the statistics as JSON, which `merge` takes."""
        self._add_pending()
        return {
            "examples": self._examples,
            "attributes": self._attributes.tolist(),
            "labelled": self._labelled.tolist(),
            "sums": self._sums.tolist(),
            "products": self._products.tolist(),
            "image_sizes": dict(self._image_sizes),
        }

    def merge(self, values: dict) -> None:
        """Add what `to_json` of another part gave."""
        self._examples += values["examples"]
        self._attributes += np.array(values["attributes"], np.int64)
        self._labelled += values["labelled"]
        self._sums += values["sums"]
        self._products += values["products"]
        self._image_sizes.update(values["image_sizes"])

    def summary(self) -> dict:
        """Return, for a manifest, counts of examples, labels, attributes and sizes, and moments.

        `landmarks` has each landmark's labels, mean [2] and covariance [2, 2].
        `image_sizes` counts the original images (each as often as it gave an example) by their longer
        side in pixels: "256-511" and so on, by powers of two.
        """
        self._add_pending()
        count = np.maximum(self._labelled, 1)[:, np.newaxis]
        mean = self._sums / count
        xx, xy, yy = (self._products / count).T
        covariance = np.stack([xx, xy, xy, yy], axis=1).reshape(-1, 2, 2)
        covariance = covariance - mean[:, :, np.newaxis] * mean[:, np.newaxis, :]
        names = self._landmark_set.names
        return {
            "examples": self._examples,
            "landmarks": {
                name: {"labelled": int(n), "mean": m.tolist(), "covariance": c.tolist()}
                for name, n, m, c in zip(names, self._labelled, mean, covariance, strict=True)
            },
            "attributes": dict(
                zip(self._landmark_set.attributes, self._attributes.tolist(), strict=True)
            ),
            "image_sizes": dict(
                sorted(self._image_sizes.items(), key=lambda item: int(item[0].split("-")[0]))
            ),
        }

    def _add_pending(self) -> None:
        """Add the moments of the examples that wait for it: many at a time cost as much as one."""
        if not self._pending:
            return
        boxes, points, weights = map(np.stack, zip(*self._pending, strict=True))
        self._pending.clear()
        region = region_around(boxes.astype(np.float64), self._landmark_set.square)
        centre, half = (np.stack(pair, axis=-1)[:, np.newaxis] for pair in (region[:2], region[2:]))
        points = (points.reshape(*weights.shape, 2).astype(np.float64) - centre) / half
        labelled = weights > 0
        x, y = np.moveaxis(np.where(labelled[..., np.newaxis], points, 0.0), -1, 0)
        self._labelled += labelled.sum(axis=0)
        self._sums += np.stack([x, y], axis=-1).sum(axis=0)
        self._products += np.stack([x * x, x * y, y * y], axis=-1).sum(axis=0)


def _size_class(side: int) -> str:
    low = 1 << (max(side, 1).bit_length() - 1)
    return f"{low}-{2 * low - 1}"
