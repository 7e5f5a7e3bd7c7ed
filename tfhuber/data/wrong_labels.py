"""Labels that are wrong on purpose, for experiments on robustness."""

import tensorflow as tf

from tfhuber.data.augmentation import example_key
from tfhuber.geometry.projective import apply_map, box_to_crop, invert
from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = ["misplace"]


def misplace(
    points: tf.Tensor,
    example: dict[str, tf.Tensor],
    to_network: tf.Tensor,
    *,
    landmark_set: LandmarkSet,
    size: int,
    share: float,
    seed: int,
) -> tf.Tensor:
    """Return network-crop points [K, 2], a share of them somewhere else in the image.

    Which ones, and where in the image, is the same in every epoch, as with a wrong annotation.

    Args:
      points: [K, 2] in network-crop pixels.
      example: as `records.parse` returns it.
      to_network: [3, 3], the map from the original image to the network crop.
      landmark_set: of the points.
      size: side of the network crop in pixels.
      share: of the points that are wrong, on average.
      seed: of the run.
    """
    if not share:
        return points
    # No epoch has this number.
    key = example_key(example["id"], seed, tf.constant(2**31, tf.int64))
    which, where = tf.unstack(tf.random.experimental.stateless_split(key, 2))
    wrong = tf.random.stateless_uniform([landmark_set.count], which) < share
    place = tf.random.stateless_uniform([landmark_set.count, 2], where)
    plain = box_to_crop(example["box"], size, landmark_set.square)
    place = apply_map(invert(plain), place * size - 0.5)
    # A mirroring map turns round; it exchanges the landmarks, and so the wrong ones as well.
    order = tf.where(
        tf.linalg.det(to_network) < 0,
        tf.constant(landmark_set.mirror),
        tf.range(landmark_set.count),
    )
    wrong, place = tf.gather(wrong, order), tf.gather(place, order)
    return tf.where(wrong[:, tf.newaxis], apply_map(to_network, place), points)
