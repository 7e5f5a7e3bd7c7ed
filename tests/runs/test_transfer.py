"""A run that starts from another predicts what they share as that one did."""

import dataclasses

import numpy as np
import pytest

from tfhuber.landmarks.known_sets import LP300W, MPII, WFLW, LandmarkSet
from tfhuber.model import network
from tfhuber.model.predictor import Predictor
from tfhuber.model.whitening import Whitening
from tfhuber.runs.load import load_run
from tfhuber.runs.transfer import carry_over, kept_rows, kept_whitening, shared_landmarks

# Three of WFLW's landmarks, not in its order, and a point that it hasn't.
OTHER = LandmarkSet(
    name="other",
    names=(
        "right_pupil_0",
        "chin",
        "nose_bridge_0",
        "nose_bridge_1",
        "nose_bridge_2",
        "nose_bridge_3",
    ),
    mirror=(0, 1, 2, 3, 4, 5),
    edges=(),
    metric="nme",
    square="diagonal",
)
PAIRS = [(97, 0), (51, 2), (52, 3), (53, 4), (54, 5)]


def test_landmarks_are_shared_by_name_and_numbered_ones_in_equal_number_only():
    assert shared_landmarks(WFLW, OTHER) == PAIRS
    assert shared_landmarks(WFLW, WFLW) == [(k, k) for k in range(98)]
    assert shared_landmarks(WFLW, MPII) == []
    names = {WFLW.names[k].rpartition("_")[0] for _, k in shared_landmarks(LP300W, WFLW)}
    # 33 points of a jaw are not the 17 of another.
    assert names == {"nose_bridge", "nose_base", "outer_lips", "inner_lips"}
    assert len(shared_landmarks(LP300W, WFLW)) == 4 + 5 + 12 + 8


def test_what_both_have_is_first_predicted_as_it_was(tiny_run):
    source = load_run(tiny_run)
    rng = np.random.default_rng(0)
    fitted = Whitening(rng.normal(size=(6, 2)), np.tile(np.eye(2), (6, 1, 1)))
    model = network.build(source.options, 6)
    pairs = kept_rows(source, source.options, OTHER)
    carry_over(source.model, model, pairs)
    whitening = kept_whitening(fitted, source.whitening, pairs)
    target = Predictor(model, whitening, source.options, OTHER, 8)

    images = rng.uniform(0, 255, (3, 32, 32, 3)).astype("f4")
    old, new = source.predict(images), target.predict(images)
    rows, places = map(list, zip(*PAIRS, strict=True))
    for values in ("loc", "precision_factor"):
        before, after = (np.asarray(getattr(each, values)) for each in (old, new))
        np.testing.assert_allclose(after[:, places], before[:, rows], rtol=1e-5, atol=1e-5)
    # The point that is new starts at its mean with A = I, in the whitening fitted to it.
    np.testing.assert_allclose(
        np.asarray(new.loc)[:, 1], np.tile(fitted.mean[1], (3, 1)), rtol=1e-6
    )


@pytest.mark.parametrize(
    "other", [{"covariance": "diagonal"}, {"parameterization": "mu"}, {"theta": 2.0}]
)
def test_a_head_that_predicts_otherwise_is_not_kept(tiny_run, other):
    source = load_run(tiny_run)
    options = source.options.model_copy(update=other)
    assert kept_rows(source, options, OTHER) == []
    assert kept_rows(dataclasses.replace(source, options=options), options, OTHER) == PAIRS
