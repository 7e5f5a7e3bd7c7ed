"""The SPD map: isometry, values and gradients against numpy, mpmath and central differences."""

import mpmath
import numpy as np
import pytest
import tensorflow as tf
from spd_gradients import gradient_tensor

from tfhuber.linalg import spd
from tfhuber.linalg.spd import (
    g,
    log_g,
    spd_matrix,
    symmetric_to_vector,
    vector_to_symmetric,
)

DIMENSIONS = [1, 2, 3, 5]


def reference(vector, theta=1.0):
    """A and log |A| in float64 numpy, straight from eq. 7, 9 and 10."""
    d = int((np.sqrt(8 * vector.shape[-1] + 1) - 1) / 2)
    b = np.zeros((*vector.shape[:-1], d, d))
    n = 0
    for i in range(d):
        for j in range(i + 1):
            b[..., i, j] = b[..., j, i] = vector[..., n] / (1 if i == j else np.sqrt(2))
            n += 1
    x, v = np.linalg.eigh(b)
    below = np.exp(np.minimum(x, theta) / theta - 1) * theta
    log_below = np.log(theta) + np.minimum(x, theta) / theta - 1
    eigenvalues = np.where(x > theta, x, below)
    log_eigenvalues = np.where(x > theta, np.log(np.maximum(x, theta)), log_below)
    return (v * eigenvalues[..., None, :]) @ np.swapaxes(v, -1, -2), log_eigenvalues.sum(-1)


def random_rotation(d, seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))
    return q


def vector_with_eigenvalues(eigenvalues, seed=0):
    """A raw vector whose symmetric matrix has these eigenvalues and random eigenvectors."""
    q = random_rotation(len(eigenvalues), seed)
    return symmetric_to_vector((q * eigenvalues) @ q.T).numpy()


def scalar_loss(vector, theta, seed=0):
    """A random linear functional of A and log |A|, in float64, for gradient checks."""
    matrix, log_det = spd_matrix(vector, theta)
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=matrix.shape)
    return tf.reduce_sum(weights * matrix) + rng.normal() * tf.reduce_sum(log_det)


def gradient_of(function, x):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x).numpy()


def central_difference(function, x, step):
    result = np.zeros_like(x)
    for n in range(x.size):
        e = np.zeros_like(x)
        e.flat[n] = step
        result.flat[n] = (float(function(x + e)) - float(function(x - e))) / (2 * step)
    return result


@pytest.mark.parametrize("d", DIMENSIONS)
def test_vector_to_symmetric_is_an_isometry_row_by_row(d):
    vector = np.random.default_rng(d).normal(size=(4, 7, d * (d + 1) // 2))
    matrix = vector_to_symmetric(vector).numpy()
    assert matrix.shape == (4, 7, d, d)
    np.testing.assert_array_equal(matrix, np.swapaxes(matrix, -1, -2))
    np.testing.assert_allclose(
        np.linalg.norm(matrix, axis=(-1, -2)), np.linalg.norm(vector, axis=-1), rtol=1e-14
    )
    np.testing.assert_allclose(symmetric_to_vector(matrix), vector, rtol=1e-14)


def test_order_of_the_vector():
    root = np.sqrt(2.0)
    matrix = vector_to_symmetric([1.0, 2 * root, 3.0, 4 * root, 5 * root, 6.0])
    np.testing.assert_allclose(matrix, [[1, 2, 4], [2, 3, 5], [4, 5, 6]], rtol=1e-6)


@pytest.mark.parametrize("theta", [0.01, 1.0, 25.5])
def test_g_and_log_g(theta):
    x = np.array([-1e6, -50.0, -1.0, 0.0, theta / 2, theta, np.nextafter(theta, 99), 60.0, 1e6])
    with np.errstate(under="ignore"):
        expected = np.where(x > theta, x, theta * np.exp(np.minimum(x, theta) / theta - 1))
    np.testing.assert_allclose(g(x, theta), expected, rtol=1e-14)
    expected_log = [
        float(mpmath.log(v) if v > theta else mpmath.log(theta) + mpmath.mpf(v) / theta - 1)
        for v in x
    ]
    np.testing.assert_allclose(log_g(x, theta), expected_log, rtol=1e-14, atol=1e-15)
    slope = gradient_of(lambda v: g(v, theta), x)
    log_slope = gradient_of(lambda v: log_g(v, theta), x)
    np.testing.assert_allclose(slope, np.exp(np.minimum(x, theta) / theta - 1), rtol=1e-14)
    np.testing.assert_allclose(log_slope, 1 / np.maximum(x, theta), rtol=1e-14)


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("scale", [1e-8, 1.0, 30.0])
@pytest.mark.parametrize("theta", [0.1, 1.0])
def test_values(d, scale, theta):
    vector = np.random.default_rng(1).normal(size=(50, d * (d + 1) // 2)) * scale
    matrix, log_det = spd_matrix(vector, theta)
    expected, expected_log_det = reference(vector, theta)
    np.testing.assert_allclose(matrix, expected, rtol=1e-12, atol=1e-14 * max(scale, 1))
    np.testing.assert_allclose(log_det, expected_log_det, rtol=1e-12, atol=1e-12)
    single, single_log_det = spd_matrix(vector.astype("f4"), theta)
    assert single.dtype == single_log_det.dtype == tf.float32
    np.testing.assert_allclose(single, expected, rtol=2e-5, atol=1e-6 * max(scale, 1))
    np.testing.assert_allclose(single_log_det, expected_log_det, rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize("d", [2, 3])
def test_rotating_b_rotates_a(d):
    vector = np.random.default_rng(2).normal(size=(20, d * (d + 1) // 2)) * 3
    q = random_rotation(d, 3)
    rotated = symmetric_to_vector(q @ vector_to_symmetric(vector).numpy() @ q.T)
    matrix, log_det = spd_matrix(vector)
    rotated_matrix, rotated_log_det = spd_matrix(rotated)
    np.testing.assert_allclose(rotated_matrix, q @ matrix.numpy() @ q.T, atol=1e-13)
    np.testing.assert_allclose(rotated_log_det, log_det, atol=1e-13)


EIGENVALUES = {
    "equal below theta": [0.3, 0.3, 0.3, 0.3, 0.3],
    "equal above theta": [2.0, 2.0, 2.0, 2.0, 2.0],
    "equal at theta": [1.0, 1.0, 1.0, 1.0, 1.0],
    "zero": [0.0, 0.0, 0.0, 0.0, 0.0],
    "nearly equal below": [0.3, 0.3 + 1e-9, 0.3 - 1e-9, 0.3, 0.3 + 2e-9],
    "nearly equal above": [2.0, 2.0 + 1e-9, 2.0 - 1e-9, 2.0, 2.0 + 2e-9],
    "across theta": [1.0 - 1e-9, 1.0 + 1e-9, 1.0, 0.5, 1.5],
    "two equal": [0.3, -1.0, 0.3, 4.0, 4.0],
    "tiny": [1e-12, -1e-12, 3e-12, 2e-12, 0.0],
    "huge": [1e6, 2e6, -1e6, 3e5, 1e6],
    "very negative": [-1e6, -30.0, -800.0, -1e3, -5.0],
    "mixed": [-3.0, 5.0, 0.9, 1.1, -0.1],
}


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("name", EIGENVALUES)
def test_gradient_against_central_differences(d, name):
    vector = vector_with_eigenvalues(np.array(EIGENVALUES[name][:d]))
    size = np.abs(vector).max()
    # g is only once differentiable at theta, which costs central differences half a step there.
    step = 1e-6 * max(1.0, size * 1e-3)

    def loss(x):
        return scalar_loss(x, 1.0)

    expected = central_difference(loss, vector, step)
    tolerance = 2e-6 if size < 1e3 else 1e-4
    np.testing.assert_allclose(gradient_of(loss, vector), expected, rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize("name", EIGENVALUES)
def test_closed_form_and_eigendecomposition_agree(name):
    vector = tf.constant([vector_with_eigenvalues(EIGENVALUES[name][:2], s) for s in range(5)])
    rng = np.random.default_rng(4)
    upstream = tf.constant(rng.normal(size=(5, 2, 2))), tf.constant(rng.normal(size=5))
    (matrix, log_det), gradient = spd._spd_closed_form(vector, 1.0)
    (matrix_eigh, log_det_eigh), gradient_eigh = spd._spd_eigh(vector, 1.0)
    scale = max(1.0, np.abs(vector).max())
    np.testing.assert_allclose(matrix, matrix_eigh, atol=1e-14 * scale)
    np.testing.assert_allclose(log_det, log_det_eigh, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(gradient(*upstream), gradient_eigh(*upstream), atol=2e-9)


def test_tensorflows_own_eigh_gradient_is_wrong_where_ours_is_right():
    """At B = 2 I, A = B has a slope in its off-diagonal; autodiff through eigh silently says 0."""
    vector = tf.constant([2.0, 0.0, 2.0], tf.float64)

    def off_diagonal_by_autodiff(v):
        eigenvalues, q = tf.linalg.eigh(vector_to_symmetric(v))
        return tf.matmul(q * g(eigenvalues)[..., tf.newaxis, :], q, transpose_b=True)[0, 1]

    np.testing.assert_allclose(gradient_of(off_diagonal_by_autodiff, vector)[1], 0.0)
    ours = gradient_of(lambda v: spd_matrix(v)[0][0, 1], vector)
    np.testing.assert_allclose(ours, [0.0, np.sqrt(0.5), 0.0], atol=1e-15)


@pytest.mark.parametrize("theta", [0.05, 1.0, 30.0])
def test_divided_differences_against_mpmath(theta):
    rng = np.random.default_rng(6)
    low = np.concatenate([rng.normal(size=300) * 3 * theta, np.full(20, theta)])
    gap = 10.0 ** rng.uniform(-14, 3, size=low.size) * theta
    high = low + gap
    share, curved = spd._divided_difference(tf.constant(high), tf.constant(low), theta)

    def exact(a, b):
        def g_exact(x):
            return x if x > theta else theta * mpmath.exp(x / theta - 1)

        return (g_exact(a) - g_exact(b)) / (a - b)

    with mpmath.workdps(60):
        expected = [
            float(exact(mpmath.mpf(a), mpmath.mpf(b))) for a, b in zip(high, low, strict=True)
        ]
    np.testing.assert_allclose(share + curved, expected, rtol=1e-14)


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("magnitude", [1.0, 1e3, 1e6])
def test_finite_and_bounded_for_large_raw_values(d, dtype, magnitude):
    """K lies in [0, 1] and g'/g below 1/theta, so |dL/dv| <= |dL/dA| + sqrt(d)/theta |dL/dlog|A||."""
    theta = 0.5
    rng = np.random.default_rng(7)
    corners = np.array(np.meshgrid(*[[-1.0, 0.0, 1.0]] * min(d * (d + 1) // 2, 6)))
    corners = corners.reshape(corners.shape[0], -1).T
    vector = np.zeros((len(corners), d * (d + 1) // 2))
    vector[:, : corners.shape[1]] = corners
    vector = tf.constant(vector * magnitude, dtype)
    upstream = rng.normal(size=(len(corners), d, d))
    upstream = tf.constant((upstream + np.swapaxes(upstream, -1, -2)) / 2, dtype)
    for matrix_share, log_share in [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]:
        with tf.GradientTape() as tape:
            tape.watch(vector)
            matrix, log_det = spd_matrix(vector, theta)
            loss = matrix_share * tf.reduce_sum(upstream * matrix, axis=(-1, -2))
            loss += log_share * log_det
        gradient = np.linalg.norm(tape.gradient(loss, vector), axis=-1)
        assert np.all(np.isfinite(matrix)) and np.all(np.isfinite(log_det))
        bound = matrix_share * np.linalg.norm(upstream, axis=(-1, -2))
        bound = bound + log_share * np.sqrt(d) / theta
        assert np.all(gradient <= bound * (1 + 1e-4))
        if log_share and not matrix_share:
            assert np.all(gradient > 0)


def test_very_negative_eigenvalues_keep_an_exact_log_determinant():
    matrix, log_det = spd_matrix(tf.constant([-1e6, 0.0, -2e6]))
    np.testing.assert_array_equal(matrix, np.zeros((2, 2)))
    np.testing.assert_allclose(log_det, -3e6 - 2, rtol=1e-6)


@pytest.mark.parametrize(
    "vector", [[0.3, 0, 0.3], [2.0, 0, 2.0], [0.3, 0.9, -1.2], [2.0, 1.3, -0.5], [-2.0, 0, 0.5]]
)
@pytest.mark.parametrize("graph", [False, True])
def test_second_derivatives_for_two_dimensions(vector, graph):
    vector = np.array(vector, "f8")

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = scalar_loss(x, 1.0)
        return tape.gradient(loss, x)

    def hessian(x):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            value = gradient(x)
        return tape.jacobian(value, x, experimental_use_pfor=False)

    evaluate = tf.function(hessian) if graph else hessian
    step = 1e-5
    expected = np.stack(
        [
            (gradient(tf.constant(vector + step * e)) - gradient(tf.constant(vector - step * e)))
            / (2 * step)
            for e in np.eye(3)
        ],
        axis=-1,
    )
    np.testing.assert_allclose(evaluate(tf.constant(vector)), expected, atol=1e-8)


def test_second_derivatives_are_refused_beyond_two_dimensions():
    x = tf.constant([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    with tf.GradientTape() as outer:
        outer.watch(x)
        gradient = gradient_tensor(x)
    with pytest.raises(NotImplementedError, match="spd_matrix for d >= 3 has no second"):
        outer.gradient(gradient, x)


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_never_hidden(position, value):
    vector = np.ones((2, 3), "f4")
    vector[0, position] = value
    matrix, log_det = spd_matrix(vector)
    assert not np.all(np.isfinite(matrix[0])) and not np.isfinite(log_det[0])
    assert np.all(np.isfinite(matrix[1])) and np.isfinite(log_det[1])
    assert not np.isfinite(spd_matrix([[value]])[1])


def test_beyond_two_dimensions_nan_raises():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("eigh on a GPU returns NaN instead")
    with pytest.raises(tf.errors.InvalidArgumentError):
        spd_matrix(np.full([1, 6], np.nan))


@pytest.mark.parametrize(
    ("d", "jit_compile"), [(1, False), (1, True), (2, False), (2, True), (3, False)]
)
def test_graph_mode_with_unknown_batch(d, jit_compile):
    vector = np.random.default_rng(8).normal(size=(2, 5, d * (d + 1) // 2))

    @tf.function(jit_compile=jit_compile)
    def value_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = scalar_loss(x, 1.0)
        return loss, tape.gradient(loss, x)

    loss, gradient = value_and_gradient(tf.constant(vector))
    np.testing.assert_allclose(loss, scalar_loss(tf.constant(vector), 1.0), rtol=1e-12)
    expected = gradient_of(lambda x: scalar_loss(x, 1.0), vector)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)

    unknown = tf.function(
        spd_matrix, input_signature=[tf.TensorSpec([None, None, vector.shape[-1]], tf.float64)]
    )
    matrix, log_det = unknown.get_concrete_function().outputs
    assert matrix.shape.as_list() == [None, None, d, d]
    assert log_det.shape.as_list() == [None, None]
    np.testing.assert_allclose(unknown(tf.constant(vector))[0], spd_matrix(vector)[0], rtol=1e-13)
