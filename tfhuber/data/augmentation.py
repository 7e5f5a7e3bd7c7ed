"""The recipe's augmentation: one random projective map of the network crop, drawn without state."""

import math

import tensorflow as tf

from tfhuber.config.schema import Augmentation
from tfhuber.geometry.projective import translation

__all__ = ["equal_spacing", "example_key", "random_map", "space_contour"]


def random_map(
    seed: tf.Tensor, size: int, options: Augmentation, shift: bool | tf.Tensor = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a random map [3, 3] from the plain network crop to the augmented one, and whether it mirrors.

    About the crop's centre, in this order: mirror, scale along a random axis, rotate, shift,
    perspective in a random direction, shift.

    Args:
      seed: [2] integers; the same seed gives the same map.
      size: side of the network crop in pixels.
      options: how far each part may go.
      shift: scalar; whether there are shifts at all. The other parts do not depend on it.

    Returns:
      (map, mirrored): the caller permutes the landmarks where `mirrored` (scalar bool) is true.
    """
    u = tf.unstack(tf.random.stateless_uniform([11], seed))

    def between(value: tf.Tensor, low: float | tf.Tensor, high: float | tf.Tensor) -> tf.Tensor:
        return low + (high - low) * value

    mirrored = u[0] < options.mirror
    mirror = _affine(tf.where(mirrored, -1.0, 1.0), 0.0, 0.0, 1.0)

    # s1 / s2 (shape) and s1 s2 (area) are drawn, as the authors do: log-uniform around 1.
    log_limit = math.log(options.scale)
    log_shape = between(u[1], -log_limit, log_limit)
    log_area = between(u[2], -log_limit, log_limit)
    axis = between(u[3], 0.0, math.pi)
    stretch = (
        _rotation(-axis)
        @ _affine(tf.exp((log_area + log_shape) / 2), 0.0, 0.0, tf.exp((log_area - log_shape) / 2))
        @ _rotation(axis)
    )

    limit = math.radians(options.rotation_degrees)
    rotation = _rotation(between(u[4], -limit, limit))
    reach = tf.where(shift, options.shift * size, 0.0)
    before = translation(between(u[5], -reach, reach), between(u[6], -reach, reach))
    after = translation(between(u[7], -reach, reach), between(u[8], -reach, reach))

    strength = between(u[9], 0.0, options.perspective) / size
    direction = between(u[10], 0.0, 2 * math.pi)
    perspective = tf.stack(
        [
            tf.constant([1.0, 0.0, 0.0]),
            tf.constant([0.0, 1.0, 0.0]),
            tf.stack([strength * tf.cos(direction), strength * tf.sin(direction), 1.0]),
        ]
    )
    centre = (size - 1) / 2
    about_centre = after @ perspective @ before @ rotation @ stretch @ mirror
    return translation(centre, centre) @ about_centre @ translation(-centre, -centre), mirrored


def equal_spacing(points: tf.Tensor) -> tf.Tensor:
    """Return the polyline's points [M, 2] moved along it to equal arc lengths, in the frame given.

    The two ends stay; a polyline of no length is returned as it is.
    """
    steps = tf.norm(points[1:] - points[:-1], axis=-1)
    position = tf.concat([[0.0], tf.cumsum(steps)], axis=0)
    length = position[-1]
    count = points.shape[0]
    wanted = tf.linspace(0.0, length, count)
    segment = tf.clip_by_value(tf.searchsorted(position, wanted, side="right") - 1, 0, count - 2)
    start = tf.gather(position, segment)
    fraction = tf.math.divide_no_nan(wanted - start, tf.gather(steps, segment))
    low, high = tf.gather(points, segment), tf.gather(points, segment + 1)
    return low + tf.clip_by_value(fraction, 0.0, 1.0)[:, tf.newaxis] * (high - low)


def space_contour(points: tf.Tensor, weights: tf.Tensor, first: int, last: int) -> tf.Tensor:
    """Return the points, those of a contour [K, 2] spaced equally if all are labelled."""
    part = slice(first, last + 1)
    complete = tf.reduce_all(weights[part] > 0)
    spaced = tf.where(complete, equal_spacing(points[part]), points[part])
    return tf.concat([points[:first], spaced, points[last + 1 :]], axis=0)


def _affine(*elements: tf.Tensor | float) -> tf.Tensor:
    """Return the map [3, 3] whose linear part has these four elements, row by row."""
    zero = tf.zeros([])
    a, b, c, d = (tf.convert_to_tensor(v, tf.float32) for v in elements)
    return tf.stack([tf.stack([a, b, zero]), tf.stack([c, d, zero]), tf.constant([0.0, 0.0, 1.0])])


def _rotation(angle: tf.Tensor) -> tf.Tensor:
    return _affine(tf.cos(angle), tf.sin(angle), -tf.sin(angle), tf.cos(angle))


def example_key(example_id: tf.Tensor, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Return the seed [2] of what is random in an example of a run in an epoch."""
    example = tf.strings.to_hash_bucket_fast(example_id, 2**62)
    return tf.stack([example, tf.cast(seed, tf.int64) * 2**32 + epoch])
