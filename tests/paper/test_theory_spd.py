"""Section 3.3 and supplement B: no preferred direction, unbiased eigenvectors, the map's gradient."""

import mpmath
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfhuber.distributions.likelihood import negative_log_likelihood
from tfhuber.distributions.radial import FAMILIES, radial_energy
from tfhuber.linalg.spd import spd_matrix, symmetric_to_vector, vector_to_symmetric


def random_rotations(rng, count, d):
    """[N, d, d] from Haar's measure, reflections included."""
    q, r = np.linalg.qr(rng.normal(size=(count, d, d)))
    return q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]


def rotate(q, matrix):
    return q @ matrix @ np.swapaxes(q, -1, -2)


def loss_and_gradients(y, nu, b, energy):
    """Eq. 6 [N] and its gradients with respect to nu [N, d] and, through the raw vector, B [N, d, d]."""
    nu, vector = tf.constant(nu), symmetric_to_vector(b)
    with tf.GradientTape() as tape:
        tape.watch([nu, vector])
        loss = negative_log_likelihood(tf.constant(y), nu, *spd_matrix(vector), energy)
    d_nu, d_vector = tape.gradient(loss, [nu, vector])
    return loss.numpy(), d_nu.numpy(), vector_to_symmetric(d_vector).numpy()


@pytest.mark.parametrize("d", [2, 3, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_turn_with_the_coordinates(family, d):
    """In coordinates turned by Q the loss is the same, and the gradients are Q d_nu and Q d_B Q^T.

    So an optimiser that treats directions alike takes the same path, turned. 300 points per case, with
    reflections; a third of them with equal and a third with nearly equal eigenvalues.
    """
    rng = np.random.default_rng(d)
    b = rotate(random_rotations(rng, 300, d), np.eye(d) * rng.uniform(-3, 3, size=(300, 1, d)))
    equal = rng.uniform(-3, 3, size=(200, 1, 1)) * np.eye(d)
    b[:200] = equal + np.where(np.arange(200) < 100, 0, 1e-9)[:, None, None] * (b[:200] + 4)
    y, nu = rng.normal(size=(2, 300, d)) * 2
    q = random_rotations(rng, 300, d)
    energy = radial_energy(family, 0.8)
    loss, d_nu, d_b = loss_and_gradients(y, nu, b, energy)
    turned_y, turned_nu = (np.einsum("nij,nj->ni", q, x) for x in (y, nu))
    turned = loss_and_gradients(turned_y, turned_nu, rotate(q, b), energy)
    np.testing.assert_allclose(turned[0], loss, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(turned[1], np.einsum("nij,nj->ni", q, d_nu), atol=1e-11)
    np.testing.assert_allclose(turned[2], rotate(q, d_b), atol=2e-11 * np.abs(d_b).max())


@pytest.mark.parametrize("d", [2, 3, 5])
def test_isotropic_vectors_have_isotropic_matrices(d):
    """Every eigenvector of A, whatever its rank, points anywhere: squared components are Beta.

    For a direction uniform on the sphere they are Beta(1/2, (d-1)/2), and independent of the
    eigenvalues: rank correlation with the spread of log eigenvalues. 4,000 matrices; with d^2 tests
    of either kind, p > 1e-3 / d^2 fails a right map twice in a thousand seeds.
    """
    vector = np.random.default_rng(d).normal(size=(4000, d * (d + 1) // 2))
    values, vectors = np.linalg.eigh(spd_matrix(vector)[0].numpy())
    spread = np.log(values[:, -1] / values[:, 0])
    beta = scipy.stats.beta(0.5, (d - 1) / 2)
    for n in range(d):
        for i in range(d):
            square = vectors[:, i, n] ** 2
            assert scipy.stats.kstest(square, beta.cdf).pvalue > 1e-3 / d**2
            assert scipy.stats.spearmanr(square, spread).pvalue > 1e-3 / d**2


def axis_angle(matrices):
    """Direction of the longer axis of 2 x 2 matrices, from 0 to pi."""
    return np.arctan2(2 * matrices[:, 0, 1], matrices[:, 0, 0] - matrices[:, 1, 1]) / 2 % np.pi


def test_axes_of_ellipses_point_anywhere_at_any_eccentricity():
    """d = 2: uniform angles in each quarter of the eccentricities; 20,000 matrices, 4 tests."""
    vector = np.random.default_rng(0).normal(size=(20_000, 3))
    matrices = spd_matrix(vector)[0].numpy()
    values = np.linalg.eigvalsh(matrices)
    for quarter in np.array_split(np.argsort(values[:, 1] / values[:, 0]), 4):
        angle = axis_angle(matrices[quarter])
        assert scipy.stats.kstest(angle / np.pi, "uniform").pvalue > 1e-3


def test_frames_in_space_follow_haars_measure():
    """d = 3: with signs at random, the angle by which the frame is turned has density (1 - cos)/pi.

    20,000 matrices; the turning axis is uniform on the sphere, so its height is uniform in [-1, 1].
    """
    rng = np.random.default_rng(0)
    _, frame = np.linalg.eigh(spd_matrix(rng.normal(size=(20_000, 6)))[0].numpy())
    frame = frame * rng.choice([-1, 1], size=(len(frame), 1, 3))
    frame *= np.linalg.det(frame)[:, None, None]  # -1 in odd dimensions turns the handedness
    angle = np.arccos(np.clip((np.trace(frame, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert scipy.stats.kstest(angle, lambda t: (t - np.sin(t)) / np.pi).pvalue > 1e-3
    height = (frame[:, 1, 0] - frame[:, 0, 1]) / (2 * np.sin(angle))
    assert scipy.stats.kstest((height + 1) / 2, "uniform").pvalue > 1e-3


def test_cholesky_factors_prefer_directions():
    """The contrast: A = L L^T with the same isotropic vector. The axes crowd at the diagonals.

    20,000 matrices. The distance of the angles' distribution from the uniform one is 15 times what the
    paper's map shows, and the mean of A is not a multiple of I, though that of B is 0.
    """
    vector = np.random.default_rng(0).normal(size=(20_000, 3))
    factor = np.zeros((len(vector), 2, 2))
    factor[:, 0, 0], factor[:, 1, 0], factor[:, 1, 1] = np.logaddexp(vector, 0).T
    factor[:, 1, 0] = vector[:, 1]
    cholesky = factor @ np.swapaxes(factor, 1, 2)
    spectral = spd_matrix(vector)[0].numpy()
    distance = [
        scipy.stats.kstest(axis_angle(matrices) / np.pi, "uniform").statistic
        for matrices in (cholesky, spectral)
    ]
    assert distance[0] > 0.1 and distance[0] > 15 * distance[1]
    mean = cholesky.mean(axis=0)
    assert mean[1, 1] > 1.5 * mean[0, 0]
    error = spectral.std(axis=0).max() * 5 / np.sqrt(len(vector))
    np.testing.assert_allclose(
        spectral.mean(axis=0), spectral[:, 0, 0].mean() * np.eye(2), atol=error
    )


EIGENVALUES = {
    "distinct": [-1.0, 0.2, 1.4, 2.5, 0.7],
    "equal below theta": [0.3] * 5,
    "equal above theta": [2.0] * 5,
    "nearly equal below": [0.3, 0.3 + 1e-9, 0.3 - 1e-12, 0.3 + 1e-6, 0.3],
    "nearly equal above": [2.0, 2.0 + 1e-9, 2.0 - 1e-12, 2.0 + 1e-6, 2.0],
    "across theta": [1.0 - 1e-9, 1.0 + 1e-12, 1.0 + 1e-9, 1.0 - 1e-12, 1.0 + 1e-6],
}


def exact_matrix(b):
    """G(B) of eq. 10 with theta = 1, in the working precision of mpmath."""
    values, v = mpmath.eigsy(b)
    mapped = [x if x > 1 else mpmath.exp(x - 1) for x in values]
    return v * mpmath.diag(mapped) * v.T


@pytest.mark.parametrize("d", [2, 3, 5])
@pytest.mark.parametrize("name", EIGENVALUES)
def test_gradient_against_differences_in_60_digits(d, name):
    """Eq. 38 along 4 random directions: steps of 1e-25 tell eigenvalues apart that differ by 1e-12."""
    rng = np.random.default_rng(d)
    b = rotate(random_rotations(rng, 1, d)[0], np.diag(EIGENVALUES[name][:d]))
    b = (b + b.T) / 2
    upstream = rng.normal(size=(d, d))
    vector = symmetric_to_vector(b)
    with tf.GradientTape() as tape:
        tape.watch(vector)
        loss = tf.reduce_sum(upstream * spd_matrix(vector)[0])
    gradient = vector_to_symmetric(tape.gradient(loss, vector)).numpy()
    with mpmath.workdps(60):
        centre, step = mpmath.matrix(b.tolist()), mpmath.mpf(10) ** -25
        for _ in range(4):
            direction = rng.normal(size=(d, d))
            direction += direction.T
            move = mpmath.matrix(direction.tolist()) * step
            change = exact_matrix(centre + move) - exact_matrix(centre - move)
            slopes = np.array((change / (2 * step)).tolist(), float)
            assert np.sum(gradient * direction) == pytest.approx(
                np.sum(upstream * slopes), abs=2e-9
            )


@pytest.mark.parametrize("theta", [1e-3, 1.0])
@pytest.mark.parametrize("size", [50.0, 1e4, 1e6, 1e8])
def test_gradient_in_float32_where_eigenvalues_differ_by_less_than_their_rounding(size, theta):
    """There A = B, so the off-diagonal of A moves with that of B alone."""
    vector = tf.constant([size, size * 2e-8, size])
    with tf.GradientTape() as tape:
        tape.watch(vector)
        off_diagonal = spd_matrix(vector, theta)[0][0, 1]
    expected = [0.0, np.sqrt(0.5), 0.0]
    np.testing.assert_allclose(tape.gradient(off_diagonal, vector), expected, atol=1e-6)


@pytest.mark.parametrize("size", [50.0, 1e4, 1e6])
def test_gradient_in_float32_where_one_eigenvalue_is_huge(size):
    """B = diag(size, 1/2), exact in float32: A_22 moves with B_22 alone, by g'(1/2)."""
    vector = tf.constant([size, 0.0, 0.5])
    with tf.GradientTape() as tape:
        tape.watch(vector)
        small = spd_matrix(vector)[0][1, 1]
    np.testing.assert_allclose(tape.gradient(small, vector), [0.0, 0.0, np.exp(-0.5)], atol=1e-6)
