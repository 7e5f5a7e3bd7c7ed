"""The metrics of a model's predictions for a split."""

import math
from typing import Any

import numpy as np

from tfhuber.data.dataset import Split
from tfhuber.drawing import ellipses
from tfhuber.evaluation import metrics as landmark_metrics
from tfhuber.evaluation import reliability
from tfhuber.evaluation.predictions import Predictions, collect
from tfhuber.model.predictor import Predictor

__all__ = [
    "calibration_errors",
    "deviations",
    "error_unit",
    "evaluate",
    "headline",
    "landmark_errors",
    "summarise",
]

LEVELS = (0.5, 0.9, 0.95)


def evaluate(
    predictor: Predictor, split: Split, tta: str = "none", predictions: Predictions | None = None
) -> dict[str, Any]:
    """Compute the metrics of a model on a split, ready for JSON.

    Args:
      predictor: the model.
      split: what it is measured on.
      tta: as in `Predictor.predict`.
      predictions: what `collect` returns for these, if it is there already.

    Raises:
      ValueError: if the split has no labels, or its landmarks are not those that the model predicts.
    """
    if predictions is None:
        predictions = collect(predictor, split, tta)
    if not predictions.weights.any():
        raise ValueError(f"split {split.name!r} of {split.directory} has no labels to compare with")
    return {"split": split.name, "tta": tta, **summarise(predictor, predictions)}


def summarise(predictor: Predictor, predictions: Predictions) -> dict[str, Any]:
    """Compute the landmark set's point metrics, loss, likelihoods, coverage, sharpness and calibration.

    `loss` is eq. 6 (no constant) and `nll_relative` measures constants against the Gaussian's (the
    paper's table 3), both in normalised coordinates; `nll` is the density's, in original pixels. Each
    is a mean over examples of the sum over landmarks.

    `sharpness` holds `reliability.sharpness` in original pixels and, as everything in `calibration`, in
    percent of the normaliser. `calibration` compares, landmark by landmark, the mean distance from the
    label that the distribution expects with the actual one: their rank correlation, and in bins of
    734 (figure 3) their means and the slope of `reliability.CalibrationCurve`.
    """
    p = predictions
    found = landmark_metrics.evaluate_landmarks(
        predictor.landmark_set, p.landmarks, p.truth, p.weights, p.normalizer, p.attributes
    )
    constant = float(predictor.energy.log_normalizer(2)) - math.log(2 * math.pi)
    relative = p.loss + constant * p.weights.sum(axis=1)
    covered = reliability.coverage(p.radial_cdf, p.weights, LEVELS)
    return {
        **found,
        "loss": float(p.loss.mean()),
        "nll_relative": float(relative.mean()),
        "nll": float(p.nll.mean()),
        **{f"coverage_{round(100 * level)}": value for level, value in covered.items()},
        "sharpness": _sharpness(predictor, predictions),
        "calibration": _calibration(predictor, predictions),
    }


def calibration_errors(
    predictor: Predictor, predictions: Predictions
) -> tuple[np.ndarray, np.ndarray]:
    """Return expected and actual errors [M] of the labelled landmarks, in percent of the normaliser.

    Expected is the exact mean distance of the predicted distribution, E|y - mu|, so that what it is
    compared to are plain means of distances. Examples without a normaliser are left out.
    """
    expected, actual, counted = _relative_errors(predictor, predictions)
    return expected[counted], actual[counted]


def landmark_errors(
    predictor: Predictor, predictions: Predictions
) -> tuple[np.ndarray, np.ndarray]:
    """Return each landmark's mean expected and actual errors [K], in percent of the normaliser.

    As in `calibration_errors`; NaN for a landmark that is never labelled.
    """
    expected, actual, counted = _relative_errors(predictor, predictions)
    count = counted.sum(axis=0)
    count = np.where(count > 0, count, np.nan)
    means = [np.where(counted, errors, 0).sum(axis=0) / count for errors in (expected, actual)]
    return means[0], means[1]


def deviations(predictions: Predictions) -> dict[str, np.ndarray]:
    """Return the predicted standard deviations sqrt(trace / 2) of the labelled landmarks.

    Returns:
      `pixels`: [M] in original pixels; `percent`: [L] of the normaliser, where there is one.
    """
    deviation = ellipses.standard_deviation(predictions.covariance.astype(np.float64))
    counted, percent = _in_percent(predictions)
    return {
        "pixels": deviation[predictions.weights > 0],
        "percent": (deviation * percent)[counted],
    }


def error_unit(predictor: Predictor) -> str:
    """Say in words what errors are measured in where they are relative to an example's normaliser."""
    normalizer, names = predictor.landmark_set.normalizer, predictor.landmark_set.names
    if isinstance(normalizer, str):
        return {"box": "% of the box's size", "reader": "% of the head size"}[normalizer]
    return f"% of the distance from {names[normalizer[0]]} to {names[normalizer[1]]}"


def headline(metrics: dict[str, Any]) -> str:
    """Return the metric that a run is known by, as text."""
    if "pckh_0.5" in metrics:
        return f"PCKh@0.5 {metrics['pckh_0.5']:.2f} % on {metrics['split']}"
    return f"NME {metrics['nme']:.2f} % on {metrics['split']}"


def _relative_errors(
    predictor: Predictor, predictions: Predictions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return expected and actual errors in percent of the normaliser, and which count; [N, K] each."""
    p, energy = predictions, predictor.energy
    mean_radius = math.exp(energy.log_integral(2) - energy.log_integral(1))
    expected = reliability.expected_distance(p.covariance, mean_radius / math.sqrt(energy.kappa(2)))
    counted, percent = _in_percent(p)
    actual = landmark_metrics.point_errors(p.landmarks, p.truth)
    return expected * percent, actual * percent, counted


def _in_percent(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return which landmarks count [N, K], and the factor [N, 1] from pixels to percent."""
    normalizer = predictions.normalizer[:, None].astype(np.float64)
    counted = (predictions.weights > 0) & (normalizer > 0)
    return counted, 100 / np.where(normalizer > 0, normalizer, 1)


def _sharpness(predictor: Predictor, predictions: Predictions) -> dict[str, dict[str, float]]:
    options, covariance = predictor.options, predictions.covariance
    radius = ellipses.radius_for(0.9, options.family, options.delta)
    counted, percent = _in_percent(predictions)
    relative = covariance * np.square(percent)[..., None, None]
    return {
        "pixels": reliability.sharpness(covariance[predictions.weights > 0], radius),
        "percent": reliability.sharpness(relative[counted], radius),
    }


def _calibration(predictor: Predictor, predictions: Predictions) -> dict[str, Any]:
    expected, actual = calibration_errors(predictor, predictions)
    curve = reliability.calibration_curve(expected, actual)
    return {
        "slope": curve.slope,
        "rank_correlation": reliability.rank_correlation(expected, actual),
        "expected_error": float(expected.mean()),
        "empirical_error": float(actual.mean()),
        "unit": error_unit(predictor),
        "bins": {
            "expected": curve.expected.tolist(),
            "empirical": curve.empirical.tolist(),
            "count": curve.count.tolist(),
        },
    }
