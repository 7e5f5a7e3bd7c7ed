"""Measures a run: `python -m tfhuber.evaluate --run DIR [--split test] [--tta none|mean|ml]`.

Prints a table and writes `metrics.json`, `evaluation.png` (best, median and worst examples with their
90 % ellipses) and `calibration.png` (figure 3: expected against empirical error) into the run's directory.
"""

import argparse
import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.files import write_json
from tfhuber.evaluation import metrics as measures
from tfhuber.evaluation import reliability

__all__ = [
    "Predictions",
    "calibration_errors",
    "collect",
    "deviations",
    "error_unit",
    "evaluate",
    "headline",
    "landmark_errors",
    "main",
    "summarise",
]

LEVELS = (0.5, 0.9, 0.95)


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


def evaluate(predictor, split, tta: str = "none", predictions: Predictions | None = None) -> dict:
    """The metrics of a model on a split, as they go to `metrics.json`.

    Args:
      predictor: `inference.Predictor`.
      split: `inputs.Split`.
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


def summarise(predictor, predictions: Predictions) -> dict:
    """Point metrics of the landmark set, loss, likelihoods, coverage, sharpness and calibration.

    `loss` is eq. 6 (no constant) and `nll_relative` measures constants against the Gaussian's (the
    paper's table 3), both in normalised coordinates; `nll` is the density's, in original pixels. Each
    is a mean over examples of the sum over landmarks.

    `sharpness` holds `uncertainty.sharpness` in original pixels and, as everything in `calibration`, in
    percent of the normaliser. `calibration` compares, landmark by landmark, the mean distance from the
    label that the distribution expects with the actual one: their rank correlation, and in bins of
    734 (figure 3) their means and the slope of `uncertainty.CalibrationCurve`.
    """
    p = predictions
    found = measures.evaluate_landmarks(
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


def calibration_errors(predictor, predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Expected and actual errors, [M] each, of the labelled landmarks, in percent of the normaliser.

    Expected is the exact mean distance of the predicted distribution, E|y - mu|, so that what it is
    compared to are plain means of distances. Examples without a normaliser are left out.
    """
    expected, actual, counted = _relative_errors(predictor, predictions)
    return expected[counted], actual[counted]


def landmark_errors(predictor, predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Mean expected and actual errors of each landmark, [K] each, in percent of the normaliser.

    As in `calibration_errors`; NaN for a landmark that is never labelled.
    """
    expected, actual, counted = _relative_errors(predictor, predictions)
    count = counted.sum(axis=0)
    count = np.where(count > 0, count, np.nan)
    return tuple(np.where(counted, errors, 0).sum(axis=0) / count for errors in (expected, actual))


def deviations(predictions: Predictions) -> dict[str, np.ndarray]:
    """Predicted standard deviations sqrt(trace / 2) of the labelled landmarks.

    Returns:
      `pixels`: [M] in original pixels; `percent`: [L] of the normaliser, where there is one.
    """
    trace = np.trace(predictions.covariance.astype(np.float64), axis1=-2, axis2=-1)
    deviation = np.sqrt(trace.clip(0) / 2)
    counted, percent = _in_percent(predictions)
    return {
        "pixels": deviation[predictions.weights > 0],
        "percent": (deviation * percent)[counted],
    }


def error_unit(predictor) -> str:
    """In words, what errors are measured in where they are relative to an example's normaliser."""
    normalizer, names = predictor.landmark_set.normalizer, predictor.landmark_set.names
    if isinstance(normalizer, str):
        return {"box": "% of the box's size", "reader": "% of the head size"}[normalizer]
    return f"% of the distance from {names[normalizer[0]]} to {names[normalizer[1]]}"


def headline(metrics: dict) -> str:
    """The metric that a run is known by, as text."""
    if "pckh_0.5" in metrics:
        return f"PCKh@0.5 {metrics['pckh_0.5']:.2f} % on {metrics['split']}"
    return f"NME {metrics['nme']:.2f} % on {metrics['split']}"


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


def _relative_errors(predictor, predictions: Predictions) -> tuple[np.ndarray, ...]:
    """Expected and actual errors in percent of the normaliser, and which of them count; [N, K] each."""
    p, energy = predictions, predictor.energy
    mean_radius = math.exp(energy.log_integral(2) - energy.log_integral(1))
    expected = reliability.expected_distance(p.covariance, mean_radius / math.sqrt(energy.kappa(2)))
    counted, percent = _in_percent(p)
    actual = measures.point_errors(p.landmarks, p.truth)
    return expected * percent, actual * percent, counted


def _in_percent(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Which landmarks count, [N, K], and the factor [N, 1] from pixels to percent of the normaliser."""
    normalizer = predictions.normalizer[:, None].astype(np.float64)
    counted = (predictions.weights > 0) & (normalizer > 0)
    return counted, 100 / np.where(normalizer > 0, normalizer, 1)


def _sharpness(predictor, predictions: Predictions) -> dict:
    energy, covariance = predictor.energy, predictions.covariance
    radius = float(energy.quantile(np.float64(0.9), 2)) / math.sqrt(energy.kappa(2))
    counted, percent = _in_percent(predictions)
    relative = covariance * np.square(percent)[..., None, None]
    return {
        "pixels": reliability.sharpness(covariance[predictions.weights > 0], radius),
        "percent": reliability.sharpness(relative[counted], radius),
    }


def _calibration(predictor, predictions: Predictions) -> dict:
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


def _table(metrics: dict) -> str:
    """The metrics as aligned text."""
    rows = [
        (name, f"{value:.4g}" if isinstance(value, float) else str(value))
        for name, value in metrics.items()
        if not isinstance(value, dict)
    ]
    for section in ("subsets", "joints"):
        for name, values in metrics.get(section, {}).items():
            rows.append((f"{section[:-1]} {name}", _cells(values)))
    for name, values in metrics["sharpness"].items():
        rows.append((f"sharpness, {name}", _cells(values)))
    numbers = {key: v for key, v in metrics["calibration"].items() if isinstance(v, float)}
    rows.append(("calibration", _cells(numbers)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _cells(values: dict) -> str:
    return "  ".join(
        f"{key} {v:.2f}" if isinstance(v, float) else f"{key} {v}" for key, v in values.items()
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.evaluate", description=__doc__)
    parser.add_argument("--run", required=True, help="a directory that tfhuber.train wrote")
    parser.add_argument("--data", help="the converted data set (default: the run's)")
    parser.add_argument("--split", help="the split to measure on (default: the run's)")
    parser.add_argument("--tta", choices=("none", "mean", "ml"), default="none")
    parser.add_argument("--checkpoint", choices=("latest", "best"), default="latest")
    arguments = parser.parse_args()

    import_tensorflow()
    from tfhuber.data import dataset
    from tfhuber.drawing import overlay
    from tfhuber.evaluation import examples, plots
    from tfhuber.model import predictor as inference

    run = Path(arguments.run)
    predictor = inference.load_run(run, arguments.checkpoint)
    data = predictor.config.data
    split = dataset.open_split(
        data.directory if arguments.data is None else arguments.data,
        data.evaluation_split if arguments.split is None else arguments.split,
    )
    predictions = collect(predictor, split, arguments.tta)
    metrics = evaluate(predictor, split, arguments.tta, predictions)
    metrics["checkpoint"] = arguments.checkpoint
    write_json(run / "metrics.json", metrics)
    sheet = examples.best_median_worst(predictor, split, predictions)
    overlay.save_image(sheet, run / "evaluation.png")
    curve = reliability.calibration_curve(*calibration_errors(predictor, predictions))
    title = f"{predictor.config.train.epochs} epochs"
    plot = plots.calibration_figure({title: curve}, error_unit(predictor))
    plots.save_figure(plot, run / "calibration.png")
    print(_table(metrics))
    files = ", ".join(
        str(run / name) for name in ("metrics.json", "evaluation.png", "calibration.png")
    )
    print(f"{files}: {headline(metrics)}")
    return 0


if __name__ == "__main__":
    run_main(main)
