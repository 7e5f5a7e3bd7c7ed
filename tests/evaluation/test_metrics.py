"""The metrics, against numbers worked out by hand and against other ways to compute them."""

import subprocess
import sys

import numpy as np
import pytest

from tfhuber.evaluation import metrics
from tfhuber.landmarks.known_sets import MPII, WFLW


def test_point_errors_are_distances():
    truth = np.array([[[0.0, 0.0], [10.0, 10.0]]])
    errors = metrics.point_errors(truth + np.array([[3.0, 4.0], [-5.0, 12.0]]), truth)
    np.testing.assert_allclose(errors, [[5.0, 13.0]], rtol=1e-15)


def test_point_errors_are_float64_whatever_comes_in():
    # 2^24 + 1 is no float32, so that the difference of 1 would be lost.
    errors = metrics.point_errors([[[16777217, 0]]], np.float32([[[16777216, 0]]]))
    assert errors[0, 0] == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_prediction_that_is_not_finite_is_named(bad):
    predicted = np.zeros((4, 3, 2))
    predicted[2, 1, 0] = bad
    with pytest.raises(
        ValueError, match=r"predicted must be finite; example 2 is not \(1 in all\)"
    ):
        metrics.point_errors(predicted, np.zeros((4, 3, 2)))


@pytest.mark.parametrize("shape", [(4, 3, 2), (5, 2, 2), (5, 3, 3), (5, 6)])
def test_shapes_that_differ_are_refused(shape):
    with pytest.raises(ValueError, match=r"both be \[examples, landmarks, 2\].*\(5, 3, 2\)"):
        metrics.point_errors(np.zeros((5, 3, 2)), np.zeros(shape))


def test_nme_leaves_out_what_has_no_label_or_normalizer():
    errors = [
        [1.0, 3.0, np.nan],
        [2.0, 2.0, 2.0],
        [5.0, 5.0, 5.0],
        [1.0, 2.0, 6.0],
        [1.0, 1.0, 1.0],
    ]
    weights = [[1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1], [1, 1, 1]]
    nme = metrics.nme(errors, [40.0, 0.0, 40.0, 60.0, np.nan], weights)
    np.testing.assert_allclose(nme, [0.05, np.nan, np.nan, 0.05, np.nan], rtol=1e-15)


def test_labelled_landmark_without_an_error_is_refused():
    with pytest.raises(
        ValueError, match="errors must be finite where weights are positive; example 1"
    ):
        metrics.nme([[1.0, 2.0], [np.nan, 1.0]], [1.0, 1.0], np.ones((2, 2)))


@pytest.mark.parametrize(
    "normalizer, weights", [(np.ones(3), np.ones((2, 4))), (np.ones(2), np.ones(4))]
)
def test_nme_refuses_shapes_that_do_not_fit(normalizer, weights):
    with pytest.raises(ValueError, match=r"normalizer \[examples\], got \(2, 4\)"):
        metrics.nme(np.ones((2, 4)), normalizer, weights)


def test_failure_rate_counts_what_exceeds_the_threshold():
    assert metrics.failure_rate([0.05, 0.10, 0.11, np.nan]) == pytest.approx(1 / 3, rel=1e-15)
    assert metrics.failure_rate([0.05, 0.10, 0.11, 0.2], threshold=0.08) == 0.75


def test_auc_by_hand():
    # Errors of 0, half and twice the threshold contribute 1, 1/2 and 0.
    assert metrics.auc([0.0, 0.05, 0.2, np.nan]) == pytest.approx(0.5, rel=1e-15)


def test_auc_is_the_area_under_the_cumulative_distribution():
    errors = np.random.default_rng(1).gamma(4.0, 0.015, size=200)
    # The midpoint rule on steps of 1e-6 is off by at most one step for each of the 200 jumps' mean.
    grid = (np.arange(100_000) + 0.5) * 1e-6
    area = np.searchsorted(np.sort(errors), grid, side="right").mean() / len(errors)
    assert 0.2 < area < 0.8
    assert metrics.auc(errors, 0.1) == pytest.approx(area, abs=1e-5)


@pytest.mark.parametrize("function", [metrics.auc, metrics.failure_rate])
def test_nothing_but_nan_is_refused(function):
    with pytest.raises(ValueError, match="got none but NaN"):
        function([np.nan, np.nan])


def test_pckh_pools_joints_and_leaves_out_what_does_not_count():
    #                  a    a    b    -   (the last joint is in no group)
    errors = np.array([[4.0, 6.0, 1.0, 0.0], [5.0, 9.0, 9.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    weights = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]])
    head_size = np.array([10.0, 10.0, 0.0])
    found = metrics.pckh(errors, head_size, weights, 0.5, {"a": (0, 1), "b": (2,)})
    # Counted: 4 and 6, 5 and 9 in a (hits: 4 and exactly 5), 1 in b. The pooled mean is 3/5, not 3/4.
    assert found == {"a": 0.5, "b": 1.0, "mean": 0.6}


def test_pckh_leaves_out_groups_without_labels():
    weights = np.array([[1, 0]])
    assert metrics.pckh([[1.0, 1.0]], [10.0], weights, 0.5, {"a": (0,), "b": (1,)}) == {
        "a": 1.0,
        "mean": 1.0,
    }


def test_pckh_without_anything_to_score():
    with pytest.raises(ValueError, match="both labelled joints and a head size"):
        metrics.pckh(np.ones((2, 16)), np.zeros(2), np.ones((2, 16)), 0.5, MPII.groups)


def test_faces_are_summed_up_in_percent_and_by_subset():
    truth = np.random.default_rng(0).uniform(0, 200, size=(4, 98, 2))
    shift = np.array([2.0, 4.0, 12.0, 50.0])
    predicted = truth + shift[:, None, None] * [0.6, 0.8]
    weights = np.ones((4, 98))
    truth[0, 5:] = np.nan
    weights[0, 5:] = 0
    predicted[0, 5:] = 0.0
    flags = np.array(
        [[1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0]]
    )
    # The last one has no eye distance: it counts nowhere, and its subset "illumination" is empty.
    summary = metrics.evaluate_landmarks(
        WFLW, predicted, truth, weights, [100.0, 100.0, 100.0, 0.0], flags
    )
    assert set(summary["subsets"]) == {"large_pose", "expression"}
    subsets = summary.pop("subsets")
    assert summary == pytest.approx(
        {"nme": 6.0, "failure_rate_10": 100 / 3, "auc_10": (0.8 + 0.6) / 3, "examples": 3}
    )
    assert subsets["large_pose"] == pytest.approx(
        {"nme": 3.0, "failure_rate_10": 0.0, "auc_10": 0.7, "examples": 2}
    )
    assert subsets["expression"]["nme"] == pytest.approx(12.0)
    assert subsets["expression"]["failure_rate_10"] == 100.0


def test_bodies_are_summed_up_by_joint():
    truth = np.zeros((2, 16, 2))
    predicted = np.zeros((2, 16, 2))
    predicted[:, (6, 7)] = 1000.0  # pelvis and thorax are not scored
    predicted[0, 9] = (0.0, 6.0)  # a head at 0.6 head sizes
    predicted[0, 0] = (2.0, 0.0)  # an ankle at 0.2
    weights = np.ones((2, 16))
    weights[1, (1, 4, 5)] = 0
    summary = metrics.evaluate_landmarks(MPII, predicted, truth, weights, [10.0, 10.0])
    assert list(summary["joints"]) == list(MPII.groups)
    assert summary["pckh_0.5"] == pytest.approx(100 * 24 / 25)
    assert summary["pckh_0.1"] == pytest.approx(100 * 23 / 25)
    assert summary["joints"]["head"] == pytest.approx({"pckh_0.5": 75.0, "pckh_0.1": 75.0})
    assert summary["joints"]["ankle"] == pytest.approx({"pckh_0.5": 100.0, "pckh_0.1": 100 * 2 / 3})
    assert summary["joints"]["knee"] == {"pckh_0.5": 100.0, "pckh_0.1": 100.0}
    assert summary["examples"] == 2


@pytest.mark.parametrize(
    "points, normalizer, flags, message",
    [
        (97, 1.0, None, "predicted must have the 98 landmarks of wflw, got 97"),
        (98, 0.0, None, "no example has both labels and a normalizer"),
        (98, 1.0, np.ones((2, 5)), r"attributes must be \(2, 6\), got \(2, 5\)"),
    ],
)
def test_evaluation_refuses(points, normalizer, flags, message):
    zeros = np.zeros((2, points, 2))
    with pytest.raises(ValueError, match=message):
        metrics.evaluate_landmarks(
            WFLW, zeros, zeros, np.ones((2, points)), np.full(2, normalizer), flags
        )


def test_metrics_and_overlays_need_no_tensorflow():
    evaluation = "from tfhuber.evaluation import metrics, plots, reliability"
    code = (
        f"import sys, tfhuber.drawing.overlay; {evaluation}; sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
