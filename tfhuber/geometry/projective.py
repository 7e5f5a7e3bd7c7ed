"""Projective maps between pixel frames: points, covariances and images go through the same 3 x 3 matrix.

Points are (x, y) in pixels and a pixel's centre has integer coordinates, so that an image W pixels
wide spans [-0.5, W - 0.5]. A map `h` takes a point u of one frame to `h @ (u, 1)` of another, up to
scale. All functions broadcast over leading dimensions.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from tfhuber.geometry.box_square import region_around
from tfhuber.linalg import small_matrix

__all__ = [
    "apply_map",
    "box_to_crop",
    "compose",
    "invert",
    "jacobian",
    "mirror_map",
    "push_covariance",
    "push_precision_factor",
    "scaling",
    "translation",
    "visible_part",
    "warp",
    "whole_image_box",
]

_Scalar: TypeAlias = tf.Tensor | np.number | float


def whole_image_box(height: _Scalar, width: _Scalar) -> tf.Tensor:
    """Return the box [4] that an image of that many pixels spans, in its own pixel frame."""
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    half = tf.constant(0.5)
    return tf.stack([-half, -half, width - half, height - half])


def scaling(scale_x: _Scalar, scale_y: _Scalar) -> tf.Tensor:
    """Return the map [..., 3, 3] of an image resized by those factors: u -> s (u + 0.5) - 0.5."""
    sx, sy = tf.convert_to_tensor(scale_x), tf.convert_to_tensor(scale_y)
    zero, one = tf.zeros_like(sx), tf.ones_like(sx)
    return _matrix([[sx, zero, (sx - 1) / 2], [zero, sy, (sy - 1) / 2], [zero, zero, one]])


def translation(x: _Scalar, y: _Scalar) -> tf.Tensor:
    """Return the map [3, 3] that moves everything by (x, y) pixels."""
    x, y = tf.cast(x, tf.float32), tf.cast(y, tf.float32)
    return tf.stack(
        [tf.stack([1.0, 0.0, x]), tf.stack([0.0, 1.0, y]), tf.constant([0.0, 0.0, 1.0])]
    )


def mirror_map(width: _Scalar) -> tf.Tensor:
    """Return the map [3, 3] of a left-right mirrored image of that many pixels: x -> width - 1 - x."""
    last = tf.cast(width, tf.float32) - 1
    return tf.stack(
        [tf.stack([-1.0, 0.0, last]), tf.constant([0.0, 1.0, 0.0]), tf.constant([0.0, 0.0, 1.0])]
    )


def box_to_crop(box: tf.Tensor, size: int, rule: str) -> tf.Tensor:
    """Return the map [..., 3, 3] from the box's frame to the crop of `size` x `size` pixels around it.

    The region given by `region_around` fills the crop from edge to edge: its corners go to -0.5 and
    `size - 0.5`.

    Args:
      box: [..., 4] x0, y0, x1, y1.
      size: side of the crop in pixels.
      rule: as in `region_around`.
    """
    cx, cy, half_width, half_height = region_around(box, rule)
    x, y = size / (2 * half_width), size / (2 * half_height)
    zero, one = tf.zeros_like(x), tf.ones_like(x)
    offset = (size - 1) / 2
    return _matrix([[x, zero, offset - x * cx], [zero, y, offset - y * cy], [zero, zero, one]])


def compose(outer: tf.Tensor, inner: tf.Tensor) -> tf.Tensor:
    """Return the map [..., 3, 3] that applies `inner` first and then `outer`."""
    return small_matrix.matmul(outer, inner)


def invert(h: tf.Tensor) -> tf.Tensor:
    """Return the map [..., 3, 3] back; where there is none its elements are not finite."""
    first, second, third = tf.unstack(h, axis=-2)
    columns = [
        tf.linalg.cross(second, third),
        tf.linalg.cross(third, first),
        tf.linalg.cross(first, second),
    ]
    det = tf.reduce_sum(first * columns[0], axis=-1)[..., tf.newaxis, tf.newaxis]
    return tf.stack(columns, axis=-1) / det


def apply_map(h: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Return points [..., K, 2] of one frame in the frame that `h` [..., 3, 3] maps to."""
    linear, offset = h[..., tf.newaxis, :, :2], h[..., tf.newaxis, :, 2]
    projected = tf.reduce_sum(linear * points[..., tf.newaxis, :], axis=-1) + offset
    return projected[..., :2] / projected[..., 2:]


def jacobian(h: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Return the derivative [..., K, 2, 2] of `apply_map` with respect to each point."""
    mapped = apply_map(h, points)
    depth = tf.reduce_sum(h[..., tf.newaxis, 2, :2] * points, axis=-1) + h[..., tf.newaxis, 2, 2]
    linear = h[..., tf.newaxis, :2, :2]
    outer = mapped[..., :, tf.newaxis] * h[..., tf.newaxis, tf.newaxis, 2, :2]
    return (linear - outer) / depth[..., tf.newaxis, tf.newaxis]


def push_covariance(j: tf.Tensor, covariance: tf.Tensor) -> tf.Tensor:
    """Return covariances [..., 2, 2] in the frame that a map with Jacobian `j` leads to: J S J'."""
    pushed = small_matrix.matmul(small_matrix.matmul(j, covariance), tf.linalg.matrix_transpose(j))
    return (pushed + tf.linalg.matrix_transpose(pushed)) / 2


def push_precision_factor(j: tf.Tensor, precision_factor: tf.Tensor) -> tf.Tensor:
    """Return the precision factor [..., 2, 2] in the frame that a map with Jacobian `j` leads to.

    Where the old density is |A| f(|A (u - mu)|), the new one to first order is
    |A'| f(|A' (h(u) - h(mu))|) with A' the symmetric square root of inv(J)' A A inv(J).

    Args:
      j: [..., 2, 2] Jacobian of the map at mu.
      precision_factor: [..., 2, 2] A, symmetric positive definite.
    """
    j_00, j_01, j_10, j_11 = small_matrix.elements_2x2(j)
    det = j_00 * j_11 - j_01 * j_10
    elements = [j_11 / det, -j_01 / det, -j_10 / det, j_00 / det]
    root = small_matrix.matmul(precision_factor, small_matrix.interleave(elements, [2, 2]))
    square = small_matrix.matmul(tf.linalg.matrix_transpose(root), root)
    # The determinants of the factors do not cancel as that of the product would.
    log_det = small_matrix.log_determinant(precision_factor) - tf.math.log(tf.abs(det))
    return small_matrix.square_root(square, 2 * log_det)


def warp(image: tf.Tensor, h: tf.Tensor, size: int) -> tf.Tensor:
    """Return the image [size, size, C], float32, seen through the map `h` from its frame to the result's.

    One bilinear sampling; beyond the image's border its edge pixels continue. Where the map shrinks
    the image by 2 or more, the image is first averaged over whole blocks, so that nothing aliases.

    Args:
      image: [H, W, C] uint8 or float32.
      h: [3, 3] map from `image`'s pixel frame to the result's.
      size: side of the result in pixels.
    """
    image = tf.cast(image, tf.float32)
    to_image = invert(h)
    image, to_image = _prefilter(image, to_image, size)
    to_image = to_image / to_image[2, 2]
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.reshape(to_image, [1, 9])[:, :8],
        output_shape=tf.constant([size, size], tf.int32),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]
    warped.set_shape([size, size, image.shape[-1]])
    return warped


def visible_part(shape: tf.Tensor, h: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the part of an image that `warp` reads, [4] int32 y0, x0, height, width, and the map from it.

    Warped with that map, it gives what the whole image gives; where blocks are averaged, nearly so.

    Args:
      shape: [2] or more integers, the image's height, width, ...
      h: [3, 3] map from the image's pixel frame to the result's.
      size: side of the result in pixels.
    """
    to_image = invert(h)
    corners = tf.constant([[x, y] for y in (0.0, size - 1.0) for x in (0.0, size - 1.0)])
    depth = tf.linalg.matvec(corners, to_image[2, :2]) + to_image[2, 2]
    # Blocks are those of the whole image; bilinear sampling needs one more on either side.
    block = tf.maximum(_block(to_image, size), 1)
    unit = tf.cast(block, tf.float32)
    seen = apply_map(to_image, corners) / unit
    # Seen across the horizon, nothing is known of what lies between the corners.
    bounded = (tf.reduce_min(depth) * tf.reduce_max(depth) > 0) & tf.reduce_all(tf.abs(seen) < 1e6)
    last = shape[1::-1] - 1
    first_seen = tf.cast(tf.floor(tf.reduce_min(seen, axis=0)) - 1, tf.int32) * block
    past_seen = tf.cast(tf.floor(tf.reduce_max(seen, axis=0)) + 3, tf.int32) * block
    first = tf.where(bounded, tf.clip_by_value(first_seen, 0, last // block * block), 0)
    past = tf.where(bounded, tf.clip_by_value(past_seen, first + 1, last + 1), last + 1)
    (x0, y0), (width, height) = tf.unstack(first), tf.unstack(past - first)
    return tf.stack([y0, x0, height, width]), compose(h, translation(x0, y0))


def _block(to_image: tf.Tensor, size: int) -> tf.Tensor:
    """Return the side of the blocks that `warp` averages: the map's step at the centre, rounded down."""
    centre = tf.fill([1, 2], (size - 1) / 2)
    step = tf.sqrt(tf.abs(tf.linalg.det(jacobian(to_image, centre)[0])))
    return tf.cast(tf.floor(1.0001 * step), tf.int32)  # the same for a map by 2 and one by 1.99999


def _prefilter(image: tf.Tensor, to_image: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the image averaged over blocks, and the map into it."""
    block = _block(to_image, size)

    def shrink() -> tuple[tf.Tensor, tf.Tensor]:
        shape = tf.shape(image)[:2]
        # Rounding up keeps every pixel; the exact ratio goes into the map.
        small = tf.maximum((shape + block - 1) // block, 1)
        ratio = tf.cast(small, tf.float32) / tf.cast(shape, tf.float32)
        resized = tf.image.resize(image, small, method="area")
        return resized, compose(scaling(ratio[1], ratio[0]), to_image)

    smaller, mapped = tf.cond(block > 1, shrink, lambda: (image, to_image))
    smaller.set_shape([None, None, image.shape[-1]])
    return smaller, mapped


def _matrix(rows: Sequence[Sequence[tf.Tensor]]) -> tf.Tensor:
    return tf.stack([tf.stack(row, axis=-1) for row in rows], axis=-2)
