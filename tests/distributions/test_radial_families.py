"""Gauss, Laplace and Charbonnier against mpmath and scipy; all families behave alike at the edges."""

import mpmath
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfhuber.distributions.radial import FAMILIES, Charbonnier, Gauss, Huber, Laplace, radial_energy

SIBLINGS = [Gauss(), Laplace(), Charbonnier()]
DIMENSIONS = [1, 2, 3, 6]


def rho(energy, r):
    """The energy as the paper writes it (eq. 2 and 11-13), in mpmath."""
    r = mpmath.mpf(float(r)) if not isinstance(r, mpmath.mpf) else r
    if isinstance(energy, Gauss):
        return r**2 / 2
    if isinstance(energy, Laplace):
        return r
    if isinstance(energy, Charbonnier):
        return mpmath.sqrt(r**2 + 1) - 1
    return r**2 / 2 if r <= energy.delta else energy.delta * (r - energy.delta / 2)


def integral(energy, n, upper=mpmath.inf, factor=lambda r: 1):
    with mpmath.workdps(25):
        upper = mpmath.mpf(upper)
        edges = [0, *(e for e in (0.5, 1, 2, 4, 8, 16, 32, 64) if e < upper), upper]
        return mpmath.quad(lambda r: factor(r) * r**n * mpmath.exp(-rho(energy, r)), edges)


@pytest.mark.parametrize("family", FAMILIES)
def test_names_lead_to_the_families(family):
    energy = radial_energy(family, 2.0)
    assert type(energy).__name__.lower() == family
    assert repr(energy) == {"huber": "Huber(delta=2.0)"}.get(family, f"{family.capitalize()}()")


def test_an_unknown_family_is_named():
    with pytest.raises(ValueError, match=r"family must be one of huber, .*, got 'cauchy'"):
        radial_energy("cauchy")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("energy", SIBLINGS, ids=repr)
def test_energy_weight_and_slope(energy, dtype):
    top = 1e18 if dtype == "float32" else 1e30
    r = np.array([1e-9, 1e-4, 0.3, 1.0, 7.0, 1e4, top], dtype)
    squared = tf.constant(np.square(r))
    with tf.GradientTape() as tape:
        tape.watch(squared)
        value = energy.energy(squared)
    slope = tape.gradient(value, squared)
    with mpmath.workdps(60):
        expected = [float(rho(energy, mpmath.mpf(float(x)))) for x in r]
        weights = [
            float(mpmath.diff(lambda x: rho(energy, x), mpmath.mpf(float(x))) / x) for x in r
        ]
    tolerance = {"float32": 2e-6, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(value, expected, rtol=tolerance)
    np.testing.assert_allclose(energy.weight(squared), weights, rtol=1e-6)
    np.testing.assert_allclose(2 * slope, weights, rtol=1e-6)


@pytest.mark.parametrize("energy", [Huber(1.0), *SIBLINGS], ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_centre_has_a_finite_gradient(energy, dtype):
    residual = tf.constant([[0.0, 0.0], [0.0, 1e-30]], dtype)
    with tf.GradientTape() as tape:
        tape.watch(residual)
        value = energy.energy(tf.reduce_sum(tf.square(residual), axis=-1))
    gradient = tape.gradient(value, residual).numpy()
    assert value[0] == 0
    np.testing.assert_array_equal(gradient[0], 0)
    assert np.all(np.isfinite(gradient))
    assert np.isfinite(energy.weight(tf.zeros([], dtype)))


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("energy", SIBLINGS, ids=repr)
def test_integrals_moments_and_entropy_against_mpmath(energy, d):
    mass = integral(energy, d - 1)
    sphere = 2 * np.pi ** (d / 2) / scipy.special.gamma(d / 2)
    second = float(integral(energy, d + 1) / mass)
    mean_energy = float(integral(energy, d - 1, factor=lambda r: rho(energy, r)) / mass)
    log_normalizer = np.log(sphere * float(mass))
    assert energy.log_normalizer(d) == pytest.approx(log_normalizer, rel=1e-13, abs=1e-13)
    assert energy.second_moment(d) == pytest.approx(second, rel=1e-12)
    assert energy.kappa(d) == pytest.approx(second / d, rel=1e-12)
    assert energy.mean_energy(d) == pytest.approx(mean_energy, rel=1e-12)
    assert energy.entropy(d) == pytest.approx(log_normalizer + mean_energy, rel=1e-12)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_closed_forms(d):
    assert Gauss().kappa(d) == pytest.approx(1, rel=1e-14)
    assert Laplace().kappa(d) == pytest.approx(d + 1, rel=1e-14)
    assert Charbonnier().kappa(2) == pytest.approx(3.5, rel=1e-14)
    assert np.exp(Charbonnier().log_normalizer(2)) == pytest.approx(4 * np.pi, rel=1e-14)


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("energy", SIBLINGS, ids=repr)
def test_cdf_against_mpmath(energy, d):
    """Radii on both sides of 10, where Charbonnier's quadratures meet."""
    radius = [1e-3, 0.4, 1.0, 3.0, 9.999, 10.001, 25.0]
    mass = integral(energy, d - 1)
    expected = [float(integral(energy, d - 1, r) / mass) for r in radius]
    found = energy.cdf(tf.constant(radius, tf.float64), d)
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    tail = [float(1 - integral(energy, d - 1, r) / mass) for r in radius[1:4]]
    np.testing.assert_allclose(1 - found[1:4], tail, rtol=1e-9)


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("energy", SIBLINGS, ids=repr)
def test_cdf_and_quantile_at_their_ends_and_their_slopes(energy, d):
    ends = np.array([-np.inf, -1.0, 0.0, 1e200, np.inf, np.nan])
    np.testing.assert_array_equal(energy.cdf(ends, d), [0, 0, 0, 1, 1, np.nan])
    probability = np.array([0.0, 1.0, -0.1, 1.1, np.nan])
    np.testing.assert_array_equal(
        energy.quantile(probability, d), [0, np.inf, np.nan, np.nan, np.nan]
    )
    p = tf.constant([1e-12, 1e-6, 0.01, 0.5, 0.9, 0.999, 1 - 1e-9], tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(p)
        radius = energy.quantile(p, d)
        again = energy.cdf(radius, d)
    np.testing.assert_allclose(again, p, rtol=1e-11)
    np.testing.assert_allclose(1 - again, 1 - p, rtol=1e-6)
    density = np.exp(energy.log_prob(radius, d))
    np.testing.assert_allclose(tape.gradient(radius, p) * density, 1, rtol=1e-7)
    np.testing.assert_allclose(tape.gradient(again, radius), density, rtol=1e-9)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("energy", SIBLINGS, ids=repr)
def test_samples_follow_the_cdf(energy, d):
    """5,000 radii; a right sampler fails a Kolmogorov-Smirnov test at 1e-3 once in 1,000 seeds."""
    sample = energy.sample([5_000], d, seed=(d, 3), dtype=tf.float64).numpy()
    assert scipy.stats.kstest(sample, lambda r: energy.cdf(r, d).numpy()).pvalue > 1e-3
    standard_error = np.std(sample**2) / np.sqrt(sample.size)
    assert abs(np.mean(sample**2) - energy.second_moment(d)) < 4 * standard_error
    np.testing.assert_array_equal(sample, energy.sample([5_000], d, (d, 3), tf.float64))


def test_huber_lies_between_gauss_and_laplace():
    """As delta grows Huber is Gauss; as it falls, Huber of r / delta is Laplace of r."""
    r = np.linspace(0, 8, 9)
    np.testing.assert_allclose(Huber(1e3).energy(r**2), Gauss().energy(r**2), rtol=1e-12)
    np.testing.assert_allclose(Huber(1e3).cdf(r, 2), Gauss().cdf(r, 2), rtol=1e-12)
    delta = 1e-5
    scaled = Huber(delta).energy((r / delta) ** 2)
    np.testing.assert_allclose(scaled, Laplace().energy(r**2), atol=delta)
    np.testing.assert_allclose(Huber(delta).cdf(r / delta, 2), Laplace().cdf(r, 2), atol=1e-8)


@pytest.mark.parametrize("energy", SIBLINGS, ids=repr)
def test_graph_mode(energy):
    @tf.function
    def everything(r):
        p = energy.cdf(r, 2)
        return energy.energy(r) + energy.weight(r) + p + energy.quantile(p, 2)

    r = tf.constant([0.2, 1.0, 5.0], tf.float64)
    expected = energy.energy(r) + energy.weight(r) + energy.cdf(r, 2) + r
    np.testing.assert_allclose(everything(r), expected, rtol=1e-10)


@pytest.mark.parametrize("energy", SIBLINGS, ids=repr)
def test_the_dimension_must_be_a_positive_integer(energy):
    for method in (energy.log_normalizer, energy.mean_energy, energy.second_moment):
        with pytest.raises(ValueError, match="d must be a positive integer, got 0"):
            method(0)
    for method in (energy.cdf, energy.quantile):
        with pytest.raises(ValueError, match=r"d must be a positive integer, got 1\.5"):
            method(0.5, 1.5)
