"""Measurements for a Kalman filter and the drift of the uncertainty."""

import re
from pathlib import Path

import numpy as np
import pytest

from serving.client.measurements import Drift, drift, measurements

GUIDE = Path(__file__).resolve().parents[3] / "docs/serving.md"


def found_in(landmarks, covariance, valid=None):
    valid = np.ones(len(landmarks), bool) if valid is None else np.array(valid)
    return {"landmarks": landmarks, "covariance": covariance, "valid": valid}


def test_a_measurement_is_the_landmarks_in_a_row():
    rng = np.random.default_rng(0)
    landmarks = rng.normal(size=(3, 5, 2)).astype(np.float32)
    root = rng.normal(size=(3, 5, 2, 2))
    covariance = (root @ root.swapaxes(-1, -2)).astype(np.float32)
    pairs = list(measurements(found_in(landmarks, covariance, [True, False, True])))
    assert pairs[1] is None
    for i in (0, 2):
        z, r = pairs[i]
        assert z.dtype == r.dtype == np.float64 and r.shape == (10, 10)
        for k in range(5):
            np.testing.assert_array_equal(z[2 * k : 2 * k + 2], landmarks[i, k])
            np.testing.assert_array_equal(r[2 * k : 2 * k + 2, 2 * k : 2 * k + 2], covariance[i, k])
        assert np.count_nonzero(r) == 5 * 4 and (np.linalg.eigvalsh(r) > 0).all()


def test_the_readmes_kalman_filter_is_better_than_its_measurements():
    """The example as it stands, on 400 frames of a landmark that moves steadily.

    With a measurement's standard deviations of 1 to 5 pixels, the filter's root mean square error is well
    below that of the measurements, and the covariance that it states is that of its errors: the mean
    of the normalised squared error in 2 dimensions is 2, here within 20 % (400 correlated frames).
    """
    (code,) = re.findall(
        r"    import numpy as np\n\n    def track.*?yield x, P\n", GUIDE.read_text(), flags=re.S
    )
    namespace: dict = {}
    exec("\n".join(line[4:] for line in code.splitlines()), namespace)
    rng = np.random.default_rng(1)
    count, step = 400, 1 / 25
    velocity = np.cumsum(rng.normal(0, 20 * np.sqrt(step), (count, 2)), axis=0)
    truth = 100 + np.cumsum(velocity * step, axis=0)
    deviation = rng.uniform(1, 5, count)
    covariance = deviation[:, None, None] ** 2 * np.array([[1.0, 0.5], [0.5, 1.0]])
    measured = np.array(
        [rng.multivariate_normal(*pair) for pair in zip(truth, covariance, strict=True)]
    )
    pairs = [
        None if i % 7 == 3 else pair
        for i, pair in enumerate(measurements(found_in(measured[:, None], covariance[:, None])))
    ]
    states = namespace["track"](pairs, seconds=step, acceleration=20.0)
    mean, spread = (np.array(part) for part in zip(*states, strict=True))
    error = mean[:, :2] - truth
    used = [i for i in range(20, count) if pairs[i] is not None]
    rms = np.sqrt(np.mean(error[used] ** 2))
    assert rms < 0.65 * np.sqrt(np.mean((measured - truth)[used] ** 2))
    squared = np.einsum("ni,nij,nj->n", error, np.linalg.inv(spread[:, :2, :2]), error)
    assert 1.6 < squared[20:].mean() < 2.4


def test_a_quarter_is_beyond_where_a_quarter_should_be():
    """10,000 landmarks whose relative deviations are uniform in 0..1, in boxes of different sizes."""
    rng = np.random.default_rng(0)
    relative = rng.uniform(size=(100, 100))
    sides = rng.uniform(10, 500, (100, 2))
    boxes = np.concatenate([np.zeros((100, 2)), sides], axis=1) + 7
    boxes[:3] = 0  # the whole image
    area = sides.prod(1)
    spread = np.array([[1.5, 0.2], [0.2, 0.5]])  # of trace 2
    covariance = (relative**2 * area[:, None])[..., None, None] * spread
    levels = [0.05, 0.75, 0.99]
    metadata = {"uncertainty": {"levels": levels, "values": levels}}
    found = found_in(np.zeros((100, 100, 2)), covariance)
    shares = drift(found, boxes, sides, metadata)
    assert shares.keys() == set(levels)
    for level in levels:
        assert shares[level] == pytest.approx((relative > level).mean(), abs=1e-12)
    assert shares[0.75] == pytest.approx(0.25, abs=0.02)

    found["valid"][0] = False
    without = drift(found, boxes, sides, metadata)
    assert without[0.75] == pytest.approx((relative[1:] > 0.75).mean())
    assert drift(found, None, 2 * sides, metadata)[0.75] == 0  # all are less than 1 / 2


@pytest.mark.parametrize("metadata", [{}, {"uncertainty": None}, {"uncertainty": {"levels": []}}])
def test_a_model_without_reference_has_no_drift(metadata):
    assert (
        drift(found_in(np.zeros((1, 1, 2)), np.zeros((1, 1, 2, 2))), None, [[1, 1]], metadata)
        is None
    )
    assert Drift.of(metadata) is None


def test_drift_in_words():
    watch = Drift([0.5, 0.95], [0.1, 0.2])
    # Of 200 landmarks, 6 with a relative deviation of 0.3.
    deviation = np.where(np.arange(200) < 6, 30, 5)
    watch.add(deviation[:, None, None] ** 2 * np.eye(2), 100.0 * 100)
    line = "3 % of landmarks are beyond the model's 95 % reference; 5 % expected"
    assert watch.describe() == line
    assert watch.describe(0.5).endswith("50 % reference; 50 % expected")
    watch.add(np.tile(1e6 * np.eye(2), (100_000, 1, 1)), 100.0)
    assert watch.describe().startswith("100 % of landmarks")
