"""Every kind of backbone brings its normalisation and its feature map; presets are read from a folder."""

import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tfhuber.config import schema
from tfhuber.model import backbones, efficientnet_lite, network

SCALE, OFFSET = [0.1, 0.2, 0.25], [-1.0, 0.5, 0.0]


def densenet() -> keras_hub.models.Backbone:
    """Of stride 8, for images of any shape."""
    return keras_hub.models.DenseNetBackbone([1, 1], growth_rate=4, image_shape=(None, None, 3))


def efficientnet() -> keras_hub.models.Backbone:
    """Of stride 4; its class takes no `image_shape`."""
    one = {
        "kernel_sizes": 3,
        "num_repeats": 1,
        "input_filters": 8,
        "output_filters": 16,
        "expansion_ratios": 1,
        "squeeze_and_excite_ratios": 0,
        "strides": 2,
        "block_types": "v1",
    }
    return keras_hub.models.EfficientNetBackbone(
        **{f"stackwise_{key}": [value] for key, value in one.items()},
        stackwise_force_input_filters=[0],
        stackwise_nores_option=[False],
        width_coefficient=1.0,
        depth_coefficient=1.0,
    )


def vit() -> keras_hub.models.Backbone:
    return keras_hub.models.ViTBackbone((32, 32, 3), (16, 16), 1, 1, 8, 8)


@pytest.fixture
def preset(tmp_path):
    """Save a backbone and its converter; returns the folder."""

    def save(backbone, converter):
        folder = str(tmp_path / "preset")
        backbone.save_to_preset(folder)
        if converter is not None:
            converter(scale=SCALE, offset=OFFSET, image_size=(224, 224)).save_to_preset(folder)
        return folder

    return save


@pytest.mark.parametrize(
    ("make", "converter", "stride"),
    [
        (densenet, keras_hub.layers.DenseNetImageConverter, 8),
        (efficientnet, keras_hub.layers.EfficientNetImageConverter, 4),
    ],
)
def test_a_presets_network_normalisation_and_stride(preset, make, converter, stride):
    source = make()
    folder = preset(source, converter)
    options = schema.Model(backbone=folder, pretrained=folder, image_size=96)
    built = network.build(options, 3)
    images = np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3)).astype(np.float32)
    normalised = built.get_layer("normalisation")(images)
    np.testing.assert_allclose(normalised, images * SCALE + OFFSET, rtol=1e-5, atol=1e-5)
    features = built.get_layer("backbone")(normalised, training=False)
    np.testing.assert_allclose(features, source(normalised, training=False), rtol=1e-4, atol=1e-5)
    assert features.shape[1:3] == (96 // stride,) * 2
    kernel = built.get_layer("channelwise_convolution").kernel
    assert kernel.shape == (96 // stride, 96 // stride, features.shape[3], 1)
    np.testing.assert_array_equal(built(images)["nu"], np.zeros((2, 3, 2)))
    # A run needs the layout only, and then fills it from its checkpoint.
    plain = backbones.build(options.model_copy(update={"pretrained": None})).network
    assert [w.shape for w in plain.weights] == [w.shape for w in source.weights]
    first, theirs = plain.get_weights()[0], source.get_weights()[0]
    assert np.abs(first - theirs).max() > 1e-3


def test_presets_that_will_not_do(preset, tmp_path):
    folder = preset(vit(), keras_hub.layers.ViTImageConverter)
    with pytest.raises(ValueError, match="gives no feature map"):
        backbones.build(schema.Model(backbone=folder, image_size=32))
    absent = str(tmp_path / "absent")
    with pytest.raises(ValueError, match="on a machine with a network") as caught:
        backbones.build(schema.Model(backbone=absent))
    for part in (
        "cannot load model.backbone",
        "Backbone.from_preset",
        "ImageConverter.from_preset",
    ):
        assert part in str(caught.value)
    assert "one of resnet18, resnet50" in str(caught.value)


def test_a_preset_must_say_how_images_are_normalised(preset):
    folder = preset(densenet(), None)
    with pytest.raises(ValueError, match=r"writes of .*Backbone and .*layers\.ImageConverter"):
        backbones.build(schema.Model(backbone=folder, image_size=64))


def test_lite_is_normalised_its_own_way_and_has_stride_32():
    options = schema.Model(
        backbone="efficientnet_lite0", pretrained="imagenet", image_size=96, pooling="average"
    )
    built = network.build(options, 2)
    normalised = built.get_layer("normalisation")(tf.constant([[[[0.0, 127.0, 255.0]]]]))
    np.testing.assert_array_equal(normalised[0, 0, 0], [-127 / 128, 0, 1])
    backbone = built.get_layer("backbone")
    assert backbone.output.shape == (None, 3, 3, 1280)
    stem = efficientnet_lite.read_imagenet("efficientnet_lite0")["conv_stem"]["weight"]
    found = backbone.get_layer("conv_stem").get_weights()[0]
    np.testing.assert_array_equal(found, stem.transpose(2, 3, 1, 0))


def test_the_schema_knows_the_backbones():
    assert set(schema.BACKBONES) == {*backbones._RESNETS, *efficientnet_lite.SIZES}
