"""The quality of training: schedule, decay, clipping, average, best and end, each against its formula."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from training_steps import make_state, make_step

from tfhuber.config import schema
from tfhuber.evaluation import summary
from tfhuber.model import network
from tfhuber.model.whitening import Whitening
from tfhuber.runs.load import load_run
from tfhuber.training import trainer
from tfhuber.training.optimizer import Adam, PiecewiseCosine, PiecewiseLinear
from tfhuber.training.state import State

WHITENER = Whitening(np.full((3, 2), 4.0), np.tile(np.eye(2) / 4, (3, 1, 1)))


def _network() -> keras.Model:
    image = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 4, strides=4, use_bias=False)(image)
    features = keras.layers.BatchNormalization()(features)
    features = keras.layers.DepthwiseConv2D(2, name="channelwise_convolution")(features)
    features = keras.layers.Flatten()(features)
    return keras.Model(image, network.DistributionHead(3, name="head")(features))


def _batch(step: int) -> dict:
    rng = np.random.default_rng(step)
    return {
        "image": rng.uniform(0, 255, (6, 8, 8, 3)).astype("f4"),
        "landmarks": rng.uniform(0, 8, (6, 3, 2)).astype("f4"),
        "weights": np.ones((6, 3), "f4"),
    }


def _training(**options):
    """Return a state without steps, its average included, and the step that trains it."""
    parsed = schema.parse({"data": {"directory": "unused"}, "train": {"batch_size": 6, **options}})
    trained = _network()
    optimizer = Adam(PiecewiseLinear([(0, 1e-2)], 1))
    optimizer.build(trained.trainable_variables)
    state = State(trained, optimizer, _network() if parsed.train.ema else None)
    return state, make_step(state, WHITENER, parsed)


def test_the_cosine_is_level_at_its_points():
    schedule = PiecewiseCosine([(0, 1e-6), (2, 1e-3), (10, 1e-5)], 100)

    def expected(epoch):
        if epoch < 2:
            return 1e-6 + (1e-3 - 1e-6) * (1 - math.cos(math.pi * epoch / 2)) / 2
        return 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * (min(epoch, 10) - 2) / 8)) / 2

    epochs = [0, 0.5, 1, 1.99, 2, 3, 6, 9.5, 10, 12]
    found = [float(schedule(round(100 * epoch))) for epoch in epochs]
    np.testing.assert_allclose(found, [expected(epoch) for epoch in epochs], rtol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_adamw_is_that_of_its_paper(decay):
    """Loshchilov and Hutter, algorithm 2, for ten steps; the second variable is a bias."""
    rates = [(0, 1e-2), (10, 1e-3)]
    optimizer = Adam(PiecewiseLinear(rates, 1), decayed=[0], decay=decay)
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(4, 3)), rng.normal(size=3)]
    variables = [keras.Variable(value.astype("f4")) for value in values]
    optimizer.build(variables)
    m, v = [np.zeros_like(x) for x in values], [np.zeros_like(x) for x in values]
    for t in range(10):
        gradients = [rng.normal(size=x.shape).astype("f4") for x in values]
        optimizer.apply([tf.constant(g) for g in gradients], variables)
        rate = 1e-2 + t / 10 * (1e-3 - 1e-2)
        for i, g in enumerate(gradients):
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g**2
            values[i] = values[i] - rate * (decay if i == 0 else 0.0) * values[i]
            ahead = m[i] / (1 - 0.9 ** (t + 1))
            values[i] -= rate * ahead / (np.sqrt(v[i] / (1 - 0.999 ** (t + 1))) + 1e-7)
    for variable, value in zip(variables, values, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-6)


def test_what_is_held_does_not_decay():
    optimizer = Adam(PiecewiseLinear([(0, 0.1)], 1), [0], 3, decayed=[0], decay=0.5)
    variable = keras.Variable(np.ones(2, "f4"))
    optimizer.build([variable])
    for step in range(4):
        optimizer.apply([tf.zeros(2)], [variable])
        np.testing.assert_allclose(variable.numpy(), 1.0 if step < 3 else 0.95, rtol=1e-6)


def test_adamw_decays_kernels_and_nothing_else(tiny_config):
    options = {"optimizer": "adamw", "weight_decay": 0.1}
    values = tiny_config.model_dump()
    state = make_state(schema.parse({**values, "train": {**values["train"], **options}}), 98, 5)
    variables = state.model.trainable_variables
    state.optimizer.apply([tf.zeros_like(v) for v in variables], variables)
    fresh = [v.numpy() for v in variables]
    state.optimizer.apply([tf.zeros_like(v) for v in variables], variables)
    for variable, before in zip(variables, fresh, strict=True):
        expected = before * (1 - 0.1 * 1e-3) if before.ndim > 1 else before
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, err_msg=variable.path)


def test_the_norm_is_clipped_over_all_weights_and_reported_before():
    """After one step Adam's first moments are a tenth of the gradient that it was given."""
    moments = {}
    for clip in (None, 0.01, 1e6):
        keras.utils.set_random_seed(0)
        state, step = _training(gradient_clip=clip)
        norm = float(step(_batch(0))["gradient_norm"])
        moments[clip] = [10 * m.numpy() for m in state.optimizer._momentums]
        given = math.sqrt(sum(np.sum(m.astype("f8") ** 2) for m in moments[clip]))
        assert given == pytest.approx(norm if clip != 0.01 else 0.01, rel=1e-5) and norm > 0.1
    for plain, clipped, loose in zip(*moments.values(), strict=True):
        np.testing.assert_allclose(clipped, plain * (0.01 / norm), rtol=1e-4, atol=1e-9)
        np.testing.assert_array_equal(loose, plain)


def test_the_average_follows_weights_and_statistics():
    state, step = _training(ema=0.6)
    expected = [np.zeros(w.shape) for w in state.model.weights]
    for t in range(30):
        step(_batch(t))
        decay = min(0.6, t / (t + 10))
        for mean, weight in zip(expected, state.model.weights, strict=True):
            mean += (1 - decay) * (weight.numpy() - mean)
    assert sum("moving" in w.path for w in state.average.weights) == 2
    for average, mean in zip(state.average.weights, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), mean, rtol=1e-4, atol=1e-6)
    assert state.evaluated is state.average


def _changed(tiny_config, **options):
    values = tiny_config.model_dump()
    return schema.parse({**values, "train": {**values["train"], **options}})


@pytest.mark.slow
def test_a_run_with_an_average_goes_on_as_if_never_stopped(tiny_config, tmp_path, monkeypatch):
    options = {
        "ema": 0.9,
        "epochs": 2,
        "schedule": "cosine",
        "learning_rate": [[0, 1e-3], [2, 1e-5]],
    }
    averaged = _changed(tiny_config, **options)
    trainer.train(averaged, tmp_path / "quiet", quiet=True)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(summary, "evaluate", stop)
        trainer.train(averaged, tmp_path / "cut", quiet=True)
    trainer.train(averaged, tmp_path / "cut", quiet=True)
    for checkpoint in ("latest", "best"):
        quiet, cut = (load_run(tmp_path / name, checkpoint).model for name in ("quiet", "cut"))
        for a, b in zip(quiet.get_weights(), cut.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    raw = tf.train.load_checkpoint(tf.train.latest_checkpoint(tmp_path / "cut" / "latest"))
    assert any(name.startswith("optimizer/trained/") for name in raw.get_variable_to_shape_map())


def test_training_ends_when_nothing_gets_better(tiny_config, tmp_path, monkeypatch):
    """auc_10 is best at the second evaluation; two epochs later training is over, and stays so."""
    real, scores = summary.evaluate, iter([0.2, 0.5, 0.1, 0.5, 0.5])
    monkeypatch.setattr(summary, "evaluate", lambda *a: {**real(*a), "auc_10": next(scores)})
    patient = _changed(tiny_config, epochs=30, early_stop_epochs=2, best_metric="auc_10")
    for _ in range(2):
        trainer.train(patient, tmp_path / "run", quiet=True)
        (newest,) = {int(p.stem[5:]) for p in (tmp_path / "run" / "latest").glob("*-20.index")}
        assert newest == 20 and not list((tmp_path / "run" / "latest").glob("*-25.index"))
        assert json.loads((tmp_path / "run" / "best.json").read_text()) == {
            "step": 10,
            "score": 0.5,
        }
    assert not list(scores)


def test_scores_are_higher_for_what_is_better():
    metrics = {"nme": 4.0, "loss": 2.0, "auc_10": 0.6}
    assert trainer._score(metrics, None) == -4.0
    assert trainer._score({**metrics, "pckh_0.5": 88.0}, None) == 88.0
    assert [trainer._score(metrics, name) for name in ("loss", "auc_10")] == [-2.0, 0.6]


def test_a_metric_of_other_landmarks_is_refused(tiny_config, tmp_path):
    with pytest.raises(ValueError, match=r"best_metric = 'pckh_0.5' is not measured on wflw"):
        trainer.train(_changed(tiny_config, best_metric="pckh_0.5"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
