"""Whole shapes: intervals of distances hold what they say, on objects drawn from the joint law itself."""

import numpy as np
import pytest

from tfhuber.calibration.law import Law
from tfhuber.calibration.shapes import Shapes

RNG = np.random.default_rng(0)
# Of 6 landmarks: all move along x alike, and those of the first half turn.
FACTOR = np.array([[0.9, 0.0], [0.0, 0.6]] * 3 + [[0.9, 0.0], [0.0, 0.0]] * 3)


def shapes(n, law):
    loc = RNG.uniform(0, 400, (n, 6, 2))
    root = RNG.normal(0, 0.2, (n, 6, 2, 2))
    factor = np.eye(2) * RNG.uniform(0.2, 1, (n, 6, 1, 1)) + root @ np.swapaxes(root, -1, -2)
    kappa = {"gauss": 1.0, "laplace": 3.0}[law.family]
    return Shapes(loc, factor, law, kappa, FACTOR)


def drawn(known, seed):
    """One shape of each object, each from its own draws."""
    many = [known.draw(i, seed + i + 1)[-1] for i in range(len(known.loc))]
    return np.stack(many)


def test_drawn_shapes_have_the_joint_covariance():
    """20,000 draws; standard errors of 1 %."""
    known = shapes(1, Law("gauss"))
    flat = known.draw(0, 20_000).reshape(-1, 12)
    assert np.array_equal(known.draw(0, 3), known.draw(0, 3))
    inverse = np.linalg.inv(known.precision_factor[0])
    whole = (FACTOR @ FACTOR.T).reshape(6, 2, 6, 2)
    whole[np.arange(6), :, np.arange(6), :] = np.eye(2)
    expected = np.einsum("aij,ajbk,bkl->aibl", inverse, whole, inverse).reshape(12, 12)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.abs((np.cov(flat.T) - expected) / scale).max() < 0.04
    np.testing.assert_allclose(flat.mean(0), known.loc[0].ravel(), atol=0.2)


def test_distances_of_dependent_landmarks_are_covered_with_it_alone():
    """1,000 objects of 15 distances each, which share their errors: tolerance of 2 points."""
    known = shapes(1_000, Law("gauss"))
    truth, labelled = drawn(known, 50), np.ones((1_000, 6), bool)
    labelled[::3, 0] = False
    found = known.facts(np.where(labelled[..., None], truth, 0), labelled)
    for level in ("50", "90", "95"):
        assert found["distances"]["joint"][level] == pytest.approx(int(level) / 100, abs=0.02)
    assert found["distances"]["independent"]["90"] > 0.93 and found["length"] < 0.85
    lower = np.linalg.slogdet(np.eye(12) + _outside(FACTOR))[1]
    # The mean gain is half of minus the log-determinant; less where a landmark has no label.
    assert 0.75 * -lower / 2 < found["gain"] < -lower / 2


def _outside(factor):
    found = (factor @ factor.T).reshape(6, 2, 6, 2)
    found[np.arange(6), :, np.arange(6), :] = 0
    return found.reshape(12, 12)


def test_independent_landmarks_gain_nothing():
    known = Shapes(**{**vars(shapes(200, Law("laplace"))), "factor": np.zeros((12, 0))})
    found = known.facts(drawn(known, 1), np.ones((200, 6), bool))
    assert found["gain"] == 0 and found["length"] == 1
    assert found["distances"]["joint"] == found["distances"]["independent"]
    assert found["distances"]["joint"]["90"] == pytest.approx(0.9, abs=0.03)


def test_one_label_an_object_says_nothing_of_shapes():
    known, labelled = shapes(3, Law("gauss")), np.eye(6, dtype=bool)[:3]
    assert known.facts(known.loc, labelled) is None


def test_where_nothing_is_far_apart_no_distance_is_judged():
    known = shapes(3, Law("gauss"))
    vague = Shapes(**{**vars(known), "precision_factor": 1e-6 * known.precision_factor})
    assert vague.facts(known.loc, np.ones((3, 6), bool)) is None
