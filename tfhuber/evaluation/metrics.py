"""How good predicted landmarks are: NME, FR, AUC, PCKh.

NumPy in float64 only. Points are in original image pixels. A landmark counts where its weight is
positive; an example counts where it has such a landmark and, where errors are relative to a length of
the face or head, that length.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = [
    "auc",
    "evaluate_landmarks",
    "failure_rate",
    "nme",
    "pckh",
    "point_errors",
]


def point_errors(predicted: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Compute the distances [N, K] of predicted from true landmarks, in the pixels of their common frame.

    A landmark without a label may have any `truth`, NaN included: what is measured of such distances
    leaves it out by its weight.

    Args:
      predicted: [N, K, 2] points, finite.
      truth: [N, K, 2] points.

    Raises:
      ValueError: if the shapes differ, or a prediction is not finite (its example is named).

    Example:
      >>> point_errors([[[3.0, 4.0]]], [[[0.0, 0.0]]])
      array([[5.]])
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if predicted.ndim != 3 or predicted.shape[-1] != 2 or predicted.shape != truth.shape:
        raise ValueError(
            "predicted and truth must both be [examples, landmarks, 2], "
            f"got {predicted.shape} and {truth.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(predicted).all(axis=(1, 2)))
    if bad.size:
        raise ValueError(f"predicted must be finite; example {bad[0]} is not ({bad.size} in all)")
    return np.hypot(*np.moveaxis(predicted - truth, -1, 0))


def nme(errors: ArrayLike, normalizer: ArrayLike, weights: ArrayLike) -> np.ndarray:
    """Compute each example's normalised mean error [N], a fraction of its normaliser; NaN without one.

    Args:
      errors: [N, K] distances in pixels.
      normalizer: [N] lengths in the same pixels (WFLW: between the outer eye corners); 0 if unknown.
      weights: [N, K]; landmarks of weight 0 don't count.

    Raises:
      ValueError: if the shapes don't fit, or a labelled landmark's error is not finite.

    Example:
      >>> nme([[1.0, 3.0, 99.0]], [40.0], [[1, 1, 0]])
      array([0.05])
    """
    errors, normalizer, labelled = _checked(errors, normalizer, weights)
    count = labelled.sum(axis=1)
    total = np.where(labelled, errors, 0.0).sum(axis=1)
    result = np.full(len(errors), np.nan)
    np.divide(total, count * normalizer, out=result, where=(count > 0) & (normalizer > 0))
    return result


def failure_rate(nme: ArrayLike, threshold: float = 0.10) -> float:
    """Return the fraction of examples whose normalised mean error exceeds the threshold, NaN left out."""
    return float(np.mean(_present(nme) > threshold))


def auc(nme: ArrayLike, threshold: float = 0.10) -> float:
    """Compute the area under the cumulative error distribution up to the threshold, over it; in 0..1.

    Exact, without a grid: an example of error e adds a step from e on, whose area is max(0, 1 - e/t).
    NaN entries don't count.
    """
    return float(np.mean(np.maximum(0.0, 1.0 - _present(nme) / threshold)))


def pckh(
    errors: ArrayLike,
    head_size: ArrayLike,
    weights: ArrayLike,
    threshold: float,
    groups: Mapping[str, Sequence[int]],
) -> dict[str, float]:
    """Return the fraction of joints found within `threshold` head sizes, by group and pooled as "mean".

    A joint without a label and a person without a head size don't count. "mean" is over all joints
    of all groups together, so that often labelled joints weigh more, as in MPII's own evaluation.
    A group without a single label is left out.

    Args:
      errors: [N, K] distances in pixels.
      head_size: [N] lengths in the same pixels (MPII: 0.6 times the head box's diagonal); 0 if unknown.
      weights: [N, K]; landmarks of weight 0 don't count.
      threshold: 0.5 for PCKh@0.5; an error of exactly that many head sizes is a hit.
      groups: indices of the landmarks in each group, for example `landmarks.MPII.groups`.

    Raises:
      ValueError: if the shapes don't fit, a labelled landmark's error is not finite, or nothing counts.
    """
    errors, head_size, labelled = _checked(errors, head_size, weights)
    counts = labelled & (head_size > 0)[:, None]
    hits = counts & (errors <= threshold * head_size[:, None])
    pooled = [joint for joints in groups.values() for joint in joints]
    if not counts[:, pooled].any():
        raise ValueError("nothing to score: no example has both labelled joints and a head size")
    members = {name: list(joints) for name, joints in groups.items()} | {"mean": pooled}
    return {
        name: float(hits[:, joints].sum() / counts[:, joints].sum())
        for name, joints in members.items()
        if counts[:, joints].any()
    }


def evaluate_landmarks(
    landmark_set: LandmarkSet,
    predicted: ArrayLike,
    truth: ArrayLike,
    weights: ArrayLike,
    normalizer: ArrayLike,
    attributes: ArrayLike | None = None,
) -> dict[str, Any]:
    """Compute what is published for a landmark set, ready for JSON; percentages except `auc_10`.

    For the metric "nme": `nme`, `failure_rate_10`, `auc_10` (0..1), `examples` (how many counted),
    and `subsets` with the same four for the examples that carry each attribute.
    For "pckh": `pckh_0.5`, `pckh_0.1` (means over pooled joints), `examples`, and `joints` with the
    two for each group. Subsets and groups in which nothing counts are left out.

    Args:
      landmark_set: what the K landmarks are, and by which metric they are measured.
      predicted: [N, K, 2] points in original image pixels.
      truth: [N, K, 2] labels in original image pixels.
      weights: [N, K]; landmarks of weight 0 don't count.
      normalizer: [N] eye distance or head size in original image pixels; 0 if unknown.
      attributes: [N, A] flags in the order of `landmark_set.attributes`, or None.

    Raises:
      ValueError: if shapes don't fit, a prediction is not finite, or no example counts.
    """
    errors = point_errors(predicted, truth)
    if errors.shape[1] != landmark_set.count:
        raise ValueError(
            f"predicted must have the {landmark_set.count} landmarks of {landmark_set.name}, "
            f"got {errors.shape[1]}"
        )
    if landmark_set.metric == "pckh":
        return _pckh_summary(errors, normalizer, weights, landmark_set.groups)

    values = nme(errors, normalizer, weights)
    if np.isnan(values).all():
        raise ValueError("nothing to score: no example has both labels and a normalizer")
    summary: dict[str, Any] = _nme_summary(values)
    if attributes is not None and landmark_set.attributes:
        flags = np.asarray(attributes) > 0
        expected = (len(values), len(landmark_set.attributes))
        if flags.shape != expected:
            raise ValueError(f"attributes must be {expected}, got {flags.shape}")
        summary["subsets"] = {
            name: _nme_summary(values[flagged])
            for name, flagged in zip(landmark_set.attributes, flags.T, strict=True)
            if np.isfinite(values[flagged]).any()
        }
    return summary


def _nme_summary(values: np.ndarray) -> dict[str, Any]:
    return {
        "nme": 100.0 * float(np.nanmean(values)),
        "failure_rate_10": 100.0 * failure_rate(values),
        "auc_10": auc(values),
        "examples": int(np.isfinite(values).sum()),
    }


def _pckh_summary(
    errors: ArrayLike,
    head_size: ArrayLike,
    weights: ArrayLike,
    groups: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    found = {f"pckh_{t}": pckh(errors, head_size, weights, t, groups) for t in (0.5, 0.1)}
    percent: dict[str, Any] = {
        name: {key: 100.0 * fractions[name] for key, fractions in found.items()}
        for name in found["pckh_0.5"]
    }
    counted = (np.asarray(weights) > 0).any(axis=1) & (np.asarray(head_size) > 0)
    return percent.pop("mean") | {"examples": int(counted.sum()), "joints": percent}


def _checked(
    errors: ArrayLike, normalizer: ArrayLike, weights: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return errors [N, K], normaliser [N] (0 where unknown or not finite) and what is labelled [N, K]."""
    errors, labelled = np.asarray(errors, np.float64), np.asarray(weights) > 0
    normalizer = np.asarray(normalizer, np.float64)
    if errors.ndim != 2 or labelled.shape != errors.shape or normalizer.shape != errors.shape[:1]:
        raise ValueError(
            "errors and weights must be [examples, landmarks] and normalizer [examples], "
            f"got {errors.shape}, {labelled.shape} and {normalizer.shape}"
        )
    bad = np.flatnonzero((labelled & ~np.isfinite(errors)).any(axis=1))
    if bad.size:
        raise ValueError(
            f"errors must be finite where weights are positive; example {bad[0]} is not"
        )
    return errors, np.where(np.isfinite(normalizer), normalizer, 0.0), labelled


def _present(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if np.isnan(values).all():
        raise ValueError("nme must hold at least one number, got none but NaN")
    return values[~np.isnan(values)]
