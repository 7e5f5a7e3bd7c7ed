"""The SPD map as a Keras layer and in a saved model, and the arguments that it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from spd_gradients import gradient_tensor

from tfhuber.linalg.spd import SPDMatrix, spd_matrix


def test_layer_round_trips_and_predicts_the_same(tmp_path):
    inputs = keras.Input([4, 3])
    layer = SPDMatrix(theta=0.7, name="factor")
    matrix, log_det = layer(inputs)
    assert matrix.shape == (None, 4, 2, 2) and log_det.shape == (None, 4)
    model = keras.Model(inputs, {"matrix": matrix, "log_det": log_det})
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.get_layer("factor").theta == 0.7
    assert SPDMatrix.from_config(layer.get_config()).theta == 0.7
    raw = np.random.default_rng(11).normal(size=(2, 4, 3)).astype("f4")
    expected = spd_matrix(raw.astype("f8"), 0.7)
    prediction = loaded.predict(raw, verbose=0)
    np.testing.assert_allclose(prediction["matrix"], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prediction["log_det"], expected[1], rtol=1e-5, atol=1e-5)


def test_layer_is_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        matrix, log_det = SPDMatrix()(tf.ones([2, 3], tf.bfloat16))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert matrix.dtype == log_det.dtype == tf.float32
    assert SPDMatrix(dtype="float64")(tf.ones([2, 6], tf.float64))[0].dtype == tf.float64


@pytest.mark.parametrize("d", [2, 3])
def test_saved_model_keeps_values_and_gradients(d, tmp_path):
    size = d * (d + 1) // 2

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, size], tf.float64)])
        def __call__(self, x):
            return spd_matrix(x)

    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(Module(), tmp_path / "model", options=options)
    loaded = tf.saved_model.load(tmp_path / "model")
    raw = tf.constant(np.random.default_rng(12).normal(size=(5, size)))
    with tf.GradientTape() as tape:
        tape.watch(raw)
        matrix, log_det = loaded(raw)
        loss = tf.reduce_sum(matrix) + tf.reduce_sum(log_det)
    np.testing.assert_allclose(matrix, spd_matrix(raw)[0], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(tape.gradient(loss, raw), gradient_tensor(raw), rtol=1e-11)


@pytest.mark.parametrize("theta", [0.0, -1.0, np.inf, np.nan, "1"])
def test_theta_must_be_positive(theta):
    with pytest.raises(ValueError, match="theta must be a positive finite number"):
        SPDMatrix(theta=theta)
    with pytest.raises(ValueError, match="theta"):
        spd_matrix([1.0], theta)


@pytest.mark.parametrize("length", [2, 4, 5, 7])
def test_length_must_be_triangular(length):
    with pytest.raises(ValueError, match=f"got {length}"):
        SPDMatrix()(tf.ones([1, length]))
    with pytest.raises(ValueError, match=f"got {length}"):
        SPDMatrix().compute_output_shape((None, length))


def test_low_precision_is_refused():
    with pytest.raises(ValueError, match="float32 or float64, got bfloat16"):
        spd_matrix(tf.ones([2, 3], tf.bfloat16))
