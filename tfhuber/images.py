"""Image files inside a graph: decoding that does not fail its neighbours, and the network's crop."""

import tensorflow as tf

from tfhuber import boxes, geometry

__all__ = ["MAX_PIXELS", "decode", "network_crop"]

# A picture of 100 megapixels is 1.2 GB as float32 RGB; nothing larger is decoded.
MAX_PIXELS = 100_000_000

# A box's coordinates and its shorter side beyond which float32 arithmetic would lose its meaning.
_FURTHEST, _SMALLEST = 1e6, 1e-2

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"


def decode(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The image [H, W, 3] uint8 of a JPEG or PNG file, and whether the file was whole.

    What can be seen to be neither, cut short or larger than `MAX_PIXELS` is not decoded: the image is
    then one black pixel and the second result false. (Stock operations have no way to catch a
    decoder's error, so a file damaged in its middle still raises `InvalidArgumentError`.) EXIF orientation
    is not applied. Grey images become RGB; an alpha channel is dropped.

    Args:
      image_bytes: scalar string.
    """
    start = tf.strings.substr(image_bytes, 0, 24)
    tail = _tail(image_bytes)

    def jpeg():
        shape = tf.cast(tf.image.extract_jpeg_shape(image_bytes, tf.int32), tf.int64)
        return _if_allowed(
            shape[0] * shape[1],
            # Truncation has been looked for; damage inside is decoded as far as it goes.
            lambda: tf.io.decode_jpeg(
                image_bytes, channels=3, try_recover_truncated=True, acceptable_fraction=0.0
            ),
        )

    def png():
        header = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int64)[16:24]
        sides = tf.reduce_sum(tf.reshape(header, [2, 4]) * [1 << 24, 1 << 16, 1 << 8, 1], 1)
        return _if_allowed(sides[0] * sides[1], lambda: tf.io.decode_png(image_bytes, channels=3))

    is_jpeg = (tf.strings.substr(start, 0, 3) == b"\xff\xd8\xff") & _contains(tail, b"\xff\xd9")
    is_png = (tf.strings.substr(start, 0, 8) == _PNG) & _contains(tail, _PNG_END)
    image, whole = tf.cond(is_jpeg, jpeg, lambda: tf.cond(is_png, png, _nothing))
    image.set_shape([None, None, 3])
    return image, whole


def network_crop(
    image: tf.Tensor, box: tf.Tensor, size: int, rule: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The network crop [size, size, 3], the map [3, 3] into it, and whether the box was usable.

    Args:
      image: [H, W, 3] uint8, the original image.
      box: [4] x0, y0, x1, y1 in original pixels; all zeros: the whole image.
      size: side of the network crop in pixels.
      rule: as in `boxes.square_around`.

    Returns:
      The crop; the map from original to network-crop pixels; and false where the box is empty, not
      finite, absurdly far away or beside the image (the whole image is used then).
    """
    shape = tf.shape(image)
    whole = geometry.whole_image_box(shape[0], shape[1])
    side = tf.minimum(box[2] - box[0], box[3] - box[1])
    usable = (
        tf.reduce_all(tf.abs(box) <= _FURTHEST)  # false for NaN as well
        & (side >= _SMALLEST)
        & (tf.minimum(box[2], whole[2]) > tf.maximum(box[0], whole[0]))
        & (tf.minimum(box[3], whole[3]) > tf.maximum(box[1], whole[1]))
    )
    asked_for_whole = tf.reduce_all(box == 0.0)
    box = tf.where(usable & ~asked_for_whole, box, whole)
    h = geometry.box_to_crop(box, size, rule)

    # Only the square's own pixels (and two around, for interpolation) are turned into floats.
    cx, cy, half = boxes.square_around(box, rule)
    x0, x1 = _span(cx - half, cx + half, shape[1])
    y0, y1 = _span(cy - half, cy + half, shape[0])
    offset = tf.cast(tf.stack([x0, y0]), tf.float32)
    shift = tf.concat([tf.eye(2), offset[:, tf.newaxis]], axis=1)
    shift = tf.concat([shift, [[0.0, 0.0, 1.0]]], axis=0)
    crop = geometry.warp(image[y0:y1, x0:x1], geometry.compose(h, shift), size)
    return crop, h, usable | asked_for_whole


def _span(low, high, length):
    """First and past-the-last pixel of [low, high] with two pixels around it, in 0..length."""
    limit = tf.cast(length, tf.float32)
    first = tf.clip_by_value(tf.floor(low) - 2, 0.0, limit - 1)
    last = tf.clip_by_value(tf.math.ceil(high) + 3, first + 1, limit)
    return tf.cast(first, tf.int32), tf.cast(last, tf.int32)


def _nothing():
    return tf.zeros([1, 1, 3], tf.uint8), tf.constant(False)


def _if_allowed(pixels, decoder):
    allowed = (pixels > 0) & (pixels <= MAX_PIXELS)
    return tf.cond(allowed, lambda: (decoder(), tf.constant(True)), _nothing)


def _tail(image_bytes: tf.Tensor) -> tf.Tensor:
    """The last bytes of the file; cameras and editors append a little after the end marker."""
    length = tf.strings.length(image_bytes)
    kept = tf.minimum(length, 4096)
    return tf.io.decode_raw(tf.strings.substr(image_bytes, length - kept, kept), tf.uint8)


def _contains(values: tf.Tensor, pattern: bytes) -> tf.Tensor:
    """Whether the bytes `values` [n] hold `pattern`."""
    count = tf.maximum(tf.size(values) - len(pattern) + 1, 0)
    matches = [values[i : i + count] == byte for i, byte in enumerate(pattern)]
    return tf.reduce_any(tf.reduce_all(tf.stack(matches), axis=0))
