"""What an exported model says of itself: `assets.extra/model.json`, and the `metadata` signature's answer.

Everything that a client needs beside the numbers, and what an operator compares later ones with.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tfhuber.console.files import read_json
from tfhuber.drawing.overlay import FAMILIES
from tfhuber.geometry.box_square import SQUARE_RULES

__all__ = [
    "METADATA",
    "Facts",
    "describe",
    "known_square",
    "read_facts",
    "relative_deviations",
    "text",
]

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


# What a model says of itself lies where TensorFlow Serving leaves files alone.
METADATA = "assets.extra/model.json"


@dataclass(frozen=True)
class Facts:
    """What an exported model's users need beside its numbers.

    Attributes:
      names: of its K landmarks.
      edges: pairs of landmarks to join when drawn.
      delta: the knee of its distributions if they are Huber's.
      family: of its distributions, one of `overlay.FAMILIES`.
      square: how it looks at a box, one of `boxes.SQUARE_RULES`; None if it does not say.
    """

    names: list[str]
    edges: list[tuple[int, int]]
    delta: float
    family: str = "huber"
    square: str | None = None


def known_square(metadata: dict) -> str | None:
    """How a model with this metadata looks at a box; None if it says nothing that is known here."""
    square = metadata.get("square")
    return square if square in SQUARE_RULES else None


def read_facts(directory: Path) -> Facts:
    """The facts of an exported model; ValueError if they are not there."""
    path = directory / METADATA
    try:
        values = read_json(path)
        landmark_set = values["landmark_set"]
        edges = [(int(i), int(j)) for i, j in landmark_set["edges"]]
        names = [str(name) for name in landmark_set["names"]]
        if not all(0 <= i < len(names) for edge in edges for i in edge):
            raise ValueError("its edges join landmarks that have no name")
        if values["family"] not in FAMILIES:
            raise ValueError(f"its distributions are of an unknown family, {values['family']!r}")
        return Facts(names, edges, float(values["delta"]), values["family"], known_square(values))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); export the model again") from error
