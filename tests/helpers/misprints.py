"""What the tests of the paper's misprints share."""

import numpy as np


def judge(truth, printed, right, tolerance=1e-6):
    """`right` agrees with `truth`, and `printed` is off by more than 1 % of it."""
    truth = np.asarray(truth)
    scale = np.abs(truth).max()
    np.testing.assert_allclose(right, truth, rtol=0, atol=tolerance * max(scale, 1e-3))
    assert np.abs(np.asarray(printed) - truth).max() > 0.01 * scale


def gradient(function, z, step=1e-6):
    e = np.eye(z.size) * step
    return np.array([(function(z + v) - function(z - v)) / (2 * step) for v in e])
