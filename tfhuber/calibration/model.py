"""A run's calibration: what is applied to each prediction, what is promised of it, and its file."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import tensorflow as tf
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tfhuber.calibration.choice import Correction
from tfhuber.calibration.conformal import Radii
from tfhuber.calibration.law import FAMILIES, Law
from tfhuber.calibration.scale import matrix_exponential
from tfhuber.console.files import read_json
from tfhuber.distributions.location_scatter import LocationScatter
from tfhuber.distributions.radial import RadialEnergy, radial_energy
from tfhuber.linalg import small_matrix
from tfhuber.model.predictor import TTA, Predictor

__all__ = [
    "FILE",
    "Abstention",
    "Calibration",
    "Contrast",
    "Joint",
    "Region",
    "Signature",
    "Source",
    "calibration_of",
    "load_calibration",
]

FILE = "calibration.json"
FORMAT = 1

# A model whose errors are e^10 times what it says is not one to be corrected.
_Exponent = Annotated[float, Field(ge=-10, le=10)]
_Radius = Annotated[float, Field(ge=0)] | None
_Count = Annotated[int, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Source(_Section):
    """What a calibration was made from: a data set's split, and a checkpoint of the run."""

    directory: str
    split: str
    sha256: str | None
    photographs: _Count
    examples: _Count
    labels: _Count
    checkpoint: str
    step: int | None


class Tried(_Section):
    """A correction that was tried, with its negative log-density a label in photographs left out."""

    name: str
    nll: float
    kept: bool


class Region(_Section):
    """Conformal radii at one level, in units of |A (y - mu)|; None is no bound: photographs are too few."""

    level: float = Field(gt=0, lt=1)
    pooled: _Radius
    landmarks: list[_Radius]
    simultaneous: _Radius
    thirds: list[_Radius] = Field(min_length=3, max_length=3)

    @classmethod
    def of(cls, radii: Radii) -> Self:
        """Return the radii as JSON has them, which knows no infinity."""

        def bounded(radius: float) -> float | None:
            return radius if math.isfinite(radius) else None

        return cls(
            level=radii.level,
            pooled=bounded(radii.pooled),
            landmarks=[bounded(radius) for radius in radii.landmarks],
            simultaneous=bounded(radii.simultaneous),
            thirds=[bounded(radius) for radius in radii.thirds],
        )


class Abstention(_Section):
    """When to say "I don't know", as `tfhuber.calibration.abstention` finds it.

    Attributes:
      false_alarms: the rate of objects like those of the calibration that may be called foreign.
      largest_size: of objects in the distribution, as in `conformal.third`; None is no bound, as
        photographs are too few.
      tolerance: an error beyond it is a gross one; as a part of the network crop's side.
      risk: of a photograph's reliable landmarks, the largest share that may have gross errors, on average.
      confidence: the probability over sets of photographs with which that is promised.
      least_probability: of an error within the tolerance, for a landmark to be reliable; None where no
        landmark can be promised to be.
    """

    false_alarms: float = Field(gt=0, lt=1)
    largest_size: float | None
    tolerance: float = Field(gt=0, lt=1)
    risk: float = Field(gt=0, lt=1)
    confidence: float = Field(gt=0, lt=1)
    least_probability: float | None = Field(ge=0, le=1)

    def flags(
        self, predicted: LocationScatter, energy: RadialEnergy, image_size: int
    ) -> dict[str, tf.Tensor]:
        """Return `reliable` [N, K] and `in_distribution` [N] of corrected predictions in network crops.

        Args:
          predicted: [N, K] in network-crop pixels.
          energy: theirs.
          image_size: the side of a network crop.
        """
        size = -tf.reduce_mean(predicted.log_det, axis=-1)
        probability = predicted.probability_within(self.tolerance * image_size, energy)
        least = math.inf if self.least_probability is None else self.least_probability
        largest = math.inf if self.largest_size is None else self.largest_size
        return {
            "reliable": probability >= tf.constant(least, probability.dtype),
            "in_distribution": size <= tf.constant(largest, size.dtype),
        }


class Contrast(_Section):
    """How much differences in predicted size count, as `tfhuber.calibration.contrast` finds it.

    Attributes:
      exponent: c.
      typical: [K] the mean log|A| of each landmark, in network-crop pixels.
      least: the smallest difference from it that counts.
      largest: the largest.
    """

    exponent: float = Field(ge=-0.5, le=2)
    typical: list[float]
    least: float
    largest: float

    def apply(self, predicted: LocationScatter) -> LocationScatter:
        """Return predictions [..., K] in network-crop pixels with a factor exp(c u) to each A."""
        log_det = tf.convert_to_tensor(predicted.log_det)
        surer = log_det - tf.constant(self.typical, log_det.dtype)
        change = self.exponent * tf.clip_by_value(surer, self.least, self.largest)
        factor = predicted.precision_factor * tf.exp(change)[..., tf.newaxis, tf.newaxis]
        return LocationScatter(predicted.loc, factor, log_det + 2 * change)


class Joint(_Section):
    """How the errors of an object's landmarks go together, as `tfhuber.calibration.dependence` finds it.

    Attributes:
      factor: [2K, r] F, of x and y of each landmark in turn.
      gain: how much likelier, in nats an object, it makes labels in photographs left out.
    """

    factor: list[list[Annotated[float, Field(ge=-1, le=1)]]]
    gain: float = Field(ge=0)


class Signature(_Section):
    """What one way to predict (`none`, `mean` or `ml`) is corrected by, and what is promised of it.

    A prediction's precision factor A, after the contrast, becomes the root of A B B A, where B = exp(S) is
    its landmark's, and its energy that of `family` and `delta`: `|B A (y - mu)|` then has that energy's
    law.

    Attributes:
      family: of the radial energy.
      delta: its knee, for Huber's.
      correlation: of the whitened errors of two views; None where there is but one.
      contrast: how much differences in predicted size count; None for as much as the model says.
      log_scale: [K] S as its elements xx, xy, yy.
      size_edges: the two predicted sizes between thirds of difficulty, as in `conformal.third`.
      fitted_to: photographs that all of this was fitted to.
      promised_by: other photographs, which the radii come from.
      radii: conformal radii of corrected predictions.
      abstention: when to say "I don't know"; None in files of before.
      joint: how landmarks' errors go together; None in files of before.
      tried: what was tried, and what of it was kept.
    """

    family: str = Field(pattern=f"^({'|'.join(FAMILIES)})$")
    delta: float = Field(gt=0)
    correlation: float | None = Field(ge=0, le=1)
    contrast: Contrast | None = None
    log_scale: list[Annotated[list[_Exponent], Field(min_length=3, max_length=3)]]
    size_edges: list[float] = Field(min_length=2, max_length=2)
    fitted_to: _Count
    promised_by: _Count
    radii: list[Region]
    abstention: Abstention | None = None
    joint: Joint | None = None
    tried: list[Tried]

    @property
    def energy(self) -> RadialEnergy:
        """The radial energy of corrected predictions."""
        return radial_energy(self.family, self.delta)

    @property
    def log_matrix(self) -> np.ndarray:
        """S [K, 2, 2]."""
        return np.array(self.log_scale)[:, [0, 1, 1, 2]].reshape(-1, 2, 2)

    @property
    def correction(self) -> Correction:
        """The correction of whitened errors, for mathematics in NumPy."""
        return Correction(self.log_matrix, Law(self.family, self.delta))

    def apply(self, predicted: LocationScatter) -> LocationScatter:
        """Return predictions [..., K] in network-crop pixels corrected; they go with `energy`."""
        if self.contrast is not None:
            predicted = self.contrast.apply(predicted)
        log_matrix = self.log_matrix
        factor = tf.convert_to_tensor(predicted.precision_factor)
        gain = np.trace(log_matrix, axis1=-2, axis2=-1)
        log_det = predicted.log_det + tf.constant(gain, factor.dtype)
        is_number = np.array_equal(log_matrix, gain[:, None, None] / 2 * np.eye(2))
        if is_number:
            factor *= tf.constant(np.exp(gain / 2)[:, None, None], factor.dtype)
        else:
            square = tf.constant(matrix_exponential(2 * log_matrix), factor.dtype)
            inner = small_matrix.matmul(small_matrix.matmul(factor, square), factor)
            factor = small_matrix.square_root(inner, 2 * log_det)
        return LocationScatter(predicted.loc, factor, log_det)


class Calibration(_Section):
    """What `python -m tfhuber.calibrate` found out about a run.

    Attributes:
      format: of the file.
      date: when, as ISO 8601 has it.
      landmarks: the names of the landmarks.
      source: what it was found from.
      signatures: for `none`, `mean` and `ml`.
    """

    format: Literal[1]
    date: str
    landmarks: list[str]
    source: Source
    signatures: dict[str, Signature]

    @field_validator("signatures")
    @classmethod
    def _each_way_to_predict_with_what_it_needs(cls, value: dict[str, Signature]) -> Any:
        if set(value) != set(TTA):
            raise ValueError(f"must be {', '.join(TTA)}")
        for tta, signature in value.items():
            if (signature.correlation is None) != (tta == "none"):
                raise ValueError(
                    f"correlation of {tta!r} must be {'null' if tta == 'none' else 'a number'}"
                )
        return value

    @model_validator(mode="after")
    def _as_many_landmarks_everywhere(self) -> Self:
        k = len(self.landmarks)
        for tta, signature in self.signatures.items():
            lengths = {len(signature.log_scale), *(len(each.landmarks) for each in signature.radii)}
            if signature.contrast is not None:
                lengths.add(len(signature.contrast.typical))
            rows = 2 * k if signature.joint is None else len(signature.joint.factor)
            if lengths - {k} or rows != 2 * k:
                raise ValueError(f"signature {tta!r} is not of {k} landmarks")
        return self

    @property
    def correlations(self) -> dict[str, float]:
        """The correlation of views for each `tta` that has any, as `Predictor` takes them."""
        found = {tta: signature.correlation for tta, signature in self.signatures.items()}
        return {tta: value for tta, value in found.items() if value is not None}

    def check_is_of(self, predictor: Predictor, run: str | Path) -> None:
        """Check that it was made for these weights.

        Raises:
          ValueError: if it is of other landmarks or of another checkpoint; the message says what to do.
        """
        path, source = Path(run) / FILE, self.source
        if tuple(self.landmarks) != predictor.landmark_set.names:
            raise ValueError(f"{path} is of other landmarks than the run's; {_again(run)}")
        if source.step != predictor.step:
            raise ValueError(
                f"{path} is of the weights of step {source.step}, but these are of step {predictor.step}; "
                f"{_again(run)}, or leave it out with --uncalibrated"
            )

    def to_json(self) -> dict:
        """Return what the file holds."""
        return self.model_dump(mode="json")


def load_calibration(run: str | Path) -> Calibration | None:
    """Return a run's calibration; None if it has none.

    Raises:
      ValueError: if the file is damaged; the message says what to do.
      OSError: if it cannot be read.
    """
    path = Path(run) / FILE
    if not path.is_file():
        return None
    values = read_json(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"{path} is no calibration that this version reads; {_again(run)}")
    try:
        return Calibration.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{path} is damaged, {where}: {fault['msg']}; {_again(run)}") from None


def calibration_of(run: str | Path, predictor: Predictor) -> Calibration | None:
    """Return a run's calibration, if it has one, after a look whether it is of these weights.

    Raises:
      ValueError: it is damaged, or of other weights; the message says what to do.
      OSError: it cannot be read.
    """
    calibration = load_calibration(run)
    if calibration is not None:
        calibration.check_is_of(predictor, run)
    return calibration


def _again(run: str | Path) -> str:
    return f"calibrate again with `python -m tfhuber.calibrate --run {run}`"
