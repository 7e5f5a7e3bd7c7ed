"""The cross-entropy of the landmarks' maps: its formula, its edges, and that it teaches where they are."""

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from training_steps import make_state, make_step

from tfhuber.config import schema
from tfhuber.model import network
from tfhuber.model.whitening import Whitening
from tfhuber.training.map_loss import map_cross_entropy


def expected(logits, landmark, size):
    """One landmark's, from the formula, in float64."""
    height, width = logits.shape
    y, x = np.mgrid[:height, :width]
    cell_x, cell_y = ((landmark + 0.5) * [width / size, height / size]) - 0.5
    target = np.exp(-((x - cell_x) ** 2 + (y - cell_y) ** 2) / (2 * 0.7**2))
    log_map = logits - np.log(np.sum(np.exp(logits)))
    return -np.sum(target / target.sum() * log_map)


def test_against_the_formula():
    rng = np.random.default_rng(0)
    logits, landmarks = rng.normal(size=(3, 8, 8, 6)) * 3, rng.uniform(0, 63, size=(3, 4, 2))
    found = map_cross_entropy(
        tf.constant(logits, tf.float32), tf.constant(landmarks, tf.float32), 64
    )
    wanted = [
        [expected(logits[n, ..., k], landmarks[n, k], 64) for k in range(4)] for n in range(3)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_landmark_outside_the_crop_has_none_and_no_gradient():
    logits = tf.random.stateless_normal([1, 4, 4, 2], [1, 2])
    landmarks = tf.constant([[[500.0, 20.0], [-1e30, 5.0]]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        crossed = map_cross_entropy(logits, landmarks, 32)
    np.testing.assert_array_equal(crossed, [[0, 0]])
    np.testing.assert_array_equal(tape.gradient(crossed, logits), np.zeros([1, 4, 4, 2]))


def test_a_map_loss_needs_maps():
    with pytest.raises((ValueError, ValidationError), match=r"map_loss needs .* spatial_softmax"):
        schema.parse({"data": {"directory": "d"}, "train": {"map_loss": 1}})


@pytest.mark.parametrize("covariance", ["full", "identity"])
def test_the_head_starts_at_its_feature_points(covariance):
    options = schema.Model(
        backbone="resnet18",
        image_size=32,
        pooling="spatial_softmax",
        parameterization="mu",
        covariance=covariance,
    )
    model = network.build(options, 3)
    head = model.get_layer("head")
    features = np.random.default_rng(0).normal(size=(2, head.linear.kernel.shape[0])).astype("f4")
    outputs = head(features)
    np.testing.assert_allclose(outputs["nu"], 2 * features[:, :6].reshape(2, 3, 2), rtol=1e-5)
    np.testing.assert_allclose(
        outputs["precision_factor"], np.tile(np.eye(2), [2, 3, 1, 1]), atol=1e-6
    )


def test_training_brings_the_maps_to_the_landmarks():
    """On four images of a bright spot each, 30 steps halve the maps' loss, and that of eq. 6 falls."""
    config = schema.parse(
        {
            "data": {"directory": "unused"},
            "model": {
                "backbone": "resnet18",
                "image_size": 64,
                "pooling": "spatial_softmax",
                "parameterization": "mu",
                "feature_stride": 8,
            },
            "train": {"batch_size": 4, "map_loss": 1.0, "learning_rate": [[0, 1e-3]]},
        }
    )
    tf.keras.utils.set_random_seed(0)
    places = np.array([[12, 12], [50, 14], [16, 48], [44, 52]], "f4")
    images = np.zeros([4, 64, 64, 3], "f4")
    for image, (x, y) in zip(images, places.astype(int), strict=True):
        image[y - 3 : y + 4, x - 3 : x + 4] = 255
    batch = {"image": images, "landmarks": places[:, None], "weights": np.ones([4, 1], "f4")}
    state = make_state(config, 1)
    whitening = Whitening(np.full((1, 2), 31.5), np.eye(2)[None] / 16)
    step = make_step(state, whitening, config)
    maps = tf.keras.Model(state.model.input, state.model.get_layer("feature_logits").output)

    def map_loss():
        return float(
            np.mean(
                map_cross_entropy(maps(images, training=True), tf.constant(places[:, None]), 64)
            )
        )

    before, first = map_loss(), float(step(batch)["loss"])
    for _ in range(30):
        loss = float(step(batch)["loss"])
    assert map_loss() < before / 2 and loss < first - 1
