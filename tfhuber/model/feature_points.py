"""Feature points: where in a feature map each of some learned channels is active.

"Spatial softmax" (Levine et al. 2016, "End-to-end training of deep visuomotor policies"). A pretrained
network's channels say what is seen, hardly where; the coordinates of their peaks move with the object,
so that one linear layer learns positions from few examples.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

__all__ = ["SpatialSoftmax", "feature_points", "with_finer_maps"]

_WIDTH = 128  # channels of the finer map, and the fewest of its logits


def with_finer_maps(network: keras.Model, stride: int) -> keras.Model:
    """Return the backbone with its last map of each stride as outputs, from its own (32) to `stride`.

    Raises:
      ValueError: if it has no map of such a stride.
    """
    side = network.input_shape[1]
    finer = [_last_map(network, side // s) for s in (16, 8) if s >= stride]
    return keras.Model(network.input, [network.output, *finer], name=network.name)


def feature_points(
    maps: Sequence[Any], landmark_count: int, policy: keras.DTypePolicy | None = None
) -> Any:
    """Return features [N, 3 M] of M = max(128, 2 K) points: positions in -2..2, then spreads.

    The maps are summed up from the coarsest to the finest, all brought to 128 channels (Lin et al. 2017,
    "Feature pyramid networks").

    Args:
      maps: of `with_finer_maps`, for one batch of images.
      landmark_count: K.
      policy: what the layers compute in; the softmax computes in float32.
    """
    coarse, *finer = maps
    layers = keras.layers
    x = layers.Conv2D(_WIDTH, 1, dtype=policy, name="lateral_0")(coarse)
    for i, each in enumerate(finer, 1):
        lateral = layers.Conv2D(_WIDTH, 1, dtype=policy, name=f"lateral_{i}")(each)
        x = layers.UpSampling2D(dtype=policy, name=f"upsampling_{i}")(x)
        x = layers.Add(dtype=policy, name=f"sum_{i}")([x, lateral])
    x = layers.Activation("relu", dtype=policy, name="pyramid_relu")(x)
    x = layers.SeparableConv2D(
        _WIDTH, 3, padding="same", use_bias=False, dtype=policy, name="pyramid_convolution"
    )(x)
    x = layers.BatchNormalization(momentum=0.9, dtype=policy, name="pyramid_normalisation")(x)
    x = layers.Activation("relu", dtype=policy, name="pyramid")(x)
    logits = layers.Conv2D(
        max(_WIDTH, 2 * landmark_count),
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.15),
        dtype=policy,
        name="feature_logits",
    )(x)
    return SpatialSoftmax(dtype="float32", name="feature_points")(logits)


def _last_map(network: keras.Model, side: int) -> Any:
    """Return the output of the last layer whose output is a map of that side."""
    for layer in reversed(network.layers):
        output = layer.output
        if isinstance(output, keras.KerasTensor) and tuple(output.shape[1:-1]) == (side, side):
            return output
    raise ValueError(
        f"this backbone has no feature map of {side} x {side}; set model.feature_stride to 32"
    )


@keras.saving.register_keras_serializable(package="tfhuber")
class SpatialSoftmax(keras.layers.Layer):
    """The softmax of each channel over its map, as a mean position and a standard deviation."""

    def call(self, logits: keras.KerasTensor) -> Any:
        """Map logits [N, H, W, M] to [N, 3 M]: x and y in -2..2 (the map's ends), then deviations."""
        _, height, width, count = logits.shape
        logits = ops.cast(logits, "float32")
        weights = ops.softmax(ops.reshape(logits, (-1, height * width, count)), axis=1)
        y, x = np.meshgrid(_ends(height), _ends(width), indexing="ij")
        monomials = np.stack([x.ravel(), y.ravel(), (x**2 + y**2).ravel()]).astype(np.float32)
        moments = ops.einsum("cp,npm->nmc", ops.convert_to_tensor(monomials), weights)
        points = moments[..., :2]
        variance = ops.maximum(moments[..., 2] - ops.sum(points**2, axis=-1), 0)
        spread = ops.sqrt(variance + 1e-4)
        return ops.concatenate([2 * ops.reshape(points, (-1, 2 * count)), spread], axis=-1)


def _ends(count: int) -> np.ndarray:
    """Return the positions of that many cells between -1 and 1; 0 of a single one."""
    return np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
