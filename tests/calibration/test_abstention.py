"""What is called reliable, or in the distribution, keeps its promise in simulations with known truth."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfhuber.calibration import abstention
from tfhuber.calibration.model import Abstention
from tfhuber.distributions.location_scatter import LocationScatter
from tfhuber.distributions.radial import Huber
from tfhuber.drawing.ellipses import probability_within

RNG = np.random.default_rng(0)


def test_the_p_value_is_hoeffdings_or_bentkus():
    losses = np.array([0.0, 0.1, 0.0, 0.3, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0] * 5)
    mean, n, risk = losses.mean(), len(losses), 0.2
    by_hand = mean * math.log(mean / risk) + (1 - mean) * math.log((1 - mean) / (1 - risk))
    bentkus = math.e * stats.binom.cdf(math.ceil(n * mean), n, risk)
    assert abstention.p_value(losses, risk) == pytest.approx(min(math.exp(-n * by_hand), bentkus))
    assert abstention.p_value(np.full(500, 0.2), 0.1) == abstention.p_value(np.zeros(0), 0.1) == 1
    for n in (28, 29):  # 0.9^29 is the first below 0.05
        assert (abstention.p_value(np.zeros(n), 0.1) <= 0.05) == (
            n >= abstention.fewest_photographs(0.1, 0.95)
        )


def test_a_mean_at_the_risk_is_seldom_refuted():
    """20,000 sets of 80 photographs: losses of 0 and 1, the worst that there are."""
    losses = RNG.random((20_000, 80)) < 0.1
    refuted = np.mean([abstention.p_value(each, 0.1) <= 0.05 for each in losses.astype(float)])
    assert 0.001 < refuted <= 0.05


def simulated(n, k=10):
    """Probabilities [n, k] that say too much, alike within a photograph, and errors that follow others."""
    hard = RNG.random((n, 1)) ** 3
    probability = 1 - 0.6 * hard * RNG.random((n, k))
    return probability, RNG.random((n, k)) < np.minimum(1, 1.7 * (1 - probability))


def test_reliable_landmarks_have_no_more_gross_errors_than_promised():
    """Of 400 calibrations no more than 5 % may miss the risk, here of another 40,000 photographs."""
    truth, wrong = simulated(40_000)
    missed, answered = 0, []
    for _ in range(400):
        (fitted, _), (promised, gross) = simulated(100), simulated(100)
        photograph = np.arange(100)
        candidates = abstention.thresholds(fitted, photograph, 0.1, 0.95)
        assert candidates == sorted(candidates, reverse=True) and candidates[-1] == 0
        least = abstention.probability_threshold(
            promised, gross, photograph, candidates, risk=0.1, confidence=0.95
        )
        if least is None:
            answered.append(0.0)
            continue
        reliable = truth >= least
        any_reliable = reliable.any(axis=1)
        share = (reliable & wrong).sum(1)[any_reliable] / reliable.sum(1)[any_reliable]
        missed += share.mean() > 0.1
        answered.append(reliable.mean())
    assert missed <= stats.binom.ppf(0.999, 400, 0.05)
    # All at once would be too many errors; most can be answered.
    assert wrong.mean() > 0.1 and 0.5 < np.mean(answered) < 0.95


def test_where_photographs_are_too_few_nothing_is_promised():
    probability, gross = simulated(28)
    photograph = np.arange(28)
    assert abstention.thresholds(probability, photograph, 0.1, 0.95) == []
    nothing = abstention.probability_threshold(
        probability, gross, photograph, [], risk=0.1, confidence=0.95
    )
    assert nothing is None
    assert abstention.size_threshold(RNG.random(48), np.arange(48), 0.02) is None
    assert abstention.size_threshold(RNG.random(49), np.arange(49), 0.02) is not None


def test_ten_faces_of_one_photograph_are_one_witness():
    probability, gross = np.ones((290, 5)), np.zeros((290, 5), bool)
    assert not abstention.thresholds(probability, np.arange(290) // 11, 0.1, 0.95)
    alike = np.arange(290) // 10
    candidates = abstention.thresholds(probability, alike, 0.1, 0.95)
    found = abstention.probability_threshold(
        probability, gross, alike, candidates, risk=0.1, confidence=0.95
    )
    assert found == 0


def test_false_alarms_are_as_rare_as_stated():
    """The mean rate over calibrations of 60 sizes is at most 5 %, and not far below: floor(61 x 0.05)."""
    rates = [
        stats.norm.sf(abstention.size_threshold(RNG.normal(size=60), np.arange(60), 0.05))
        for _ in range(4_000)
    ]
    assert np.mean(rates) == pytest.approx(3 / 61, abs=0.002)


def test_flags_are_of_the_probability_within_the_tolerance():
    factor = np.stack([np.diag([0.5, 0.3]), np.diag([0.2, 0.1])]) * np.ones((3, 1, 1, 1))
    factor[2] /= 5
    predicted = LocationScatter.from_factor(tf.zeros([3, 2, 2]), tf.constant(factor, tf.float32))
    energy = Huber(1.5)
    kappa = float(energy.kappa(2))
    covariance = kappa * np.linalg.inv(factor @ factor)
    expected = probability_within(6.4, covariance, "huber", 1.5, kappa)
    np.testing.assert_allclose(predicted.probability_within(6.4, energy), expected, atol=1e-5)
    values = {"false_alarms": 0.02, "tolerance": 0.05, "risk": 0.1, "confidence": 0.95}
    size = -np.log(np.linalg.det(factor)).mean(1)
    found = Abstention(**values, largest_size=size[1] + 0.1, least_probability=0.6)
    flags = found.flags(predicted, energy, 128)
    np.testing.assert_array_equal(flags["reliable"], expected >= 0.6)
    assert flags["reliable"].numpy().any() and not flags["reliable"].numpy().all()
    assert flags["in_distribution"].numpy().tolist() == [True, True, False]
    never = Abstention(**values, largest_size=None, least_probability=None)
    flags = never.flags(predicted, energy, 128)
    assert not flags["reliable"].numpy().any() and flags["in_distribution"].numpy().all()
