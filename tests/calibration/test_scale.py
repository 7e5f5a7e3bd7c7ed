"""Scales are what errors were made with; few labels are shrunk towards the others'."""

import math

import numpy as np
import pytest
from whitened_errors import draw

from tfhuber.calibration.law import Law
from tfhuber.calibration.radial_law import fit_law
from tfhuber.calibration.scale import fit_scale, log_scale, matrix_exponential, shrink, transformed


@pytest.mark.parametrize(
    "law", [Law("huber", 0.5), Law("huber", 2.0), Law("gauss"), Law("laplace")]
)
def test_one_scale_is_found(law):
    errors = draw(law, 20_000, np.random.default_rng(1)) / 3
    # 20,000 labels: the standard error of log s is about 0.006.
    assert log_scale(np.linalg.norm(errors, axis=1), law) == pytest.approx(math.log(3), abs=0.025)


@pytest.mark.parametrize("delta", [0.3, 1.0, 2.0])
def test_scale_and_delta_are_found_together(delta):
    radius = np.linalg.norm(draw(Law("huber", delta), 40_000, np.random.default_rng(2)), axis=1)
    t, law = fit_law(radius / 2, "huber")
    # Scale and delta trade places; 40,000 labels leave a few percent of either.
    assert law.delta == pytest.approx(delta, rel=0.15)
    assert t == pytest.approx(math.log(2), abs=0.08)
    fitted = np.mean(law.cdf(math.exp(t) * radius / 2) <= 0.5)
    assert fitted == pytest.approx(0.5, abs=0.01)


def test_a_matrix_a_landmark_is_found():
    rng, law = np.random.default_rng(3), Law("huber", 1.0)
    truth = np.array([[[0.3, 0.2], [0.2, -0.5]], [[0.0, 0.0], [0.0, 0.0]]])
    errors = transformed(draw(law, (6000, 2), rng), -truth)
    errors[rng.random((6000, 2)) < 0.1] = np.nan
    found = fit_scale(errors, np.arange(6000), [0, 1], law, "axes")
    np.testing.assert_allclose(found, truth, atol=0.05)
    np.testing.assert_allclose(
        matrix_exponential(found) @ matrix_exponential(-found),
        np.tile(np.eye(2), (2, 1, 1)),
        atol=1e-12,
    )


def test_numbers_are_shrunk_as_far_as_they_are_unsure():
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(10), 10)
    group = rng.normal(0.2, 0.3, 10)
    truth = group[groups] + rng.normal(0, 0.1, 100)
    variance = rng.choice([0.001, 0.2], 100)
    estimate = truth + rng.normal(0, np.sqrt(variance))
    shrunk = shrink(estimate, variance, groups)
    # The best there is knows both spreads: its mean squared error is computed from them.
    unsure = variance == 0.2
    assert np.mean((shrunk - truth)[unsure] ** 2) < 0.2 * np.mean((estimate - truth)[unsure] ** 2)
    np.testing.assert_allclose(shrunk[~unsure], estimate[~unsure], atol=0.05)


def test_alike_landmarks_become_one_and_unknown_ones_their_groups():
    variance = np.full(4, 0.01)
    same = shrink(np.array([0.1, 0.1, 0.1, 0.1]), variance, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(same, 0.1)
    unknown = shrink(
        np.array([1.0, 1.02, 0.0, 9.0]),
        np.array([1e-4, 1e-4, 1e-4, math.inf]),
        np.array([0, 0, 1, 0]),
    )
    assert unknown[3] == pytest.approx(1.01, abs=0.01)
    assert shrink(np.ones(2), np.full(2, math.inf), np.zeros(2)).tolist() == [0, 0]


def test_a_landmark_with_few_labels_takes_its_groups_scale():
    rng, law = np.random.default_rng(5), Law("gauss")
    errors = draw(law, (400, 4), rng) * np.array([1.0, 1.0, 3.0, 3.0])[:, None]
    errors[4:, 3] = np.nan
    found = fit_scale(errors, np.arange(400), [0, 0, 1, 1], law, "landmarks")
    scale = np.exp(found[:, 0, 0])
    np.testing.assert_allclose(scale, [1, 1, 1 / 3, 1 / 3], rtol=0.12)
    assert np.all(found[:, 0, 1] == 0) and np.array_equal(found[:, 0, 0], found[:, 1, 1])
