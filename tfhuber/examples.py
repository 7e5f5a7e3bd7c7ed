"""Chosen examples of a split with what a model says of them, as pictures."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from PIL import Image

from tfhuber import geometry, inputs, metrics, overlay

__all__ = ["Crop", "best_median_worst", "crops"]


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


def crops(predictor, split, predictions, indices, size: int) -> dict[int, Crop]:
    """The network crops of the examples with these indices in the split, `size` pixels wide.

    Args:
      predictor: `inference.Predictor`.
      split: `inputs.Split`.
      predictions: `evaluate.Predictions` of that split.
      indices: of examples, in the split's order.
      size: side of the enlarged crops in pixels.
    """
    model = predictor.config.model.model_copy(update={"image_size": size})
    config = predictor.config.model_copy(update={"model": model})
    found, start = {}, 0
    for batch in inputs.readable(inputs.evaluation_batches(split, config), split):
        count = len(batch["image"])
        for index in sorted({int(i) for i in indices} & set(range(start, start + count))):
            row = {name: value[index - start] for name, value in batch.items()}
            landmarks = tf.constant(predictions.landmarks[index])
            jacobian = geometry.jacobian(row["to_network"], landmarks)
            covariance = geometry.push_covariance(jacobian, predictions.covariance[index])
            truth = tf.where(row["weights"][:, None] > 0, row["landmarks"], np.nan)
            found[index] = Crop(
                tf.cast(tf.clip_by_value(row["image"], 0, 255), tf.uint8).numpy(),
                geometry.apply_map(row["to_network"], landmarks).numpy(),
                covariance.numpy(),
                truth.numpy(),
            )
        start += count
    return found


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
        index: overlay.draw_overlay(
            Image.fromarray(crop.image),
            crop.landmarks,
            crop.covariance,
            edges=predictor.landmark_set.edges,
            family=predictor.config.model.family,
            delta=predictor.config.model.delta,
            min_side=360,
            max_side=360,
            legend=False,
        )
        for index, crop in crops(predictor, split, predictions, wanted, size=360).items()
    }
    rows = {
        name: [(pictures[int(i)], f"{100 * relative[i]:.1f} %") for i in chosen]
        for name, chosen in picks.items()
    }
    return overlay.evaluation_sheet(rows, title=f"{split.name}: mean error, 90 % ellipses")
