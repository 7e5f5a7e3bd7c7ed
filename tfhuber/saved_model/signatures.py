"""The functions behind an exported model's signatures."""

import tensorflow as tf

from tfhuber.saved_model import decoding

__all__ = [
    "IMAGE_SIGNATURES",
    "MAX_ROWS",
    "image_function",
    "metadata_function",
    "predict_functions",
    "tensor_function",
]

# The signatures that take image files, and the `tta` of `Predictor.predict` that each looks with.
IMAGE_SIGNATURES = {"serving_default": "none", "tta": "ml"}

# What the network needs for a row, tens of megabytes, is the server's to bound, not the client's.
MAX_ROWS = 256


def predict_functions(predictor) -> dict:
    """The `tf.function` behind each signature that predicts, by name.

    Args:
      predictor: an `inference.Predictor`.
    """
    functions = {name: image_function(predictor, tta) for name, tta in IMAGE_SIGNATURES.items()}
    return {**functions, "tensor": tensor_function(predictor)}


def image_function(predictor, tta: str = "none"):
    """The function from image files and boxes to distributions.

    Args:
      predictor: an `inference.Predictor`.
      tta: as in its `predict`.

    Returns:
      A `tf.function` from `image_bytes` [N] string (whole JPEG or PNG files) and `box` [N, 4] float32
      (x0, y0, x1, y1 in original pixels; all zeros: the whole image) to a dict of `landmarks`
      [N, K, 2], `covariance` [N, K, 2, 2] and `precision_factor` [N, K, 2, 2], that is A of the density
      |A| / c exp(-rho(|A (y - landmark)|)), in original image pixels, and `valid` [N]: false where the
      file is no whole JPEG or PNG, or the box is empty, not finite or outside the image; the
      row's numbers are 0 there. More than `MAX_ROWS` rows are an `InvalidArgumentError`.
    """
    size = predictor.config.model.image_size
    rule = predictor.landmark_set.square

    def crop(arguments):
        image, decoded = decoding.decode(arguments[0])
        region, h, inside = decoding.network_crop(image, arguments[1], size, rule)
        return region, h, decoded & inside

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="image_bytes"),
            tf.TensorSpec([None, 4], tf.float32, name="box"),
        ]
    )
    def predict(image_bytes, box):
        crops, to_network, valid = tf.map_fn(
            crop,
            (_few(image_bytes), box),
            fn_output_signature=(
                tf.TensorSpec([size, size, 3], tf.float32),
                tf.TensorSpec([3, 3], tf.float32),
                tf.TensorSpec([], tf.bool),
            ),
        )
        loc, factor = predictor.predict(crops, tta)
        # A crop is the image scaled and shifted; inverting the map in general would lose digits, and a
        # scaled A keeps |A (u - mu)| what it is.
        scale = to_network[:, tf.newaxis, :1, :1]
        landmarks = (loc - to_network[:, tf.newaxis, :2, 2]) / scale[..., 0]
        factor *= scale
        covariance = predictor.distribution(landmarks, factor).covariance()
        return _answer(valid, landmarks=landmarks, covariance=covariance, precision_factor=factor)

    return predict


def tensor_function(predictor):
    """The function from network crops to distributions: nothing in it can fail for what a row holds.

    Args:
      predictor: an `inference.Predictor`.

    Returns:
      A `tf.function` from `image` [N, S, S, 3] uint8 network crops to a dict of `landmarks` [N, K, 2]
      and `covariance` [N, K, 2, 2] in network-crop pixels, and `valid` [N]: false, with zeros, where a
      number is not finite. More than `MAX_ROWS` rows are an `InvalidArgumentError`.
    """
    size = predictor.config.model.image_size

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8, name="image")])
    def predict(image):
        loc, factor = predictor.predict(tf.cast(_few(image), tf.float32))
        covariance = predictor.distribution(loc, factor).covariance()
        return _answer(tf.fill(tf.shape(image)[:1], True), landmarks=loc, covariance=covariance)

    return predict


def metadata_function(text: str):
    """A `tf.function` from `query` [N] string, which it ignores, to `json` [N]: each row is `text`."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="query")])
    def describe(query):
        return {"json": tf.fill(tf.shape(_few(query)), text)}

    return describe


def _few(rows: tf.Tensor) -> tf.Tensor:
    """The rows, unless they are more than a server should take at once."""
    few = tf.debugging.assert_less_equal(
        tf.shape(rows)[0], MAX_ROWS, f"at most {MAX_ROWS} images in a request"
    )
    with tf.control_dependencies([few]):
        return tf.identity(rows)


def _answer(valid: tf.Tensor, **numbers: tf.Tensor) -> dict[str, tf.Tensor]:
    """The numbers with zeros in rows that are not valid, or in which one is not finite."""
    for value in numbers.values():
        valid &= tf.reduce_all(tf.math.is_finite(value), axis=range(1, value.shape.rank))
    kept = {
        name: tf.where(tf.reshape(valid, [-1] + [1] * (value.shape.rank - 1)), value, 0.0)
        for name, value in numbers.items()
    }
    return {**kept, "valid": valid}
