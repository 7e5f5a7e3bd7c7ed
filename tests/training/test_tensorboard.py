"""TensorBoard is told what is so, and shows each step once."""

import dataclasses
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from tfhuber.data import dataset
from tfhuber.evaluation import examples, summary
from tfhuber.evaluation.predictions import collect
from tfhuber.model import network as model
from tfhuber.model.predictor import Predictor
from tfhuber.model.whitening import Whitening
from tfhuber.training import tensorboard

STEP = {"loss": 3.5, "gradient_norm": 2.0, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def split(tiny_config):
    return dataset.open_split(tiny_config.data.directory, "test")


@pytest.fixture(scope="module")
def predictor(tiny_config, split):
    """Untrained, with a whitening that is another for every landmark."""
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(98, 2, 2))
    factor = 0.1 * np.eye(2) + 0.05 * spread @ spread.swapaxes(1, 2)
    network = model.build(tiny_config.model, 98)
    whitening = Whitening(rng.uniform(8, 24, (98, 2)), factor)
    return Predictor(network, whitening, tiny_config.model, split.landmark_set, 8)


@pytest.fixture(scope="module")
def predictions(predictor, split):
    return collect(predictor, split)


@pytest.fixture(scope="module")
def factors():
    """[16, 98, 2, 2] symmetric positive definite."""
    spread = np.random.default_rng(1).normal(size=(16, 98, 2, 2))
    return (0.3 * np.eye(2) + spread @ spread.swapaxes(-1, -2)).astype("f4")


def _events(directory):
    """Everything that was written, by step and tag, without waiting for a writer to close."""
    found = {}
    for file in sorted(directory.glob("*.v2")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found[event.step, value.tag] = tf.make_ndarray(value.tensor)
    return found


def test_deviations_are_those_of_the_distributions_in_the_network_crop(predictor, factors):
    outputs = {
        "precision_factor": tf.constant(factors),
        "log_det": tf.linalg.logdet(factors),
        "nu": tf.zeros(factors.shape[:-1]),
    }
    covariance = predictor.whitening.to_network(outputs).covariance(predictor.energy)
    expected = np.sqrt(np.trace(covariance, axis1=-2, axis2=-1) / 2)
    found = tensorboard.network_deviations(predictor, factors)
    assert found.shape == (16, 98)
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_a_step_is_in_the_file_when_the_call_returns(predictor, split, factors, tmp_path):
    summaries = tensorboard.Summaries(tmp_path, 1, predictor, split)
    for step in (20, 500):
        summaries.training(step, STEP, factors)
    events = _events(tmp_path)
    deviations = tensorboard.network_deviations(predictor, factors)
    expected = {
        **STEP,
        **{f"deviation_{p}": np.percentile(deviations, p) for p in (10, 50, 90)},
    }
    for step in (20, 500):
        for name, value in expected.items():
            assert events[step, f"training/{name}"] == pytest.approx(value, rel=1e-6)
    assert (20, "training/deviation") not in events
    assert events[500, "training/deviation"][:, 2].sum() == deviations.size


def test_the_speed_counts_steps_and_not_evaluations(
    predictor, split, factors, predictions, tmp_path, monkeypatch
):
    times = iter([100.0, 104.0, 300.0, 302.0])  # a first report, one, the end of an evaluation, one
    # This module's clock only: other threads of the process have a right to the real one.
    monkeypatch.setattr(tensorboard, "time", SimpleNamespace(monotonic=lambda: next(times)))
    summaries = tensorboard.Summaries(tmp_path, 1, predictor, split)
    metrics = summary.summarise(predictor, predictions)
    for step in (20, 40):
        summaries.training(step, STEP, factors)
    summaries.evaluation(40, metrics, predictions)
    summaries.training(60, STEP, factors)
    speeds = {s: float(v) for (s, tag), v in _events(tmp_path).items() if tag.endswith("_second")}
    assert speeds == {40: 20 * 8 / 4, 60: 20 * 8 / 2}


def test_an_evaluation_shows_every_measured_number(predictor, split, predictions, tmp_path):
    metrics = summary.summarise(predictor, predictions)
    tensorboard.Summaries(tmp_path, 1, predictor, split).evaluation(7, metrics, predictions)
    shown = {tag: value for (step, tag), value in _events(tmp_path).items() if step == 7}
    expected = {
        "evaluation/nme": metrics["nme"],
        "evaluation/subsets/blur/nme": metrics["subsets"]["blur"]["nme"],
        "evaluation/sharpness/percent/mean_deviation": metrics["sharpness"]["percent"][
            "mean_deviation"
        ],
        "evaluation/calibration/slope": metrics["calibration"]["slope"],
        "evaluation/coverage_90": metrics["coverage_90"],
    }
    for tag, value in expected.items():
        assert shown[tag] == pytest.approx(value, rel=1e-6), tag
    assert not [tag for tag in shown if "examples" in tag.split("/")[1:] or "bins" in tag]
    for tag in ("evaluation/deviation_pixels", "evaluation/deviation_percent"):
        assert shown[tag][:, 2].sum() == predictions.weights.size
    edges = shown["evaluation/deviation_pixels"]
    sharpness = metrics["sharpness"]["pixels"]
    assert edges[0, 0] < sharpness["median_deviation"] < edges[-1, 1]
    for tag in ("calibration", "landmarks"):
        picture = tf.io.decode_png(shown[tag][2]).numpy()
        assert min(picture.shape[:2]) > 250 and picture.std() > 5
    assert len(shown["examples"]) == 2 + tensorboard.PICTURES


def test_pictures_are_of_the_same_examples_every_time(
    predictor, split, predictions, tmp_path, monkeypatch
):
    drawn = []

    def draw(predictor, crop):
        drawn.append(crop)
        return examples.Image.fromarray(crop.image)

    monkeypatch.setattr(examples, "draw", draw)
    summaries = tensorboard.Summaries(tmp_path, 1, predictor, split)
    metrics = summary.summarise(predictor, predictions)
    summaries.evaluation(1, metrics, predictions)
    shifted = predictions.predicted.affine(np.eye(2, dtype=np.float32), 5.0)
    moved = dataclasses.replace(predictions, predicted=shifted)
    summaries.evaluation(2, metrics, moved)
    first, second = drawn[: tensorboard.PICTURES], drawn[tensorboard.PICTURES :]
    ids = predictions.id.tolist()
    places = np.linspace(0, len(ids) - 1, tensorboard.PICTURES).round().astype(int)
    chosen = [ids.index(sorted(ids)[place]) for place in places]
    expected = examples.crops(predictor, split, predictions, chosen, tensorboard.PICTURE_SIZE)
    assert len(drawn) == 2 * tensorboard.PICTURES
    for index, a, b in zip(chosen, first, second, strict=True):
        np.testing.assert_array_equal(a.image, expected[index].image)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_allclose(a.landmarks, expected[index].landmarks, atol=1e-3)
        assert (b.landmarks > a.landmarks).all()


def test_after_a_kill_tensorboard_shows_each_step_once(predictor, split, factors, tmp_path):
    """Checkpoints at 60 and 100; killed at 140 while it wrote, and, started again, at 120."""

    def shown():
        accumulator = EventAccumulator(str(tmp_path), {"tensors": 0})
        accumulator.Reload()
        points = accumulator.Tensors("training/loss")
        return {p.step: float(tf.make_ndarray(p.tensor_proto)) for p in points}, len(points)

    def start(first, steps, loss):
        summaries = tensorboard.Summaries(tmp_path, first, predictor, split)
        for step in steps:
            summaries.training(step, {"loss": loss}, factors)
        del summaries

    start(1, range(20, 160, 20), 1.0)
    (file,) = tmp_path.glob("*.v2")
    file.write_bytes(file.read_bytes()[:-9])
    time.sleep(1.1)  # files are sorted by the second in their names
    start(101, [120], 2.0)
    assert shown() == ({20: 1, 40: 1, 60: 1, 80: 1, 100: 1, 120: 2}, 6)
    time.sleep(1.1)
    start(61, [80, 100, 120, 140], 3.0)  # the checkpoint of 100 was damaged
    assert shown() == ({20: 1, 40: 1, 60: 1, 80: 3, 100: 3, 120: 3, 140: 3}, 7)
