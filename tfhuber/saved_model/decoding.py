"""Image files in a served graph: decoding, in which one bad file fails no other, and the network's crop."""

import tensorflow as tf

from tfhuber.distributions.location_scatter import LocationScatter
from tfhuber.geometry import box_square, projective
from tfhuber.saved_model.image_files import MAX_PIXELS

__all__ = ["decode", "in_the_image", "network_crop"]

# The largest coordinate and the shortest side of a box that float32 arithmetic can crop precisely.
_FURTHEST, _SMALLEST = 1e6, 1e-2

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"


def decode(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the image [H, W, 3] uint8 of a JPEG or PNG file, and whether it could be decoded.

    A file that is neither, is cut short, or damaged so that its decoder gives up, or that has more than
    `MAX_PIXELS`, is not an error: the image is then one black pixel and the second result false. EXIF
    orientation is not applied. Grey and CMYK images become RGB; of 16 bits the upper 8 are kept, and no
    alpha channel.

    Args:
      image_bytes: scalar string.
    """
    # No operation catches another's error, but a data set can drop the element that fails.
    decoded = tf.data.Dataset.from_tensors(image_bytes).map(lambda data: (_decode(data), True))
    otherwise = tf.data.Dataset.from_tensors((tf.zeros([1, 1, 3], tf.uint8), False))
    return decoded.ignore_errors().concatenate(otherwise).take(1).get_single_element()


def network_crop(
    image: tf.Tensor, box: tf.Tensor, size: int, rule: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the network crop [size, size, 3], the map [3, 3] into it, and whether the box was usable.

    Args:
      image: [H, W, 3] uint8, the original image.
      box: [4] x0, y0, x1, y1 in original pixels; all zeros: the whole image.
      size: side of the network crop in pixels.
      rule: as in `box_square.region_around`.

    Returns:
      The crop; the map from original to network-crop pixels; and false where the box is empty, not
      finite, absurdly far away or beside the image (the whole image is used then).
    """
    shape = tf.shape(image)
    whole = projective.whole_image_box(shape[0], shape[1])
    side = tf.minimum(box[2] - box[0], box[3] - box[1])
    usable = (
        tf.reduce_all(tf.abs(box) <= _FURTHEST)  # false for NaN as well
        & (side >= _SMALLEST)
        & (tf.minimum(box[2], whole[2]) > tf.maximum(box[0], whole[0]))
        & (tf.minimum(box[3], whole[3]) > tf.maximum(box[1], whole[1]))
    )
    asked_for_whole = tf.reduce_all(box == 0.0)
    box = tf.where(usable & ~asked_for_whole, box, whole)
    h = projective.box_to_crop(box, size, rule)

    # Only the region's own pixels (and two around, for interpolation) are turned into floats.
    cx, cy, half_width, half_height = box_square.region_around(box, rule)
    x0, x1 = _span(cx - half_width, cx + half_width, shape[1])
    y0, y1 = _span(cy - half_height, cy + half_height, shape[0])
    offset = tf.cast(tf.stack([x0, y0]), tf.float32)
    shift = tf.concat([tf.eye(2), offset[:, tf.newaxis]], axis=1)
    shift = tf.concat([shift, [[0.0, 0.0, 1.0]]], axis=0)
    crop = projective.warp(image[y0:y1, x0:x1], projective.compose(h, shift), size)
    return crop, h, usable | asked_for_whole


def in_the_image(predicted: LocationScatter, to_network: tf.Tensor, rule: str) -> LocationScatter:
    """Return distributions [N, K] of network crops in the pixels of the images that they are from.

    Args:
      predicted: in network-crop pixels.
      to_network: [N, 3, 3], as `network_crop` returns it: the image scaled and shifted.
      rule: as in `box_square.region_around`.
    """
    if rule == "stretch":  # to two scales
        return predicted.through(projective.invert(to_network))
    to_network = to_network[:, tf.newaxis]
    return predicted.unscaled(to_network[..., 0, 0], to_network[..., :2, 2])


def _span(low: tf.Tensor, high: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the first and past-the-last pixel of [low, high] with two pixels around, in 0..length."""
    limit = tf.cast(length, tf.float32)
    first = tf.clip_by_value(tf.floor(low) - 2, 0.0, limit - 1)
    last = tf.clip_by_value(tf.math.ceil(high) + 3, first + 1, limit)
    return tf.cast(first, tf.int32), tf.cast(last, tf.int32)


def _decode(image_bytes: tf.Tensor) -> tf.Tensor:
    """Return the image [H, W, 3] of a JPEG or PNG file; an error in the graph where there is none."""
    start = tf.strings.substr(image_bytes, 0, 24)

    def if_allowed(width: tf.Tensor, height: tf.Tensor) -> tf.Tensor:
        # An empty file is an error for either decoder.
        allowed = tf.cast(width, tf.int64) * tf.cast(height, tf.int64) <= MAX_PIXELS
        return tf.where(allowed, image_bytes, b"")

    def jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(image_bytes)
        return tf.io.decode_jpeg(if_allowed(shape[1], shape[0]), channels=3)

    def png() -> tf.Tensor:
        sides = tf.io.decode_raw(start, tf.int32, little_endian=False)[4:6]
        is_png = tf.equal(tf.strings.substr(start, 0, 8), _PNG)
        data = tf.where(is_png, if_allowed(sides[0], sides[1]), b"")
        return tf.io.decode_png(data, channels=3)

    is_jpeg = tf.equal(tf.strings.substr(start, 0, 3), _JPEG)
    return tf.ensure_shape(tf.cond(is_jpeg, jpeg, png), [None, None, 3])
