"""The checks behind docs/misprints.md: what the paper prints, and what is right, by the code that ships.

`judge` fails if the printed version were right, and if the corrected one were wrong. The proofs of
supplements B and C are in test_misprints_proofs.py.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from misprints import gradient, judge

from tfhuber.distributions.elliptical import MultivariateHuber
from tfhuber.distributions.radial import Charbonnier, Gauss, Huber
from tfhuber.evaluation.reliability import calibration_curve
from tfhuber.geometry import projective
from tfhuber.linalg.spd import vector_to_symmetric
from tfhuber.paper.tables import TABLES

A = np.array([[2.0, 0.6], [0.6, 1.4]])


def rho(r, delta=1.0):
    return Huber(delta).energy(np.square(r)).numpy()


def published(table):
    """The numbers of a table, as {(row, column): value}."""
    return {(cell.row, cell.column): cell.published[0] for cell in TABLES[table].cells}


# --- The main text ---


def test_section_3_1_delta_zero():
    """Delta may not be 0: then h = 0, which no constant normalises. c_2 grows like 2 pi / delta^2."""
    for delta in (1e-2, 1e-3):
        assert np.exp(Huber(delta).log_normalizer(2)) * delta**2 == pytest.approx(
            2 * np.pi, rel=1e-3
        )
    with pytest.raises(ValueError, match="delta must be positive"):
        Huber(0.0)


def test_sections_3_1_and_5_2_tails():
    """Gauss: exp(-r^2/2), which exp(-r^2) does not bound. Huber: exp(-delta r), not exp(-r)."""
    r, delta = np.array([5.0, 10.0]), 0.5
    assert np.all(np.exp(-Gauss().energy(r**2)) / np.exp(-(r**2)) > 1e5)
    ratio = np.exp(-rho(r, delta)) / np.exp(-r)
    assert ratio[1] > 10 * ratio[0]
    np.testing.assert_allclose(np.exp(-rho(r, delta)) / np.exp(-delta * r), np.exp(delta**2 / 2))


def test_eq_7():
    """pi is defined for i <= j, so i > j needs pi(j, i); printed are the two the other way round."""
    d, v = 3, np.arange(1.0, 7.0)
    domain = [(i, j) for j in range(d) for i in range(j + 1)]
    pi = {pair: n for n, pair in enumerate(domain)}

    def matrix(below, above):
        b = np.diag([v[pi[i, i]] for i in range(d)])
        for i in range(d):
            for j in range(d):
                if i != j:
                    b[i, j] = v[pi[below(i, j) if i > j else above(i, j)]] / np.sqrt(2)
        return b

    b = matrix(below=lambda i, j: (j, i), above=lambda i, j: (i, j))
    np.testing.assert_allclose(b, vector_to_symmetric(v), rtol=1e-15)
    with pytest.raises(KeyError):
        matrix(below=lambda i, j: (i, j), above=lambda i, j: (j, i))


def test_section_3_3_theta():
    """g's values are eigenvalues of A = Lambda^(1/2): the standard deviation goes like 1/theta."""
    theta, delta = 0.2, 1.0
    dist = MultivariateHuber(np.zeros(2), theta * np.eye(2), delta)
    kappa = Huber(delta).kappa(2)
    printed, right = np.sqrt(kappa / theta), np.sqrt(kappa) / theta
    judge(dist.stddev().numpy()[0], printed, right)


def test_section_4_1_perspective():
    """Perspective is no affine map: the middle of two points does not go to the middle."""
    perspective = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1e-3, 0.0, 1.0]])
    points = np.array([[0.0, 0.0], [100.0, 50.0], [200.0, 100.0]])
    start, middle, end = projective.apply_map(perspective, points).numpy()
    assert np.linalg.norm(middle - (start + end) / 2) > 5
    direction = (end - start) / np.linalg.norm(end - start)
    np.testing.assert_allclose(middle - start, (middle - start) @ direction * direction, atol=1e-4)


def test_section_4_1_gain_of_the_convolution():
    """Table 10: 5.25 with average pooling and 4.91 with the convolution."""
    numbers = published("table10")
    gain = numbers["average pooling", "NME"] - numbers["channel-wise convolution", "NME"]
    judge(gain, printed=0.24, right=0.34)


def test_section_4_2_bins():
    """WFLW's test set, 2,500 faces of 98 landmarks, does not divide into bins of 734."""
    count = calibration_curve(*np.random.default_rng(0).uniform(size=(2, 2500 * 98))).count
    assert set(count) == {735, 736} and len(count) == 333


def test_section_5_2_identity():
    """What A = I leaves of eq. 11 is half of the squared error."""
    error = np.sum(np.square([3.0, 4.0]))
    judge(Gauss().energy(error), printed=error, right=error / 2)


def test_section_5_2_gains_of_the_full_covariance():
    """Table 3: about 3 for three of the distributions, 5.3 for Gauss."""
    numbers = list(published("table3").values())
    np.testing.assert_allclose(np.subtract(numbers[::2], numbers[1::2]), [3.0, 5.3, 3.3, 3.0])


def test_table_3_constant():
    """Tables 9 and 3 report one model: -355.8 +- 0.79 (eq. 6), and -310.0 +- 1.4 with 98 constants.

    Only log c_2 - log 2 pi bridges them, that is, constants measured against the Gaussian's.
    """
    log_c = Huber(1.0).log_normalizer(2)
    relative = -355.8 + 98 * (log_c - np.log(2 * np.pi))
    assert abs(relative + 310.0) < 1.4
    for other in (-355.8, -355.8 + 98 * log_c, -355.8 + 98 * np.log(2 * np.pi)):
        assert abs(other + 310.0) > 40


# --- Supplement A ---


def test_eq_14_and_19():
    """nu stands for the mean there, and for Lambda^(1/2) mu in eq. 3."""
    mu, y = np.array([1.0, -0.5]), np.array([0.3, 0.4])
    nu = A @ mu
    truth = -MultivariateHuber(mu, A).log_prob(y) + np.linalg.slogdet(A)[1]
    truth -= Huber(1.0).log_normalizer(2)
    printed, right = (rho(np.linalg.norm(e)) for e in (A @ (y - nu), A @ (y - mu)))
    judge(truth, printed, right)


@pytest.mark.parametrize("delta", [0.5, 1.0, 2.0])
def test_eq_24(delta):
    energy = Huber(delta)  # in d = 2, a(1, delta) is the share of the radii up to delta
    truth = energy.cdf(np.float64(delta), 2) * np.exp(energy.log_integral(1))
    judge(truth, printed=1 - np.exp(delta**2 / 2), right=1 - np.exp(-(delta**2) / 2))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("delta", [0.5, 2.0])
def test_eq_30_and_31(delta, n):
    """1/delta is missing, which does not show at delta = 1."""

    def b(n):  # the rest of I_n, but for exp(delta^2 / 2)
        energy = Huber(delta)
        rest = (1 - energy.cdf(np.float64(delta), n + 1)) * np.exp(energy.log_integral(n))
        return float(rest) * np.exp(-(delta**2) / 2)

    truth, before = b(n), b(n - 1)
    first = delta ** (n - 1) * np.exp(-(delta**2))
    judge(truth, printed=first + n * before, right=first + n / delta * before)


def test_eq_33_to_36():
    """Var(X) is that number times I; Sigma is Lambda^-1, not the covariance of section G.

    100,000 samples: within 3 %, about five standard errors.
    """
    dist = MultivariateHuber(np.zeros(2), A)
    sample = dist.sample(100_000, seed=(1, 2)).numpy()
    covariance = np.cov(sample.T)
    kappa, inverse = Huber(1.0).kappa(2), np.linalg.inv(A @ A)
    judge(covariance, kappa * covariance, kappa * inverse, tolerance=0.03)
    judge(np.mean(np.sum(sample**2, axis=-1)), kappa, kappa * np.trace(inverse), tolerance=0.03)


def test_eq_35_to_37():
    """With d = 2, delta = 1 and A = I: E|Y| = 2.043, E|Y|^2 = 6.153, whose root is 2.481.

    And the factor 3.0765 rounds to 3.08, not to 3.07.
    """
    mass, distance, square = (np.exp(Huber(1.0).log_integral(n)) for n in (1, 2, 3))
    judge(distance / mass, printed=square / mass, right=2.0428, tolerance=1e-4)
    judge(distance / mass, printed=np.sqrt(square / mass), right=2.0428, tolerance=1e-4)
    kappa = square / mass / 2
    assert kappa == pytest.approx(3.07647, abs=5e-6) and round(kappa, 2) == 3.08
    assert Huber(1.0).kappa(2) == pytest.approx(kappa, rel=1e-12)


# --- Supplement E ---


def test_eq_131_at_delta_zero():
    """At delta = 0 every majoriser is 0; for a small delta its minimiser is Weiszfeld's step."""
    rng = np.random.default_rng(0)
    points, start = rng.normal(size=(5, 2)) * 3, np.array([0.3, -0.2])
    distance = np.linalg.norm(points - start, axis=-1)

    def majoriser(y, delta):
        square = np.sum((y - points) ** 2, axis=-1)
        return np.sum(delta * square / (2 * distance) + (delta * distance - delta**2) / 2)

    weiszfeld = (points / distance[:, None]).sum(axis=0) / (1 / distance).sum()
    np.testing.assert_allclose(gradient(lambda y: majoriser(y, 1e-3), weiszfeld), 0, atol=1e-9)
    assert all(majoriser(y, 0.0) == 0 for y in points)
    weight = Huber(1e-3).weight(distance**2).numpy()
    np.testing.assert_allclose(weight @ points / weight.sum(), weiszfeld, rtol=1e-12)


# --- The authors' code ---


def test_published_code_of_huber():
    """It compares r^2/2 with delta = 1, and so drops from 1 to 0.914 at r = sqrt(2)."""
    before, after = (float(Huber(1.0).energy(2 + step)) for step in (-1e-9, 1e-9))
    judge(before, printed=2 / 2, right=np.sqrt(2) - 0.5)
    assert after == pytest.approx(before, abs=1e-8)


def test_published_code_of_plain_huber():
    """It has r^2 where eq. 2 has r^2/2."""
    judge(Huber(1.0).energy(0.25), printed=0.25, right=0.25 / 2)


def test_published_code_of_charbonnier():
    """It has r^2/2 under the root where eq. 13 has r^2."""
    judge(Charbonnier().energy(9.0), np.sqrt(9 / 2 + 1) - 1, np.sqrt(9 + 1) - 1)


def test_the_page_names_every_check():
    tests = Path(__file__).parent
    page = (tests.parents[1] / "docs/misprints.md").read_text(encoding="utf-8")
    files = [tests / "test_misprints.py", tests / "test_misprints_proofs.py"]
    checks = {
        name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert set(re.findall(r"`(test_\w+)`", page)) == checks - {"test_the_page_names_every_check"}
