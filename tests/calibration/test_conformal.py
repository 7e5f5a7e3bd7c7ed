"""Conformal radii keep their promise over simulated calibration sets, and promise nothing they cannot."""

import math

import numpy as np
import pytest

from tfhuber.calibration import conformal
from tfhuber.calibration.conformal import guaranteed_radius

SETS = 10_000


@pytest.mark.parametrize(("n", "level"), [(9, 0.5), (20, 0.9), (39, 0.95), (60, 0.8)])
def test_a_label_is_inside_with_the_level_and_hardly_more(n, level):
    rng = np.random.default_rng((n, int(100 * level)))
    scores = rng.exponential(size=(SETS, n))
    photograph = np.arange(n)
    found = np.array([guaranteed_radius(each, photograph, level) for each in scores])
    inside = -np.expm1(-found)  # what an exponential score to come is, exactly, given the radius
    error = 4 * inside.std() / math.sqrt(SETS)
    assert level - error <= inside.mean() <= level + 1 / (n + 1) + error
    # Of uniform scores the k-th of n is k / (n + 1) on average.
    assert inside.mean() == pytest.approx(math.ceil((n + 1) * level) / (n + 1), abs=error)


def test_landmarks_that_err_together_and_lack_labels_keep_the_promise():
    n, k, level = 30, 6, 0.9
    rng = np.random.default_rng(5)
    share_outside, promised = [], []
    for _ in range(SETS):
        # The same shift for all landmarks of a photograph, and labels that are missing where it is large.
        common = rng.standard_normal((n + 1, 1))
        scores = np.abs(0.9 * common + 0.436 * rng.standard_normal((n + 1, k)))
        missing = rng.random((n + 1, k)) < 0.2 + 0.6 * (np.abs(common) > 1)
        missing[:, 0] = False
        scores[missing] = np.nan
        radius = guaranteed_radius(scores[:n], np.arange(n), level)
        new = scores[n][~missing[n]]
        share_outside.append(np.mean(new > radius))
        promised.append(np.isfinite(radius))
    assert all(promised)
    error = 4 * np.std(share_outside) / math.sqrt(SETS)
    # Conformal risk control: between 1 - level - 2 / (n + 1) and 1 - level.
    assert 1 - level - 2 / (n + 1) - error <= np.mean(share_outside) <= 1 - level + error


def test_taking_labels_for_independent_would_break_the_promise():
    n, k, level = 12, 50, 0.9
    rng = np.random.default_rng(6)
    outside, naive = [], []
    for _ in range(2000):
        scores = np.abs(rng.standard_normal((n + 1, 1)) + 0.1 * rng.standard_normal((n + 1, k)))
        radius = guaranteed_radius(scores[:n], np.arange(n), level)
        outside.append(np.mean(scores[n] > radius))
        ordered = np.sort(scores[:n].ravel())
        naive.append(np.mean(scores[n] > ordered[math.ceil((n * k + 1) * level) - 1]))
    error = 3 * np.std(outside) / math.sqrt(2000)
    assert np.mean(outside) <= 0.1 + error
    assert np.mean(naive) > 0.1 + error


def test_all_landmarks_of_a_person_are_inside_at_once():
    n, k, level = 40, 5, 0.8
    rng = np.random.default_rng(7)
    inside = []
    for _ in range(800):
        scores = rng.exponential(size=(n + 1, k)) * rng.exponential(size=(n + 1, 1))
        thirds = np.zeros(n, int)
        (at,) = conformal.radii(scores[:n], np.arange(n), thirds, (level,))
        inside.append(scores[n].max() <= at.simultaneous)
    error = 4 * math.sqrt(level * (1 - level) / 800)
    assert level - error <= np.mean(inside) <= level + 1 / (n + 1) + error


def test_each_third_keeps_the_promise_where_all_together_do_not():
    n, level = 90, 0.9
    rng = np.random.default_rng(8)
    hard_inside, hard_inside_pooled = [], []
    for _ in range(800):
        size = rng.random(n)
        thirds = conformal.third(size, (1 / 3, 2 / 3))
        scores = rng.exponential(size=(n, 1)) * (1 + 2 * (thirds == 2))[:, None]
        (at,) = conformal.radii(scores, np.arange(n), thirds, (level,))
        hard_inside.append(-math.expm1(-at.thirds[2] / 3))
        hard_inside_pooled.append(-math.expm1(-at.pooled / 3))
    # About 30 photographs a third, so that the upper bound is 0.9 + 1 / 31 on average, or a little more.
    assert 0.9 - 0.005 <= np.mean(hard_inside) <= 0.9 + 1 / 25
    assert np.mean(hard_inside_pooled) < 0.85


def test_radii_are_the_order_statistics_that_the_rule_says():
    scores, photograph = np.arange(19.0), np.arange(19)
    assert guaranteed_radius(scores, photograph, 0.95) == 18  # the 19th of 19, (19 + 1) 0.95 = 19
    assert guaranteed_radius(scores, photograph, 0.9) == 17
    assert guaranteed_radius(scores, photograph, 0.951) == math.inf
    # Two labels of photograph 0 count a half each: 0.5, 1.5, 2 of (2 + 1) 0.5 = 1.5.
    assert guaranteed_radius([1.0, 2.0, 3.0], [0, 1, 0], 0.5) == 2
    assert guaranteed_radius([[1.0, np.nan], [np.nan, np.nan]], [0, 1], 0.5) == 1
    assert guaranteed_radius([np.nan], [0], 0.5) == math.inf
    assert guaranteed_radius([], [], 0.5) == math.inf


@pytest.mark.parametrize("level", [0.0, 1.0, math.nan, -0.1, 90])
def test_what_is_no_level_is_refused(level):
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        guaranteed_radius([1.0], [0], level)


def test_scores_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"as many examples, got shapes \(2,\) and \(1,\)"):
        guaranteed_radius([1.0, 2.0], [0], 0.5)
    with pytest.raises(ValueError, match="must not be negative"):
        guaranteed_radius([-1.0], [0], 0.5)
