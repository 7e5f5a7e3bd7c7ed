"""The calibration of a training run, from photographs that it was not trained on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfhuber.calibration import abstention, conformal, dependence, views
from tfhuber.calibration.abstention import Aims
from tfhuber.calibration.choice import Correction, Step, choose
from tfhuber.calibration.contrast import fit_contrast
from tfhuber.calibration.law import Law
from tfhuber.calibration.model import (
    FILE,
    Abstention,
    Calibration,
    Contrast,
    Joint,
    Region,
    Signature,
    Source,
    Tried,
)
from tfhuber.calibration.photographs import parts, photographs
from tfhuber.config.schema import Config, Data
from tfhuber.console.cli import progress
from tfhuber.console.files import write_json
from tfhuber.data import dataset, records
from tfhuber.data.dataset import Split
from tfhuber.distributions.location_scatter import LocationScatter
from tfhuber.landmarks.known_sets import LandmarkSet
from tfhuber.model.predictor import TTA, Predictor
from tfhuber.runs.folds import HELD, Folds, read_folds
from tfhuber.runs.load import load_run, read_config

__all__ = ["Check", "calibrate_run"]

# Of which every second one promises: enough for a radius at 90 %.
FEWEST_PHOTOGRAPHS = 20

_AIMS = Aims()


@dataclass(frozen=True)
class Check:
    """How a signature does on the photographs that its correction was not fitted to.

    Attributes:
      nll: the mean over labels of the negative log-density, in network-crop pixels.
      coverage: the fraction of labels inside the ellipse of each probability.
    """

    nll: float
    coverage: dict[float, float]


@dataclass(frozen=True)
class _Seen:
    """Predictions by both views [2, N, K] and labels [N, K], NaN where there are none; crop pixels."""

    views: LocationScatter
    labels: np.ndarray
    photograph: np.ndarray


def calibrate_run(
    run: Path,
    *,
    data: str | None = None,
    split: str = "calibration",
    folds: Path | None = None,
    checkpoint: str = "latest",
    levels: Sequence[float] = conformal.LEVELS,
    aims: Aims = _AIMS,
) -> tuple[Calibration, dict[str, tuple[Check, Check]]]:
    """Fit a run's calibration to a split, and write it to the run as `calibration.json`.

    Args:
      run: what `python -m tfhuber.train --run` wrote.
      data: the converted data set; the run's if None.
      split: of photographs that the run was not trained on.
      folds: a directory of `tfhuber.crossfit`, instead: predictions of runs for what they did not see.
      checkpoint: "latest" or "best".
      levels: of the conformal radii.
      aims: of what is called reliable, and in the distribution.

    Returns:
      The calibration, and for each signature how it does without and with it.

    Raises:
      ValueError: if the run or the split cannot be read, the split was trained on, or it has other
        landmarks, no labels, or too few photographs. Nothing is written then.
      OSError: if the file cannot be written.
    """
    predictor, config = load_run(run, checkpoint), read_config(run)
    if folds is None:
        origin, seen = _held_out(predictor, config.data, data, split)
    else:
        origin, seen = _cross_fitted(predictor, config, read_folds(folds), checkpoint)
    fitted = {
        tta: _fit(predictor, seen, tta, levels, aims)
        for tta in progress(TTA, desc="calibrate", unit=" signatures")
    }
    calibration = Calibration(
        format=1,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        landmarks=list(predictor.landmark_set.names),
        source=Source(
            **origin,
            photographs=len(np.unique(seen.photograph)),
            examples=len(seen.labels),
            labels=int(np.count_nonzero(~np.isnan(seen.labels[..., 0]))),
            checkpoint=checkpoint,
            step=predictor.step,
        ),
        signatures={tta: signature for tta, (signature, _) in fitted.items()},
    )
    write_json(Path(run) / FILE, calibration.to_json())
    return calibration, {tta: checks for tta, (_, checks) in fitted.items()}


def _held_out(
    predictor: Predictor, trained: Data, data: str | None, split: str
) -> tuple[dict[str, Any], _Seen]:
    """Return where photographs are from that no run was trained on, and what the run predicts of them."""
    directory = trained.directory if data is None else data
    manifest = records.read_manifest(directory)
    if split == trained.train_split:
        _check_unseen(trained.directory, directory, split, manifest)
    seen = _collect(predictor, [(predictor, dataset.open_split(directory, split))])
    origin = {"directory": str(directory), "split": split, "sha256": manifest.get("sha256")}
    return origin, _checked(seen, f"split {split!r} of {directory}")


def _cross_fitted(
    predictor: Predictor, config: Config, divided: Folds, checkpoint: str
) -> tuple[dict[str, Any], _Seen]:
    """Likewise of photographs that the run was trained on, by runs that were not."""
    trained = records.read_manifest(config.data.directory).get("sha256"), config.data.train_split
    if trained != (divided.sha256, divided.split):
        raise ValueError(
            f"the run was trained on split {config.data.train_split!r} of {config.data.directory}, but the "
            f"folds are of {divided.split!r} of {divided.data}; they must be the same"
        )
    pairs, ours = [], config.model_dump(exclude={"data"})
    for each in divided.directories:
        theirs = read_config(each / "run").model_dump(exclude={"data"})
        if differing := [key for key, value in theirs.items() if value != ours[key]]:
            raise ValueError(
                f"the folds were trained with other settings than the run ({', '.join(differing)}); "
                "cross-fit with the run's own configuration"
            )
        pairs.append((load_run(each / "run", checkpoint), dataset.open_split(each / "data", HELD)))
    name = f"{divided.split} in {len(pairs)} folds"
    origin = {"directory": str(divided.data), "split": name, "sha256": divided.sha256}
    return origin, _checked(
        _collect(predictor, pairs), f"split {divided.split!r} of {divided.data}"
    )


def _check_unseen(trained: str, directory: str, split: str, manifest: dict[str, Any]) -> None:
    """Raise ValueError if the data of `manifest` are those that the run was trained on."""
    try:
        seen = records.read_manifest(trained).get("sha256")
    except (OSError, ValueError):
        seen = None
    if manifest.get("sha256") == seen:
        raise ValueError(
            f"the run was trained on split {split!r} of {directory}, where it knows the answers; calibrate "
            "it on another, which `make_tfrecords --calibration-fraction 0.15` makes"
        )


def _collect(predictor: Predictor, pairs: Sequence[tuple[Predictor, Split]]) -> _Seen:
    """Predict the examples of splits, each by a run that has not seen it, by both views."""
    found, labels, ids = [], [], []
    with progress(
        total=sum(each.examples for _, each in pairs), desc="predict", unit=" examples"
    ) as bar:
        for its, split in pairs:
            if split.landmark_set != predictor.landmark_set:
                raise ValueError(
                    f"the model predicts {predictor.landmark_set.name} landmarks, but {split.directory} "
                    f"holds {split.landmark_set.name}, or others of that name"
                )
            size = its.options.image_size
            signature = [tf.TensorSpec([None, size, size, 3])]
            predict = tf.function(its.views, input_signature=signature)
            batches = dataset.evaluation_batches(split, size, its.batch_size)
            for batch in dataset.readable(batches, split):
                both = predict(batch["image"])
                found.append(tf.nest.map_structure(lambda *view: np.stack(view), *both))
                is_labelled = batch["weights"].numpy()[..., None] > 0
                labels.append(np.where(is_labelled, batch["landmarks"].numpy(), np.nan))
                ids += list(batch["id"].numpy())
                bar.update(len(labels[-1]))
    return _Seen(
        tf.nest.map_structure(lambda *arrays: np.concatenate(arrays, axis=1), *found),
        np.concatenate(labels).astype(np.float64),
        photographs(ids),
    )


def _checked(seen: _Seen, where: str) -> _Seen:
    """Return what can be used of it: examples with a label."""
    used = np.any(~np.isnan(seen.labels[..., 0]), axis=1)
    if not used.any():
        raise ValueError(f"{where} has no labels to calibrate with")
    # Numbered anew, so that every second photograph of those with labels promises.
    _, photograph = np.unique(seen.photograph[used], return_inverse=True)
    count = len(np.unique(photograph))
    if count < FEWEST_PHOTOGRAPHS:
        raise ValueError(
            f"{where} holds {count} photographs with labels, too few to calibrate with: "
            f"{FEWEST_PHOTOGRAPHS} are the least, 200 are good"
        )
    kept = tf.nest.map_structure(lambda values: values[:, used], seen.views)
    if not all(np.isfinite(values).all() for values in tf.nest.flatten(kept)):
        raise ValueError(f"the model's predictions for {where} are not finite; train it again")
    return _Seen(kept, seen.labels[used], photograph)


def _fit(
    predictor: Predictor, seen: _Seen, tta: str, levels: Sequence[float], aims: Aims
) -> tuple[Signature, tuple[Check, Check]]:
    """Fit a signature to half of the photographs, and check it and take its radii from the others."""
    raw = Law(predictor.options.family, predictor.options.delta)
    chooses, promises = parts(seen.photograph)
    # `Predictor.predict` without a correlation, which the first check is of.
    before = _predicted(predictor, seen, tta, None)
    correlation = _correlation(seen, chooses) if tta != "none" else None
    predicted = _predicted(predictor, seen, tta, correlation)
    contrast, sized, tried = _contrasted(predicted, seen, raw)
    errors = _whitened(sized, seen.labels)
    correction, steps = choose(
        errors[chooses], seen.photograph[chooses], _groups(predictor.landmark_set), raw
    )
    steps.insert(1, tried)

    gain = np.trace(correction.log_matrix, axis1=-2, axis2=-1)
    size = -np.mean(sized.log_det.astype(np.float64) + gain, axis=1)
    edges = np.quantile(size[chooses], (1 / 3, 2 / 3)).tolist()
    radii = conformal.radii(
        correction.radius(errors[promises]),
        seen.photograph[promises],
        conformal.third(size[promises], edges),
        levels,
    )
    signature = Signature(
        family=correction.law.family,
        delta=correction.law.delta,
        correlation=correlation,
        contrast=contrast,
        log_scale=correction.log_matrix[:, [0, 0, 1], [0, 1, 1]].tolist(),
        size_edges=edges,
        fitted_to=len(np.unique(seen.photograph[chooses])),
        promised_by=len(np.unique(seen.photograph[promises])),
        radii=[Region.of(each) for each in radii],
        tried=[Tried(name=step.name, nll=step.nll, kept=step.kept) for step in steps],
    )
    corrected = tf.nest.map_structure(np.asarray, signature.apply(predicted))
    added = {
        "abstention": _abstention(corrected, signature, predictor, seen, aims),
        "joint": _joint(corrected, correction.law, seen),
    }
    as_it_is = Correction(np.zeros_like(correction.log_matrix), raw)
    first = _check(as_it_is, _whitened(before, seen.labels)[promises], before.log_det[promises])
    second = _check(correction, errors[promises], sized.log_det[promises])
    return signature.model_copy(update=added), (first, second)


def _contrasted(
    predicted: LocationScatter, seen: _Seen, raw: Law
) -> tuple[Contrast | None, LocationScatter, Step]:
    """Return the contrast that half of the photographs bear out, predictions with it, and the step."""
    chooses, _ = parts(seen.photograph)
    errors = _whitened(predicted, seen.labels)[chooses]
    log_det = predicted.log_det[chooses].astype(np.float64)
    found = fit_contrast(errors, log_det, seen.photograph[chooses], raw)
    step = Step("contrast", found.nll, kept=found.exponent != 0)
    if found.exponent == 0:
        return None, predicted, step
    contrast = Contrast(
        exponent=found.exponent,
        typical=found.typical.tolist(),
        least=found.least,
        largest=found.largest,
    )
    return contrast, tf.nest.map_structure(np.asarray, contrast.apply(predicted)), step


def _joint(corrected: LocationScatter, law: Law, seen: _Seen) -> Joint:
    scores = dependence.normal_scores(_whitened(corrected, seen.labels), law)
    found = dependence.fit_dependence(scores, seen.photograph)
    return Joint(factor=found.factor.tolist(), gain=found.gain)


def _abstention(
    corrected: LocationScatter,
    signature: Signature,
    predictor: Predictor,
    seen: _Seen,
    aims: Aims,
) -> Abstention:
    """Return when to say "I don't know": tried on what was fitted to, promised by the others."""
    chooses, promises = parts(seen.photograph)
    tolerance = aims.tolerance * predictor.options.image_size
    offset = seen.labels - np.asarray(corrected.loc, np.float64)
    error = np.linalg.norm(offset, axis=-1)
    probability = corrected.probability_within(tolerance, signature.energy).numpy()
    probability = np.where(np.isnan(error), np.nan, probability)
    size = -np.mean(np.asarray(corrected.log_det, np.float64), axis=1)
    candidates = abstention.thresholds(
        probability[chooses], seen.photograph[chooses], aims.risk, aims.confidence
    )
    return Abstention(
        **asdict(aims),
        largest_size=abstention.size_threshold(
            size[promises], seen.photograph[promises], aims.false_alarms
        ),
        least_probability=abstention.probability_threshold(
            probability[promises],
            error[promises] > tolerance,
            seen.photograph[promises],
            candidates,
            risk=aims.risk,
            confidence=aims.confidence,
        ),
    )


def _predicted(
    predictor: Predictor, seen: _Seen, tta: str, correlation: float | None
) -> LocationScatter:
    """Return the predictions [N, K] in network-crop pixels, in NumPy."""
    if tta == "none":
        return seen.views.at(0)
    correlated = predictor.correlated({} if correlation is None else {tta: correlation})
    fused = correlated.fused([seen.views.at(0), seen.views.at(1)], tta)
    return tf.nest.map_structure(np.asarray, fused)


def _correlation(seen: _Seen, chooses: np.ndarray) -> float:
    """Return the correlation of the two views' errors, as far as fusion takes it: from 0 to 1."""
    errors = np.stack([_whitened(seen.views.at(i), seen.labels)[chooses] for i in range(2)])
    return float(np.clip(views.correlation(errors), 0, 1))


def _whitened(predicted: LocationScatter, labels: np.ndarray) -> np.ndarray:
    """Return A (y - mu) [N, K, 2]."""
    offset = labels - predicted.loc.astype(np.float64)
    return np.einsum("nkij,nkj->nki", predicted.precision_factor.astype(np.float64), offset)


def _groups(landmark_set: LandmarkSet) -> list[int]:
    """Return the number [K] of the first group that names each landmark; one more for the rest."""
    members = list(landmark_set.groups.values())
    return [
        next((i for i, group in enumerate(members) if k in group), len(members))
        for k in range(landmark_set.count)
    ]


def _check(correction: Correction, errors: np.ndarray, log_det: np.ndarray) -> Check:
    probability = correction.law.cdf(correction.radius(errors))
    probability = probability[~np.isnan(probability)]
    return Check(
        nll=float(np.nanmean(correction.nll(errors) - log_det)),
        coverage={level: float(np.mean(probability <= level)) for level in conformal.LEVELS},
    )
