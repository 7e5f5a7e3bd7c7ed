"""What an exported model says of itself: `assets.extra/model.json`, and the `metadata` signature's answer.

Everything that a client needs beside the numbers, and what an operator compares later ones with.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tfhuber.console.files import read_json

__all__ = ["describe", "relative_deviations", "text"]

FORMAT = 1

_ELLIPSE_LEVELS = [*(round(0.01 * i, 2) for i in range(1, 100)), 0.995, 0.999]
_UNCERTAINTY_LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95, 0.99]


def describe(predictor, run: str | Path, checkpoint: str, deviations: np.ndarray) -> dict:
    """The metadata of a run's model, ready for JSON.

    `ellipses` are quantiles of the radius: the ellipse that holds `level` is |A (y - mu)| = R with the R
    in its place. `uncertainty` are quantiles of `deviations`; what a server predicts should stay
    near them. `metrics` are of the very checkpoint, or None.

    Args:
      predictor: an `inference.Predictor`.
      run: its run's directory.
      checkpoint: "latest" or "best".
      deviations: [N, K] of real examples, as `relative_deviations` gives them.

    Raises:
      ValueError: if `run.json` cannot be understood.
    """
    run = Path(run)
    values = read_json(run / "run.json")
    landmark_set, model = predictor.landmark_set, predictor.config.model
    radii = predictor.energy.quantile(np.array(_ELLIPSE_LEVELS), 2).numpy()
    step = _step(run / checkpoint)
    try:
        come_from = values.get("provenance") or {}
        commit, data = (come_from.get(name) or {} for name in ("commit", "data"))
        results = (values.get("results") or {}).get(checkpoint) or {}
        metrics = results if results.get("step") == step else None
        training = {
            "run": run.resolve().name,
            "commit": commit.get("sha"),
            "versions": come_from.get("versions"),
            "data_manifest": data.get("sha256"),
            "checkpoint": checkpoint,
            "step": step,
        }
    except AttributeError as error:
        raise ValueError(f"{run / 'run.json'} is damaged ({error})") from error
    described = {
        "format": FORMAT,
        "landmark_set": {
            "name": landmark_set.name,
            "names": landmark_set.names,
            "edges": landmark_set.edges,
            "mirror": landmark_set.mirror,
        },
        "family": model.family,
        "delta": model.delta,
        "image_size": model.image_size,
        "square": landmark_set.square,
        "ellipses": {"levels": _ELLIPSE_LEVELS, "radii": radii.tolist()},
        "uncertainty": {
            "unit": "sqrt(width * height) of the box",
            "examples": len(deviations),
            "levels": _UNCERTAINTY_LEVELS,
            "values": np.quantile(deviations, _UNCERTAINTY_LEVELS).tolist(),
        },
        "training": training,
        "metrics": metrics,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return _finite(described)


def relative_deviations(covariance: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Standard deviations sqrt(trace / 2) [N, K] of landmarks, relative to the size of their box.

    Args:
      covariance: [N, K, 2, 2] in the square of the box's pixels.
      box: [N, 4] x0, y0, x1, y1; its size is sqrt(width * height).
    """
    deviation = np.sqrt(np.trace(covariance, axis1=-2, axis2=-1) / 2)
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    return deviation / np.sqrt(area)[:, None]


def text(metadata: Mapping) -> str:
    """The metadata as JSON that every parser takes."""
    return json.dumps(metadata, allow_nan=False)


def _step(directory: Path) -> int | None:
    """The step after which the newest checkpoint in a directory was made."""
    numbers = (path.stem.removeprefix("ckpt-") for path in directory.glob("ckpt-*.index"))
    return max((int(number) for number in numbers if number.isdecimal()), default=None)


def _finite(value):
    """The value with None for every number that JSON has no way to write."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
