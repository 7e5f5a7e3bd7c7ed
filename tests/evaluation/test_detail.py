"""Errors and coverage part by part are those of the labels of that part, and of no others."""

import dataclasses
import json

import numpy as np
import pytest

from tfhuber.evaluation import detail
from tfhuber.evaluation.predictions import Predictions
from tfhuber.landmarks.landmark_set import LandmarkSet

SET = LandmarkSet(
    name="toy",
    names=("a", "b", "c"),
    mirror=(0, 1, 2),
    edges=(),
    metric="nme",
    square="longest",
    groups={"both": (0, 1), "never": (2,)},
    attributes=("blur",),
)


@dataclasses.dataclass
class Locations:
    loc: np.ndarray


@pytest.fixture
def predictions():
    """Six examples: errors of 1 to 6 pixels on a and of 10 on b, c unlabelled, the last no normaliser."""
    truth = np.zeros((6, 3, 2))
    predicted = np.zeros((6, 3, 2))
    predicted[:, 0, 0] = np.arange(1, 7)
    predicted[:, 1, 1] = 10
    truth[:, 2] = np.nan
    return Predictions(
        id=np.array([f"{i}.jpg#1".encode() for i in range(6)]),
        predicted=Locations(predicted),
        covariance=None,
        truth=truth,
        weights=np.tile([1.0, 1.0, 0.0], (6, 1)),
        normalizer=np.array([100.0, 100, 100, 100, 50, 0]),
        attributes=np.array([[1], [0], [0], [0], [0], [1]]),
        radial_cdf=np.stack([[0.1, 0.3, 0.6, 0.85, 0.92, 0.97], [0.4] * 6, [np.nan] * 6], 1),
        loss=None,
        nll=None,
        size=np.array([5.0, 0.0, 4.0, 1.0, 3.0, 2.0]),
        to_network=None,
    )


def test_errors_are_in_the_photographs_pixels_and_in_percent_of_the_normaliser(predictions):
    found = detail.error_detail(SET, predictions)
    assert found["landmarks"]["a"] == {
        "labels": 6,
        "mean_pixels": 3.5,
        "median_pixels": 3.5,
        "mean_percent": pytest.approx((1 + 2 + 3 + 4 + 10) / 5),
        "median_percent": pytest.approx(3),
    }
    assert found["landmarks"]["b"]["mean_percent"] == pytest.approx((10 * 4 + 20) / 5)
    assert found["all"]["mean_pixels"] == pytest.approx((21 + 60) / 12)
    assert "c" not in found["landmarks"]


def test_without_any_normaliser_there_are_pixels_alone(predictions):
    bare = dataclasses.replace(predictions, normalizer=np.zeros(6))
    found = detail.error_detail(SET, bare)
    assert found["all"]["mean_percent"] is None and found["all"]["mean_pixels"] == 6.75
    coverage = {"raw": detail.coverage_detail(SET, bare)}
    assert "nan" not in json.dumps(found).lower() and "-" in detail.text(found, coverage)


def test_coverage_counts_the_labels_of_each_part(predictions):
    found = detail.coverage_detail(SET, predictions)
    assert found["all"] == {
        "labels": 12,
        "50": pytest.approx(8 / 12),
        "80": pytest.approx(9 / 12),
        "90": pytest.approx(10 / 12),
        "95": pytest.approx(11 / 12),
        "99": 1.0,
    }
    assert set(found["groups"]) == {"both"} and found["groups"]["both"] == found["all"]
    assert found["landmarks"]["a"]["90"] == pytest.approx(4 / 6)
    assert found["landmarks"]["b"]["50"] == 1
    assert (found["best"], found["worst"]) == ("b", "a")
    assert found["subsets"]["blur"]["95"] == pytest.approx(3 / 4)
    # By size: 1 and 3 are easy, 5 and 4 middling, 2 and 0 hard.
    assert detail.difficulty(predictions).tolist() == [2, 0, 2, 0, 1, 1]
    assert found["thirds"]["middling"]["90"] == pytest.approx(2 / 4)


def test_an_example_without_labels_is_in_no_third(predictions):
    weights = predictions.weights.copy()
    weights[1] = 0
    thirds = detail.difficulty(dataclasses.replace(predictions, weights=weights))
    assert thirds.tolist() == [2, -1, 1, 0, 1, 0]


def test_the_text_says_raw_and_calibrated_of_each_part(predictions):
    raw = detail.coverage_detail(SET, predictions)
    better = dataclasses.replace(predictions, radial_cdf=predictions.radial_cdf / 2)
    both = {"raw": raw, "calibrated": detail.coverage_detail(SET, better)}
    lines = detail.text(detail.error_detail(SET, predictions), both).splitlines()
    (line,) = (each for each in lines if each.startswith("group both"))
    shares = "66.7 / 75.0 / 83.3 / 91.7 / 100.0  ->  100.0 / 100.0 / 100.0 / 100.0 / 100.0"
    assert line.endswith(f"  {shares}")
    assert any(line.split() == ["a", "6", "3.50", "3.50", "4.00", "3.00"] for line in lines)
