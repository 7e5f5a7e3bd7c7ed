"""What a model predicts for a split, in the original images' pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import tensorflow as tf

from tfhuber.data import dataset
from tfhuber.data.dataset import Split
from tfhuber.distributions.location_scatter import LocationScatter
from tfhuber.geometry import projective
from tfhuber.model.predictor import Predictor

__all__ = ["Predictions", "collect"]


@dataclass(frozen=True)
class Predictions:
    """What a model says of N examples, with the truth beside it; original image pixels throughout.

    Attributes:
      id: [N] example ids.
      predicted: [N, K] the distributions of the landmarks, in NumPy.
      covariance: [N, K, 2, 2] their covariances.
      truth: [N, K, 2] labels.
      weights: [N, K] 1 where labelled.
      normalizer: [N] what errors are divided by; 0 if unknown.
      attributes: [N, A] flags.
      radial_cdf: [N, K] probability of the ellipse through the label.
      loss: [N] eq. 6 in normalised coordinates, summed over labelled landmarks.
      nll: [N] negative log-density of the labels in original pixels, summed over labelled landmarks.
      size: [N] minus the mean log-determinant of A over landmarks, in the network crop's pixels, as the
        model said it before any calibration: the larger, the less sure.
      to_network: [N, 3, 3] the maps from original pixels to the network crop's.
    """

    id: np.ndarray
    predicted: LocationScatter
    covariance: np.ndarray
    truth: np.ndarray
    weights: np.ndarray
    normalizer: np.ndarray
    attributes: np.ndarray
    radial_cdf: np.ndarray
    loss: np.ndarray
    nll: np.ndarray
    size: np.ndarray
    to_network: np.ndarray

    @property
    def landmarks(self) -> np.ndarray:
        """The predicted positions [N, K, 2]."""
        return self.predicted.loc

    @classmethod
    def joined(cls, parts: "Sequence[Predictions]", order: Sequence[bytes]) -> Self:
        """Return parts of a split together, by the ids of its examples in their order.

        Raises:
          ValueError: the parts hold other examples.
        """
        values = [vars(part) for part in parts]
        whole = tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *values)
        place = {id: i for i, id in enumerate(whole["id"])}
        if set(place) != set(order):
            raise ValueError("the folds are of other examples than the data set holds now")
        rows = [place[id] for id in order]
        return cls(**tf.nest.map_structure(lambda array: array[rows], whole))


def collect(predictor: Predictor, split: Split, tta: str = "none") -> Predictions:
    """Predict every example of a split, in its order.

    Args:
      predictor: the model.
      split: whose examples.
      tta: as in `Predictor.predict`.

    Raises:
      ValueError: if the split's landmarks are not those that the model predicts.
    """
    if split.landmark_set != predictor.landmark_set:
        theirs, ours = split.landmark_set.name, predictor.landmark_set.name
        raise ValueError(
            f"the model predicts {ours} landmarks, but {split.directory} holds {theirs}"
            + (", which are others of that name" if theirs == ours else "")
        )
    batches = dataset.evaluation_batches(split, predictor.options.image_size, predictor.batch_size)
    predict = predictor.compiled(tta)
    parts = [
        _original_frame(predictor, batch, predict(batch["image"]))
        for batch in dataset.readable(batches, split)
    ]
    return Predictions(**tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts))


def _original_frame(
    predictor: Predictor, batch: dict[str, tf.Tensor], here: LocationScatter
) -> dict[str, Any]:
    """Return one batch's entries of `Predictions`, from its predictions in the network crop's pixels."""
    there = here.through(projective.invert(batch["to_network"]))
    weights, distribution = batch["weights"], here.distribution(predictor.energy)
    energy = predictor.energy.energy(distribution.radius(batch["landmarks"]) ** 2)
    whitening_log_det = tf.constant(predictor.whitening.log_det, tf.float32)
    constant = float(predictor.energy.log_normalizer(2))
    values = {
        "id": batch["id"],
        "predicted": there,
        "covariance": there.covariance(predictor.energy),
        "truth": batch["landmarks_original"],
        "weights": weights,
        "normalizer": batch["normalizer"],
        "attributes": batch["attributes"],
        "radial_cdf": distribution.radial_cdf(batch["landmarks"]),
        "loss": tf.reduce_sum(weights * (energy - here.log_det + whitening_log_det), axis=1),
        "nll": tf.reduce_sum(weights * (energy - there.log_det + constant), axis=1),
        "size": -tf.reduce_mean(here.log_det, axis=1),
        "to_network": batch["to_network"],
    }
    return tf.nest.map_structure(lambda value: value.numpy(), values)
