"""Uncertainty is measured right: against closed forms, quadrature and samples of known distributions."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy.integrate import quad

from tfhuber.distributions.elliptical import Elliptical
from tfhuber.distributions.radial import FAMILIES, radial_energy
from tfhuber.drawing.ellipses import radius_for
from tfhuber.evaluation import reliability


def mean_radius(energy):
    """In standard deviations."""
    return math.exp(energy.log_integral(2) - energy.log_integral(1)) / math.sqrt(energy.kappa(2))


def random_factors(rng, count):
    """SPD matrices [count, 2, 2] whose axes differ by up to a factor of e^2 and turn every way."""
    angle = rng.uniform(0, np.pi, count)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
    turn = turn.reshape(-1, 2, 2)
    return turn * np.exp(rng.uniform(-1, 1, (count, 1, 2))) @ turn.swapaxes(-1, -2)


def test_coverage_counts_labels_inside():
    cdf = [[0.2, 0.5, 0.93], [0.99, np.nan, 0.4]]
    weights = [[1, 1, 1], [1, 0, 1]]
    assert reliability.coverage(cdf, weights) == {0.5: 0.6, 0.9: 0.6, 0.95: 0.8}


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1])
def test_coverage_refuses_what_is_no_probability(value):
    with pytest.raises(ValueError, match=r"radial_cdf must be in \[0, 1\]"):
        reliability.coverage([[0.5, value]], [[1, 1]])


def test_coverage_refuses_shapes_and_emptiness():
    with pytest.raises(ValueError, match="one shape"):
        reliability.coverage(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="no labelled landmark"):
        reliability.coverage(np.ones((2, 3)), np.zeros((2, 3)))


def test_expected_distance_of_a_circle_is_the_mean_radius():
    rayleigh = math.sqrt(math.pi / 2)
    found = reliability.expected_distance([np.eye(2), 9 * np.eye(2), np.zeros((2, 2))], rayleigh)
    np.testing.assert_allclose(found, [rayleigh, 3 * rayleigh, 0.0], rtol=1e-14)


def test_expected_distance_of_a_line_is_that_of_its_half_normal():
    found = reliability.expected_distance([[0.0, 0.0], [0.0, 4.0]], math.sqrt(math.pi / 2))
    assert found == pytest.approx(2 * math.sqrt(2 / math.pi), rel=1e-14)


@pytest.mark.parametrize("family", FAMILIES)
def test_expected_distance_against_quadrature(family):
    """E[r] from the density of the radius, and the mean of |inv(A) u| over the circle."""
    energy = radial_energy(family, 0.7)
    (factor,) = random_factors(np.random.default_rng(1), 1)
    inverse = np.linalg.inv(factor)

    def density(r, power):
        return r**power * math.exp(-float(energy.energy(np.float64(r * r))))

    options = {"epsabs": 0, "epsrel": 1e-10, "points": [0.7], "limit": 200}
    radius = quad(density, 0, 60, (2,), **options)[0] / quad(density, 0, 60, (1,), **options)[0]
    length = quad(
        lambda t: np.linalg.norm(inverse @ [np.cos(t), np.sin(t)]) / np.pi, 0, np.pi, epsrel=1e-12
    )[0]
    covariance = energy.kappa(2) * inverse @ inverse
    found = reliability.expected_distance(covariance, mean_radius(energy))
    assert found == pytest.approx(radius * length, rel=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_calibrated_predictions_lie_on_the_identity(family):
    """60,000 labels drawn from their predictions: a bin errs by 0.9 % for Gauss, 1.3 % for Laplace."""
    energy, rng = radial_energy(family), np.random.default_rng(0)
    factor = random_factors(rng, 60_000)
    predicted = Elliptical(tf.zeros(2, tf.float64), tf.constant(factor), energy)
    labels, covariance = predicted.sample(seed=3).numpy(), predicted.covariance().numpy()
    distance = np.linalg.norm(labels, axis=-1)

    def curve(scale):
        expected = reliability.expected_distance(scale * covariance, mean_radius(energy))
        return reliability.calibration_curve(expected, distance, 3000)

    found = curve(1.0)
    assert found.count.tolist() == [3000] * 20
    assert np.all(np.diff(found.expected) > 0)
    np.testing.assert_allclose(found.empirical, found.expected, rtol=0.05)
    assert found.slope == pytest.approx(1.0, abs=0.015)
    # Half the standard deviation is twice too confident.
    assert curve(0.25).slope == pytest.approx(0.5, abs=0.008)
    assert curve(4.0).slope == pytest.approx(2.0, abs=0.03)


def test_calibration_curve_bins_by_expected_error():
    curve = reliability.calibration_curve([4, 1, 3, 2, 6], [40, 10, 30, 20, 60], bin_size=2)
    np.testing.assert_allclose(curve.expected, [2.0, 5.0])  # 1, 2, 3 and 4, 6
    np.testing.assert_allclose(curve.empirical, [20.0, 50.0])
    assert curve.count.tolist() == [3, 2]


def test_calibration_curve_of_few_samples_is_one_bin():
    curve = reliability.calibration_curve([1.0, 3.0], [2.0, 2.0])
    assert (curve.expected.tolist(), curve.empirical.tolist()) == ([2.0], [2.0])
    assert curve.count.tolist() == [2] and curve.slope == 1.0


def test_bins_have_the_papers_size_or_a_little_more():
    errors = np.arange(2500 * 98.0)
    count = reliability.calibration_curve(errors, errors).count
    assert len(count) == 2500 * 98 // 734 == 333 and set(count) == {735, 736}


def test_slope_is_the_weighted_least_squares_fit_through_the_origin():
    curve = reliability.CalibrationCurve(
        np.array([1.0, 2.5]), np.array([2.0, 3.0]), np.array([3, 1])
    )
    assert curve.slope == pytest.approx((3 * 1 * 2 + 2.5 * 3) / (3 * 4 + 9))
    perfect = reliability.CalibrationCurve(np.ones(1), np.zeros(1), np.ones(1))
    assert perfect.slope == math.inf


@pytest.mark.parametrize(
    "expected, empirical, size, message",
    [([1.0], [1.0, 2.0], 1, "one length"), ([], [], 1, "non-empty"), ([1.0], [1.0], 0, "bin_size")],
)
def test_calibration_curve_refuses(expected, empirical, size, message):
    with pytest.raises(ValueError, match=message):
        reliability.calibration_curve(expected, empirical, size)


def test_rank_correlation_is_of_the_order_alone():
    expected = np.array([1.0, 2.0, 3.0, 4.0])
    assert reliability.rank_correlation(expected, expected**9) == pytest.approx(1.0)
    assert reliability.rank_correlation(expected, [4, 3, 2, 1]) == pytest.approx(-1.0)
    # One neighbouring pair exchanged: 1 - 6 * 2 / (4 * 15).
    assert reliability.rank_correlation(expected, [1, 2, 4, 3]) == pytest.approx(0.8)
    assert reliability.rank_correlation(np.ones(4), expected) is None


def test_sharpness_in_closed_form():
    covariance = np.array([np.diag([1.0, 9.0]), np.diag([4.0, 4.0]), np.diag([16.0, 16.0])])
    radius = radius_for(0.9, "gauss")
    found = reliability.sharpness(covariance, radius)
    disc = math.pi * -2 * math.log(0.1)
    assert found == pytest.approx(
        {
            "mean_deviation": (math.sqrt(5) + 2 + 4) / 3,
            "median_deviation": math.sqrt(5),
            "mean_area_90": disc * (3 + 4 + 16) / 3,
            "median_area_90": disc * 4,
        }
    )
