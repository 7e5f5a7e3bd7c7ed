"""A run's predictions for a split, corrected by its calibration: what evaluation then measures."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfhuber.calibration.conformal import LEVELS
from tfhuber.calibration.model import Calibration, Region, Signature, load_calibration
from tfhuber.calibration.photographs import photographs
from tfhuber.calibration.shapes import Shapes
from tfhuber.data.dataset import Split
from tfhuber.evaluation.predictions import Predictions, collect
from tfhuber.evaluation.run_evaluation import Correct, Corrected
from tfhuber.geometry import projective
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
    to_network = tf.constant(raw.to_network)
    here = tf.nest.map_structure(tf.constant, as_raw.predicted).through(to_network)
    # There and back, positions would lose digits.
    predicted = dataclasses.replace(
        signature.apply(here).through(projective.invert(to_network)), loc=as_raw.predicted.loc
    )
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
        "abstention": _abstained(signature, made, predictions),
    }
    shapes = _shapes(signature, predictions)
    if shapes is None:
        return Corrected(made, predictions, facts)
    facts["joint"] = shapes.facts(predictions.truth, predictions.weights > 0)
    return Corrected(made, predictions, facts, shapes.draw)


def _shapes(signature: Signature, predictions: Predictions) -> Shapes | None:
    if signature.joint is None:
        return None
    predicted, factor = predictions.predicted, np.array(signature.joint.factor)
    return Shapes(
        loc=predicted.loc,
        precision_factor=predicted.precision_factor,
        law=signature.correction.law,
        kappa=float(signature.energy.kappa(2)),
        factor=factor.reshape(2 * predicted.loc.shape[1], -1),
    )


def _summary(predictions: Predictions) -> dict[str, Any]:
    """Return the fraction of labels inside the ellipses, and the negative log-density of a label."""
    labelled = predictions.weights > 0
    inside = predictions.radial_cdf[labelled]
    count = max(1, np.count_nonzero(labelled))
    return {
        "nll": float(predictions.nll.sum(dtype=np.float64) / count),
        "coverage": {f"{100 * level:g}": float(np.mean(inside <= level)) for level in LEVELS},
    }


def _abstained(
    signature: Signature, predictor: Predictor, predictions: Predictions
) -> dict[str, float | None] | None:
    """Return what was called reliable and in the distribution, and how many gross errors are in that.

    Returns:
      `reliable`: the share of labels that were so called; `gross_of_reliable` and `gross_of_all`: the
      share of gross errors in the reliable labels of a photograph that has any, and in all labels, on
      average over photographs; `foreign`: the share of objects that were called foreign. None without
      thresholds.
    """
    if signature.abstention is None:
        return None
    size, to_network = predictor.options.image_size, tf.constant(predictions.to_network)
    here = tf.nest.map_structure(tf.constant, predictions.predicted).through(to_network)
    flags = signature.abstention.flags(here, signature.energy, size)
    labelled, reliable = predictions.weights > 0, flags["reliable"].numpy()
    error = tf.norm(projective.apply_map(to_network, predictions.truth) - here.loc, axis=-1)
    gross = error.numpy() > signature.abstention.tolerance * size
    return {
        "reliable": float(np.mean(reliable[labelled])),
        "gross_of_reliable": _mean_share(predictions.id, gross, labelled & reliable),
        "gross_of_all": _mean_share(predictions.id, gross, labelled),
        "foreign": float(np.mean(~flags["in_distribution"].numpy())),
    }


def _mean_share(ids: np.ndarray, found: np.ndarray, counted: np.ndarray) -> float | None:
    """Return the share of what is found in what is counted [N, K], on average over photographs with any."""
    owner = photographs(list(ids))
    total = np.bincount(owner, counted.sum(axis=1))
    part = np.bincount(owner, (found & counted).sum(axis=1))
    return float(np.mean(part[total > 0] / total[total > 0])) if total.any() else None


def _held(
    region: Region, predictor: Predictor, predictions: Predictions
) -> dict[str, float | None]:
    """Return what conformal regions hold: of a photograph's labels, and all labels of how many objects."""
    distribution = predictions.predicted.distribution(predictor.energy)
    radius = distribution.radius(predictions.truth).numpy()
    labelled = predictions.weights > 0

    def within(bound: float | None) -> np.ndarray:
        return radius <= (np.inf if bound is None else bound)

    ids, any_label = predictions.id, np.asarray(labelled.any(axis=1, keepdims=True))
    everywhere = np.asarray((within(region.simultaneous) | ~labelled).all(axis=1, keepdims=True))
    limits = np.array([np.inf if each is None else each for each in region.landmarks])
    return {
        "pooled": _mean_share(ids, within(region.pooled), labelled),
        "by_landmark": _mean_share(ids, radius <= limits, labelled),
        "simultaneous": _mean_share(ids, everywhere, any_label),
    }
