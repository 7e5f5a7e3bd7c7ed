"""Huber's radial energy against quadrature, mpmath and scipy."""

import itertools

import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

from tfhuber.distributions.radial import Huber

DELTAS = [0.1, 0.5, 1.0, 2.0, 10.0]


def rho(r, delta):
    return np.where(r <= delta, r**2 / 2, delta * (r - delta / 2))


def integral(function, delta, upper=np.inf):
    """Of `function(r) exp(-rho(r))` over 0 < r < upper, piece by piece."""

    def integrand(r):
        return function(r) * np.exp(-rho(r, delta))

    pieces = np.unique(
        [0.0, *np.linspace(delta / 8, delta, 8), *(delta + np.arange(1, 81) / delta)]
    )
    edges = [*pieces[pieces < upper], min(upper, pieces[-1])]
    return sum(
        scipy.integrate.fixed_quad(integrand, low, high, n=20)[0]
        for low, high in itertools.pairwise(edges)
    )


def exact_log_integral(n, delta):
    with mpmath.workdps(40):
        delta = mpmath.mpf(delta)
        half = mpmath.mpf(n + 1) / 2
        inner = 2 ** (half - 1) * mpmath.gammainc(half, 0, delta**2 / 2)
        outer = mpmath.exp(delta**2 / 2) * mpmath.gammainc(n + 1, delta**2) / delta ** (n + 1)
        return float(mpmath.log(inner + outer))


def value_and_slope(function, x):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return value.numpy(), tape.gradient(value, x).numpy()


def test_the_papers_numbers():
    energy = Huber(1.0)
    assert np.exp(energy.log_normalizer(2)) == pytest.approx(10.0941, abs=5e-5)
    assert energy.kappa(2) == pytest.approx(3.0765, abs=5e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("delta", [1e-3, 0.1, 1.0, 10.0, 1e3])
def test_energy_and_weight(delta, dtype):
    top = 1e18 if dtype == "float32" else 1e30
    factors = np.array([0.0, 1e-9, 0.5, 1 - 1e-6, 1.0, 1 + 1e-6, 2.0, 1e3])
    r = np.append(delta * factors, top).astype(dtype)
    value, slope = value_and_slope(Huber(delta).energy, np.square(r))
    r = r.astype("f8")
    tolerance = {"float32": 2e-6, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(value, rho(r, delta), rtol=tolerance)
    expected_weight = delta / np.maximum(r, delta)
    # d rho / d(r^2) = rho'(r) / (2 r), at the centre and at the knee too.
    np.testing.assert_allclose(slope, expected_weight / 2, rtol=tolerance)
    weight = Huber(delta).weight(tf.constant(np.square(r), dtype))
    np.testing.assert_allclose(weight, expected_weight, rtol=tolerance)


def test_knee_is_continuous_in_value_and_slope():
    delta = 1.7
    step = 1e-9
    r = delta + np.array([-step, 0.0, step])
    value, slope = value_and_slope(lambda x: Huber(delta).energy(tf.square(x)), r)
    np.testing.assert_allclose(value, delta**2 / 2, atol=2 * delta * step)
    np.testing.assert_allclose(slope, delta, atol=2 * step)


@pytest.mark.parametrize("delta", [0.3, 1.0, 2.0])
def test_energy_has_second_derivatives(delta):
    r = tf.constant([0.0, 0.1, 5.0], tf.float64)
    with tf.GradientTape() as outer:
        outer.watch(r)
        with tf.GradientTape() as inner:
            inner.watch(r)
            value = Huber(delta).energy(tf.square(r))
        slope = inner.gradient(value, r)
    np.testing.assert_allclose(slope, np.minimum(r, delta), rtol=1e-14)
    np.testing.assert_allclose(outer.gradient(slope, r), [1.0, 1.0, 0.0], atol=1e-12)


def test_nan_is_never_hidden():
    value, _ = value_and_slope(Huber(1.0).energy, np.array([np.nan, 1.0]))
    assert np.isnan(value[0]) and np.isfinite(value[1])
    assert np.isnan(Huber(1.0).weight(np.array([np.nan]))[0])


@pytest.mark.parametrize("n", range(9))
@pytest.mark.parametrize("delta", [1e-3, 0.03, 0.5, 1.0, 3.0, 30.0, 1e3])
def test_log_integral_against_mpmath(n, delta):
    exact = exact_log_integral(n, delta)
    static = Huber(delta).log_integral(n)
    assert isinstance(static, float)
    assert static == pytest.approx(exact, rel=1e-13, abs=1e-13)
    dynamic = Huber(tf.constant([delta, 2 * delta])).log_integral(n)
    assert dynamic.dtype == tf.float32
    np.testing.assert_allclose(dynamic[0], exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("d", range(1, 7))
@pytest.mark.parametrize("delta", DELTAS)
def test_moments_entropy_and_cdf_against_quadrature(d, delta):
    energy = Huber(delta)
    mass = integral(lambda r: r ** (d - 1), delta)
    sphere = 2 * np.pi ** (d / 2) / scipy.special.gamma(d / 2)
    assert energy.log_normalizer(d) == pytest.approx(np.log(sphere * mass), abs=1e-10)
    second = integral(lambda r: r ** (d + 1), delta) / mass
    assert energy.second_moment(d) == pytest.approx(second, rel=1e-10)
    assert energy.kappa(d) == pytest.approx(second / d, rel=1e-10)
    mean_energy = integral(lambda r: r ** (d - 1) * rho(r, delta), delta) / mass
    assert energy.mean_energy(d) == pytest.approx(mean_energy, rel=1e-9)
    assert energy.entropy(d) == pytest.approx(np.log(sphere * mass) + mean_energy, rel=1e-9)
    for radius in [0.01 * delta, 0.7 * delta, delta, 1.5 * delta, delta + 3 / delta]:
        expected = integral(lambda r: r ** (d - 1), delta, radius) / mass
        assert float(energy.cdf(np.float64(radius), d)) == pytest.approx(expected, rel=1e-9)
    radius = np.array([0.5 * delta, delta, 2 * delta])
    expected = np.log(radius ** (d - 1) * np.exp(-rho(radius, delta)) / mass)
    np.testing.assert_allclose(energy.log_prob(radius, d), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("d", [1, 2, 3, 6])
@pytest.mark.parametrize("delta", [1e-3, 0.1, 1.0, 5.0, 1e3])
def test_quantile_inverts_the_cdf(d, delta):
    p = np.array([1e-12, 1e-3, 0.1, 0.3, 0.5, 0.9, 0.95, 1 - 1e-6, 1 - 1e-12])
    radius = Huber(delta).quantile(p, d)
    assert np.all(np.diff(radius) > 0)
    np.testing.assert_allclose(Huber(delta).cdf(radius, d), p, rtol=1e-9, atol=2e-14)
    ends = Huber(delta).quantile(np.array([0.0, 1.0]), d)
    np.testing.assert_array_equal(ends, [0.0, np.inf])


@pytest.mark.parametrize("d", [1, 2, 3])
def test_cdf_at_its_ends_and_its_slope(d):
    radius = np.array([-np.inf, -1.0, 0.0, 0.5, 3.0, 1e200, np.inf, np.nan])
    value, slope = value_and_slope(lambda r: Huber(1.0).cdf(r, d), radius)
    np.testing.assert_array_equal(value[[0, 1, 2, 5, 6, 7]], [0.0, 0.0, 0.0, 1.0, 1.0, np.nan])
    np.testing.assert_allclose(slope[3:5], np.exp(Huber(1.0).log_prob(radius[3:5], d)), rtol=1e-12)
    np.testing.assert_array_equal(slope[[0, 1, 2, 5, 6]], 0.0)
    ends = Huber(1.0).cdf(np.array([0.0, np.inf], "f4"), d)
    np.testing.assert_array_equal(ends, [0.0, 1.0])


@pytest.mark.parametrize("d", [1, 2, 5])
def test_gaussian_limit(d):
    energy = Huber(1e3)
    assert energy.log_normalizer(d) == pytest.approx(d / 2 * np.log(2 * np.pi), rel=1e-12)
    assert energy.kappa(d) == pytest.approx(1.0, rel=1e-12)
    assert energy.entropy(d) == pytest.approx(d / 2 * np.log(2 * np.pi * np.e), rel=1e-12)
    r = np.linspace(0, 6, 13)
    np.testing.assert_allclose(energy.cdf(r, d), scipy.stats.chi(d).cdf(r), rtol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_laplace_limit(d):
    """For a small delta, delta r has the density of a Gamma(d): E[(delta r)^2] = d (d + 1)."""
    delta = 1e-4
    energy = Huber(delta)
    assert delta**2 * energy.kappa(d) == pytest.approx(d + 1, rel=1e-6)
    x = np.linspace(0.1, 20, 13)
    np.testing.assert_allclose(energy.cdf(x / delta, d), scipy.stats.gamma(d).cdf(x), atol=1e-7)
    entropy = energy.entropy(d) + d * np.log(delta)
    sphere = 2 * np.pi ** (d / 2) / scipy.special.gamma(d / 2)
    assert entropy == pytest.approx(np.log(sphere * scipy.special.gamma(d)) + d, abs=1e-6)


@pytest.mark.parametrize(("d", "delta"), [(1, 1.0), (2, 0.2), (2, 1.0), (3, 4.0)])
def test_samples_follow_the_cdf(d, delta):
    """20,000 radii; a right sampler fails a Kolmogorov-Smirnov test at 1e-3 once in 1,000 seeds."""
    energy = Huber(delta)
    sample = energy.sample([20_000], d, seed=(d, 7), dtype=tf.float64).numpy()
    assert scipy.stats.kstest(sample, lambda r: energy.cdf(r, d).numpy()).pvalue > 1e-3
    standard_error = np.std(sample**2) / np.sqrt(sample.size)
    assert abs(np.mean(sample**2) - energy.second_moment(d)) < 4 * standard_error
    np.testing.assert_array_equal(sample, energy.sample([20_000], d, (d, 7), tf.float64))


@pytest.mark.parametrize("d", [1, 4])
@pytest.mark.parametrize("delta", [0.01, 0.7, 50.0])
def test_gradients_with_respect_to_delta(d, delta):
    step = 1e-5 * delta

    def check(statistic, tolerance=1e-6):
        def function(x):
            return statistic(Huber(x))

        _, slope = value_and_slope(function, np.array(delta))
        high, low = (function(tf.constant(x, tf.float64)) for x in (delta + step, delta - step))
        numeric = (float(high) - float(low)) / (2 * step)
        scale = abs(float(high)) / delta
        np.testing.assert_allclose(
            slope, numeric, rtol=tolerance, atol=tolerance * scale + 1e-15 / step
        )

    for function in (
        lambda energy: energy.log_normalizer(d),
        lambda energy: energy.kappa(d),
        lambda energy: energy.entropy(d),
        lambda energy: energy.energy(tf.constant(4.0, tf.float64)),
        lambda energy: energy.cdf(tf.constant(1.0, tf.float64), d),
        lambda energy: energy.quantile(tf.constant(0.4, tf.float64), d),
        lambda energy: energy.quantile(tf.constant(0.99, tf.float64), d),
    ):
        check(function)


def test_number_and_tensor_give_the_same_and_broadcast():
    deltas = [0.3, 1.0, 7.0]
    tensor = Huber(tf.constant(deltas, tf.float64))
    for name in ("log_normalizer", "kappa", "entropy", "second_moment", "mean_energy"):
        expected = [getattr(Huber(delta), name)(3) for delta in deltas]
        np.testing.assert_allclose(getattr(tensor, name)(3), expected, rtol=1e-14)
    r = np.linspace(0, 5, 8)[:, None]
    for function in (
        lambda energy: energy.energy(r),
        lambda energy: energy.weight(r),
        lambda energy: energy.cdf(r, 2),
        lambda energy: energy.quantile(r / 6, 2),
        lambda energy: energy.log_prob(r + 0.1, 2),
    ):
        expected = np.concatenate([function(Huber(delta)) for delta in deltas], axis=1)
        np.testing.assert_allclose(function(tensor), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph_mode(jit_compile):
    @tf.function(jit_compile=jit_compile)
    def loss(r):
        energy = Huber(1.0)
        return energy.energy(r) + energy.log_normalizer(2) + energy.cdf(r, 2)

    r = tf.constant([0.0, 0.5, 3.0])
    expected = Huber(1.0).energy(r) + Huber(1.0).log_normalizer(2) + Huber(1.0).cdf(r, 2)
    np.testing.assert_allclose(loss(r), expected, rtol=1e-6)


@pytest.mark.parametrize("delta", [0.0, -1, np.inf, np.nan])
def test_delta_must_be_positive(delta):
    with pytest.raises(ValueError, match="delta must be positive and finite"):
        Huber(delta)


def test_bad_arguments_name_themselves():
    with pytest.raises(ValueError, match="delta must be float32 or float64, got int32"):
        Huber(tf.constant(1))
    with pytest.raises(ValueError, match="d must be a positive integer, got 0"):
        Huber(1.0).log_normalizer(0)
