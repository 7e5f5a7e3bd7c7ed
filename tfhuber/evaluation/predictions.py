"""What a model predicts for a split, in the original images' pixels."""

from dataclasses import dataclass, fields

import numpy as np

__all__ = ["Predictions", "collect"]


@dataclass(frozen=True)
class Predictions:
    """What a model says of N examples, with the truth beside it; original image pixels throughout.

    Attributes:
      id: [N] example ids.
      landmarks: [N, K, 2] predicted positions.
      covariance: [N, K, 2, 2] predicted covariances.
      truth: [N, K, 2] labels.
      weights: [N, K] 1 where labelled.
      normalizer: [N] what errors are divided by; 0 if unknown.
      attributes: [N, A] flags.
      radial_cdf: [N, K] probability of the ellipse through the label.
      loss: [N] eq. 6 in normalised coordinates, summed over labelled landmarks.
      nll: [N] negative log-density of the labels in original pixels, summed over labelled landmarks.
    """

    id: np.ndarray
    landmarks: np.ndarray
    covariance: np.ndarray
    truth: np.ndarray
    weights: np.ndarray
    normalizer: np.ndarray
    attributes: np.ndarray
    radial_cdf: np.ndarray
    loss: np.ndarray
    nll: np.ndarray


def collect(predictor, split, tta: str = "none") -> Predictions:
    """Predictions for every example of a split, in its order.

    Args:
      predictor: `inference.Predictor`.
      split: `inputs.Split`.
      tta: as in `Predictor.predict`.

    Raises:
      ValueError: if the split's landmarks are not those that the model predicts.
    """
    from tfhuber.data import dataset

    if split.landmark_set != predictor.landmark_set:
        theirs, ours = split.landmark_set.name, predictor.landmark_set.name
        raise ValueError(
            f"the model predicts {ours} landmarks, but {split.directory} holds {theirs}"
            + (", which are others of that name" if theirs == ours else "")
        )
    batches = dataset.evaluation_batches(split, predictor.config)
    rows = [
        _original_frame(predictor, batch, *predictor.compiled(tta)(batch["image"]))
        for batch in dataset.readable(batches, split)
    ]
    return Predictions(
        **{f.name: np.concatenate([row[f.name] for row in rows]) for f in fields(Predictions)}
    )


def _original_frame(predictor, batch, loc, precision_factor) -> dict:
    """One batch's entries of `Predictions`, from its predictions in the network crop's frame."""
    import tensorflow as tf

    from tfhuber.geometry import projective
    from tfhuber.linalg import small_matrix

    here = predictor.distribution(loc, precision_factor)
    weights = batch["weights"]
    log_det = small_matrix.log_determinant(precision_factor)
    whitening_log_det = tf.constant(predictor.whitening.log_det, tf.float32)
    radius = here.radius(batch["landmarks"])
    energy = predictor.energy.energy(radius**2)
    constant = float(predictor.energy.log_normalizer(2))

    to_original = projective.invert(batch["to_network"])
    jacobian = projective.jacobian(to_original, loc)
    there = predictor.distribution(
        projective.apply_map(to_original, loc),
        projective.push_precision_factor(jacobian, precision_factor),
    )
    to_original_log_det = tf.math.log(tf.abs(tf.linalg.det(jacobian)))
    values = {
        "id": batch["id"],
        "landmarks": there.mean(),
        "covariance": there.covariance(),
        "truth": batch["landmarks_original"],
        "weights": weights,
        "normalizer": batch["normalizer"],
        "attributes": batch["attributes"],
        "radial_cdf": here.radial_cdf(batch["landmarks"]),
        "loss": tf.reduce_sum(weights * (energy - log_det + whitening_log_det), axis=1),
        "nll": tf.reduce_sum(weights * (energy - log_det + to_original_log_det + constant), axis=1),
    }
    return {name: value.numpy() for name, value in values.items()}
