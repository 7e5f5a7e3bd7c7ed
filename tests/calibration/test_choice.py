"""A correction is kept where photographs left out bear it out, and only there."""

import math

import numpy as np
import pytest
from whitened_errors import draw

from tfhuber.calibration.choice import Correction, choose, mean_nll
from tfhuber.calibration.law import Law
from tfhuber.calibration.photographs import folds, parts, photographs
from tfhuber.calibration.scale import transformed
from tfhuber.calibration.views import correlation


def test_a_model_that_is_right_is_left_nearly_alone():
    errors = draw(Law("huber", 1.0), (300, 5), np.random.default_rng(0))
    found, steps = choose(errors, np.arange(300), [0] * 5, Law("huber", 1.0))
    assert steps[0].kept and steps[0].name == "as the model says"
    kept = [step.nll for step in steps if step.kept]
    assert kept == sorted(kept, reverse=True)
    np.testing.assert_allclose(found.log_matrix, np.zeros((5, 2, 2)), atol=0.15)


def test_scale_and_law_of_what_was_drawn_are_found_and_cover():
    rng, law = np.random.default_rng(1), Law("huber", 2.0)
    errors = draw(law, (800, 6), rng) / 1.8
    cal, new = errors[:400], errors[400:]
    found, _ = choose(cal, np.arange(400), [0] * 6, Law("huber", 1.0))
    raw = Correction(np.zeros((6, 2, 2)), Law("huber", 1.0))
    assert found.law.family == "huber" and found.law.delta == pytest.approx(2.0, rel=0.25)
    assert mean_nll(found, new) < mean_nll(raw, new) - 0.1
    for level in (0.5, 0.9, 0.95):
        # 2,400 labels: 0.01 is the standard error at 0.5.
        inside = np.mean(found.law.cdf(found.radius(new)) <= level)
        assert inside == pytest.approx(level, abs=0.03)


def test_axes_are_kept_where_they_differ():
    rng, law = np.random.default_rng(2), Law("huber", 1.0)
    truth = np.tile([[0.5, 0.0], [0.0, -0.5]], (3, 1, 1))
    errors = transformed(draw(law, (300, 3), rng), -truth)
    found, steps = choose(errors, np.arange(300), [0, 0, 0], law)
    assert next(step for step in steps if step.name == "scale: axes").kept
    np.testing.assert_allclose(found.log_matrix, truth, atol=0.15)


def test_the_corrected_density_integrates_to_one():
    correction = Correction(np.array([[[0.4, 0.1], [0.1, -0.2]]]), Law("huber", 1.7))
    axis = np.linspace(-30, 30, 1201)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 1, 2)
    total = np.sum(np.exp(-correction.nll(grid))) * (axis[1] - axis[0]) ** 2
    assert total == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("c", [-0.5, 0.0, 0.6, 0.94])
@pytest.mark.parametrize("tails", ["light", "heavy"])
def test_the_views_correlation_is_found_whatever_a_few_wrong_labels_say(c, tails):
    # Two Gaussians with that correlation, times a common length: a heavy-tailed pair with the same.
    rng = np.random.default_rng(3)
    first, other = rng.standard_normal((2, 40_000, 1, 2))
    errors = np.stack([first, c * first + math.sqrt(1 - c * c) * other])
    if tails == "heavy":
        errors = errors * rng.exponential(size=(40_000, 1, 1))
    errors[:, :5] = np.nan
    assert correlation(errors) == pytest.approx(c, abs=0.03)
    errors[:, 5:45] += 1000.0  # forty wrong labels, which both views miss alike
    assert correlation(errors) == pytest.approx(c, abs=0.03)


def test_views_that_cannot_be_compared_are_refused():
    for nothing in (np.full((2, 3, 1, 2), np.nan), np.zeros((2, 3, 1, 2))):
        with pytest.raises(ValueError, match="errors must hold a labelled landmark"):
            correlation(nothing)
    same = np.ones((2, 3, 1, 2))
    assert correlation(same) == 1
    assert correlation(same * np.array([1.0, -1.0])[:, None, None, None]) == -1


def test_photographs_are_never_torn_apart():
    ids = [
        b"a/1.jpg#1",
        b"a/1.jpg#2",
        b"b/1.jpg#1",
        b"AFW/AFW_12_1_3.jpg",
        b"AFW_Flip/AFW_12_2_0.jpg",
    ]
    found = photographs(ids)
    assert found[0] == found[1] and found[3] == found[4] and len(set(found)) == 3
    frames = photographs(
        [b"labeled-data/a/img007.png", b"labeled-data/b/img007.png", "c_1_2.jpg", "c_1_3.jpg"]
    )
    assert len(set(frames)) == 4
    many = photographs([f"{i % 500}.jpg#{i}" for i in range(1000)])
    chooses, promises = parts(many)
    assert not set(many[chooses]) & set(many[promises])
    assert len(set(many[chooses])) == len(set(many[promises])) == 250
    fold = folds(many[chooses])
    assert np.bincount(fold).min() >= 90 and len(set(zip(many[chooses], fold, strict=True))) == 250
    # Whatever else is there, a photograph keeps its place in the order.
    few = photographs(["7.jpg#0", "9.jpg#0"])
    assert (few[0] < few[1]) == (many[7] < many[9])
