"""Random changes of what a network crop looks like, its landmarks where they are; drawn without state."""

import tensorflow as tf

from tfhuber.config.schema import Augmentation

__all__ = ["random_appearance"]


def random_appearance(
    image: tf.Tensor, key: tf.Tensor | None, options: Augmentation | None
) -> tf.Tensor:
    """Return the network crop [S, S, 3] (0..255) with other colours, blurred, and partly covered.

    Args:
      image: float32.
      key: [2] seed; the same gives the same image.
      options: how far, and how often; None: not at all.
    """
    if options is None or key is None:
        return image
    if options.colour:
        image = _recoloured(image, _uniform(key, 1, [9]), options.colour)
    if options.blur:
        image = _blurred(image, _uniform(key, 2, [2]), options.blur)
    if options.occlusion:
        image = _covered(image, key, options.occlusion)
    return image


def _uniform(key: tf.Tensor, purpose: int, shape: list[int]) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, key + tf.constant([0, purpose << 48], tf.int64))


def _recoloured(image: tf.Tensor, u: tf.Tensor, strength: float) -> tf.Tensor:
    """Change gamma, contrast, brightness, saturation, and the gain of each channel."""
    v = 2 * u - 1
    grey = tf.reduce_mean(image, axis=-1, keepdims=True)
    saturation = tf.where(u[8] < 0.2 * strength, 0.0, 1 + strength * v[0])
    image = grey + saturation * (image - grey)
    gain = tf.exp(strength * (0.5 * v[1] + 0.25 * v[2:5]))
    mean = tf.reduce_mean(image)
    contrast = tf.exp(0.7 * strength * v[5])
    image = ((image - mean) * contrast + mean) * gain + 60 * strength * v[6]
    image = tf.clip_by_value(image, 0.0, 255.0)
    return 255 * (image / 255) ** tf.exp(0.7 * strength * v[7])


def _blurred(image: tf.Tensor, u: tf.Tensor, rate: float) -> tf.Tensor:
    sigma = 0.4 + 2.0 * u[1] ** 2
    x = tf.range(-4.0, 5.0)
    taps = tf.exp(-0.5 * (x / sigma) ** 2)
    taps = tf.tile(
        (taps / tf.reduce_sum(taps))[:, tf.newaxis, tf.newaxis, tf.newaxis], [1, 1, 3, 1]
    )

    def blur() -> tf.Tensor:
        padded = tf.pad(image, [[4, 4], [4, 4], [0, 0]], "SYMMETRIC")[tf.newaxis]
        once = tf.nn.depthwise_conv2d(padded, taps, [1, 1, 1, 1], "VALID")
        return tf.nn.depthwise_conv2d(
            once, tf.transpose(taps, [1, 0, 2, 3]), [1, 1, 1, 1], "VALID"
        )[0]

    return tf.cond(u[0] < rate, blur, lambda: image)


def _covered(image: tf.Tensor, key: tf.Tensor, rate: float) -> tf.Tensor:
    """Cover a random rectangle by a plain colour, noise, or a part of the same image from elsewhere."""
    size = image.shape[0]
    u = _uniform(key, 3, [10])
    side = (
        size * (0.1 + 0.35 * u[1]) * tf.exp(0.7 * (tf.stack([u[2], -u[2]]) - tf.stack([0.5, -0.5])))
    )
    centre = size * u[3:5]
    row, column = tf.range(size, dtype=tf.float32)[:, tf.newaxis], tf.range(size, dtype=tf.float32)
    inside = (tf.abs(row - centre[0]) < side[0] / 2) & (tf.abs(column - centre[1]) < side[1] / 2)
    plain = 255 * u[5:8] * tf.ones_like(image)
    noise = 255 * _uniform(key, 4, [size, size, 3])
    shift = tf.cast(size * (0.25 + 0.5 * u[8:10]), tf.int32)
    elsewhere = tf.roll(tf.reverse(image, [0]), shift, [0, 1])
    kind = _uniform(key, 5, [])
    patch = tf.where(kind < 0.35, plain, tf.where(kind < 0.5, noise, elsewhere))
    return tf.where((u[0] < rate) & inside[..., tf.newaxis], patch, image)
