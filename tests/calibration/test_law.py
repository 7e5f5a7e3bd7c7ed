"""The radial laws in the plane, against quadrature and the distributions that models are trained with."""

import math

import numpy as np
import pytest
from scipy import integrate

from tfhuber.calibration.law import FAMILIES, Law
from tfhuber.distributions import radial

LAWS = [Law("huber", delta) for delta in (0.05, 0.7, 1.0, 6.0)] + [Law(f) for f in FAMILIES[1:]]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_the_density_integrates_to_one_and_its_integral_is_the_cdf(law):
    def density(r):
        return 2 * math.pi * r * math.exp(-float(law.nll(r)))

    knee = law.delta if law.family == "huber" else 1.0
    total = integrate.quad(density, 0, knee)[0] + integrate.quad(density, knee, np.inf)[0]
    assert total == pytest.approx(1, abs=1e-8)
    for r in (0.01, 0.5, 2.0, 7.0):
        points = [knee] if knee < r else None
        expected = integrate.quad(density, 0, r, points=points, epsabs=1e-12)[0]
        assert law.cdf(r) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_it_is_the_law_that_models_are_trained_with(law):
    energy = radial.radial_energy(law.family, law.delta)
    r = np.array([1e-3, 0.4, 1.0, 3.0, 30.0])
    np.testing.assert_allclose(law.energy(r), energy.energy(r**2), rtol=1e-12)
    np.testing.assert_allclose(law.weight(r), energy.weight(r**2), rtol=1e-12)
    np.testing.assert_allclose(law.cdf(r), energy.cdf(r, 2), rtol=1e-9, atol=1e-12)
    assert law.log_normalizer == pytest.approx(energy.log_normalizer(2), rel=1e-12)


def test_what_is_no_law_is_refused():
    with pytest.raises(ValueError, match=r"family must be one of huber, .*, got 'student'"):
        Law("student")
    for delta in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="delta must be positive and finite"):
            Law("huber", delta)
