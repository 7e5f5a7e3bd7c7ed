"""What an export says of itself: all that a client needs beside the numbers, and what made the model.

An operator compares later numbers with it. It lies in `assets.extra/model.json`, and is what the
`metadata` signature answers; `metadata` reads it.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfhuber.console.files import read_json
from tfhuber.drawing.ellipses import standard_deviation

if TYPE_CHECKING:
    from tfhuber.calibration.model import Calibration
    from tfhuber.distributions.radial import RadialEnergy
    from tfhuber.model.predictor import Predictor

__all__ = ["describe", "relative_deviations", "text"]

FORMAT = 1

_ELLIPSE_LEVELS = [*(round(0.01 * i, 2) for i in range(1, 100)), 0.995, 0.999]
_UNCERTAINTY_LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95, 0.99]


def describe(
    predictor: "Predictor",
    run: str | Path,
    checkpoint: str,
    deviations: np.ndarray,
    tta: bool = True,
    calibration: "Calibration | None" = None,
) -> dict[str, Any]:
    """Return the metadata of a run's model, ready for JSON.

    `ellipses` are quantiles of the radius: the ellipse that holds `level` is |A (y - mu)| = R with the R
    in its place, and the covariance is `kappa inv(A A)`. `uncertainty` are quantiles of `deviations`;
    what a server predicts should stay near them. `metrics` are of the very checkpoint, or None, and of
    predictions without calibration. The family, `delta`, `kappa` and the ellipses are those of plain
    predictions; `calibration`, if there is one, has those of each signature, and its promises.

    Args:
      predictor: the run's model.
      run: its run's directory.
      checkpoint: "latest" or "best".
      deviations: [N, K] of real examples, as `relative_deviations` gives them.
      tta: whether the model has that signature.
      calibration: by which its covariances are corrected.

    Raises:
      ValueError: `run.json` cannot be understood.
    """
    landmark_set, model = predictor.landmark_set, predictor.options
    laws = _laws(predictor, calibration)
    training, metrics = _origin(Path(run), checkpoint, predictor.step)
    described = {
        "format": FORMAT,
        "landmark_set": {
            "name": landmark_set.name,
            "names": landmark_set.names,
            "edges": landmark_set.edges,
            "mirror": landmark_set.mirror,
        },
        **laws["none"],
        "image_size": model.image_size,
        "square": landmark_set.square,
        "tta": tta,
        "uncertainty": {
            "unit": "sqrt(width * height) of the box",
            "examples": len(deviations),
            "levels": _UNCERTAINTY_LEVELS,
            "values": np.quantile(deviations, _UNCERTAINTY_LEVELS).tolist(),
        },
        "training": training,
        "metrics": metrics,
        "calibrated": calibration is not None,
        "calibration": calibration and _calibration(calibration, laws, tta),
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return _finite(described)


def _laws(predictor: "Predictor", calibration: "Calibration | None") -> dict[str, dict[str, Any]]:
    """Return what the metadata say of the distributions by each way to predict."""
    options = predictor.options
    if calibration is None:
        return {"none": _law(options.family, options.delta, predictor.energy)}
    return {
        tta: _law(each.family, each.delta, each.energy)
        for tta, each in calibration.signatures.items()
    }


def _law(family: str, delta: float, energy: "RadialEnergy") -> dict[str, Any]:
    radii = energy.quantile(np.array(_ELLIPSE_LEVELS), 2).numpy().tolist()
    return {
        "family": family,
        "delta": delta,
        "kappa": float(energy.kappa(2)),
        "ellipses": {"levels": _ELLIPSE_LEVELS, "radii": radii},
    }


def _calibration(
    calibration: "Calibration", laws: Mapping[str, dict[str, Any]], tta: bool
) -> dict[str, Any]:
    """Return what the metadata say of a calibration, signature by signature."""
    ways = {"serving_default": "none", "tensor": "none", **({"tta": "ml"} if tta else {})}
    signatures = {}
    for name, way in ways.items():
        fitted = calibration.signatures[way]
        signatures[name] = {
            **laws[way],
            "correlation": fitted.correlation,
            "contrast": fitted.contrast and fitted.contrast.model_dump(mode="json"),
            "log_scale": fitted.log_scale,
            "promised_by": fitted.promised_by,
            "abstention": fitted.abstention and fitted.abstention.model_dump(mode="json"),
            "joint": fitted.joint
            and [[round(value, 4) for value in row] for row in fitted.joint.factor],
            "regions": [
                region.model_dump(mode="json", exclude={"thirds"}) for region in fitted.radii
            ],
        }
    return {
        "date": calibration.date,
        "source": calibration.source.model_dump(mode="json", exclude={"directory"}),
        "signatures": signatures,
    }


def relative_deviations(covariance: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return landmarks' standard deviations sqrt(trace / 2) [N, K], relative to the size of their box.

    Args:
      covariance: [N, K, 2, 2] in the square of the box's pixels.
      box: [N, 4] x0, y0, x1, y1; its size is sqrt(width * height).
    """
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    return standard_deviation(covariance) / np.sqrt(area)[:, None]


def text(metadata: Mapping[str, Any]) -> str:
    """Return the metadata as JSON that every parser takes."""
    return json.dumps(metadata, allow_nan=False)


def _origin(
    run: Path, checkpoint: str, step: int | None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return what the model was trained from and with, and its metrics, if they are of the checkpoint."""
    values = read_json(run / "run.json")
    try:
        provenance = values.get("provenance") or {}
        commit, data = (provenance.get(name) or {} for name in ("commit", "data"))
        results = (values.get("results") or {}).get(checkpoint) or {}
        training = {
            "run": run.resolve().name,
            "commit": commit.get("sha"),
            "versions": provenance.get("versions"),
            "data_manifest": data.get("sha256"),
            "checkpoint": checkpoint,
            "step": step,
        }
        return training, results if results.get("step") == step else None
    except AttributeError as error:
        raise ValueError(f"{run / 'run.json'} is damaged ({error})") from error


def _finite(value: Any) -> Any:
    """Return the value with None for every number that JSON has no way to write."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
