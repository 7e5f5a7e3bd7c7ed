"""Supplements A and C: constants, bounds of gradients and Hessians, convexity, smoothness, reduction.

`raw` is what a network puts out for one point, (nu, v), and A comes from v by the SPD map. Labels are
`y`. Everything is float64, against formulas written here in numpy.
"""

import mpmath
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tfhuber.distributions.elliptical import Elliptical
from tfhuber.distributions.likelihood import negative_log_likelihood
from tfhuber.distributions.radial import FAMILIES, Gauss, Huber, Laplace, radial_energy
from tfhuber.linalg.spd import spd_matrix, symmetric_to_vector, vector_to_symmetric

DIMENSIONS = [1, 2, 3, 5]
SLOPE_LIMITS = {"huber": 0.7, "laplace": 1.0, "charbonnier": 1.0}  # of rho', with delta = 0.7


def raw_size(d):
    return d + d * (d + 1) // 2


def random_rotations(rng, count, d):
    return np.linalg.qr(rng.normal(size=(count, d, d)))[0]


def raw_with_eigenvalues(nu, eigenvalues, rng):
    """Raw outputs [N, ...] from nu [N, d] and eigenvalues of B [N, d], with random eigenvectors."""
    q = random_rotations(rng, *eigenvalues.shape)
    b = (q * eigenvalues[:, None, :]) @ np.swapaxes(q, -1, -2)
    return np.concatenate([nu, symmetric_to_vector(b).numpy()], axis=-1)


def loss_parts(raw, y, energy, theta):
    """The two terms of eq. 6, each [N]: the energy and -log |A|."""
    d = y.shape[-1]
    matrix, log_det = spd_matrix(raw[..., d:], theta)
    zero = tf.zeros_like(log_det)
    return negative_log_likelihood(y, raw[..., :d], matrix, zero, energy), -log_det


def loss_and_gradient(raw, y, energy, theta=1.0, parts=(0, 1)):
    raw, y = tf.constant(raw), tf.constant(y)
    with tf.GradientTape() as tape:
        tape.watch(raw)
        loss = tf.add_n([loss_parts(raw, y, energy, theta)[n] for n in parts])
    return loss.numpy(), tape.gradient(loss, raw).numpy()


def wild_raw_outputs(d, theta, rng, count=1500):
    """Raw outputs of all magnitudes: at random, and with equal, nearly equal and mixed eigenvalues."""
    magnitude = 10 ** rng.uniform(-12, 12, size=(count, 1))
    at_random = rng.normal(size=(count, raw_size(d))) * magnitude
    equal = np.repeat(rng.choice([-1, 1], size=(count, 1)) * magnitude, d, axis=-1)
    nearly_equal = equal * (1 + 1e-12 * rng.normal(size=(count, d)))
    mixed = rng.choice([-1e100, -1e6, -30, -1, 0, 1e-9, theta, 2, 1e6, 1e100], size=(count, d))
    nu = rng.normal(size=(count, d)) * magnitude
    structured = [raw_with_eigenvalues(nu, x, rng) for x in (equal, nearly_equal, mixed)]
    return np.concatenate([at_random, np.zeros((1, raw_size(d))), *structured])


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("theta", [0.3, 1.0])
@pytest.mark.parametrize("family", SLOPE_LIMITS)
def test_gradients_are_bounded_for_any_raw_output(family, theta, d):
    """C.2: at most sqrt(d)/theta, so at most d/theta (eq. 84); C.3: rho' sqrt(1 + |y|^2) (eq. 110).

    6,001 raw outputs of magnitudes from 1e-12 to 1e100 per case, labels up to 10 in each coordinate.
    """
    rng = np.random.default_rng(d)
    raw = wild_raw_outputs(d, theta, rng)
    y = rng.uniform(-10, 10, size=(len(raw), d))
    energy = radial_energy(family, SLOPE_LIMITS[family])
    bounds = [
        SLOPE_LIMITS[family] * np.sqrt(1 + np.sum(y**2, axis=-1)),
        np.full(len(raw), np.sqrt(d) / theta),
    ]
    for parts in ((0,), (1,), (0, 1)):
        loss, gradient = loss_and_gradient(raw, y, energy, theta, parts)
        assert np.all(np.isfinite(loss)) and np.all(np.isfinite(gradient))
        norm = np.linalg.norm(gradient, axis=-1)
        bound = sum(bounds[n] for n in parts)
        assert np.all(norm <= bound * (1 + 1e-12)), (parts, np.max(norm / bound))


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("family", SLOPE_LIMITS)
def test_the_bounds_are_attained(family, d):
    """sqrt(d)/theta by all eigenvalues below theta; the energy's by a far residual along the label."""
    rng = np.random.default_rng(d)
    y = rng.normal(size=(1, d))
    energy = radial_energy(family, SLOPE_LIMITS[family])
    raw = raw_with_eigenvalues(1e9 * y, np.linspace(2.0, 3.0, d)[None], rng)
    _, gradient = loss_and_gradient(raw, y, energy, parts=(0,))
    bound = SLOPE_LIMITS[family] * np.sqrt(1 + np.sum(y**2))
    assert np.linalg.norm(gradient) == pytest.approx(bound, rel=1e-8)
    raw = raw_with_eigenvalues(y, -np.linspace(0.0, 50.0, d)[None], rng)
    _, gradient = loss_and_gradient(raw, y, energy, theta=0.3, parts=(1,))
    assert np.linalg.norm(gradient) == pytest.approx(np.sqrt(d) / 0.3, rel=1e-12)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_gauss_has_no_such_bound(d):
    """Its gradient grows like the residual: ten times for each ten times further nu."""
    y, raw = np.ones((7, d)), np.zeros((7, raw_size(d)))
    raw[:, 0] = 10.0 ** np.arange(3, 10)
    _, gradient = loss_and_gradient(raw, y, Gauss())
    norm = np.linalg.norm(gradient, axis=-1)
    np.testing.assert_allclose(norm[1:] / norm[:-1], 10.0, rtol=0.02)


@pytest.mark.parametrize("family", SLOPE_LIMITS)
def test_the_mu_parameterisation_has_no_such_bound(family):
    """With (mu, v) in place of (nu, v) the gradient grows like A: why the paper predicts nu."""
    energy = radial_energy(family, SLOPE_LIMITS[family])
    scale = 10.0 ** np.arange(1, 8)
    vector = tf.constant(scale[:, None] * [1.0, 0.0, 1.0])
    mu = tf.zeros([len(scale), 2], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(mu)
        matrix, log_det = spd_matrix(vector)
        nu = tf.linalg.matvec(matrix, mu)
        loss = negative_log_likelihood(
            tf.constant([2.0, 1.0], tf.float64), nu, matrix, log_det, energy
        )
    norm = np.linalg.norm(tape.gradient(loss, mu), axis=-1)
    np.testing.assert_allclose(norm / scale, SLOPE_LIMITS[family], rtol=0.01)


def slopes(family, r, delta):
    """rho'(r) / r and rho''(r), from eq. 2 and 11-13."""
    if family == "gauss":
        return np.ones_like(r), np.ones_like(r)
    if family == "laplace":
        return 1 / r, np.zeros_like(r)
    if family == "charbonnier":
        return (1 + r**2) ** -0.5, (1 + r**2) ** -1.5
    return np.where(r <= delta, 1, delta / r), np.where(r <= delta, 1.0, 0.0)


def closed_form_hessian(raw, y, family, delta):
    """[N, P, P] of eq. 6 in (nu, v) where all eigenvalues exceed theta: there A = B is linear in v.

    The residual is e = T v - nu; C.3 gives J^T (rho'/r (I - n n^T) + rho'' n n^T) J with J = [-I, T]
    and n = e/r, and C.2 tr(A^-1 E_k A^-1 E_l) with the basis E of symmetric matrices.
    """
    count, d = y.shape
    basis = vector_to_symmetric(np.eye(raw_size(d) - d)).numpy()
    a = vector_to_symmetric(raw[:, d:]).numpy()
    residual = np.einsum("nij,nj->ni", a, y) - raw[:, :d]
    r = np.linalg.norm(residual, axis=-1)
    n = residual / r[:, None]
    weight, curvature = slopes(family, r, delta)
    along = n[:, :, None] * n[:, None, :]
    inner = weight[:, None, None] * (np.eye(d) - along) + curvature[:, None, None] * along
    jacobian = np.concatenate(
        [np.tile(-np.eye(d), (count, 1, 1)), np.einsum("kij,nj->nik", basis, y)], axis=-1
    )
    hessian = np.einsum("nia,nij,njb->nab", jacobian, inner, jacobian)
    products = np.einsum("nij,kjm->nkim", np.linalg.inv(a), basis)
    hessian[:, d:, d:] += np.einsum("nkij,nlji->nkl", products, products)
    return hessian, r


def numerical_hessian(raw, y, energy, theta, step=1e-5):
    """[N, P, P]: central differences of the gradients that the library gives."""
    count, size = raw.shape
    moved = raw[:, None, None, :] + step * np.stack([np.eye(size), -np.eye(size)], axis=1)
    labels = np.broadcast_to(y[:, None, None, :], (count, size, 2, y.shape[-1]))
    _, gradient = loss_and_gradient(
        moved.reshape(-1, size), labels.reshape(-1, y.shape[-1]), energy, theta
    )
    gradient = gradient.reshape(count, size, 2, size)
    return (gradient[:, :, 0] - gradient[:, :, 1]) / (2 * step)


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_hessian_is_bounded_and_positive_semidefinite_above_theta(family, d):
    """C.2 and C.3: eigenvalues within [0, 1/theta^2 + max(rho'/r) (1 + |y|^2)]; 60 points per case.

    The paper allows d/theta^2 for the first term (eq. 98). For Laplace rho'/r = 1/r has no maximum.
    """
    theta, delta = 0.6, 0.8
    rng = np.random.default_rng(d)
    y = rng.normal(size=(60, d)) * 10 ** rng.uniform(-1, 0.5, size=(60, 1))
    eigenvalues = theta + 10 ** rng.uniform(-3, 1, size=(60, d))
    raw = raw_with_eigenvalues(np.zeros((60, d)), eigenvalues, rng)
    a = vector_to_symmetric(raw[:, d:]).numpy()
    direction = rng.normal(size=(60, d))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    radius = rng.choice([0.05, 0.3, delta - 0.01, delta + 0.01, 3.0, 50.0], size=(60, 1))
    raw[:, :d] = np.einsum("nij,nj->ni", a, y) - radius * direction

    expected, r = closed_form_hessian(raw, y, family, delta)
    np.testing.assert_allclose(r, radius[:, 0], rtol=1e-9)
    numerical = numerical_hessian(raw, y, radial_energy(family, delta), theta)
    scale = np.abs(expected).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(numerical / scale, expected / scale, atol=2e-6)

    values = np.linalg.eigvalsh(expected)
    largest_weight = 1 / r if family == "laplace" else 1.0
    bound = 1 / theta**2 + largest_weight * (1 + np.sum(y**2, axis=-1))
    assert np.all(values >= -1e-11 * scale[:, 0])
    assert np.all(values[:, -1] <= bound * (1 + 1e-12))


def test_hessian_of_laplace_is_not_bounded():
    """Near the centre it grows like 1/r: here 2.5/r, across the residual e_1, with y = (1, 1)."""
    y, radius = np.ones((4, 2)), 10.0 ** -np.arange(1, 5)
    raw = np.tile([3.0, 3.0, 3.0, 0.0, 3.0], (4, 1))
    raw[:, 0] -= radius
    largest = np.linalg.eigvalsh(closed_form_hessian(raw, y, "laplace", None)[0])[:, -1]
    np.testing.assert_allclose(largest * radius, 2.5, rtol=0.01)
    numerical = numerical_hessian(raw, y, Laplace(), 1.0, step=1e-8)
    np.testing.assert_allclose(np.linalg.eigvalsh(numerical)[:, -1], largest, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_below_theta_the_energy_is_not_convex(family):
    """d = 1, theta = 1, y = 1, nu = 1.2: along v from -0.5 to 0.5 the loss lies above its chord."""
    raw = np.array([[1.2, -0.5], [1.2, 0.0], [1.2, 0.5]])
    loss, _ = loss_and_gradient(raw, np.ones((3, 1)), radial_energy(family, 1.0))
    assert loss[1] > (loss[0] + loss[2]) / 2 + 0.005


@pytest.mark.parametrize("d", DIMENSIONS)
def test_minus_log_determinant_is_convex_everywhere(d):
    """More than C.2 claims: -log g is convex, a line below theta; 2,000 pairs of any eigenvalues."""
    rng = np.random.default_rng(d)
    size = raw_size(d) - d
    first, last = rng.normal(size=(2, 2000, size)) * 10 ** rng.uniform(-2, 2, size=(2, 2000, 1))
    share = rng.uniform(size=(2000, 1))
    ends, middle = (
        [-spd_matrix(v)[1].numpy() for v in points]
        for points in ((first, last), (share * first + (1 - share) * last,))
    )
    chord = share[:, 0] * ends[0] + (1 - share[:, 0]) * ends[1]
    assert np.all(middle[0] <= chord + 1e-12 * (1 + np.abs(chord)))


def curvature_along(raw, direction, y, energy, side, step=1e-5):
    """One-sided second derivative, from `raw` to the side of `direction` times +1 or -1."""
    near, far = raw + side * step * direction, raw + side * 2 * step * direction
    _, gradient = loss_and_gradient(np.stack([near, far]), np.stack([y, y]), energy)
    return side * (gradient[1] - gradient[0]) @ direction / step


def one_sided(raw, direction, y, energy, step=1e-7):
    """Losses [2] and gradients [2, P] a step before and a step after `raw`."""
    points = np.stack([raw - step * direction, raw + step * direction])
    return loss_and_gradient(points, np.stack([y, y]), energy)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_huber_loss_is_smooth_at_the_knee_but_for_its_curvature(d):
    """Where |A y - nu| = delta: value and gradient are continuous, the curvature drops from 1 to 0."""
    delta = 0.7
    energy = Huber(delta)
    y, direction = np.linspace(0.5, 1.0, d), np.zeros(raw_size(d))
    direction[0] = -1.0
    vector = symmetric_to_vector(2 * np.eye(d)).numpy()
    raw = np.concatenate([2 * y, vector]) + delta * direction
    loss, gradient = one_sided(raw, direction, y, energy)
    assert loss[1] - loss[0] == pytest.approx(2e-7 * delta, rel=1e-5)
    np.testing.assert_allclose(gradient[0], gradient[1], atol=4e-7)
    assert curvature_along(raw, direction, y, energy, -1) == pytest.approx(1.0, abs=1e-8)
    assert curvature_along(raw, direction, y, energy, +1) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_smooth_at_theta_but_for_its_curvature(family, d):
    """Where an eigenvalue of B is theta = 1: value and gradient are continuous for every family.

    For y = 0 the energy does not depend on A. Then -log |A| has the slope -1/theta on either side, and
    the curvature rises from 0 to 1/theta^2.
    """
    energy = radial_energy(family, 0.7)
    q = random_rotations(np.random.default_rng(d), 1, d)[0]
    b = (q * np.append(1.0, np.linspace(1.5, 3.0, d - 1))) @ q.T
    along = symmetric_to_vector(np.outer(q[:, 0], q[:, 0])).numpy()
    raw, direction = (
        np.append(np.full(d, 0.3), symmetric_to_vector(b)),
        np.append(np.zeros(d), along),
    )
    loss, gradient = one_sided(raw, direction, np.ones(d), energy)
    np.testing.assert_allclose(loss[0], loss[1], atol=2e-6)
    np.testing.assert_allclose(gradient[0], gradient[1], atol=2e-6)
    centre = np.zeros(d)
    _, gradient = one_sided(raw, direction, centre, energy)
    assert gradient[0] @ direction == pytest.approx(-1.0, abs=1e-6)
    assert curvature_along(raw, direction, centre, energy, -1) == pytest.approx(0.0, abs=1e-8)
    assert curvature_along(raw, direction, centre, energy, +1) == pytest.approx(1.0, abs=1e-4)


def test_laplace_has_a_kink_at_the_centre_and_a_gradient_of_zero_there():
    raw, y = np.array([0.0, 0.0, 2.0, 0.0, 2.0]), np.zeros(2)
    direction = np.array([1.0, 0.0, 0.0, 0.0, 0.0])
    _, gradient = one_sided(raw, direction, y, Laplace())
    np.testing.assert_allclose(gradient[:, 0], [-1.0, 1.0], atol=1e-9)
    _, at_centre = loss_and_gradient(raw[None], y[None], Laplace(), parts=(0,))
    np.testing.assert_array_equal(at_centre, 0.0)


@pytest.mark.parametrize("d", range(1, 7))
@pytest.mark.parametrize("delta", [0.3, 1.0, 2.5])
def test_constants_of_huber_against_the_papers_recursions(d, delta):
    """A.1 and A.2: eq. 22-33 with eq. 24 and 31 corrected, in 30 digits."""
    with mpmath.workdps(30):
        x = mpmath.mpf(delta)

        def a(n):
            if n == 0:
                return mpmath.sqrt(mpmath.pi / 2) * mpmath.erf(x / mpmath.sqrt(2))
            if n == 1:
                return 1 - mpmath.exp(-(x**2) / 2)
            return -(x ** (n - 1)) * mpmath.exp(-(x**2) / 2) + (n - 1) * a(n - 2)

        def b(n):
            if n == 0:
                return mpmath.exp(-(x**2)) / x
            return x ** (n - 1) * mpmath.exp(-(x**2)) + n / x * b(n - 1)

        def integral(n):
            return a(n) + mpmath.exp(x**2 / 2) * b(n)

        sphere = 2 * mpmath.pi ** (mpmath.mpf(d) / 2) / mpmath.gamma(mpmath.mpf(d) / 2)
        log_normalizer = float(mpmath.log(sphere * integral(d - 1)))
        kappa = float(integral(d + 1) / (d * integral(d - 1)))
    assert Huber(delta).log_normalizer(d) == pytest.approx(log_normalizer, rel=1e-13, abs=1e-13)
    assert Huber(delta).kappa(d) == pytest.approx(kappa, rel=1e-12)


@pytest.mark.parametrize("d", range(1, 7))
@pytest.mark.parametrize(
    ("family", "delta"),
    [("huber", 0.3), ("huber", 2.5), *((family, 1.0) for family in FAMILIES)],
)
def test_constants_against_quadrature(family, delta, d):
    """The density is 1 in total, and kappa is the mean squared radius over d, shell by shell."""
    dist = Elliptical(np.zeros(d), np.eye(d), radial_energy(family, delta))
    tail = delta + np.geomspace(0.1, 60 / min(delta, 1), 20)
    edges = np.concatenate([np.linspace(0, delta, 3), tail])
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    nodes, weights = np.polynomial.legendre.leggauss(40)
    r, weights = (middle[:, None] + half[:, None] * nodes).ravel(), np.outer(half, weights).ravel()
    point = r[:, None] * np.eye(d)[0]
    sphere = 2 * np.pi ** (d / 2) / scipy.special.gamma(d / 2)
    shell = weights * sphere * r ** (d - 1) * dist.prob(point).numpy()
    assert shell.sum() == pytest.approx(1.0, rel=1e-11)
    assert shell @ r**2 / d == pytest.approx(dist.radial.kappa(d), rel=1e-11)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_identity_covariance_reduces_to_the_plain_regression_losses(d):
    """Section 5.2: half the squared error, the mean error, Charbonnier's loss and Huber's loss."""
    rng = np.random.default_rng(d)
    y, prediction = rng.normal(size=(2, 50, d)) * 2
    distance = np.linalg.norm(y - prediction, axis=-1)
    plain = {
        "gauss": np.sum((y - prediction) ** 2, axis=-1) / 2,
        "laplace": distance,
        "charbonnier": scipy.special.pseudo_huber(1.0, distance),
        "huber": scipy.special.huber(1.3, distance),
    }
    identity, zero = np.broadcast_to(np.eye(d), (50, d, d)), np.zeros(50)
    for family, expected in plain.items():
        energy = radial_energy(family, 1.3)
        loss = negative_log_likelihood(y, prediction, identity, zero, energy)
        np.testing.assert_allclose(loss, expected, rtol=1e-13)
