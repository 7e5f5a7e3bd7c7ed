"""Networks up to their last feature map: ResNets, EfficientNet-Lites, and keras-hub's presets."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import keras_hub
import numpy as np

from tfhuber.config import schema
from tfhuber.model import efficientnet_lite

__all__ = ["Backbone", "build"]

# ImageNet's mean and standard deviation of 0..255 RGB values.
_MEAN = (123.675, 116.28, 103.53)
_STDDEV = (58.395, 57.12, 57.375)

# torchvision's layout, which the paper's pretrained weights have as well.
_RESNETS = {
    "resnet18": {"stackwise_num_blocks": [2, 2, 2, 2], "block_type": "basic_block"},
    "resnet50": {"stackwise_num_blocks": [3, 4, 6, 3], "block_type": "bottleneck_block"},
    "resnet101": {"stackwise_num_blocks": [3, 4, 23, 3], "block_type": "bottleneck_block"},
}


class Backbone(NamedTuple):
    """A network from normalised images to features [N, H, W, C].

    Attributes:
      network: the Keras model, named "backbone".
      mean: what is subtracted from 0..255 RGB values, for all channels or for each.
      stddev: what they are divided by then.
    """

    network: keras.Model
    mean: float | tuple[float, ...]
    stddev: float | tuple[float, ...]


def build(options: schema.Model, policy: keras.DTypePolicy | None = None) -> Backbone:
    """Build the backbone that the `model` section of a configuration names.

    Args:
      options: the section.
      policy: what its layers compute in.

    Raises:
      ValueError: if a preset or the pretrained weights cannot be loaded, `options.pretrained` is another
        backbone's, or what the preset holds gives no feature map.
    """
    if options.backbone in _RESNETS:
        return Backbone(_resnet(options, policy), _MEAN, _STDDEV)
    if options.backbone not in efficientnet_lite.SIZES:
        return _keras_hub(options, policy)
    network = efficientnet_lite.build(options.backbone, _image_shape(options), policy)
    if options.pretrained is not None:
        efficientnet_lite.load_imagenet(network, options.backbone)
    return Backbone(network, efficientnet_lite.MEAN, efficientnet_lite.STDDEV)


def _image_shape(options: schema.Model) -> tuple[int, int, int]:
    return (options.image_size, options.image_size, 3)


def _resnet(options: schema.Model, policy: keras.DTypePolicy | None) -> keras.Model:
    wanted, shape, preset = _RESNETS[options.backbone], _image_shape(options), options.pretrained
    if preset is None:
        return keras_hub.models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_strides=[1, 2, 2, 2],
            image_shape=shape,
            dtype=policy,
            name="backbone",
            **wanted,
        )

    then = "say --set model.pretrained=pretrained; or train from scratch with --set model.pretrained=null"
    with _advising("model.pretrained", preset, ["models.ResNetBackbone"], then):
        backbone = keras_hub.models.ResNetBackbone.from_preset(
            preset, image_shape=shape, dtype=policy, name="backbone"
        )
    blocks = list(backbone.stackwise_num_blocks)
    if blocks != wanted["stackwise_num_blocks"] or backbone.block_type != wanted["block_type"]:
        raise ValueError(
            f"model.pretrained = {preset!r} is no {options.backbone}: it has "
            f"{backbone.block_type}s {blocks}; set model.backbone to match"
        )
    return backbone


def _keras_hub(options: schema.Model, policy: keras.DTypePolicy | None) -> Backbone:
    """Build a preset's network, with its weights or without; its converter normalises."""
    preset = options.backbone
    then = (
        "say --set model.backbone=./pretrained, and the same for model.pretrained if that is set; "
        f"or choose one of {', '.join(schema.BACKBONES)}"
    )
    with _advising("model.backbone", preset, ["models.Backbone", "layers.ImageConverter"], then):
        network = keras_hub.models.Backbone.from_preset(
            preset,
            load_weights=options.pretrained is not None,
            image_shape=_image_shape(options),
            dtype=policy or "float32",
            name="backbone",
        )
        converter = keras_hub.layers.ImageConverter.from_preset(preset)
    features = network.compute_output_spec(keras.KerasTensor((None, *_image_shape(options))))
    if not isinstance(features, keras.KerasTensor) or len(features.shape) != 4:
        raise ValueError(f"model.backbone = {preset!r} gives no feature map [N, H, W, C]")
    scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    return Backbone(network, tuple((-offset / scale).tolist()), tuple((1 / scale).tolist()))


@contextlib.contextmanager
def _advising(key: str, preset: str, parts: Sequence[str], then: str) -> Iterator[None]:
    """Turn what loading parts of a preset raises into a ValueError of one line that says what to do."""
    try:
        yield
    except Exception as error:  # the hub, the network and the file system each raise their own
        if Path(preset).exists():
            advice = "the directory must hold what `save_to_preset(directory)` writes of "
            advice += " and ".join(f"keras_hub.{part}" for part in parts)
        else:
            save = f".from_preset('{preset}').save_to_preset('pretrained')"
            command = "; ".join(
                ["import keras_hub", *(f"keras_hub.{part}{save}" for part in parts)]
            )
            advice = (
                f'on a machine with a network fetch it with `python -c "{command}"`, then {then}'
            )
        raise ValueError(f"cannot load {key} = {preset!r}; {advice}") from error
