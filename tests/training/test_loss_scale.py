"""Mixed precision and XLA: the same training but for rounding, and overflow costs nothing but a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from training_steps import make_state, make_step

from tfhuber.config import schema
from tfhuber.data import dataset
from tfhuber.evaluation import summary
from tfhuber.model.whitening import Whitening
from tfhuber.runs.load import load_run
from tfhuber.training import loss_scale, trainer
from tfhuber.training.finite_guard import is_fault
from tfhuber.training.state import State

K, SIZE, BATCH = 3, 32, 6
WHITENER = Whitening(np.full((K, 2), SIZE / 2), np.tile(np.eye(2) / 8, (K, 1, 1)))


def _config(**options):
    return schema.parse(
        {
            "data": {"directory": "unused"},
            "model": {"backbone": "resnet18", "image_size": SIZE},
            "train": {"batch_size": BATCH, "learning_rate": [[0, 1e-3]], **options},
        }
    )


def _batch(step: int) -> dict:
    rng = np.random.default_rng(step)
    return {
        "image": tf.constant(rng.uniform(0, 255, (BATCH, SIZE, SIZE, 3)), tf.float32),
        "landmarks": tf.constant(rng.uniform(0, SIZE, (BATCH, K, 2)), tf.float32),
        "weights": tf.ones([BATCH, K]),
    }


def _trained(steps: int, **options) -> tuple[State, list[dict]]:
    keras.utils.set_random_seed(0)
    parsed = _config(**options)
    state = make_state(parsed, K, 100)
    if state.loss_scale is not None:
        state.loss_scale.value.assign(2.0**8)  # At the first one, these labels overflow.
    step = make_step(state, WHITENER, parsed)
    return state, [step(_batch(i)) for i in range(steps)]


@pytest.fixture(scope="module")
def plain():
    return _trained(4, xla="none")


def test_compiled_by_xla_it_is_the_same_training(plain):
    state, reports = _trained(4, xla="loss")
    for name in ("loss", "gradient_norm"):
        found, expected = ([report[name] for report in run] for run in (reports, plain[1]))
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
        # Adam's first steps turn rounding of small gradients into whole steps.
        np.testing.assert_allclose(found, expected, rtol=0.02)
    assert state.step == 4


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_mixed_precision_is_the_same_training_but_for_rounding(plain, name):
    state, reports = _trained(4, precision=name)
    # 8 and 11 bits; at the start the head's weights are 0, and what comes before it adds nothing.
    assert not any(report["skipped"] for report in reports)
    np.testing.assert_allclose(reports[0]["loss"], plain[1][0]["loss"], rtol=1e-5)
    np.testing.assert_allclose(reports[0]["gradient_norm"], plain[1][0]["gradient_norm"], rtol=0.02)
    for ours, theirs in zip(reports[1:], plain[1][1:], strict=True):
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=0.1)
    assert state.model.get_layer("backbone").dtype_policy.compute_dtype == name
    for values in (*state.model.weights, *state.optimizer.variables[2:]):
        assert values.dtype == "float32", values.path
    assert {v.dtype for v in reports[0]["outputs"].values()} == {tf.float32}
    # What is evaluated and exported has the same weights, and computes in float32.
    assert state.evaluated is not state.model
    assert state.evaluated.get_layer("backbone").dtype_policy.compute_dtype == "float32"
    for ours, theirs in zip(state.evaluated.weights, state.model.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=ours.path)


def test_a_step_that_overflows_leaves_the_weights_and_halves_the_scale():
    keras.utils.set_random_seed(0)
    parsed = _config(precision="float16", gradient_clip=5.0)
    state = make_state(parsed, K, 100)
    step = make_step(state, WHITENER, parsed)
    step(_batch(0))
    before = [v.numpy() for v in state.model.trainable_variables]
    state.loss_scale.value.assign(1e30)
    report = step(_batch(1))
    assert not np.isfinite(report["gradient_norm"]) and np.isfinite(report["loss"])
    assert bool(report["skipped"]) and not is_fault(1.0, float("inf"), True)
    assert float(state.loss_scale.value) == np.float32(5e29) and state.step == 2
    for variable, value in zip(state.model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)
    assert all(np.isfinite(v.numpy()).all() for v in state.optimizer.variables)

    state.loss_scale.value.assign(2.0**10)
    state.loss_scale.good_steps.assign(1998)
    assert not step(_batch(2))["skipped"] and float(state.loss_scale.value) == 2.0**10
    assert not step(_batch(3))["skipped"] and float(state.loss_scale.value) == 2.0**11
    assert int(state.loss_scale.good_steps) == 0
    assert not np.array_equal(state.model.trainable_variables[0], before[0])


def test_gradients_that_no_scale_makes_finite_are_a_fault():
    scale = loss_scale.LossScale()
    skipped = []
    for _ in range(17):
        skipped.append(bool(scale.update(tf.constant(float("nan")))))
    assert skipped == [True] * 15 + [False] * 2 and float(scale.value) == 1.0
    assert is_fault(1.0, float("nan"), skipped[-1])
    assert is_fault(float("nan"), 1.0, True)


def test_a_run_in_mixed_precision_is_evaluated_as_it_is_exported(tiny_config, tmp_path):
    values = tiny_config.model_dump(mode="json")
    values["train"] |= {"precision": "bfloat16", "epochs": 1}
    metrics = trainer.train(schema.parse(values), tmp_path / "run", quiet=True)
    predictor = load_run(tmp_path / "run")
    split = dataset.open_split(tiny_config.data.directory, "test")
    again = summary.evaluate(predictor, split)
    assert again["nme"] == metrics["nme"]
