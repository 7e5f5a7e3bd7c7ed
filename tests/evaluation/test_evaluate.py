"""The numbers in metrics.json follow from the distributions, in every frame the same."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipelines import make_tfrecords
from pipelines.sample_data import write_sample_data
from tfhuber.config import schema
from tfhuber.data import dataset
from tfhuber.distributions.elliptical import Elliptical
from tfhuber.evaluation import predictions as predictions_module
from tfhuber.evaluation import summary
from tfhuber.linalg.spd import spd_matrix
from tfhuber.runs.load import load_run
from tfhuber.training.trainer import train


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return load_run(tiny_run)


@pytest.fixture(scope="module")
def split(tiny_config):
    return dataset.open_split(tiny_config.data.directory, "test")


@pytest.fixture(scope="module")
def predictions(predictor, split):
    return predictions_module.collect(predictor, split)


def test_the_likelihoods_are_those_of_the_distributions(predictor, split, predictions):
    """`nll` from the distributions in original pixels; `loss` differs by the constants alone."""
    factor = np.linalg.inv(predictions.covariance / predictor.energy.kappa(2))
    values, vectors = np.linalg.eigh(factor)
    factor = np.einsum("nkij,nkj,nklj->nkil", vectors, np.sqrt(values), vectors)
    there = Elliptical(predictions.landmarks, tf.constant(factor, tf.float32), predictor.energy)
    nll = -tf.reduce_sum(there.log_prob(predictions.truth) * predictions.weights, 1)
    np.testing.assert_allclose(predictions.nll, nll, rtol=2e-3)
    radial = there.radial_cdf(predictions.truth)
    np.testing.assert_allclose(predictions.radial_cdf, radial, atol=2e-3)

    batch = next(iter(dataset.evaluation_batches(split, 32, 8)))
    scale = batch["to_network"][:, 0, 0].numpy()
    constants = 98 * (predictor.energy.log_normalizer(2) - 2 * np.log(scale))
    constants = constants - predictor.whitening.log_det.sum()
    np.testing.assert_allclose(
        (predictions.nll - predictions.loss)[: len(scale)], constants, rtol=1e-4
    )


def test_likelihoods_keep_the_determinants_that_the_network_knows(predictor, split):
    """Where A's axes are a million to 1, its rounded elements no longer tell log |A| to 0.01."""
    angle = np.linspace(0.1, 1.4, 98)
    axes = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], -1)
    axes = axes.reshape(98, 2, 2)
    raw = axes @ np.diag([10.0, 1 + np.log(1e-5)]) @ axes.swapaxes(-1, -2)
    vector = np.stack([raw[:, 0, 0], np.sqrt(2) * raw[:, 0, 1], raw[:, 1, 1]], -1)

    def network(images, training):
        rows = tf.constant(np.tile(vector, (len(images), 1, 1)), tf.float32)
        matrix, log_det = spd_matrix(rows)
        nu = tf.zeros(tf.shape(rows[..., :2]))
        return {"nu": nu, "precision_factor": matrix, "log_det": log_det}

    thin = dataclasses.replace(predictor, model=network)
    matrix, log_det = (tensor.numpy() for tensor in spd_matrix(vector))
    for batch in dataset.evaluation_batches(split, 32, 8):
        part = predictions_module._original_frame(thin, batch, thin.predict(batch["image"]))
        y = predictor.whitening.normalise(tf.cast(batch["landmarks"], tf.float64)).numpy()
        squared = np.sum(np.einsum("kij,nkj->nki", matrix, y) ** 2, axis=-1)
        energy = predictor.energy.energy(squared).numpy()
        expected = np.sum(batch["weights"].numpy() * (energy - log_det), axis=1)
        np.testing.assert_allclose(part["loss"], expected, rtol=1e-6)
        scale = batch["to_network"][:, :1, 0].numpy()
        in_original = log_det + predictor.whitening.log_det + 2 * np.log(scale)
        np.testing.assert_allclose(part["predicted"].log_det, in_original, atol=2e-5)


def test_metrics_have_the_names_that_others_rely_on(predictor, split, predictions):
    metrics = summary.summarise(predictor, predictions)
    assert {"nme", "failure_rate_10", "auc_10", "subsets", "loss", "nll_relative", "nll"} <= set(
        metrics
    )
    assert {"coverage_50", "coverage_90", "coverage_95"} <= set(metrics)
    assert 0 < metrics["coverage_50"] <= metrics["coverage_90"] <= metrics["coverage_95"] <= 1
    # Table 3's constant: 98 (log c_2(1) - log 2 pi), RECIPE's arithmetic.
    np.testing.assert_allclose(
        metrics["nll_relative"] - metrics["loss"], 98 * np.log(10.0941 / (2 * np.pi)), rtol=1e-4
    )
    errors = np.linalg.norm(predictions.landmarks - predictions.truth, axis=-1)
    by_hand = 100 * (errors.mean(1) / predictions.normalizer).mean()
    np.testing.assert_allclose(metrics["nme"], by_hand, rtol=1e-6)


def test_calibration_and_sharpness_are_those_of_the_distributions(predictor, predictions):
    """Against 2,000 samples of each predicted distribution: 0.4 % of a mean of 1,000 landmarks."""
    covariance = tf.constant(predictions.covariance[:10], tf.float64)
    factor = tf.linalg.sqrtm(tf.linalg.inv(covariance / predictor.energy.kappa(2)))
    drawn = Elliptical(tf.zeros(2, tf.float64), factor, predictor.energy).sample(2000, seed=1)
    distance = np.linalg.norm(drawn, axis=-1).mean(axis=0)
    percent = 100 / predictions.normalizer[:, None]
    expected, actual = summary.calibration_errors(predictor, predictions)
    np.testing.assert_allclose(
        expected.reshape(-1, 98)[:10].mean(), (distance * percent[:10]).mean(), rtol=0.004
    )

    metrics = summary.summarise(predictor, predictions)
    calibration, sharpness = metrics["calibration"], metrics["sharpness"]
    # All landmarks of drawn faces are labelled: the mean error is the NME.
    assert calibration["empirical_error"] == pytest.approx(metrics["nme"], rel=1e-6)
    assert calibration["expected_error"] == pytest.approx(expected.mean())
    assert calibration["unit"] == "% of the distance from left_eye_0 to right_eye_4"
    bins = calibration["bins"]
    assert sum(bins["count"]) == actual.size == predictions.weights.size
    np.testing.assert_allclose(
        np.average(bins["empirical"], weights=bins["count"]), metrics["nme"], rtol=1e-6
    )
    assert len(bins["count"]) == 1  # fewer than two bins of 734
    ratio = bins["expected"][0] / bins["empirical"][0]
    assert calibration["slope"] == pytest.approx(ratio)
    assert -1 <= calibration["rank_correlation"] <= 1

    deviation = np.sqrt(np.trace(predictions.covariance, axis1=2, axis2=3) / 2)
    assert sharpness["pixels"]["mean_deviation"] == pytest.approx(deviation.mean(), rel=1e-5)
    relative = np.median(deviation * percent)
    assert sharpness["percent"]["median_deviation"] == pytest.approx(relative, rel=1e-5)
    # |covariance| is kappa^2 / |A|^2, and the 90 % ellipse's area pi R^2 / |A|.
    area = np.pi * predictor.energy.quantile(np.float64(0.9), 2) / np.linalg.det(factor)
    area = area * predictor.energy.quantile(np.float64(0.9), 2)
    few = tf.nest.map_structure(lambda values: values[:10], vars(predictions))
    few = predictions_module.Predictions(**few)
    found = summary.summarise(predictor, few)["sharpness"]["pixels"]["mean_area_90"]
    assert found == pytest.approx(area.numpy().mean(), rel=1e-4)


def test_errors_of_each_landmark_and_deviations_are_those_of_the_whole(predictor, predictions):
    weights = predictions.weights.copy()
    weights[:, 3], weights[1, 5] = 0, 0
    part = dataclasses.replace(predictions, weights=weights)
    pooled = summary.calibration_errors(predictor, part)
    for errors, every in zip(summary.landmark_errors(predictor, part), pooled, strict=True):
        assert errors.shape == (98,) and np.flatnonzero(np.isnan(errors)).tolist() == [3]
        mean = np.nansum(errors * weights.sum(0)) / weights.sum()
        assert mean == pytest.approx(every.mean())
    found, metrics = summary.deviations(part), summary.summarise(predictor, part)
    for unit, values in found.items():
        assert len(values) == weights.sum()
        expected = metrics["sharpness"][unit]["mean_deviation"]
        assert values.mean() == pytest.approx(expected, rel=1e-5)


def test_predictions_that_are_there_are_not_made_again(predictor, split, predictions, monkeypatch):
    monkeypatch.delattr(summary, "collect")
    found = summary.evaluate(predictor, split, "none", predictions)
    assert found == {"split": "test", "tta": "none", **summary.summarise(predictor, predictions)}


def test_what_has_no_normaliser_or_label_is_left_out_of_calibration(predictor, predictions):
    normalizer, weights = predictions.normalizer.copy(), predictions.weights.copy()
    normalizer[0], weights[1, :50] = 0, 0
    part = dataclasses.replace(predictions, normalizer=normalizer, weights=weights)
    whole = [e.reshape(-1, 98) for e in summary.calibration_errors(predictor, predictions)]
    found = summary.calibration_errors(predictor, part)
    for errors, all_errors in zip(found, whole, strict=True):
        np.testing.assert_array_equal(
            errors, np.concatenate([all_errors[1, 50:], all_errors[2:].ravel()])
        )
    sharpness = summary.summarise(predictor, part)["sharpness"]
    assert np.isfinite(list(sharpness["percent"].values())).all()


def test_a_split_without_labels_is_refused(predictor, split, predictions, monkeypatch):
    """Such as the official test people of MPII, which `--split deploy` keeps."""
    bare = dataclasses.replace(predictions, weights=np.zeros_like(predictions.weights))
    monkeypatch.setattr(summary, "collect", lambda *_: bare)
    with pytest.raises(ValueError, match=r"split .test. of .* has no labels"):
        summary.evaluate(predictor, split)


def test_a_split_with_other_landmarks_is_refused(predictor, split):
    other = dataclasses.replace(split.landmark_set, square="longest")
    with pytest.raises(ValueError, match="which are others of that name"):
        predictions_module.collect(predictor, dataclasses.replace(split, landmark_set=other))


def test_the_mirrored_view_comes_back_into_the_frame(predictor, split):
    """For an image and its mirror image, test-time augmentation gives mirrored answers."""
    images = next(iter(dataset.evaluation_batches(split, 32, 8)))["image"]
    order = np.array(predictor.landmark_set.mirror)
    for tta in ("mean", "ml"):
        plain = predictor.predict(images, tta)
        mirrored = predictor.predict(images[:, :, ::-1], tta).reordered(order)
        np.testing.assert_allclose(mirrored.loc * [-1, 1] + [31, 0], plain.loc, atol=2e-3)
        flipped = mirrored.precision_factor * np.array([[1, -1], [-1, 1]])
        np.testing.assert_allclose(flipped, plain.precision_factor, rtol=2e-3, atol=1e-4)
        np.testing.assert_allclose(mirrored.log_det, plain.log_det, atol=2e-3)


def test_mean_fusion_is_the_mean_of_the_two_views(predictor, split):
    images = next(iter(dataset.evaluation_batches(split, 32, 8)))["image"]
    plain, mirrored = predictor._plain_view(images), predictor._mirrored_view(images)
    fused = predictor.predict(images, "mean")
    np.testing.assert_allclose(fused.loc, (plain.loc + mirrored.loc) / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="tta must be one of none, mean, ml"):
        predictor.predict(images, "median")


@pytest.mark.parametrize("tta", ["none", "ml"])
def test_the_command_writes_metrics_and_a_sheet(tiny_run, tta):
    command = [sys.executable, "-m", "tfhuber.evaluate", "--run", str(tiny_run), "--tta", tta]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    trained = json.loads((tiny_run / "metrics.json").read_text())
    assert trained["tta"] == "none" and "checkpoint" not in trained  # not written over
    path = tiny_run / f"evaluations/test-{tta}-latest.json"
    metrics = json.loads(path.read_text())
    run = json.loads((tiny_run / "run.json").read_text())
    assert metrics["tta"] == tta and metrics["checkpoint"] == "latest"
    assert metrics["step"] == run["finished"]["step"] == run["training"]["steps"]
    assert metrics["data"] == {
        "directory": run["config"]["data"]["directory"],
        "sha256": run["provenance"]["data"]["sha256"],
    }
    assert (metrics["nme"] == trained["nme"]) == (tta == "none")
    assert f"NME {metrics['nme']:.2f} %" in result.stdout.splitlines()[-1]
    for picture in ("examples", "calibration"):
        assert path.with_name(f"{path.stem}-{picture}.png").stat().st_size > 20_000
    assert f"slope {metrics['calibration']['slope']:.2f}" in result.stdout


def test_bodies_are_measured_by_pckh(tmp_path):
    """The whole way for MPII, whose examples have no attributes and some joints no labels."""
    source, data, run = (str(tmp_path / name) for name in ("source", "data", "run"))
    write_sample_data("mpii", Path(source), train=60, test=2, seed=0, processes=1)
    convert = ["--dataset=mpii", f"--source={source}", f"--output={data}", "--size=64"]
    make_tfrecords.main([*convert, "--validation-fraction=0.4"])
    options = schema.parse(
        {
            "data": {"directory": data, "evaluation_split": "valid"},
            "model": {"backbone": "resnet18", "image_size": 32},
            "train": {"epochs": 1, "batch_size": 16},
        }
    )
    trained = train(options, run, quiet=True)
    command = [sys.executable, "-m", "tfhuber.evaluate", "--run", run]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    path = tmp_path / "run/evaluations/valid-none-latest.json"
    metrics = json.loads(path.read_text())
    assert metrics["pckh_0.5"] == pytest.approx(trained["pckh_0.5"])
    assert 0 <= metrics["pckh_0.1"] <= metrics["pckh_0.5"] < 100
    assert set(metrics["joints"]) == {"head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"}
    assert {"loss", "nll_relative", "nll", "coverage_50", "coverage_90", "coverage_95"} <= set(
        metrics
    )
    assert path.with_name("valid-none-latest-examples.png").is_file()
