"""What a calibration does to predictions, and what its file may hold."""

import json

import numpy as np
import pytest
import tensorflow as tf
from calibrations import document, signature

from tfhuber.calibration.choice import Correction
from tfhuber.calibration.model import FILE, Calibration, Signature, load_calibration
from tfhuber.distributions.location_scatter import LocationScatter

K = 3


def predictions(n=50, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, K, 2, 2))
    factor = root @ np.swapaxes(root, -1, -2) + 0.2 * np.eye(2)
    loc = rng.normal(size=(n, K, 2)) * 20
    return LocationScatter.from_factor(tf.constant(loc, dtype), tf.constant(factor, dtype)), rng


@pytest.mark.parametrize(
    "log_scale",
    [
        [(-0.4, 0.0, -0.4), (0.0, 0.0, 0.0), (0.7, 0.0, 0.7)],
        [(-0.4, 0.3, 0.1), (0.0, 0.0, 0.0), (0.7, -0.2, -1.0)],
    ],
    ids=["numbers", "matrices"],
)
def test_applied_predictions_have_the_law_that_was_chosen(log_scale):
    predicted, rng = predictions(dtype=np.float64)
    made = Signature.model_validate(signature(log_scale))
    applied = made.apply(predicted)
    labels = predicted.loc.numpy() + rng.normal(size=(50, K, 2))
    errors = np.einsum("nkij,nkj->nki", predicted.precision_factor, labels - predicted.loc)
    found = applied.distribution(made.energy)
    # By the mathematics that the calibration was fitted with, in NumPy and without A.
    np.testing.assert_allclose(found.radius(labels), made.correction.radius(errors), rtol=1e-9)
    log_prob = predicted.log_det - made.correction.nll(errors)
    np.testing.assert_allclose(found.log_prob(labels), log_prob, rtol=1e-9)
    np.testing.assert_allclose(
        found.radial_cdf(labels), made.correction.law.cdf(found.radius(labels))
    )
    determinants = np.linalg.slogdet(applied.precision_factor)[1]
    np.testing.assert_allclose(applied.log_det, determinants, rtol=1e-9, atol=1e-12)
    factor = applied.precision_factor.numpy()
    np.testing.assert_allclose(factor, np.swapaxes(factor, -1, -2), rtol=1e-12)
    assert np.array_equal(applied.loc, predicted.loc)


def test_a_calibration_that_changes_nothing_leaves_every_bit():
    predicted, _ = predictions()
    applied = Signature.model_validate(signature()).apply(predicted)
    for before, after in zip(tf.nest.flatten(predicted), tf.nest.flatten(applied), strict=True):
        assert np.array_equal(before, after)


def test_a_scale_is_that_of_every_frame():
    predicted, _ = predictions(dtype=np.float64)
    made = Signature.model_validate(signature([(-0.4, 0.3, 0.1)] * K))
    scale = np.diag([3.0, 3.0])
    there = made.apply(predicted.affine(scale, np.array([5.0, -1.0])))
    same = made.apply(predicted).affine(scale, np.array([5.0, -1.0]))
    np.testing.assert_allclose(there.precision_factor, same.precision_factor, rtol=1e-9)


def test_the_file_comes_back_as_it_was_written(tmp_path):
    made = Calibration.model_validate(document())
    (tmp_path / FILE).write_text(json.dumps(made.to_json()))
    assert load_calibration(tmp_path) == made
    assert load_calibration(tmp_path / "elsewhere") is None
    assert made.correlations == {"mean": 0.9, "ml": 0.8}
    none = made.signatures["none"]
    assert isinstance(none.correction, Correction) and none.radii[0].landmarks[1] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[]", "is no calibration that this version reads"),
        (json.dumps(document(format=2)), "is no calibration that this version reads"),
        (json.dumps(document(landmarks=["a"])), "is not of 1 landmarks"),
        (
            json.dumps(document(signatures={"none": signature()})),
            "signatures: .*must be none, mean, ml",
        ),
        (json.dumps(document(extra=1)), "extra: "),
        *(
            (json.dumps(document(signatures={**document()["signatures"], "none": bad})), message)
            for bad, message in (
                (signature(delta=0.0), "none.delta: "),
                (signature(delta=1e999), "none.delta: "),
                (signature(family="student"), "none.family: "),
                (signature(log_scale=[(float("nan"), 0, 0)] * K), "log_scale"),
                (signature(log_scale=[(50.0, 0.0, 0.0)] * K), "log_scale"),
                (signature(correlation=0.5), "correlation of 'none' must be null"),
            )
        ),
    ],
    ids=range(12),
)
def test_a_damaged_file_is_refused_in_a_line_that_says_what_to_do(tmp_path, content, message):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_calibration(tmp_path)
    assert "\n" not in str(caught.value) and FILE in str(caught.value)
