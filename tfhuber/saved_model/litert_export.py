"""The export of a run as a LiteRT file for phones, compared with the run before it is published."""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfhuber.calibration.model import Calibration, calibration_of
from tfhuber.config import schema
from tfhuber.console.cli import progress
from tfhuber.console.files import Aside, blamed, reason
from tfhuber.data import dataset
from tfhuber.model.predictor import Predictor
from tfhuber.runs import load
from tfhuber.saved_model import description, litert, litert_file, served_examples, signatures

__all__ = ["BOUNDS", "QUANTIZATIONS", "Bound", "Difference", "Exported", "difference", "export"]

Function = Callable[..., dict[str, tf.Tensor]]

# By `model.pooling`: the first layer that computes in float32 whatever those before it do. Feature points
# look at several maps, so that there it is the head.
_FIRST_IN_FLOAT = {
    "convolution": "channelwise_convolution",
    "average": "average_pooling",
    "spatial_softmax": "head",
}

_BATCH = 16  # images that the run sees at once

# More say nothing new of the ranges, and 1,000 take minutes.
_MOST_REPRESENTATIVE = 1000

# What a variance counts as at least, beside the largest of its landmark: float32 knows no better.
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Bound:
    """How far a LiteRT model may be from the run's: both for every landmark of every example.

    Attributes:
      position: in network-crop pixels.
      variance: of the error of the variance, in every direction, relative to it.
    """

    position: float
    variance: float


@dataclass(frozen=True)
class Difference:
    """How far a LiteRT model is from the run's on examples: the largest and the median.

    Attributes:
      examples: how many.
      position: in network-crop pixels; infinity where a number is not finite.
      variance: as in `Bound`.
      median_position: of all landmarks.
      median_variance: of all landmarks.
    """

    examples: int
    position: float
    variance: float
    median_position: float
    median_variance: float

    def within(self, bound: Bound) -> bool:
        """Return whether no landmark is further away than that."""
        return self.position <= bound.position and self.variance <= bound.variance

    def __str__(self) -> str:
        return (
            f"up to {self.position:.2g} pixels of the network crop and {self.variance:.2g} of the "
            f"variance from the run's (median {self.median_position:.2g} and "
            f"{self.median_variance:.2g}; {self.examples} examples)"
        )


@dataclass(frozen=True)
class Exported:
    """A LiteRT file that was published.

    Attributes:
      path: the file.
      scheme: how it computes, one of `QUANTIZATIONS`.
      difference: from the run.
      missed: schemes that were tried before it and were not within the bound, with their difference.
    """

    path: Path
    scheme: str
    difference: Difference
    missed: dict[str, Difference]


# By what `quantize` says: the schemes that are tried, the first that is within the bound is taken.
_FLOAT = "float32"
_HALF = "float16 weights"
_FIXED = "int8 weights and activations, with the ranges of the representative images"
_DYNAMIC = "int8 weights, and activations with the ranges of each image"
QUANTIZATIONS = {
    "none": (_FLOAT,),
    "float16": (_HALF,),
    "int8": (_FIXED, _DYNAMIC),
}
BOUNDS = {"none": Bound(0.05, 0.01), "float16": Bound(0.2, 0.02), "int8": Bound(0.5, 0.1)}


def export(
    run: str | Path,
    output: str | Path,
    checkpoint: str = "latest",
    data: str | Path | None = None,
    *,
    quantize: str = "none",
    representative: int = 200,
    seed: int = 0,
    calibrated: bool = True,
) -> Exported:
    """Write a run's model as a LiteRT file, which replaces one of that name, and say what came of it.

    Its one signature is `tensor`, for one network crop. What follows the last feature map, with all 2 x 2
    algebra, computes in float32 whatever the rest does.

    Args:
      run: what `tfhuber.train` wrote.
      output: the file, `*.tflite`.
      checkpoint: "latest" or "best".
      data: the run's converted data set, if it is not where the run found it.
      quantize: one of `BOUNDS`, and of `QUANTIZATIONS`.
      representative: images of the training split that give the ranges of int8.
      seed: which ones.
      calibrated: as in `export.export`.

    Raises:
      ValueError: an argument is none of these, the run or its data set cannot be loaded, LiteRT has not
        got what the network needs, or the numbers are not within the bound of the run's.
      OSError: the file cannot be written.
    """
    output = _checked(output, representative)
    predictor, config = load.load_run(run, checkpoint), load.read_config(run)
    examples, split = _data(predictor, config, data)
    size, bound = predictor.options.image_size, BOUNDS[quantize]
    calibration = calibration_of(run, predictor) if calibrated else None
    function = signatures.image_function(predictor, calibration=calibration)
    deviations = served_examples.deviations(function, examples)
    described = description.describe(predictor, run, checkpoint, deviations, False, calibration)
    tensor = signatures.tensor_function(predictor, calibration)
    expected = _expected(tensor, examples["image"])
    network, head = _parts(predictor, calibration)
    head_model = _converted(head, _FLOAT)
    missed: dict[str, Difference] = {}
    for scheme in QUANTIZATIONS[quantize]:
        crops = served_examples.random_crops(split, size, representative, seed)
        network_model = _converted(network, scheme, crops)
        runner = litert.Runner(litert_file.joined(network_model, head_model, "{}"))
        found = difference(expected, runner.many(examples["image"], "verifying"))
        if found.within(bound):
            described["litert"] = {"scheme": scheme, "difference": asdict(found)}
            text = description.text(described)
            _publish(output, litert_file.joined(network_model, head_model, text))
            return Exported(output, scheme, found, missed)
        missed[scheme] = found
    raise ValueError(
        f"not published: {bound.position:g} pixels and {bound.variance:.0%} of the variance are allowed; "
        + "; ".join(f"{scheme}: {found}" for scheme, found in missed.items())
    )


def difference(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> Difference:
    """Return how far answers are from those expected.

    Args:
      expected: `landmarks` [N, K, 2], `covariance` [N, K, 2, 2] and `valid` [N], in network-crop pixels.
      found: likewise.
    """
    names = ("landmarks", "covariance")
    right, other = ([each[name].astype(np.float64) for name in names] for each in (expected, found))
    usable = (expected["valid"] & found["valid"])[:, np.newaxis]
    usable = usable & np.isfinite(other[0]).all(-1) & np.isfinite(other[1]).all((-2, -1))
    position = np.linalg.norm(other[0] - right[0], axis=-1)
    ratio = np.where(usable[..., np.newaxis, np.newaxis], other[1], 0.0)
    floor = _LEAST_VARIANCE * np.trace(right[1], axis1=-2, axis2=-1) + np.finfo(np.float32).tiny
    floored = floor[..., np.newaxis, np.newaxis] * np.eye(2)
    ratio = np.linalg.solve(right[1] + floored, ratio + floored)
    variance = np.abs(np.linalg.eigvals(ratio) - 1).max(-1)
    position, variance = (np.where(usable, each, np.inf) for each in (position, variance))
    largest, median = [
        [float(f(each)) for each in (position, variance)] for f in (np.max, np.median)
    ]
    return Difference(len(usable), *largest, *median)


def _checked(output: str | Path, representative: int) -> Path:
    """Return where to write, if that and the number of images make sense and the package is there."""
    output = Path(output)
    if output.suffix != ".tflite":
        raise ValueError(f"the output for LiteRT must be a file *.tflite, got {output}")
    if not 0 < representative <= _MOST_REPRESENTATIVE:
        raise ValueError(
            f"representative images must be 1 to {_MOST_REPRESENTATIVE:,}, got {representative}"
        )
    litert_file.litert_library("interpreter")
    return output


def _data(
    predictor: Predictor, config: schema.Config, data: str | Path | None
) -> tuple[dict[str, np.ndarray], dataset.Split]:
    """Return the examples to compare on, and the split that representative images come from."""
    directory = config.data.directory if data is None else data
    try:
        size = predictor.options.image_size
        examples = served_examples.read(directory, predictor.landmark_set, size)
        return examples, dataset.open_split(directory, config.data.train_split)
    except ValueError as error:
        error.add_note("--data DIR says where the run's data set is now")
        raise


def _expected(function: Function, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the run's answers for network crops [N, S, S, 3], as its SavedModel gives them."""
    starts = progress(range(0, len(images), _BATCH), desc="run", unit="batch")
    answers = [function(images[start : start + _BATCH]) for start in starts]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _parts(
    predictor: Predictor, calibration: Calibration | None = None
) -> tuple[Function, Function]:
    """Return functions from an image to the border of what is float32, and on to the `tensor` signature's.

    Each is for one row: accelerators of phones want all shapes known.
    """
    model, size = predictor.model, predictor.options.image_size
    border = model.get_layer(_FIRST_IN_FLOAT[predictor.options.pooling]).input
    backbone = keras.Model(model.input, border)
    rest = keras.Model(border, model.output)
    _, corrected, energy = signatures.correction(predictor, "none", calibration)

    @tf.function(input_signature=[tf.TensorSpec([1, size, size, 3], tf.uint8, name="image")])
    def network(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": backbone(tf.cast(image, tf.float32), training=False)}

    shape = [1, *border.shape[1:]]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="features")])
    def head(features: tf.Tensor) -> dict[str, tf.Tensor]:
        found = corrected(predictor.whitening.to_network(rest(features, training=False)))
        covariance = found.covariance(energy)
        return signatures.answer(tf.fill([1], True), {}, landmarks=found.loc, covariance=covariance)

    return network, head


def _converted(function: Function, scheme: str, crops: Iterable[np.ndarray] = ()) -> bytes:
    """Return a function as a LiteRT model.

    Args:
      function: of one row.
      scheme: one of `QUANTIZATIONS`.
      crops: the representative network crops, for a scheme that wants them.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        archive = keras.export.ExportArchive()
        archive.add_endpoint(litert.SIGNATURE, function)
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=[litert.SIGNATURE]
        )
        if scheme != _FLOAT:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if scheme == _HALF:
            converter.target_spec.supported_types = [tf.float16]
        if scheme == _FIXED:
            rows = progress(crops, desc="ranges", unit="image")
            converter.representative_dataset = lambda: ({"image": crop[None]} for crop in rows)
        try:
            return converter.convert()
        except Exception as error:  # its class is not public
            raise ValueError(f"LiteRT's converter refuses the model: {reason(error)}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the converter says of gradients, which nobody takes here, and of its own parts."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
            yield
    finally:
        logger.setLevel(level)


def _publish(output: Path, model: bytes) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with Aside(output) as aside, blamed(output):
        aside.path.write_bytes(litert_file.sealed(model))
