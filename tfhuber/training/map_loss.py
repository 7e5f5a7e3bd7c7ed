"""What teaches the first feature points to be the landmarks: the cross-entropy of their maps.

The loss of eq. 6 moves a feature point only through its mean, which many maps share. The cross-entropy
says for each cell whether the landmark is there, which is learned from fewer images (Sun et al. 2018,
"Integral human pose regression", join both as well).
"""

import tensorflow as tf

__all__ = ["map_cross_entropy"]

_DEVIATION = 0.7  # of the target around its landmark, in cells
_LEAST_MASS = 0.1  # of the target within the map; in the middle it is 2 pi _DEVIATION^2, about 3


def map_cross_entropy(logits: tf.Tensor, landmarks: tf.Tensor, size: int) -> tf.Tensor:
    """Return the cross-entropies [N, K], in nats, of the maps of landmarks with those predicted.

    A landmark's map is a Gaussian around it, normalised over the cells; the k-th channel's softmax over
    all cells is what is predicted for it. A landmark outside the network crop has none: 0.

    Args:
      logits: [N, H, W, M] with M >= K, the channels of `spatial_softmax` before its softmax.
      landmarks: [N, K, 2], in network-crop pixels.
      size: side of the network crop in pixels.
    """
    count, (height, width) = landmarks.shape[1], logits.shape[1:3]
    rows = _profile(landmarks[..., 1], height, size)
    columns = _profile(landmarks[..., 0], width, size)
    target = tf.reshape(
        rows[..., tf.newaxis] * columns[..., tf.newaxis, :], [-1, count, height * width]
    )
    mass = tf.reduce_sum(target, axis=-1, keepdims=True)
    target = tf.where(mass > _LEAST_MASS, target / tf.maximum(mass, _LEAST_MASS), 0.0)
    channels = tf.transpose(tf.cast(logits[..., :count], tf.float32), [0, 3, 1, 2])
    log_map = tf.nn.log_softmax(tf.reshape(channels, [-1, count, height * width]))
    return -tf.reduce_sum(target * log_map, axis=-1)


def _profile(position: tf.Tensor, cells: int, size: int) -> tf.Tensor:
    """Return the Gaussian [N, K, cells] around a position [N, K] in pixels, along one axis of the map."""
    cell = (position + 0.5) * (cells / size) - 0.5
    distance = cell[..., tf.newaxis] - tf.range(cells, dtype=tf.float32)
    return tf.exp(-0.5 * tf.square(distance / _DEVIATION))
