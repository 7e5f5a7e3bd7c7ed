"""Ellipses hold what they promise, and have the numbers of `tfhuber.distributions`."""

import math

import numpy as np
import pytest
from matplotlib.path import Path
from scipy.integrate import quad

from tfhuber.distributions.radial import FAMILIES, radial_energy
from tfhuber.drawing import ellipses

TILTED = np.array([[400.0, 150.0], [150.0, 100.0]])


@pytest.mark.parametrize("delta", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("probability", [0.05, 0.39, 0.5, 0.9, 0.95, 0.999])
def test_radius_holds_its_probability(probability, delta):
    def density(r, power=1):
        return r**power * np.exp(-(r * r / 2 if r < delta else delta * r - delta * delta / 2))

    def integral(power, end):
        knee = min(delta, end)
        inside, _ = quad(density, 0, knee, (power,), epsabs=0, epsrel=1e-11)
        return inside + quad(density, knee, end, (power,), epsabs=1e-13, epsrel=1e-11)[0]

    far = 60 / min(delta, 1.0)
    kappa = integral(3, far) / integral(1, far) / 2
    radius = ellipses.radius_for(probability, delta=delta) * np.sqrt(kappa)
    assert integral(1, radius) / integral(1, far) == pytest.approx(probability, rel=1e-8)


@pytest.mark.parametrize(
    "family, delta",
    [("huber", delta) for delta in (1e-3, 0.3, 1.0, 2.5, 20.0)]
    + [(family, 1.0) for family in ("gauss", "laplace", "charbonnier")],
)
def test_radius_is_that_of_the_radial_module(family, delta):
    energy = radial_energy(family, delta)
    for probability in (1e-6, 0.1, 0.5, 0.9, 0.99, 0.9999):
        expected = float(energy.quantile(np.float64(probability), 2)) / energy.kappa(2) ** 0.5
        found = ellipses.radius_for(probability, family, delta)
        # Next to its branch point, Lambert's W has half of a double's digits.
        assert found == pytest.approx(expected, rel=1e-6 if probability < 1e-3 else 1e-10)


def test_families_are_those_of_the_radial_module():
    assert ellipses.FAMILIES == FAMILIES


def test_radius_at_the_limits_of_delta():
    assert ellipses.radius_for(0.9, delta=1e6) == pytest.approx(
        np.sqrt(-2 * np.log(0.1)), rel=1e-12
    )
    # Laplace: P(r > R) = (1 + R) exp(-R), and a variance of 3 an axis; R is 3.88972 at 0.9.
    assert ellipses.radius_for(0.9, delta=1e-6) == pytest.approx(
        3.889720169867429 / np.sqrt(3), rel=1e-6
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_radius_grows_from_zero(family):
    radii = [ellipses.radius_for(p, family) for p in np.linspace(0, 0.9999, 200)]
    assert radii[0] == 0.0
    assert np.all(np.diff(radii) > 0)


@pytest.mark.parametrize("probability, delta", [(1.0, 1.0), (-0.1, 1.0), (np.nan, 1.0), (0.5, 0.0)])
def test_radius_refuses(probability, delta):
    with pytest.raises(ValueError, match="must be"):
        ellipses.radius_for(probability, delta=delta)


def test_radius_refuses_an_unknown_family():
    families = "huber, gauss, laplace, charbonnier"
    with pytest.raises(ValueError, match=f"family must be one of {families}, got 'cauchy'"):
        ellipses.radius_for(0.5, "cauchy")


def test_ellipse_points_lie_on_the_ellipse():
    covariance = TILTED
    points = ellipses.ellipse_points([5.0, -3.0], covariance, 2.0, n=50)
    assert points.shape == (50, 2)
    off = points - [5.0, -3.0]
    squared = np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off)
    np.testing.assert_allclose(squared, 4.0, rtol=1e-12)
    # The widest point is scale times a standard deviation away on each axis.
    assert ellipses.ellipse_points([0, 0], covariance, 2.0, n=4096)[:, 0].max() == pytest.approx(
        40.0, rel=1e-5
    )


def test_ellipse_of_a_singular_covariance_is_a_line():
    points = ellipses.ellipse_points([0, 0], [[4.0, 0.0], [0.0, -1e-12]], 1.0)
    np.testing.assert_allclose(points[:, 1], 0.0, atol=1e-12)
    assert points[:, 0].max() == pytest.approx(2.0)


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.95])
def test_ellipse_holds_that_share_of_huber_samples(probability):
    # The radius has density r exp(-rho(r)): sampled here by inverting a finely tabulated CDF.
    rng = np.random.default_rng(0)
    r = np.linspace(0, 40, 400_001)
    density = r * np.exp(-np.where(r < 1, r * r / 2, r - 0.5))
    cdf = np.cumsum(density) / density.sum()
    radius = np.interp(rng.uniform(size=100_000), cdf, r)
    angle = rng.uniform(0, 2 * np.pi, size=len(radius))
    factor = np.array([[2.0, 0.7], [0.7, 1.0]])
    samples = np.stack([np.cos(angle), np.sin(angle)], -1) * radius[:, None] @ np.linalg.inv(factor)
    covariance = np.cov(samples.T)

    outline = ellipses.ellipse_points([0, 0], covariance, ellipses.radius_for(probability), n=720)
    within = Path(outline).contains_points(samples)
    # 100,000 samples: four standard errors are at most 0.0063, and the sampled covariance adds to it.
    assert within.mean() == pytest.approx(probability, abs=0.008)


@pytest.mark.parametrize(
    "family, delta",
    [("huber", delta) for delta in (1e-3, 0.3, 1.0, 2.5, 20.0, 1e5)]
    + [(family, 1.0) for family in ("gauss", "laplace", "charbonnier")],
)
def test_kappa_is_that_of_the_radial_module(family, delta):
    expected = radial_energy(family, delta).kappa(2)
    assert ellipses.kappa(family, delta) == pytest.approx(expected, rel=1e-7)


def test_kappa_at_the_limits_of_delta():
    assert ellipses.kappa(delta=1e200) == 1.0
    assert ellipses.kappa(delta=1e-100) == pytest.approx(3e200, rel=1e-12)
    with pytest.raises(ValueError, match="delta must be large enough that kappa is finite"):
        ellipses.kappa(delta=1e-180)


@pytest.mark.parametrize(
    "family, delta, message",
    [("cauchy", 1.0, "family must be one of"), ("huber", math.nan, "delta must be positive")],
)
def test_kappa_refuses(family, delta, message):
    with pytest.raises(ValueError, match=message):
        ellipses.kappa(family, delta)


@pytest.mark.parametrize("delta", [1e200, 1e-180])
def test_radius_of_extreme_deltas_is_that_of_the_limit(delta):
    limit = "gauss" if delta > 1 else "laplace"
    for probability in (0.0, 0.5, 0.999):
        expected = ellipses.radius_for(probability, limit)
        assert ellipses.radius_for(probability, delta=delta) == pytest.approx(expected, rel=1e-12)


def test_standard_deviation_is_the_root_mean_square_over_the_axes():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 3, 2, 2))
    covariance = root @ root.swapaxes(-1, -2)
    variances = np.linalg.eigvalsh(covariance)
    found = ellipses.standard_deviation(covariance)
    np.testing.assert_allclose(found, np.sqrt(variances.mean(-1)), rtol=1e-12)
    assert ellipses.standard_deviation(-1e-9 * np.eye(2)) == 0.0
    assert np.isnan(ellipses.standard_deviation(np.full((2, 2), np.nan)))
    assert ellipses.standard_deviation(np.eye(2, dtype=np.float32)).dtype == np.float32


FAMILIES_AND_DELTAS = [
    *(("huber", delta) for delta in (1e-6, 0.1, 1.0, 5.0, 2e3)),
    *((family, 1.0) for family in ("gauss", "laplace", "charbonnier")),
]


@pytest.mark.parametrize(("family", "delta"), FAMILIES_AND_DELTAS)
@pytest.mark.parametrize("probability", [0.01, 0.5, 0.9, 0.999])
def test_a_disc_holds_what_the_round_ellipse_of_that_radius_holds(family, delta, probability):
    distance = 3 * ellipses.radius_for(probability, family, delta)
    kappa = ellipses.kappa(family, delta)
    found = ellipses.probability_within(distance, 9 * np.eye(2), family, delta, kappa)
    assert found == pytest.approx(probability, abs=1e-9)


@pytest.mark.parametrize("family", ["huber", "gauss", "laplace", "charbonnier"])
def test_a_disc_over_a_tilted_ellipse_holds_its_share_of_samples(family):
    """Of 2,000 radii in 500 directions each: the standard error is about 0.01."""
    generator = np.random.default_rng(0)
    probabilities = generator.uniform(size=2000)
    radii = np.array([ellipses.radius_for(p, family) for p in probabilities])
    radii *= np.sqrt(ellipses.kappa(family))
    angles = generator.uniform(0, 2 * np.pi, (500, 2000))
    directions = np.stack([np.cos(angles), np.sin(angles)], -1)
    kappa = ellipses.kappa(family)
    root = np.linalg.cholesky(TILTED / kappa)
    errors = np.linalg.norm((directions * radii[:, None]) @ root.T, axis=-1)
    for distance in (5.0, 20.0, 40.0):
        found = ellipses.probability_within(distance, TILTED, family, kappa=kappa)
        assert found == pytest.approx((errors < distance).mean(), abs=0.03)


def test_what_is_certain_or_flat_has_a_probability_too():
    within = ellipses.probability_within
    assert within(1.0, np.zeros((2, 2))) == 1
    assert within(1.0, 1e12 * np.eye(2)) < 1e-11
    flat = [[100.0, 0.0], [0.0, 0.0]]
    expected = math.erf(0.1 / math.sqrt(2))  # a Gaussian on a line
    assert within(1.0, flat, "gauss") == pytest.approx(expected, rel=1e-4)
    assert within(1.0, np.tile(np.eye(2), (3, 4, 1, 1))).shape == (3, 4)
    for distance in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="distance must be positive"):
            within(distance, np.eye(2))
