"""Chosen examples of a split with what a model says of them, as pictures."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from PIL import Image

from tfhuber.data import dataset
from tfhuber.drawing import overlay
from tfhuber.evaluation import metrics
from tfhuber.geometry import projective

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
    """An example's network crop, enlarged, before a model has said anything of it.

    Attributes:
      image: [S, S, 3] uint8.
      from_original: [3, 3] map from the original image's pixels.
      truth: [K, 2] labels; NaN where there is none.
    """

    image: np.ndarray
    from_original: np.ndarray
    truth: np.ndarray

    def crop(self, landmarks: np.ndarray, covariance: np.ndarray) -> Crop:
        """With predictions [K, 2] and [K, 2, 2], given in original pixels."""
        points = tf.constant(landmarks)
        jacobian = projective.jacobian(self.from_original, points)
        return Crop(
            self.image,
            projective.apply_map(self.from_original, points).numpy(),
            projective.push_covariance(jacobian, covariance).numpy(),
            self.truth,
        )


def views(split, config, indices, size: int) -> dict[int, View]:
    """The examples with these indices in the split, `size` pixels wide.

    Args:
      split: `inputs.Split`.
      config: of the run.
      indices: of examples, in the split's order.
      size: side of the enlarged crops in pixels.
    """
    model = config.model.model_copy(update={"image_size": size})
    config = config.model_copy(update={"model": model})
    places = sorted({int(index) for index in indices})
    batches = dataset.readable(dataset.evaluation_batches(split, config, places), split)
    rows = (row for batch in batches for row in _rows(batch))
    return {index: _view(row) for index, row in zip(places, rows, strict=True)}


def crops(predictor, split, predictions, indices, size: int) -> dict[int, Crop]:
    """The network crops of the examples with these indices in the split, `size` pixels wide.

    Args:
      predictor: `inference.Predictor`.
      split: `inputs.Split`.
      predictions: `evaluate.Predictions` of that split.
      indices: of examples, in the split's order.
      size: side of the enlarged crops in pixels.
    """
    return {
        index: view.crop(predictions.landmarks[index], predictions.covariance[index])
        for index, view in views(split, predictor.config, indices, size).items()
    }


def draw(predictor, crop: Crop) -> Image.Image:
    """A picture of the crop, of its size, with the 90 % ellipses that a model predicts.

    Args:
      predictor: `inference.Predictor`.
      crop: of an example.
    """
    return overlay.draw_overlay(
        Image.fromarray(crop.image),
        crop.landmarks,
        crop.covariance,
        edges=predictor.landmark_set.edges,
        family=predictor.config.model.family,
        delta=predictor.config.model.delta,
        min_side=len(crop.image),
        max_side=len(crop.image),
        legend=False,
    )


def best_median_worst(predictor, split, predictions) -> Image.Image:
    """A sheet of the best, median and worst examples by normalised mean error, with 90 % ellipses.

    Args:
      predictor: `inference.Predictor`.
      split: `inputs.Split`.
      predictions: `evaluate.Predictions` of that split.
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


def _rows(batch: dict) -> list[dict]:
    """One dict an example."""
    arrays = {name: value.numpy() for name, value in batch.items()}
    return [{name: array[i] for name, array in arrays.items()} for i in range(len(arrays["image"]))]


def _view(row: dict) -> View:
    truth = np.where(row["weights"][:, None] > 0, row["landmarks"], np.nan)
    return View(row["image"].clip(0, 255).astype(np.uint8), row["to_network"], truth)
