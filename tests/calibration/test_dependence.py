"""How landmarks go together: found from simulated shapes, and a density beside SciPy's."""

import numpy as np
import pytest
from scipy import stats

from tfhuber.calibration import dependence
from tfhuber.calibration.law import Law

RNG = np.random.default_rng(0)
# Of 5 landmarks: all move along x alike, and the first three turn.
FACTOR = np.array([[0.8, 0.0], [0.0, 0.5]] * 3 + [[0.8, 0.0], [0.0, 0.0]] * 2)


def shapes(count, factor=FACTOR):
    lower = np.linalg.cholesky(dependence.correlation(factor))
    return (RNG.standard_normal((count, len(factor))) @ lower.T).reshape(count, -1, 2)


def test_each_landmark_keeps_its_own_distribution():
    found = dependence.correlation(FACTOR)
    assert np.array_equal(found[2:4, 2:4], np.eye(2)) and found[0, 2] == pytest.approx(0.64)
    assert found[1, 3] == pytest.approx(0.25) and found[0, 3] == 0
    assert np.linalg.eigvalsh(found).min() > 0


@pytest.mark.parametrize("law", [Law("huber", 0.5), Law("huber", 2.0), Law("laplace")])
def test_scores_of_a_law_are_normal(law):
    radius = law.quantile(RNG.random(20_000))
    angle = RNG.uniform(0, 2 * np.pi, 20_000)
    errors = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    scores = dependence.normal_scores(errors, law)
    for axis in range(2):
        assert stats.kstest(scores[:, axis], "norm").pvalue > 0.001
    across = np.cross(np.pad(errors, ((0, 0), (0, 1))), np.pad(scores, ((0, 0), (0, 1))))
    assert np.abs(across).max() < 1e-9  # the direction stays


def test_scores_of_the_centre_and_of_far_errors_are_finite():
    scores = dependence.normal_scores(
        np.array([[0.0, 0.0], [1e6, 0.0], [np.nan, 1.0]]), Law("gauss")
    )
    assert scores[0].tolist() == [0, 0] and 7 < scores[1, 0] < 8 and np.isnan(scores[2, 0])


def test_the_likelihood_is_scipys_with_labels_missing():
    scores = shapes(6)
    scores[1, 2] = scores[3, [0, 4]] = scores[5] = np.nan
    found = dependence.log_ratio(scores, FACTOR)
    for row, value in zip(scores.reshape(6, -1), found, strict=True):
        seen = ~np.isnan(row)
        expected = 0.0
        if seen.any():
            joint = dependence.correlation(FACTOR)[np.ix_(seen, seen)]
            expected = stats.multivariate_normal(cov=joint).logpdf(row[seen])
            expected -= stats.norm.logpdf(row[seen]).sum()
        assert value == pytest.approx(expected)


def test_a_known_dependence_is_found():
    fit = dependence.fit_dependence(shapes(400), np.arange(400))
    true = dependence.correlation(FACTOR)
    assert np.abs(dependence.correlation(fit.factor) - true).max() < 0.2
    best = -np.linalg.slogdet(true)[1] / 2  # nats, by the truth itself
    assert 0.9 * best < fit.gain < 1.15 * best
    others = dependence.log_ratio(shapes(20_000), fit.factor).mean()
    assert 0.9 * best < others <= best * 1.01 and fit.gain == pytest.approx(others, rel=0.15)


def test_labels_missing_are_not_missed():
    scores = shapes(400)
    scores[RNG.random((400, 5)) < 0.3] = np.nan
    scores[:, 4] = np.nan  # never labelled
    fit = dependence.fit_dependence(scores, np.arange(400))
    found, true = (dependence.correlation(each)[:8, :8] for each in (fit.factor, FACTOR))
    assert np.abs(found - true).max() < 0.3 and np.isfinite(fit.factor).all()
    assert np.abs(fit.factor[8:]).max() < 1e-9  # of which nothing is known


def test_independent_landmarks_stay_so():
    fit = dependence.fit_dependence(shapes(60, np.zeros((10, 1))), np.arange(60))
    assert fit.gain < 0.05 and np.abs(dependence.correlation(fit.factor) - np.eye(10)).max() < 0.2
    one = dependence.fit_dependence(RNG.standard_normal((30, 1, 2)), np.arange(30))
    assert one.gain == 0 and np.array_equal(dependence.correlation(one.factor), np.eye(2))


def test_landmarks_that_always_move_alike_have_a_density():
    same = np.repeat(RNG.standard_normal((50, 1, 2)), 6, axis=1)
    fit = dependence.fit_dependence(same, np.arange(50))
    assert np.linalg.eigvalsh(dependence.correlation(fit.factor)).min() > 0 and fit.gain > 5
