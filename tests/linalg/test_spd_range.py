"""The SPD map beyond the root of the largest number, where squares and products overflow."""

import numpy as np
import pytest
import tensorflow as tf

from tfhuber.linalg.spd import spd_matrix


def values_and_gradients(vector, upstream, theta=1.0):
    """A and log |A|, and the gradients of <upstream, A> and of log |A|."""
    vector = tf.constant(vector)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(vector)
        matrix, log_det = spd_matrix(vector, theta)
        product = tf.reduce_sum(matrix * tf.cast(upstream, vector.dtype), axis=[-2, -1])
    gradients = tape.gradient(product, vector), tape.gradient(log_det, vector)
    return [x.numpy() for x in (matrix, log_det, *gradients)]


def random_upstream(count):
    upstream = np.random.default_rng(1).normal(size=(count, 2, 2))
    return upstream + np.swapaxes(upstream, -1, -2)


@pytest.mark.parametrize(("dtype", "power"), [("float32", 70), ("float32", 110), ("float64", 700)])
def test_a_power_of_two_scales_all(dtype, power):
    """g(s x; s theta) = s g(x; theta): A for s = 2^power is s A but for rounding."""
    scale = 2.0**power
    vector = (np.random.default_rng(0).normal(size=(200, 3)) * 3).astype(dtype)
    upstream = random_upstream(200)
    small = values_and_gradients(vector, upstream)
    large = values_and_gradients(vector * np.array(scale, dtype), upstream, scale)
    tolerance = 8 * np.finfo(dtype).eps
    norm = np.linalg.norm(small[0], axis=(-2, -1), keepdims=True)
    np.testing.assert_array_less(np.abs(large[0] / scale - small[0]) / norm, tolerance)
    np.testing.assert_allclose(large[2], small[2], rtol=0, atol=tolerance * np.abs(small[2]).max())
    np.testing.assert_allclose(large[1], small[1] + 2 * np.log(scale), rtol=tolerance)
    if power < 100:  # else float32 rounds the gradient, of 1 / scale, to few bits
        gradient = large[3].astype("float64") * scale
        np.testing.assert_allclose(gradient, small[3], atol=tolerance * np.abs(small[3]).max())


@pytest.mark.parametrize("magnitude", [1e18, 1e19, 1e22, 1e25])
@pytest.mark.parametrize("signs", [(1, 1), (-1, -1), (1, -1)], ids=str)
def test_float32_agrees_with_float64(magnitude, signs):
    """Both diagonal elements far above 0, both far below, and one of each; 100 vectors per case."""
    rng = np.random.default_rng(2)
    vector = rng.uniform(-1, 1, size=(100, 3))
    vector[:, [0, 2]] = rng.uniform(2, 4, size=(100, 2)) * signs
    vector = (vector * magnitude).astype("float32")
    upstream = random_upstream(100)
    single = values_and_gradients(vector, upstream)
    double = values_and_gradients(vector.astype("float64"), upstream)
    for found, expected in zip(single, double, strict=True):
        assert np.all(np.isfinite(found))
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_largest_vectors_have_finite_gradients(jit_compile):
    vector = tf.constant(np.random.default_rng(3).uniform(-1, 1, size=(500, 3)) * 1e37, tf.float32)

    @tf.function(jit_compile=jit_compile)
    def loss_and_gradient(vector):
        with tf.GradientTape() as tape:
            tape.watch(vector)
            matrix, log_det = spd_matrix(vector)
            loss = matrix[..., 0, 1] + 1e-3 * log_det
        return loss, tape.gradient(loss, vector)

    for value in loss_and_gradient(vector):
        assert np.all(np.isfinite(value))


@pytest.mark.parametrize("d", [2, 3, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_matrix_is_exactly_symmetric(d, dtype):
    vector = np.random.default_rng(4).normal(size=(500, d * (d + 1) // 2)) * 30
    matrix = spd_matrix(vector.astype(dtype))[0].numpy()
    np.testing.assert_array_equal(matrix, np.swapaxes(matrix, -1, -2))
