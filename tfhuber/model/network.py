"""The network: a standard backbone, pooling, one linear layer, the SPD map."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfhuber.config import schema
from tfhuber.linalg.small_matrix import matvec
from tfhuber.linalg.spd import SPDMatrix
from tfhuber.model import backbones
from tfhuber.model.feature_points import feature_points, with_finer_maps

__all__ = ["AtPoints", "DistributionHead", "build", "new_layers", "penalised_kernels"]


def build(
    options: schema.Model, landmark_count: int, policy: keras.DTypePolicy | None = None
) -> keras.Model:
    """Build the model from images to distributions in normalised coordinates.

    Args:
      options: the `model` section of the configuration.
      landmark_count: K.
      policy: what everything before the head computes in; the head computes in float32.

    Returns:
      A Keras model from images [N, S, S, 3] (RGB, 0..255) to a dict of `nu` [N, K, 2],
      `precision_factor` [N, K, 2, 2] and `log_det` [N, K], all float32. It starts at nu = 0, A = I.

    Raises:
      ValueError: as `backbones.build`, or if it has no map of `options.feature_stride`.
    """
    image = keras.Input((options.image_size, options.image_size, 3), name="image")
    backbone = backbones.build(options, policy)
    normalised = keras.layers.Normalization(
        mean=backbone.mean, variance=np.square(backbone.stddev), name="normalisation"
    )(image)
    if options.pooling == "spatial_softmax":
        maps = with_finer_maps(backbone.network, options.feature_stride)(normalised)
        points = feature_points(maps, landmark_count, policy)
        beside = _convolved(maps[0], policy)
        flat = keras.layers.Concatenate(dtype="float32", name="features_and_points")(
            [points, beside]
        )
    elif options.pooling == "average":
        features = backbone.network(normalised)
        flat = keras.layers.GlobalAveragePooling2D(dtype=policy, name="average_pooling")(features)
    else:
        flat = _convolved(backbone.network(normalised), policy)
    initializer: Any = "zeros"
    if options.pooling == "spatial_softmax" and options.parameterization == "mu":
        initializer = AtPoints(2 if options.covariance == "identity" else 5)
    outputs = DistributionHead(
        landmark_count,
        options.covariance,
        options.theta,
        options.parameterization,
        kernel_initializer=initializer,
        dtype="float32",
        name="head",
    )(flat)
    return keras.Model(image, outputs, name="landmarks")


def _convolved(features: Any, policy: keras.DTypePolicy | None) -> Any:
    """Return each channel [N, H, W, C] as one number [N, C], by a convolution over the whole map."""
    pooled = keras.layers.DepthwiseConv2D(
        features.shape[1],
        depthwise_initializer=_centred_kernel,
        use_bias=True,
        dtype=policy,
        name="channelwise_convolution",
    )(features)
    return keras.layers.Flatten(dtype=policy, name="features")(pooled)


def new_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers with weights that no pretrained backbone brings: what pools, and the head."""
    old = ("backbone", "normalisation")
    return [layer for layer in model.layers if layer.weights and layer.name not in old]


def penalised_kernels(model: keras.Model) -> list[keras.Variable]:
    """Return the kernels that `train.head_l2` penalises: channel-wise convolution, if any, and head."""
    layers = [layer for layer in model.layers if layer.name in ("channelwise_convolution", "head")]
    return [v for layer in layers for v in layer.trainable_variables if "kernel" in v.name]


@keras.saving.register_keras_serializable(package="tfhuber")
class DistributionHead(keras.layers.Layer):
    """One linear layer to the parameters of K distributions in the plane.

    The kernel starts at 0, unless told otherwise, and the bias such that nu = 0 and A = I. (The authors
    add 25.5 to the raw eigenvalues and start the bias 25.5 lower; as the bias is not decayed, that
    changes nothing.)

    Args:
      landmark_count: K.
      covariance: "full"; "diagonal" ignores the off-diagonal parameter; "identity" fixes A = I.
      theta: smallest reasonable eigenvalue of A (eq. 9).
      parameterization: whether the first two parameters are "nu" = A mu or the position "mu" itself.
      kernel_initializer: Keras's, of the linear layer.
    """

    def __init__(
        self,
        landmark_count: int,
        covariance: str = "full",
        theta: float = 1.0,
        parameterization: str = "nu",
        kernel_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        kwargs.setdefault("dtype", "float32")  # under a global mixed policy too
        super().__init__(**kwargs)
        self.landmark_count = landmark_count
        self.covariance = covariance
        self.parameterization = parameterization
        self.theta = theta
        self.width = 2 if covariance == "identity" else 5
        self.linear = keras.layers.Dense(
            landmark_count * self.width,
            kernel_initializer=keras.initializers.get(kernel_initializer),
            bias_initializer=self._initial_bias,
            dtype=self.dtype_policy,
            name="linear",
        )
        self.spd = SPDMatrix(theta, dtype=self.dtype_policy, name="spd")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.linear.build(input_shape)

    def call(self, features: Any) -> dict[str, Any]:
        """Map features [N, F] to `nu` [N, K, 2], `precision_factor` [N, K, 2, 2], `log_det` [N, K]."""
        return self.distributions(self.linear(features))

    def distributions(self, parameters: Any) -> dict[str, Any]:
        """Return what `call` does, from all parameters [N, K W]; no weights take part."""
        raw = ops.reshape(parameters, (-1, self.landmark_count, self.width))
        location = raw[..., :2]
        if self.covariance == "identity":
            log_det = ops.zeros_like(location[..., 0])
            precision_factor = log_det[..., None, None] + ops.eye(2, dtype=location.dtype)
        else:
            vector = raw[..., 2:]
            if self.covariance == "diagonal":
                vector = vector * ops.convert_to_tensor([1.0, 0.0, 1.0], dtype=vector.dtype)
            precision_factor, log_det = self.spd(vector)
        nu = location
        if self.parameterization == "mu":
            nu = matvec(precision_factor, location)
        return {"nu": nu, "precision_factor": precision_factor, "log_det": log_det}

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> dict[str, tuple]:
        n, k = input_shape[0], self.landmark_count
        return {"nu": (n, k, 2), "precision_factor": (n, k, 2, 2), "log_det": (n, k)}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "landmark_count": self.landmark_count,
            "covariance": self.covariance,
            "parameterization": self.parameterization,
            "theta": self.theta,
            "kernel_initializer": keras.initializers.serialize(self.linear.kernel_initializer),
        }

    def _initial_bias(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        # What g takes to 1.
        raw = 1.0 if self.theta <= 1 else self.theta * (1 - math.log(self.theta))
        one = [0.0, 0.0, raw, 0.0, raw][: self.width]
        return ops.convert_to_tensor(np.tile(one, self.landmark_count), dtype=dtype)


@keras.saving.register_keras_serializable(package="tfhuber")
class AtPoints(keras.initializers.Initializer):
    """A head's first kernel by which each position is its feature point, with a gain of 2.

    Args:
      width: parameters of a landmark, of which its position comes first.
    """

    def __init__(self, width: int):
        self.width = width

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        kernel = np.zeros(shape)
        features = np.arange(2 * (shape[1] // self.width)).reshape(-1, 2)
        kernel[features, features // 2 * self.width + [0, 1]] = 2.0
        return ops.convert_to_tensor(kernel, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"width": self.width}


@keras.saving.register_keras_serializable(package="tfhuber")
def _centred_kernel(shape: tuple[int, ...], dtype: str | None = None) -> tf.Tensor:
    """Return a kernel of total 3: for odd sizes the authors', 1 at the centre, 0.5 at its 4 neighbours.

    A kernel of even size has no central tap: there the four central ones share the total.
    """
    size = shape[0]
    kernel = np.zeros(shape)
    middle = size // 2
    if size % 2 == 0:
        kernel[middle - 1 : middle + 1, middle - 1 : middle + 1] = 0.75
    else:
        kernel[middle, middle] = 1.0
        for y, x in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            if 0 <= middle + y < size and 0 <= middle + x < size:
                kernel[middle + y, middle + x] = 0.5
    return ops.convert_to_tensor(kernel * (3.0 / kernel[..., 0, 0].sum()), dtype=dtype)
