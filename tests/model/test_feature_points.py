"""Feature points follow what they see, and their spread says how sharply."""

import keras
import numpy as np
import pytest

from tfhuber.config.schema import Model
from tfhuber.model import network
from tfhuber.model.feature_points import SpatialSoftmax, with_finer_maps


def test_points_and_spreads_are_the_moments_of_the_softmax():
    logits = np.random.default_rng(0).normal(size=(3, 4, 6, 5)) * 2
    result = np.asarray(SpatialSoftmax()(logits.astype("f4")))
    weights = np.exp(logits)
    weights /= weights.sum((1, 2), keepdims=True)
    x, y = np.linspace(-1, 1, 6)[None, None, :, None], np.linspace(-1, 1, 4)[None, :, None, None]
    mean = np.stack([(weights * x).sum((1, 2)), (weights * y).sum((1, 2))], -1)
    square = (
        weights * ((x - mean[:, None, None, :, 0]) ** 2 + (y - mean[:, None, None, :, 1]) ** 2)
    ).sum((1, 2))
    np.testing.assert_allclose(result[:, :10].reshape(3, 5, 2), 2 * mean, atol=1e-5)
    np.testing.assert_allclose(result[:, 10:], np.sqrt(square + 1e-4), atol=1e-5)


def test_a_sharp_peak_is_its_cell_and_far_logits_stay_finite():
    logits = np.full((1, 4, 4, 2), -1e4, "f4")
    logits[0, 1, 3] = 1e4
    x, y = 1.0, -1 + 2 / 3
    expected = [2 * x, 2 * y, 2 * x, 2 * y, 0.01, 0.01]
    np.testing.assert_allclose(np.asarray(SpatialSoftmax()(logits))[0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("backbone", "stride"), [("resnet18", 8), ("efficientnet_lite0", 16), ("resnet18", 32)]
)
def test_the_finer_map_is_of_the_stride_asked_for(backbone, stride):
    options = Model(
        backbone=backbone, image_size=64, pooling="spatial_softmax", feature_stride=stride
    )
    model = network.build(options, 3)
    shape = model.get_layer("feature_logits").output.shape
    assert tuple(shape[1:3]) == (64 // stride, 64 // stride)
    outputs = model(np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("f4"))
    # It starts like the others, at nu = 0 and A = I.
    np.testing.assert_array_equal(outputs["nu"], np.zeros((2, 3, 2)))
    np.testing.assert_allclose(
        outputs["precision_factor"], np.tile(np.eye(2), (2, 3, 1, 1)), atol=1e-6
    )
    new = {layer.name for layer in network.new_layers(model)}
    assert {"feature_logits", "pyramid_convolution", "channelwise_convolution", "head"} <= new
    assert "backbone" not in new
    penalised = {v.path.split("/")[0] for v in network.penalised_kernels(model)}
    assert penalised == {"channelwise_convolution", "head"}


def test_a_backbone_without_such_a_map_is_refused():
    image = keras.Input((64, 64, 3))
    only = keras.Model(image, keras.layers.Conv2D(4, 3, strides=32, padding="same")(image))
    with pytest.raises(
        ValueError, match=r"no feature map of 4 x 4; set model.feature_stride to 32"
    ):
        with_finer_maps(only, 16)
