"""A step that is at fault stops training with its batch on file, and its weights go nowhere."""

import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfhuber.config import schema as config
from tfhuber.data import dataset
from tfhuber.runs.load import load_run
from tfhuber.training import finite_guard, trainer
from tfhuber.training.trainer import recipe_of


@pytest.mark.parametrize(
    ("loss", "norm", "fault"),
    [(1.5, 0.0, False), (np.nan, 1.0, True), (1.0, np.inf, True), (-np.inf, 1.0, True)],
)
def test_what_is_a_fault(loss, norm, fault):
    assert finite_guard.is_fault(loss, norm) == fault


def _changed(tiny_config, **changes):
    values = tiny_config.model_dump()
    return config.parse({**values, "train": {**values["train"], **changes}})


def test_one_label_of_one_example_is_found(tiny_config, tmp_path, monkeypatch):
    """NaN in epoch 2 alone, so between two looks: the step, its batch and the example are named."""
    options = _changed(tiny_config, epochs=4, evaluation_epochs=1, checkpoint_minutes=60.0)
    split = dataset.open_split(options.data.directory, "train")
    epochs = list(dataset.training_batches(split, recipe_of(options)))
    step = 8  # of 5 in an epoch
    expected = {name: value.numpy() for name, value in epochs[step - 1].items()}
    culprit = expected["id"][3]
    make = dataset.training_batches

    def spoil(index, batch):
        bad = (batch["id"] == culprit) & (index >= step - 1)
        return {
            **batch,
            "landmarks": tf.where(bad[:, None, None], np.nan, batch["landmarks"]),
        }

    def spoiled(split, config, *, start_step=0, part=slice(None)):
        batches = make(split, config, start_step=start_step, part=part)
        return batches.enumerate(start_step).map(spoil)

    monkeypatch.setattr(dataset, "training_batches", spoiled)
    run = tmp_path / "run"
    files = re.escape(f"{run}/not_finite/step-{step}")
    with pytest.raises(
        ValueError,
        match=rf"^the loss is nan and its gradient nan at step {step}; its batch is in {files}.npz and "
        rf"drawn in {files}.png; examples whose own loss is not finite: {culprit.decode()}; the last "
        rf"good checkpoint is {run}/latest/ckpt-5; lower train.learning_rate or look at the labels$",
    ):
        trainer.train(options, run, quiet=True)

    with np.load(run / f"not_finite/step-{step}.npz", allow_pickle=False) as file:
        found = dict(file)
    assert found["id"].dtype.kind == "U" and found["image"].dtype == np.float32
    np.testing.assert_array_equal(found["id"], [name.decode() for name in expected["id"]])
    for name in ("image", "weights", "to_network"):
        np.testing.assert_array_equal(found[name], expected[name])
    good = np.arange(8) != 3
    np.testing.assert_array_equal(found["landmarks"][good], expected["landmarks"][good])
    np.testing.assert_array_equal(np.isfinite(found["example_loss"]), good)
    assert np.isfinite(found["nu"]).all() and found["precision_factor"].shape == (8, 98, 2, 2)
    assert (
        found["log_det"].shape == (8, 98)
        and np.isnan([found["loss"], found["gradient_norm"]]).all()
    )
    with Image.open(run / f"not_finite/step-{step}.png") as picture:
        assert picture.width > 8 * 200

    assert sorted(p.name for p in run.glob("*/*.index")) == ["ckpt-5.index"] * 2
    for checkpoint in ("latest", "best"):
        model = load_run(run, checkpoint).model
        assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_weights_that_overflow_after_a_good_loss_are_not_saved(tiny_config, tmp_path):
    """A first step whose loss and gradient are finite, and whose weights are infinite after it."""
    run = tmp_path / "run"
    options = _changed(
        tiny_config, batch_size=40, learning_rate=[[0, 1e39]], checkpoint_minutes=1e-6
    )
    with pytest.raises(
        ValueError, match=r"^step 1 left values not finite in .* and \d+ more; .* none"
    ):
        trainer.train(options, run, quiet=True)
    assert not any(run.glob("*/*.index"))
    with np.load(run / "not_finite/step-1.npz") as file:
        assert np.isfinite(file["loss"])


def test_a_batch_that_cannot_be_written_does_not_hide_the_fault(tiny_config, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    options = _changed(tiny_config, learning_rate=[[0, 1e30]])
    with pytest.raises(
        ValueError, match=r"^the loss is .*cannot be written .*No space left.*no check"
    ):
        trainer.train(options, tmp_path / "run", quiet=True)
