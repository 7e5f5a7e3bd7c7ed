"""The functions behind an exported model's signatures.

TensorFlow Serving compares no request with the shapes that a signature declares, so each function makes
sure of its own: a tensor of another shape is an `InvalidArgumentError`, which the server answers with 400.
"""

from collections.abc import Callable

import tensorflow as tf

from tfhuber.calibration.model import Calibration
from tfhuber.distributions.location_scatter import LocationScatter
from tfhuber.distributions.radial import RadialEnergy
from tfhuber.model.predictor import Predictor
from tfhuber.saved_model import decoding

__all__ = [
    "IMAGE_SIGNATURES",
    "MAX_ROWS",
    "answer",
    "correction",
    "flagging",
    "image_function",
    "metadata_function",
    "predict_functions",
    "tensor_function",
]

# The signatures that take image files, and the `tta` of `Predictor.predict` that each looks with.
IMAGE_SIGNATURES = {"serving_default": "none", "tta": "ml"}

# What the network needs for a row, tens of megabytes, is the server's to bound, not the client's.
MAX_ROWS = 256

Answer = dict[str, tf.Tensor]


def predict_functions(
    predictor: Predictor, mirrored: bool, calibration: Calibration | None = None
) -> dict[str, Callable[..., Answer]]:
    """Return the `tf.function` behind each signature that predicts, by name.

    Args:
      predictor: the model.
      mirrored: whether it was trained on mirror images too; without them it has no `tta`.
      calibration: of these weights, by which all covariances are corrected; None for none.
    """
    functions = {
        name: image_function(predictor, tta, calibration)
        for name, tta in IMAGE_SIGNATURES.items()
        if mirrored or tta == "none"
    }
    return {**functions, "tensor": tensor_function(predictor, calibration)}


def image_function(
    predictor: Predictor, tta: str = "none", calibration: Calibration | None = None
) -> Callable[[tf.Tensor, tf.Tensor], Answer]:
    """Return the function from image files and boxes to distributions in original image pixels.

    Args:
      predictor: the model.
      tta: as in its `predict`.
      calibration: as in `predict_functions`.

    Returns:
      A `tf.function` from `image_bytes` [N] string, whole JPEG or PNG files, and `box` [N, 4] float32
      (x0, y0, x1, y1 in original pixels; all zeros: the whole image) to `landmarks` [N, K, 2],
      `covariance` [N, K, 2, 2], `precision_factor` [N, K, 2, 2], that is A of the density
      |A| / c exp(-rho(|A (y - landmark)|)), in original image pixels, and `valid` [N]: false where the
      file is none, or the box is empty, not finite or outside the image; the row's numbers are 0
      there. `flagging` may add `reliable` [N, K] and `in_distribution` [N]. More than `MAX_ROWS` rows,
      other shapes or another number of boxes are an `InvalidArgumentError`.
    """
    size, rule = predictor.options.image_size, predictor.landmark_set.square
    predictor, corrected, energy = correction(predictor, tta, calibration)
    flags = flagging(predictor, tta, calibration)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="image_bytes"),
            tf.TensorSpec([None, 4], tf.float32, name="box"),
        ],
        autograph=False,
    )
    def predict(image_bytes: tf.Tensor, box: tf.Tensor) -> Answer:
        rows = _bounded(image_bytes, []), _bounded(box, [4])
        files, boxes = (tf.shape(value)[0] for value in rows)
        paired = tf.debugging.assert_equal(boxes, files, "each image file needs a box")
        with tf.control_dependencies([paired]):
            crops, to_network, valid = _cropped(rows, size, rule)
        predicted = corrected(predictor.predict(crops, tta))
        original = decoding.in_the_image(predicted, to_network, rule)
        return answer(
            valid,
            flags(predicted),
            landmarks=original.loc,
            covariance=original.covariance(energy),
            precision_factor=original.precision_factor,
        )

    return predict


def tensor_function(
    predictor: Predictor, calibration: Calibration | None = None
) -> Callable[[tf.Tensor], Answer]:
    """Return the function from network crops to distributions in their pixels.

    Nothing in it can fail for what a row holds.

    Args:
      predictor: the model.
      calibration: as in `predict_functions`.

    Returns:
      A `tf.function` from `image` [N, S, S, 3] uint8 network crops to a dict of `landmarks` [N, K, 2]
      and `covariance` [N, K, 2, 2] in network-crop pixels, and `valid` [N]: false, with zeros, where a
      number is not finite; `reliable` and `in_distribution` as in `image_function`. More than
      `MAX_ROWS` rows, and crops of another size or number of channels, are an `InvalidArgumentError`.
    """
    size = predictor.options.image_size
    predictor, corrected, energy = correction(predictor, "none", calibration)
    flags = flagging(predictor, "none", calibration)

    @tf.function(
        input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8, name="image")],
        autograph=False,
    )
    def predict(image: tf.Tensor) -> Answer:
        crops = tf.cast(_bounded(image, [size, size, 3]), tf.float32)
        predicted = corrected(predictor.predict(crops))
        return answer(
            tf.fill(tf.shape(image)[:1], True),
            flags(predicted),
            landmarks=predicted.loc,
            covariance=predicted.covariance(energy),
        )

    return predict


def metadata_function(text: str) -> Callable[[tf.Tensor], Answer]:
    """Return a `tf.function` from `query` [N] string, which it ignores, to `json` [N]: `text` each."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="query")], autograph=False)
    def describe(query: tf.Tensor) -> Answer:
        return {"json": tf.fill(tf.shape(_bounded(query, [])), text)}

    return describe


def correction(
    predictor: Predictor, tta: str, calibration: Calibration | None
) -> tuple[Predictor, Callable[[LocationScatter], LocationScatter], RadialEnergy]:
    """Return the model as it fuses views, what is done to its predictions, and their energy then."""
    if calibration is None:
        return predictor, lambda predicted: predicted, predictor.energy
    signature = calibration.signatures[tta]
    return predictor.correlated(calibration.correlations), signature.apply, signature.energy


def flagging(
    predictor: Predictor, tta: str, calibration: Calibration | None
) -> Callable[[LocationScatter], Answer]:
    """Return the function from corrected predictions to their `reliable` and `in_distribution`, if any."""
    signature = None if calibration is None else calibration.signatures[tta]
    if signature is None or signature.abstention is None:
        return lambda predicted: {}
    size, energy, abstention = predictor.options.image_size, signature.energy, signature.abstention
    return lambda predicted: abstention.flags(predicted, energy, size)


def _cropped(
    rows: tuple[tf.Tensor, tf.Tensor], size: int, rule: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the network crops of image files and boxes, the maps from the images, and which are valid."""

    @tf.autograph.experimental.do_not_convert
    def crop(row: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, decoded = decoding.decode(row[0])
        region, to_network, inside = decoding.network_crop(image, row[1], size, rule)
        return region, to_network, decoded & inside

    shapes = (
        tf.TensorSpec([size, size, 3], tf.float32),
        tf.TensorSpec([3, 3], tf.float32),
        tf.TensorSpec([], tf.bool),
    )
    return tf.map_fn(crop, rows, fn_output_signature=shapes)


def _bounded(rows: tf.Tensor, shape: list[int]) -> tf.Tensor:
    """Return the rows, if each has the shape and they are no more than a server should take at once."""
    # A crop without channels, or of another size, would pass through the network and get an answer. The
    # check stands beside the rows' way, since on it TensorFlow computes what follows in another order.
    shaped = tf.ensure_shape(rows, [None, *shape])
    few = tf.debugging.assert_less_equal(
        tf.shape(shaped)[0], MAX_ROWS, f"at most {MAX_ROWS} images in a request"
    )
    with tf.control_dependencies([few]):
        return tf.identity(rows)


def answer(valid: tf.Tensor, flags: Answer, **numbers: tf.Tensor) -> Answer:
    """Return the numbers and flags [N, ...]: zero and false in rows not valid, or with one not finite."""
    for value in numbers.values():
        valid &= tf.reduce_all(tf.math.is_finite(value), axis=range(1, value.shape.rank))

    def kept(value: tf.Tensor) -> tf.Tensor:
        row = tf.reshape(valid, [-1] + [1] * (value.shape.rank - 1))
        return tf.where(row, value, tf.zeros([], value.dtype))

    return {**tf.nest.map_structure(kept, {**numbers, **flags}), "valid": valid}
