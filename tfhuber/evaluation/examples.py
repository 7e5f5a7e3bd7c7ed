"""Chosen examples of a split with what a model says of them, as pictures."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from PIL import Image

from tfhuber.data import dataset
from tfhuber.data.dataset import Split
from tfhuber.drawing import overlay
from tfhuber.evaluation import metrics
from tfhuber.evaluation.predictions import Predictions
from tfhuber.geometry import projective
from tfhuber.model.predictor import Predictor

__all__ = ["Crop", "View", "best_median_worst", "crops", "draw", "views"]


@dataclass(frozen=True)
class Crop:
    """An example's network crop, enlarged, with the predictions in its pixels.

    Attributes:
      image: [S, S, 3] uint8.
      landmarks: [K, 2] predicted positions.
      covariance: [K, 2, 2] predicted covariances.
      truth: [K, 2] labels; NaN where there is none.
    """

    image: np.ndarray
    landmarks: np.ndarray
    covariance: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class View:
    """An example's network crop, enlarged, without predictions.

    Attributes:
      image: [S, S, 3] uint8.
      from_original: [3, 3] map from the original image's pixels.
      truth: [K, 2] labels; NaN where there is none.
    """

    image: np.ndarray
    from_original: np.ndarray
    truth: np.ndarray

    def crop(self, landmarks: np.ndarray, covariance: np.ndarray) -> Crop:
        """Return the crop with predictions [K, 2] and [K, 2, 2], given in original pixels."""
        points = tf.constant(landmarks)
        jacobian = projective.jacobian(self.from_original, points)
        return Crop(
            self.image,
            projective.apply_map(self.from_original, points).numpy(),
            projective.push_covariance(jacobian, covariance).numpy(),
            self.truth,
        )


def views(split: Split, indices: Iterable[int], size: int, batch_size: int) -> dict[int, View]:
    """Return the examples with these indices in the split, `size` pixels wide.

    Args:
      split: whose examples.
      indices: of examples, in the split's order.
      size: side of the enlarged crops in pixels.
      batch_size: how many are read at once.
    """
    places = sorted({int(index) for index in indices})
    batches = dataset.evaluation_batches(split, size, batch_size, places)
    rows = (row for batch in dataset.readable(batches, split) for row in _rows(batch))
    return {index: _view(row) for index, row in zip(places, rows, strict=True)}


def crops(
    predictor: Predictor, split: Split, predictions: Predictions, indices: Iterable[int], size: int
) -> dict[int, Crop]:
    """Return the network crops of the examples with these indices in the split, `size` pixels wide.

    Args:
      predictor: the model.
      split: whose examples.
      predictions: of that split, by that model.
      indices: of examples, in the split's order.
      size: side of the enlarged crops in pixels.
    """
    return {
        index: view.crop(predictions.landmarks[index], predictions.covariance[index])
        for index, view in views(split, indices, size, predictor.batch_size).items()
    }


def draw(predictor: Predictor, crop: Crop) -> Image.Image:
    """Return a picture of the crop, of its size, with the 90 % ellipses that the model predicts."""
    return overlay.draw_overlay(
        Image.fromarray(crop.image),
        crop.landmarks,
        crop.covariance,
        edges=predictor.landmark_set.edges,
        family=predictor.options.family,
        delta=predictor.options.delta,
        min_side=len(crop.image),
        max_side=len(crop.image),
        legend=False,
    )


def best_median_worst(predictor: Predictor, split: Split, predictions: Predictions) -> Image.Image:
    """Return a sheet of the best, median and worst examples by mean error, with 90 % ellipses.

    Args:
      predictor: the model.
      split: whose examples.
      predictions: of that split, by that model.
    """
    errors = metrics.point_errors(predictions.landmarks, predictions.truth)
    relative = metrics.nme(errors, predictions.normalizer, predictions.weights)
    order = np.argsort(relative)[: np.isfinite(relative).sum()]
    count = min(4, len(order))
    middle = (len(order) - count) // 2
    picks = {
        "best": order[:count],
        "median": order[middle : middle + count],
        "worst": order[::-1][:count],
    }
    wanted = np.concatenate(list(picks.values()))
    pictures = {
        index: draw(predictor, crop)
        for index, crop in crops(predictor, split, predictions, wanted, size=360).items()
    }
    rows = {
        name: [(pictures[int(i)], f"{100 * relative[i]:.1f} %") for i in chosen]
        for name, chosen in picks.items()
    }
    return overlay.evaluation_sheet(rows, title=f"{split.name}: mean error, 90 % ellipses")


def _rows(batch: dict[str, tf.Tensor]) -> list[dict[str, np.ndarray]]:
    """Return one dict an example."""
    arrays = {name: value.numpy() for name, value in batch.items()}
    return [{name: array[i] for name, array in arrays.items()} for i in range(len(arrays["image"]))]


def _view(row: dict[str, np.ndarray]) -> View:
    truth = np.where(row["weights"][:, None] > 0, row["landmarks"], np.nan)
    return View(row["image"].clip(0, 255).astype(np.uint8), row["to_network"], truth)
