"""A run's predictions for a split, corrected by its calibration: what evaluation then measures."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfhuber.calibration.conformal import LEVELS
from tfhuber.calibration.model import Calibration, Region, load_calibration
from tfhuber.calibration.photographs import photographs
from tfhuber.data.dataset import Split
from tfhuber.evaluation.predictions import Predictions, collect
from tfhuber.evaluation.run_evaluation import Correct, Corrected
from tfhuber.model.predictor import Predictor

__all__ = ["collect_corrected", "corrected", "correction_of"]


def correction_of(run: Path, tta: str) -> Correct | None:
    """Return what a run's calibration makes of predictions with that `tta`; None if it has none.

    Raises:
      ValueError: if the run's `calibration.json` is damaged, and of what is returned if it is of other
        weights.
      OSError: if it cannot be read.
    """
    calibration = load_calibration(run)
    return None if calibration is None else partial(_corrected_run, run, calibration, tta)


def collect_corrected(
    run: Path, predictor: Predictor, split: Split, *, calibrated: bool = True
) -> tuple[Predictor, Predictions]:
    """Return what a run predicts for a split, by its calibration if it has one; and with whose energy.

    Raises:
      ValueError: as `correction_of`, or if the split's landmarks are not the run's.
      OSError: the calibration cannot be read.
    """
    raw = collect(predictor, split)
    correct = correction_of(run, "none") if calibrated else None
    if correct is None:
        return predictor, raw
    made = correct(predictor, split, raw)
    return made.predictor, made.predictions


def corrected(
    calibration: Calibration, tta: str, predictor: Predictor, split: Split, raw: Predictions
) -> tuple[Predictor, Predictions]:
    """Return the predictor with its calibrated energy, and its predictions with their calibrated A.

    Args:
      calibration: of these weights.
      tta: the way to predict.
      predictor: as it was trained.
      split: whose examples are predicted.
      raw: what `collect` returns for these, without calibration.
    """
    signature = calibration.signatures[tta]
    options = predictor.options.model_copy(
        update={"family": signature.family, "delta": signature.delta}
    )
    as_raw = raw
    if signature.correlation is not None:
        as_raw = collect(predictor.correlated(calibration.correlations), split, tta)
    predicted = signature.apply(tf.nest.map_structure(tf.constant, as_raw.predicted))
    energy, weights = signature.energy, raw.weights
    distribution = predicted.distribution(energy)
    constant = float(energy.log_normalizer(2))
    each = energy.energy(distribution.radius(raw.truth) ** 2) - predicted.log_det
    nll = tf.reduce_sum(weights * (each + constant), axis=1).numpy()
    # The loss lacks the constant, and is in another frame; what changes is the same.
    change = nll - raw.nll - weights.sum(axis=1) * (constant - predictor.energy.log_normalizer(2))
    return dataclasses.replace(predictor, options=options), dataclasses.replace(
        raw,
        predicted=tf.nest.map_structure(np.asarray, predicted),
        covariance=predicted.covariance(energy).numpy(),
        radial_cdf=distribution.radial_cdf(raw.truth).numpy(),
        loss=(raw.loss + change).astype(raw.loss.dtype),
        nll=nll,
    )


def _corrected_run(
    run: Path,
    calibration: Calibration,
    tta: str,
    predictor: Predictor,
    split: Split,
    raw: Predictions,
) -> Corrected:
    calibration.check_is_of(predictor, run)
    made, predictions = corrected(calibration, tta, predictor, split, raw)
    signature, source = calibration.signatures[tta], calibration.source
    facts = {
        "date": calibration.date,
        "source": source.model_dump(mode="json"),
        "law": {"family": signature.family, "delta": signature.delta},
        "correlation": signature.correlation,
        "raw": _summary(raw),
        "calibrated": _summary(predictions),
        "regions": {
            f"{100 * each.level:g}": _held(each, made, predictions) for each in signature.radii
        },
    }
    return Corrected(made, predictions, facts)


def _summary(predictions: Predictions) -> dict[str, Any]:
    """Return the fraction of labels inside the ellipses, and the negative log-density of a label."""
    labelled = predictions.weights > 0
    inside = predictions.radial_cdf[labelled]
    count = max(1, np.count_nonzero(labelled))
    return {
        "nll": float(predictions.nll.sum(dtype=np.float64) / count),
        "coverage": {f"{100 * level:g}": float(np.mean(inside <= level)) for level in LEVELS},
    }


def _held(
    region: Region, predictor: Predictor, predictions: Predictions
) -> dict[str, float | None]:
    """Return what conformal regions hold: of a photograph's labels, and all labels of how many objects."""
    distribution = predictions.predicted.distribution(predictor.energy)
    radius = distribution.radius(predictions.truth).numpy()
    labelled = predictions.weights > 0
    rows = labelled.any(axis=1)
    owner = np.unique(photographs(list(predictions.id[rows])), return_inverse=True)[1]

    def mean_share(inside: np.ndarray, counted: np.ndarray) -> float:
        """Average over photographs the share of what is inside."""
        held = np.bincount(owner, np.sum(inside & counted, axis=1))
        total = np.bincount(owner, np.sum(counted, axis=1))
        return float(np.mean(held[total > 0] / total[total > 0]))

    def within(bound: float | None) -> np.ndarray:
        return radius[rows] <= (np.inf if bound is None else bound)

    everywhere = np.all(within(region.simultaneous) | ~labelled[rows], axis=1)[:, np.newaxis]
    limits = np.array([np.inf if each is None else each for each in region.landmarks])
    return {
        "pooled": mean_share(within(region.pooled), labelled[rows]),
        "by_landmark": mean_share(radius[rows] <= limits, labelled[rows]),
        "simultaneous": mean_share(everywhere, np.ones_like(everywhere)),
    }
