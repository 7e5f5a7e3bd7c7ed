"""The checks behind docs/misprints.md for the proofs: supplements B and C. See test_misprints.py.

What is true are derivatives of the loss and of the map that ship.
"""

import numpy as np
import pytest
import tensorflow as tf
from misprints import gradient, judge

from tfhuber.distributions.likelihood import negative_log_likelihood
from tfhuber.distributions.radial import Huber
from tfhuber.linalg import small_matrix
from tfhuber.linalg.spd import g, spd_matrix, symmetric_to_vector, vector_to_symmetric

X = np.array([0.8, -1.3])  # a label y, which supplement C calls x
A = np.array([[2.0, 0.6], [0.6, 1.4]])
A_INVERSE = np.linalg.inv(A)
C, B = np.array([0.7, -0.4]), np.array([[1.1, 0.2], [0.9, -0.6]])  # a direction of (nu, A)
NEAR, FAR = A @ X - [0.3, 0.4], A @ X - [3.0, 4.0]  # nu with |A x - nu| = 0.5 and 5


def derivatives(function, z):
    """Gradient and Hessian of a scalar function of a tensor."""
    z = tf.constant(z)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(z)
        with tf.GradientTape() as inner:
            inner.watch(z)
            value = function(z)
        first = inner.gradient(value, z)
    return first.numpy(), outer.jacobian(first, z, experimental_use_pfor=False).numpy()


def energy(z):
    """h_1(|A x - nu|) of supplement C.3 at z = (nu, A row by row)."""
    a = tf.reshape(z[2:], [2, 2])
    return negative_log_likelihood(tf.constant(X), z[:2], a, tf.zeros([], z.dtype), Huber(1.0))


def blocks(nu):
    """Gradient and Hessian of `energy`, in the paper's blocks."""
    first, second = derivatives(energy, np.concatenate([nu, A.ravel()]))
    return {
        "nu": first[:2],
        "nu nu": second[:2, :2],
        "nu A": second[:2, 2:].reshape(2, 2, 2),
        "A A": second[2:, 2:].reshape(2, 2, 2, 2),
        "all": second,
    }


# --- Supplement B ---


def g_slope(x):
    return np.exp(np.minimum(x, 1) - 1)


def mapped(b):
    return spd_matrix(symmetric_to_vector(b))[0].numpy()


def test_eq_43():
    """A derivative is G(F) - G(E) over epsilon."""
    e, epsilon = np.diag([0.3, 1.7]), 1e-6
    f = e + np.diag([epsilon, 0.0])
    printed, right = (mapped(e) - mapped(f)) / epsilon, (mapped(f) - mapped(e)) / epsilon
    judge(np.diag([g_slope(0.3), 0.0]), printed, right)


def test_eq_38_and_61():
    """Eq. 61 moves E_12 and E_21 at once, eq. 72 one of them: a factor of 2 for off-diagonals.

    Eq. 38 is the gradient in the sense of dL = <dL/dB, dB>, of a symmetrised dL/dA. So a parameter that
    both elements share has twice its element, and v of eq. 7 sqrt(2) times.
    """
    b, d_a = np.array([[0.3, 0.5], [0.5, 1.7]]), np.array([[0.4, 1.1], [-0.3, 0.7]])
    values, v = np.linalg.eigh(b)
    k = np.diag(g_slope(values))
    k[0, 1] = k[1, 0] = (g(values[1]) - g(values[0])) / (values[1] - values[0])

    def eq_38(d_a):
        return (v @ ((v.T @ d_a @ v) * k) @ v.T)[1, 0]

    vector = symmetric_to_vector(b)
    with tf.GradientTape() as tape:
        tape.watch(vector)
        value = tf.reduce_sum(d_a * spd_matrix(vector)[0])
    of_v = tape.gradient(value, vector).numpy()[1]
    symmetrised = eq_38((d_a + d_a.T) / 2)
    judge(of_v, printed=symmetrised, right=np.sqrt(2) * symmetrised)
    shared = np.sqrt(2) * of_v  # b_12 = b_21 = v_2 / sqrt(2)
    judge(shared, printed=symmetrised, right=2 * symmetrised)
    judge(shared, printed=2 * eq_38(d_a), right=2 * symmetrised)


def test_eq_65():
    """The second "=" is a product."""
    x, epsilon = 0.4, 0.1
    v = np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
    left = v @ np.diag([x + epsilon, x - epsilon])
    truth = vector_to_symmetric([x, np.sqrt(2) * epsilon, x])
    judge(truth, printed=left, right=left @ v.T)


def test_eq_70():
    """The G before the result is one too many."""
    x, epsilon = 0.4, 1e-4
    result = np.array([[g(x), epsilon * g_slope(x)], [epsilon * g_slope(x), g(x)]])
    judge(mapped(np.array([[x, epsilon], [epsilon, x]])), mapped(result), result)


# --- Supplement C ---


def minus_log_det(a):
    d = int(np.sqrt(a.shape[0]))
    return -small_matrix.log_determinant(tf.reshape(a, [d, d]))


def test_eq_80():
    first, _ = derivatives(minus_log_det, A.ravel())
    judge(first, A_INVERSE.ravel(), -A_INVERSE.ravel())


@pytest.mark.parametrize("d", [2, 3, 5])
def test_eq_81_to_84(d):
    """A Frobenius norm is the root of a sum of squares: sqrt(d)/theta. The sum has no term i = 0."""
    theta = 0.5
    q = np.linalg.qr(np.random.default_rng(d).normal(size=(d, d)))[0]
    vector = symmetric_to_vector((q * np.linspace(-1.0, theta, d)) @ q.T)
    with tf.GradientTape() as tape:
        tape.watch(vector)
        log_det = spd_matrix(vector, theta)[1]
    truth = np.linalg.norm(tape.gradient(log_det, vector))
    judge(truth, printed=d / theta, right=np.sqrt(d) / theta)


def test_eq_86():
    """The derivative of the gradient -A^-1: the minus sign, lost in eq. 86, is back in eq. 87."""
    slopes = gradient(lambda a: small_matrix.inverse(tf.constant(a.reshape(2, 2))), A.ravel())
    slopes = slopes.reshape(2, 2, 2, 2)
    derivative = np.einsum("klij->ijkl", slopes)
    truth = np.einsum("ik,lj->ijkl", A_INVERSE, A_INVERSE)
    judge(truth, printed=derivative, right=-derivative)


def test_eq_89():
    """The elements of the Hessian are (A^-1)_jk (A^-1)_li; as printed for symmetric directions only.

    So convexity holds for symmetric matrices, and not along [[0, 1], [-1, 0]].
    """
    truth = derivatives(minus_log_det, A.ravel())[1].reshape(2, 2, 2, 2)
    printed = np.einsum("ik,lj->ijkl", A_INVERSE, A_INVERSE)
    right = np.einsum("jk,li->ijkl", A_INVERSE, A_INVERSE)
    judge(truth, printed, right)
    symmetric, turning = np.array([[0.3, -1.0], [-1.0, 0.5]]), np.array([[0.0, 1.0], [-1.0, 0.0]])
    forms = {
        name: [np.einsum("ij,ijkl,kl", x, h, x) for h in (printed, truth)]
        for name, x in (("symmetric", symmetric), ("turning", turning))
    }
    assert forms["symmetric"][0] == pytest.approx(forms["symmetric"][1], rel=1e-5)
    assert forms["turning"][0] > 0 > forms["turning"][1]


def test_eq_90_to_96():
    """X is any symmetric direction, not a positive definite one; U is invertible, not orthonormal."""
    x = np.array([[0.3, -1.0], [-1.0, 0.5]])
    assert np.linalg.eigvalsh(x)[0] < 0
    product = x @ A_INVERSE
    values, u = np.linalg.eig(product)
    truth = x.ravel() @ derivatives(minus_log_det, A.ravel())[1] @ x.ravel()
    assert np.isrealobj(values) and np.sum(values**2) == pytest.approx(truth)
    np.testing.assert_allclose(u @ np.diag(values) @ np.linalg.inv(u), product, atol=1e-12)
    assert np.linalg.norm(product @ product.T - product.T @ product) > 0.1  # as no U^T D U has
    assert np.linalg.norm(u.T @ u - np.eye(2)) > 0.1


def test_eq_98():
    """Right, but the bound that is attained is 1/theta^2, without d."""
    theta, d = 0.5, 5
    x = np.random.default_rng(0).normal(size=(1000, d, d))
    x += np.swapaxes(x, 1, 2)
    x[0] = np.diag(np.eye(d)[0])
    x /= np.linalg.norm(x, axis=(1, 2), keepdims=True)
    hessian = derivatives(minus_log_det, theta * np.eye(d).ravel())[1]
    forms = np.einsum("ni,ij,nj->n", x.reshape(1000, -1), hessian, x.reshape(1000, -1))
    judge(forms.max(), printed=d / theta**2, right=1 / theta**2)


def test_eq_102():
    truth = blocks(NEAR)["nu A"]
    printed = np.einsum("ik,l->ikl", np.eye(2), X)
    judge(truth, printed, -printed)


def test_eq_107_to_109():
    """The cross terms are negative: |c - B x|^2."""
    direction = np.append(C, B)
    truth = direction @ blocks(NEAR)["all"] @ direction
    judge(truth, np.sum((C + B @ X) ** 2), np.sum((C - B @ X) ** 2))


def test_norm_after_eq_109():
    """sqrt(d (|x|^4 + 2 |x|^2 + 1)) = sqrt(d) (|x|^2 + 1): the 2 is missing, the result is right."""
    square = X @ X
    truth = np.linalg.norm(blocks(NEAR)["all"])
    judge(truth, np.sqrt(2 * (square**2 + square + 1)), np.sqrt(2) * (square + 1))


def test_eq_111():
    n = (A @ X - FAR) / 5
    judge(blocks(FAR)["nu"], printed=n, right=-n)


@pytest.mark.parametrize(
    ("equations", "block", "sign"),
    [("112, 113", "nu nu", 1), ("114, 115", "nu A", -1), ("117, 118", "A A", 1)],
)
def test_eq_112_to_118(equations, block, sign):
    """With r = |A x - nu|: r^2 under the first form of each and r^3 under the second, not r^3 and r^4.

    The mixed derivatives (114, 115) lack a minus sign besides.
    """
    e, r = A @ X - FAR, 5.0
    across = np.eye(2) * r**2 - np.outer(e, e)
    numerator = {
        "nu nu": across,
        "nu A": np.einsum("ik,l->ikl", across, X),
        "A A": np.einsum("ik,j,l->ijkl", across, X, X),
    }[block]
    truth = blocks(FAR)[block]
    judge(truth, printed=numerator / r**4, right=sign * numerator / r**3)
    judge(truth, printed=numerator / r / r**3, right=sign * numerator / r / r**2)
    if sign < 0:
        judge(truth, printed=numerator / r**3, right=-numerator / r**3)


def test_eq_119_to_127():
    """(|c - B x|^2 / r) - ((c - B x)^T (A x - nu))^2 / r^3."""
    direction = np.append(C, B)
    truth = direction @ blocks(FAR)["all"] @ direction
    e, r = A @ X - FAR, 5.0
    plus, minus = C + B @ X, C - B @ X
    printed = plus @ plus / r**2 - (plus @ e) ** 2 / r**4
    right = minus @ minus / r - (minus @ e) ** 2 / r**3
    judge(truth, printed, right, tolerance=1e-5)


def test_bounds_after_eq_128():
    """(1 + |x|^2)/r, not over r^2, is the largest eigenvalue; both bounds by 1 + |x|^2 stand."""
    r, square = 5.0, X @ X
    second = blocks(FAR)["all"]
    largest, norm = np.linalg.eigvalsh(second)[-1], np.linalg.norm(second)
    judge(largest, (1 + square) / r**2, (1 + square) / r)
    judge(norm, printed=1 + square, right=(1 + square) / r)  # sqrt(d - 1) = 1
    assert largest < 1 + square and norm < 1 + square
