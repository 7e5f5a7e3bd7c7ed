"""An answer and the metadata give the distribution back, against TensorFlow's and simulation."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import tfhuber
from tfhuber.distributions.elliptical import Elliptical
from tfhuber.distributions.radial import radial_energy

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
FACTOR = np.array([[[[0.5, 0.2], [0.2, 0.9]], [[2.0, -0.4], [-0.4, 0.3]]]])
LOC = np.array([[[10.0, 20.0], [-3.0, 4.0]]])
ANSWER = {"landmarks": LOC, "precision_factor": FACTOR, "valid": np.array([True])}
POINTS = LOC + RNG.normal(0, 3, LOC.shape)
LAWS = [("huber", 0.3), ("huber", 1.65), ("gauss", 1.0), ("laplace", 1.0), ("charbonnier", 1.0)]


def metadata(family="huber", delta=1.65):
    return {
        "landmark_set": {"names": ["a", "b"], "edges": []},
        "family": family,
        "delta": delta,
    }


@pytest.mark.parametrize(("family", "delta"), LAWS)
def test_numbers_are_those_of_the_models_distributions(family, delta):
    energy = radial_energy(family, delta)
    expected = Elliptical(LOC, FACTOR, energy)
    found = tfhuber.load_distribution(ANSWER, metadata(family, delta))
    np.testing.assert_allclose(found.log_prob(POINTS), expected.log_prob(POINTS), rtol=1e-9)
    np.testing.assert_allclose(found.radial_cdf(POINTS), expected.radial_cdf(POINTS), rtol=1e-9)
    levels = np.array([0.0, 0.01, 0.5, 0.9, 0.999])
    np.testing.assert_allclose(
        found.law.quantile(levels), energy.quantile(levels, 2), rtol=1e-7, atol=1e-7
    )
    assert np.isfinite(found.law.quantile(np.nextafter(1, 0)))


@pytest.mark.parametrize(("family", "delta"), LAWS)
def test_samples_have_the_mean_and_covariance(family, delta):
    """200,000 samples: standard errors of 0.2 to 1 %, the tolerance is 4 % of the largest element."""
    found = tfhuber.load_distribution(ANSWER, metadata(family, delta)).sample(200_000, seed=1)
    kappa = float(radial_energy(family, delta).kappa(2))
    for k in range(2):
        expected = kappa * np.linalg.inv(FACTOR[0, k] @ FACTOR[0, k])
        close = 0.04 * np.abs(expected).max()
        np.testing.assert_allclose(np.cov(found[:, 0, k].T), expected, atol=close)
        np.testing.assert_allclose(
            found[:, 0, k].mean(0), LOC[0, k], atol=0.02 * np.sqrt(expected.max())
        )


def test_a_covariance_alone_is_enough():
    kappa = float(radial_energy("huber", 1.65).kappa(2))
    covariance = kappa * np.linalg.inv(FACTOR @ FACTOR)
    found = tfhuber.load_distribution({"landmarks": LOC, "covariance": covariance}, metadata())
    np.testing.assert_allclose(found.precision_factor, FACTOR, rtol=1e-9)


def test_a_calibrated_model_has_a_law_for_each_signature():
    laws = {
        "serving_default": {"family": "huber", "delta": 1.65},
        "tta": {"family": "laplace", "delta": 1.0},
    }
    values = metadata() | {"calibration": {"signatures": laws}}
    assert tfhuber.load_distribution(ANSWER, values, "tta").law.family == "laplace"
    assert tfhuber.load_distribution(ANSWER, values, "serving_default").law.delta == 1.65
    with pytest.raises(ValueError, match="one of serving_default, tta, got None"):
        tfhuber.load_distribution(ANSWER, values)
    same = metadata() | {"calibration": {"signatures": dict.fromkeys(laws, laws["tta"])}}
    assert tfhuber.load_distribution(ANSWER, same | laws["tta"]).law.family == "laplace"
    with pytest.raises(ValueError, match="one of serving_default, tta, got 'fused'"):
        tfhuber.load_distribution(ANSWER, values, "fused")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid": [False]}, "no numbers for image 0, which is not valid"),
        ({"landmarks": LOC[0]}, r"landmarks must be \[N, 2, 2\]"),
        ({"landmarks": LOC * np.nan}, "landmarks must be finite"),
        ({"precision_factor": FACTOR[:, :1]}, r"precision_factor must be \[1, 2, 2, 2\]"),
        ({"precision_factor": -FACTOR}, "precision_factor must be positive definite"),
    ],
)
def test_what_is_no_answer_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tfhuber.load_distribution(ANSWER | change, metadata())


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="answer has no covariance"):
        tfhuber.load_distribution({"landmarks": LOC}, metadata())
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        tfhuber.load_distribution(ANSWER, metadata()).sample(0)


def test_the_guides_numpy_gives_the_same_density():
    text = (ROOT / "docs/calibration.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    scope = {}
    exec(next(block for block in blocks if "def huber_log_density" in block), scope)
    expected = tfhuber.load_distribution(ANSWER, metadata()).log_prob(POINTS)
    found = scope["huber_log_density"](ANSWER, metadata(), POINTS)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def with_joint(factor):
    signatures = {"serving_default": {"family": "huber", "delta": 1.65, "joint": factor}}
    return {**metadata(), "calibration": {"signatures": signatures}}


JOINT = [[0.9, 0.0], [0.0, 0.6], [0.8, 0.0], [0.0, -0.5]]


def test_whole_shapes_keep_each_landmarks_law_and_move_together():
    found = tfhuber.load_distribution(ANSWER, with_joint(JOINT))
    drawn = found.sample_shapes(40_000, seed=1)
    assert drawn.shape == (40_000, 1, 2, 2)
    assert np.array_equal(drawn[:5], found.sample_shapes(40_000, seed=1)[:5])
    for k in range(2):
        inside = found.radial_cdf(drawn)[:, 0, k]
        assert stats.kstest(inside, "uniform").pvalue > 0.001
    joint = tfhuber.joint_covariance(ANSWER, with_joint(JOINT))
    assert joint.shape == (1, 4, 4)
    covariance = found.kappa * np.linalg.inv(FACTOR[0] @ FACTOR[0])
    np.testing.assert_allclose(joint[0, :2, :2], covariance[0])
    np.testing.assert_allclose(joint[0, 2:, 2:], covariance[1])
    # The covariance of what is drawn: between landmarks that of normal scores, nearly.
    empirical = np.cov(drawn.reshape(40_000, 4).T)
    scale = np.sqrt(np.outer(np.diag(joint[0]), np.diag(joint[0])))
    assert np.abs((empirical - joint[0]) / scale).max() < 0.06
    assert np.abs(joint[0, :2, 2:] / scale[:2, 2:]).max() > 0.3


@pytest.mark.parametrize(
    "factor", [[[0.5]] * 3, [[0.5]] * 3 + [[np.nan]], "x", [[0.5], [1, 2]], [[0.8]] * 4]
)
def test_a_joint_distribution_that_is_none_is_refused(factor):
    with pytest.raises(ValueError, match=r"no matrix of 4 rows|shares more than its variance"):
        tfhuber.joint_covariance(ANSWER, with_joint(factor))


def test_without_one_the_error_says_what_to_do():
    with pytest.raises(ValueError, match="calibrate its run again"):
        tfhuber.joint_covariance(ANSWER, metadata())
    with pytest.raises(ValueError, match="count must be at least 1"):
        tfhuber.load_distribution(ANSWER, with_joint(JOINT)).sample_shapes(0)
