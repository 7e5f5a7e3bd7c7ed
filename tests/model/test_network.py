"""The network starts where the recipe says, and takes any size, covariance mode and local preset."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhuber.config import schema
from tfhuber.model import network as model


def _options(**changes) -> schema.Model:
    return schema.Model(**{"backbone": "resnet18", "image_size": 64, **changes})


@pytest.mark.parametrize(("size", "covariance"), [(64, "full"), (96, "diagonal"), (32, "identity")])
def test_it_starts_at_nu_zero_and_a_identity(size, covariance):
    network = model.build(_options(image_size=size, covariance=covariance), 3)
    images = tf.random.stateless_uniform([2, size, size, 3], [1, 2]) * 255
    outputs = network(images)
    assert all(value.dtype == tf.float32 for value in outputs.values())
    np.testing.assert_array_equal(outputs["nu"], np.zeros((2, 3, 2)))
    np.testing.assert_allclose(outputs["precision_factor"], np.tile(np.eye(2), (2, 3, 1, 1)))
    np.testing.assert_allclose(outputs["log_det"], np.zeros((2, 3)), atol=1e-7)


@pytest.mark.parametrize("theta", [0.3, 1.0, 2.0, 30.0])
def test_it_starts_at_a_identity_for_any_theta(theta):
    outputs = model.DistributionHead(2, theta=theta)(tf.zeros([1, 4]))
    np.testing.assert_allclose(outputs["precision_factor"][0], [np.eye(2)] * 2, atol=1e-6)
    np.testing.assert_allclose(outputs["log_det"], np.zeros((1, 2)), atol=1e-6)


@pytest.mark.parametrize("covariance", ["full", "diagonal", "identity"])
def test_covariance_modes_restrict_the_matrix(covariance):
    network = model.build(_options(image_size=32, covariance=covariance), 4)
    head = network.get_layer("head")
    rng = np.random.default_rng(0)
    head.linear.bias.assign(rng.normal(1, 2, head.linear.bias.shape))
    a = network(tf.zeros([1, 32, 32, 3]))["precision_factor"][0].numpy()
    np.testing.assert_allclose(a, a.transpose(0, 2, 1))
    assert np.linalg.eigvalsh(a).min() > 0
    off_diagonal = np.abs(a[:, 0, 1]).max()
    if covariance == "full":
        assert off_diagonal > 0.1
    else:
        assert off_diagonal == 0
    if covariance == "identity":
        np.testing.assert_array_equal(a, np.tile(np.eye(2), (4, 1, 1)))


@pytest.mark.parametrize(
    ("size", "taps"), [(224, 7), (160, 5), (96, 3), (128, 4), (64, 2), (32, 1)]
)
def test_the_channelwise_kernel_follows_the_feature_map(size, taps):
    network = model.build(_options(image_size=size), 2)
    kernel = network.get_layer("channelwise_convolution").get_weights()[0][..., 0]
    assert kernel.shape == (taps, taps, 512)
    np.testing.assert_allclose(kernel.sum((0, 1)), 3.0, rtol=1e-6)
    np.testing.assert_array_equal(kernel, kernel[::-1])
    if taps == 7:
        assert kernel[3, 3, 0] == 1.0 and kernel[3, 2, 0] == kernel[2, 3, 0] == 0.5
        assert np.count_nonzero(kernel[..., 0]) == 5


def test_images_are_normalised_by_imagenets_statistics():
    network = model.build(_options(image_size=32), 2)
    layer = network.get_layer("normalisation")
    result = layer(np.full((1, 1, 1, 3), 255.0))
    expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(result[0, 0, 0], expected, rtol=1e-5)


def test_a_local_preset_is_loaded(tmp_path):
    first = model.build(_options(), 2).get_layer("backbone")
    first.save_to_preset(str(tmp_path / "preset"))
    loaded = model.build(_options(pretrained=str(tmp_path / "preset"), image_size=96), 2)
    for ours, theirs in zip(
        loaded.get_layer("backbone").get_weights(), first.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"is no resnet50: .* set model.backbone"):
        model.build(_options(pretrained=str(tmp_path / "preset"), backbone="resnet50"), 2)


def test_a_preset_that_cannot_be_had_is_one_line_with_the_command(tmp_path):
    with pytest.raises(ValueError, match="save_to_preset") as caught:
        model.build(_options(pretrained=str(tmp_path / "none")), 2)
    assert "model.pretrained=null" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="the directory must hold what"):
        model.build(_options(pretrained=str(tmp_path / "empty")), 2)


def test_the_head_survives_its_configuration():
    head = model.DistributionHead(5, "diagonal", 0.5, "mu", name="h")
    again = model.DistributionHead.from_config(head.get_config())
    found = (again.landmark_count, again.covariance, again.theta, again.parameterization)
    assert found == (5, "diagonal", 0.5, "mu")
    network = model.build(_options(image_size=32), 2)
    copy = keras.models.clone_model(network)
    assert copy.output_shape == network.output_shape


def test_average_pooling_takes_the_mean_of_each_channel():
    network = model.build(_options(image_size=96, pooling="average"), 3)
    head = network.get_layer("head")
    rng = np.random.default_rng(0)
    head.linear.kernel.assign(rng.normal(0, 0.1, head.linear.kernel.shape))
    images = tf.random.stateless_uniform([2, 96, 96, 3], [1, 2]) * 255
    normalised = network.get_layer("normalisation")(images)
    features = network.get_layer("backbone")(normalised, training=False)
    expected = head(tf.reduce_mean(features, [1, 2]))
    for name, value in network(images).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-4)
    assert [layer.name for layer in model.new_layers(network)] == ["head"]
    convolved = model.build(_options(image_size=96), 3)
    names = [layer.name for layer in model.new_layers(convolved)]
    assert names == ["channelwise_convolution", "head"]


@pytest.mark.parametrize("covariance", ["full", "diagonal", "identity"])
def test_mu_parameterization_predicts_the_position_itself(covariance):
    by_mu = model.DistributionHead(4, covariance, parameterization="mu")
    by_nu = model.DistributionHead(4, covariance)
    features = tf.random.stateless_normal([3, 8], [0, 1])
    for head in (by_mu, by_nu):
        head(features)
    width = by_mu.width
    weights = np.random.default_rng(0).normal(0, 0.5, (8, 4 * width))
    by_mu.linear.kernel.assign(weights)
    by_nu.linear.kernel.assign(weights)
    mu = tf.reshape(by_mu.linear(features), [3, 4, width])[..., :2]
    found, other = by_mu(features), by_nu(features)
    np.testing.assert_array_equal(found["precision_factor"], other["precision_factor"])
    np.testing.assert_allclose(other["nu"], mu, rtol=1e-6)
    expected = np.einsum("nkij,nkj->nki", found["precision_factor"], mu)
    np.testing.assert_allclose(found["nu"], expected, rtol=1e-5, atol=1e-6)
    # The Jacobian of nu with respect to mu is A: both parameterisations start out the same.
    start = model.DistributionHead(2, covariance, parameterization="mu")(features)
    np.testing.assert_array_equal(start["nu"], np.zeros((3, 2, 2)))
