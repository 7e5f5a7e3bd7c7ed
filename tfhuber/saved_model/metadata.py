"""An exported model's metadata, read: from `assets.extra/model.json`, or from its `metadata` signature.

Both hold the JSON object that `description.describe` makes. Without TensorFlow, for the client's sake.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfhuber.console.files import read_json
from tfhuber.drawing import ellipses
from tfhuber.geometry.box_square import SQUARE_RULES

__all__ = ["FLAGS", "METADATA", "ModelMetadata", "joint_factor", "uncertainty_quantiles"]

# In the model's directory. TensorFlow Serving ignores files in `assets.extra`.
METADATA = "assets.extra/model.json"

# What a calibrated model says of itself beside its numbers: of each landmark [N, K], and of the object [N].
FLAGS = ("reliable", "in_distribution")


@dataclass(frozen=True)
class ModelMetadata:
    """What an exported model's users need beside its numbers.

    Attributes:
      names: of its K landmarks.
      edges: pairs of landmarks to join when drawn.
      family: of its distributions, one of `ellipses.FAMILIES`.
      delta: the knee of their energy if they are Huber's.
      kappa: the covariance is `kappa inv(A A)`, with A the precision factor.
      square: how it looks at a box, one of `SQUARE_RULES`; None if it says nothing that is known here.
      tta: whether it has the signature that fuses an image with its mirror image.
      laws: family, delta and kappa by signature, of a model that is calibrated; empty if it is not.
    """

    names: list[str]
    edges: list[tuple[int, int]]
    family: str
    delta: float
    kappa: float
    square: str | None
    tta: bool = True
    laws: Mapping[str, tuple[str, float, float]] = field(default_factory=dict)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "ModelMetadata":
        """Return the metadata in a JSON object.

        Exports of before have no `kappa`, which is computed, and no `tta`, which they all have.

        Raises:
          ValueError: something is missing or makes no sense.
        """
        try:
            calibrated = _calibrated(values)
            laws = {name: _law(each) for name, each in calibrated.items()}
            names = list(values["landmark_set"]["names"])
            edges = [(int(i), int(j)) for i, j in values["landmark_set"]["edges"]]
            family, delta, kappa = _law(values)
            square = values.get("square")
        except KeyError as error:
            raise ValueError(f"it has no {error}") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"it is not laid out as metadata ({error})") from None
        if not all(isinstance(name, str) for name in names):
            raise ValueError("names of landmarks must be strings")
        if not all(0 <= point < len(names) for edge in edges for point in edge):
            raise ValueError("its edges join landmarks that have no name")
        square = square if square in SQUARE_RULES else None
        tta = values.get("tta", True) is True
        return cls(names, edges, family, delta, kappa, square, tta, laws)

    @classmethod
    def read(cls, directory: Path) -> "ModelMetadata":
        """Return the metadata of the SavedModel in a directory.

        Raises:
          ValueError: they are not there, or make no sense.
        """
        path = directory / METADATA
        try:
            return cls.parse(read_json(path))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read ({error}); export the model again") from error

    def of(self, signature: str) -> "ModelMetadata":
        """Return the metadata with the family, delta and kappa of a signature's answers."""
        family, delta, kappa = self.laws.get(signature, (self.family, self.delta, self.kappa))
        return replace(self, family=family, delta=delta, kappa=kappa)

    @property
    def deviation(self) -> str:
        """What to call its standard deviations on the terminal."""
        return "calibrated standard deviation" if self.laws else "standard deviation"

    def image_signature(self, tta: bool) -> str:
        """Return the name of the signature that takes image files: the plain one, or "tta".

        Raises:
          ValueError: "tta" is wanted, and the model has none.
        """
        if tta and not self.tta:
            raise ValueError(
                "--tta needs a model that was trained on mirror images too; this one was not "
                "(augmentation.mirror = 0), and has no such signature"
            )
        return "tta" if tta else "serving_default"


def joint_factor(values: Mapping[str, Any], signature: str) -> np.ndarray | None:
    """Return F [2K, r] of how landmarks' errors go together, in a JSON object of metadata; None without.

    Raises:
      ValueError: it is no matrix of 2K rows of finite numbers, or no distribution has it.
    """
    rows = (_calibrated(values).get(signature) or {}).get("joint")
    if rows is None:
        return None
    try:
        factor = np.array(rows, np.float64)
    except (TypeError, ValueError):
        factor = np.zeros(0)
    count = len(values["landmark_set"]["names"])
    if factor.ndim != 2 or len(factor) != 2 * count or not np.isfinite(factor).all():
        raise ValueError(f"its joint distribution is no matrix of {2 * count} rows")
    # With more than all of a landmark's variance shared with others there is no such distribution.
    if factor.size and np.linalg.norm(factor.reshape(count, 2, -1), 2, axis=(1, 2)).max() >= 1:
        raise ValueError("its joint distribution is none: a landmark shares more than its variance")
    return factor


def uncertainty_quantiles(values: Mapping[str, Any]) -> dict[float, float]:
    """Return the reference of a model's uncertainty, in a JSON object of metadata; empty if it has none.

    These are quantiles, by level, of `description.relative_deviations` over real examples.

    Raises:
      ValueError: they are not two lists of as many numbers.
    """
    reference = values.get("uncertainty") or {}
    try:
        levels, quantiles = reference.get("levels") or [], reference.get("values") or []
        return dict(zip(map(float, levels), map(float, quantiles), strict=True))
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"its reference of uncertainty makes no sense ({error})") from None


def _calibrated(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the metadata say of each calibrated signature; empty if there is none."""
    return (values.get("calibration") or {}).get("signatures") or {}


def _law(values: Mapping[str, Any]) -> tuple[str, float, float]:
    """Return the family, delta and kappa that an object of the metadata names."""
    family, delta, kappa = values["family"], values["delta"], values.get("kappa")
    if family not in ellipses.FAMILIES:
        raise ValueError(f"its distributions are of an unknown family, {family!r}")
    delta = _positive("delta", delta)
    return (
        family,
        delta,
        ellipses.kappa(family, delta) if kappa is None else _positive("kappa", kappa),
    )


def _positive(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return float(value)
