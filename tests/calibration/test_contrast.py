"""A model that makes too little of differences in difficulty is found out, and one that doesn't is left."""

import numpy as np
import pytest
import tensorflow as tf

from tfhuber.calibration.contrast import fit_contrast
from tfhuber.calibration.law import Law
from tfhuber.calibration.model import Contrast
from tfhuber.distributions.location_scatter import LocationScatter

LAW = Law("huber", 1.0)


def simulated(contrast, n=200, k=6, seed=0):
    """Whitened errors [n, k, 2] and log|A| [n, k] of a model whose differences count too little."""
    rng = np.random.default_rng(seed)
    typical = rng.normal(-2, 1, k)
    surer = rng.normal(0, 0.3, (n, 1)) + rng.normal(0, 0.2, (n, k))
    radius, angle = LAW.quantile(rng.random((n, k))), rng.uniform(0, 2 * np.pi, (n, k))
    errors = np.stack([np.cos(angle), np.sin(angle)], -1) * radius[..., None]
    # Errors follow exp(contrast * surer) A instead of A.
    return errors * np.exp(-contrast * surer)[..., None], typical + surer, np.arange(n)


@pytest.mark.parametrize("contrast", [0.5, -0.3])
def test_a_contrast_is_found(contrast):
    """Of 1,200 labels; the standard error is 0.05 at most."""
    errors, log_det, photograph = simulated(contrast)
    found = fit_contrast(errors, log_det, photograph, LAW)
    assert found.exponent == pytest.approx(contrast, abs=0.15)
    np.testing.assert_allclose(found.typical, log_det.mean(0))
    surer = log_det - found.typical
    assert (found.least, found.largest) == (surer.min(), surer.max())


def test_labels_left_out_decide():
    """Where there is nothing to find, a tenth of a contrast may be found by chance; mostly none is."""
    kept = [fit_contrast(*simulated(0.0, 40, seed=seed), LAW).exponent for seed in range(12)]
    assert kept.count(0) >= 6 and np.abs(kept).max() < 0.3


def test_labels_missing_are_not_missed():
    errors, log_det, photograph = simulated(0.5, 400)
    errors[np.random.default_rng(1).random(errors.shape[:2]) < 0.4] = np.nan
    errors[:, 5] = np.nan  # never labelled
    found = fit_contrast(errors, log_det, photograph, LAW)
    assert found.exponent == pytest.approx(0.5, abs=0.15)
    assert found.typical[5] == pytest.approx(log_det[:, 5].mean())
    # With nothing to go by but chance, equal sizes give no contrast, and no fault.
    same = fit_contrast(errors, np.zeros_like(log_det), photograph, LAW)
    assert same.exponent == 0 and same.least == same.largest == 0


def test_it_is_applied_up_to_what_was_seen():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 2, 2, 2))
    factor = root @ np.swapaxes(root, -1, -2) + 0.2 * np.eye(2)
    predicted = LocationScatter.from_factor(tf.zeros([4, 2, 2], tf.float64), tf.constant(factor))
    made = Contrast(exponent=0.4, typical=[-1.0, 0.5], least=-0.8, largest=0.6)
    applied = made.apply(predicted)
    surer = np.clip(np.linalg.slogdet(factor)[1] - [-1.0, 0.5], -0.8, 0.6)
    assert (surer == -0.8).any() or (surer == 0.6).any()
    expected = factor * np.exp(0.4 * surer)[..., None, None]
    np.testing.assert_allclose(applied.precision_factor, expected, rtol=1e-12)
    np.testing.assert_allclose(applied.log_det, np.linalg.slogdet(expected)[1], atol=1e-12)
