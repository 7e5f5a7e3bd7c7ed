"""Training under `tf.distribute`: exact whatever the number of devices."""

import json
import shutil
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from training_steps import make_state, make_step

from tfhuber.config import schema as config
from tfhuber.data import dataset
from tfhuber.landmarks import known_sets
from tfhuber.model import network as model
from tfhuber.model.whitening import Whitening, fit
from tfhuber.runs.directory import create_or_check
from tfhuber.runs.load import load_run
from tfhuber.runs.results import read_end
from tfhuber.runs.transfer import carry_over
from tfhuber.training import trainer
from tfhuber.training.optimizer import Adam, PiecewiseLinear
from tfhuber.training.state import State


def with_train(config, **values):
    """Return the configuration with other values in its section `train`."""
    return config.model_copy(update={"train": config.train.model_copy(update=values)})


def test_a_run_leaves_what_evaluation_needs(tiny_run, tiny_config):
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert np.isfinite(metrics["nme"]) and metrics["split"] == "test"
    assert json.loads((tiny_run / "run.json").read_text())["landmark_set"]["name"] == "wflw"
    assert any((tiny_run / "logs").iterdir())
    for checkpoint in ("latest", "best"):
        assert load_run(tiny_run, checkpoint).options == tiny_config.model


def test_training_learns(tiny_config):
    """A batch taken again and again: its loss falls from that of the start (A = I, nu = 0)."""
    split = dataset.open_split(tiny_config.data.directory, "train")
    batch = next(iter(dataset.training_batches(split, trainer.recipe_of(tiny_config))))
    keras.utils.set_random_seed(0)
    state = make_state(tiny_config, 98, 5)
    whitener = fit(dataset.augmented_labels(split, trainer.recipe_of(tiny_config)), 98, 32)
    step = make_step(state, whitener, tiny_config)
    losses = [float(step(batch)["loss"]) for _ in range(30)]
    # At the start each whitened landmark costs about E[h(|y|)], y of unit covariance: about 0.85.
    assert 0.5 < losses[0] / (0.85 * 98) < 1.5
    assert losses[-1] < losses[0] - 98  # a nat a landmark


def test_a_finished_run_is_not_trained_again(tiny_run, tiny_config):
    def checkpoints():
        return {path.name: path.stat().st_mtime_ns for path in tiny_run.glob("latest/ckpt-*")}

    before = checkpoints()
    metrics = trainer.train(tiny_config, tiny_run, quiet=True)
    assert checkpoints() == before and len(before) == 4
    assert metrics == json.loads((tiny_run / "metrics.json").read_text())


def test_a_second_training_of_a_run_is_turned_away(tiny_run, tiny_config):
    """By a line that says whose it is; once that process has ended, a training goes on."""
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}
    program = (
        "import sys\nfrom pathlib import Path\nfrom tfhuber.runs.directory import locked_run\n"
        "with locked_run(Path(sys.argv[1])):\n    print(flush=True)\n    sys.stdin.read()\n"
    )
    command, pipe = [sys.executable, "-c", program, str(tiny_run)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as holder:
        holder.stdout.readline()
        expected = (
            rf"{tiny_run} is in use by another training: process {holder.pid} on "
            rf"{socket.gethostname()} is writing there"
        )
        with pytest.raises(OSError, match=expected):
            trainer.train(tiny_config, tiny_run, quiet=True)
        holder.kill()
    (tiny_run / ".lock").unlink()
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")} == before


def test_another_configuration_is_refused(tiny_run, tiny_config):
    changed = tiny_config.model_copy(
        update={"train": tiny_config.train.model_copy(update={"epochs": 7, "seed": 1})}
    )
    with pytest.raises(ValueError, match=r"train.epochs: 2, 7; .*choose another --run"):
        trainer.train(changed, tiny_run)


def test_a_finished_run_goes_on_for_more_epochs_as_if_it_had_been_asked_for_them_at_once(
    tiny_run, tiny_config, tmp_path, caplog
):
    longer = with_train(tiny_config, epochs=3, evaluation_epochs=3)
    run = shutil.copytree(tiny_run, tmp_path / "extended")
    metrics = trainer.train(longer, run, quiet=True)
    assert "finished after 2 epochs and goes on to 3" in caplog.text
    at_once = trainer.train(longer, tmp_path / "at_once", quiet=True)
    assert metrics == at_once and read_end(run) == read_end(tmp_path / "at_once")
    for old, new in zip(
        load_run(run).model.weights, load_run(tmp_path / "at_once").model.weights, strict=True
    ):
        np.testing.assert_array_equal(old, new)


def test_a_run_that_is_extended_is_not_finished_until_it_ends_again(
    tiny_run, tiny_config, tmp_path, caplog
):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    landmarks = known_sets.WFLW
    create_or_check(run, with_train(tiny_config, epochs=3, early_stop_epochs=1), landmarks)
    assert "train.early_stop_epochs may end it at once" in caplog.text
    assert read_end(tiny_run) is not None and read_end(run) is None
    with pytest.raises(ValueError, match="extended to 4 epochs once its 3 are finished"):
        create_or_check(run, with_train(tiny_config, epochs=4), landmarks)
    for fewer_or_other in ({"epochs": 1}, {"epochs": 4, "batch_size": 4}, {"ema": 0.9}):
        with pytest.raises(ValueError, match="another configuration"):
            create_or_check(tiny_run, with_train(tiny_config, **fewer_or_other), landmarks)


def test_a_directory_with_other_things_is_refused(tiny_config, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is no training run"):
        trainer.train(tiny_config, tmp_path)


def test_the_learning_rate_is_linear_between_its_points():
    schedule = PiecewiseLinear([(0, 1e-3), (25, 1e-3), (40, 1e-4), (50, 1e-5)], 10)
    epochs = [0, 10, 25, 32.5, 40, 45, 50, 60]
    expected = [1e-3, 1e-3, 1e-3, 5.5e-4, 1e-4, 5.5e-5, 1e-5, 1e-5]
    np.testing.assert_allclose([schedule(10 * e) for e in epochs], expected, rtol=1e-5)


def test_frozen_epochs_train_the_new_layers_only(tiny_config):
    frozen = config.parse(
        {
            **tiny_config.model_dump(),
            "train": {**tiny_config.train.model_dump(), "frozen_epochs": 1},
        }
    )
    split = dataset.open_split(frozen.data.directory, "train")
    steps = dataset.steps_per_epoch(split, trainer.recipe_of(frozen))
    state = make_state(frozen, 98, steps)
    whitening = fit(dataset.augmented_labels(split, trainer.recipe_of(frozen), 1), 98, 32)
    step = make_step(state, whitening, frozen)
    backbone = state.model.get_layer("backbone")
    before = [w.numpy() for w in backbone.trainable_weights]
    head = state.model.get_layer("head").get_weights()[0]
    batches = iter(dataset.training_batches(split, trainer.recipe_of(frozen)))
    for _ in range(steps):
        step(next(batches))
    for weight, value in zip(backbone.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert np.abs(state.model.get_layer("head").get_weights()[0] - head).max() > 1e-4
    step(next(batches))
    assert np.abs(backbone.trainable_weights[0].numpy() - before[0]).max() > 0


def test_the_step_descends_eq_6_and_a_penalty_as_pytorchs_weight_decay():
    """By hand at the start (A = I, nu = 0); without labels the gradient is 0.1 times the kernels."""
    image = keras.Input((8, 8, 3))
    features = keras.layers.DepthwiseConv2D(8, name="channelwise_convolution")(image)
    features = keras.layers.Flatten()(features)
    network = keras.Model(image, model.DistributionHead(4, name="head")(features))
    optimizer = Adam(PiecewiseLinear([(0, 1e-2)], 4))
    optimizer.build(network.trainable_variables)
    options = config.parse({"data": {"directory": "unused"}, "train": {"batch_size": 6}})
    whitener = Whitening(np.full((4, 2), 3.0), np.tile([[0.5, 0.2], [0.2, 0.4]], (4, 1, 1)))
    step = make_step(State(network, optimizer), whitener, options)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.uniform(0, 255, (6, 8, 8, 3)).astype("f4"),
        "landmarks": rng.uniform(0, 8, (6, 4, 2)).astype("f4"),
        "weights": (rng.random((6, 4)) < 0.7).astype("f4"),
    }
    r = np.linalg.norm((batch["landmarks"] - 3) @ whitener.factor[0], axis=-1)
    energy = np.where(r <= 1, r**2 / 2, r - 0.5)
    loss = step(batch)["loss"]
    np.testing.assert_allclose(loss, (energy * batch["weights"]).sum() / 6, rtol=1e-5)

    kernels = [w for w in network.get_weights() if w.ndim > 1]
    assert len(kernels) == 2
    report = step({**batch, "weights": np.zeros((6, 4), "f4")})
    assert report["loss"] == 0
    expected = 0.1 * np.sqrt(sum(np.sum(kernel**2) for kernel in kernels))
    np.testing.assert_allclose(report["gradient_norm"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "gauss", "covariance": "identity"},
        {"family": "laplace", "covariance": "full", "parameterization": "mu"},
        {"family": "charbonnier", "covariance": "diagonal", "pooling": "average"},
    ],
    ids=lambda changes: changes["family"],
)
def test_every_family_descends_its_own_loss(changes, tiny_config):
    """Two steps on one batch; the first loss is that of A = I and nu = 0 in closed form."""
    options = tiny_config.model.model_copy(update=changes)
    config = tiny_config.model_copy(update={"model": options})
    split = dataset.open_split(config.data.directory, "train")
    state = make_state(config, 98, 5)
    labels = dataset.augmented_labels(split, trainer.recipe_of(config), minimum=1)
    whitening = fit(labels, 98, config.model.image_size)
    step = make_step(state, whitening, config)
    batch = next(iter(dataset.training_batches(split, trainer.recipe_of(config))))
    losses = [float(step(batch)["loss"]) for _ in range(2)]
    r = np.linalg.norm(whitening.normalise(batch["landmarks"]).numpy(), axis=-1)
    rho = {"gauss": r**2 / 2, "laplace": r, "charbonnier": np.sqrt(r**2 + 1) - 1}[changes["family"]]
    expected = (rho * batch["weights"].numpy()).sum(1).mean()
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    assert losses[1] < losses[0]


def test_transfer_carries_over_all_but_the_head_and_holds_it(tiny_run, tiny_config, tmp_path):
    """With every epoch frozen, what was carried over is still there at the end, and the head is not."""
    options = tiny_config.model.model_copy(update={"transfer": str(tiny_run)})
    schedule = tiny_config.train.model_copy(update={"frozen_epochs": 2})
    config = tiny_config.model_copy(update={"model": options, "train": schedule})
    trainer.train(config, tmp_path / "run", quiet=True)
    before, after = (load_run(run).model for run in (tiny_run, tmp_path / "run"))
    for layer in before.layers:
        for old, new in zip(layer.weights, after.get_layer(layer.name).weights, strict=True):
            same = np.array_equal(old.numpy(), new.numpy())
            assert same == (layer.name != "head" and "moving" not in old.name), old.path


def test_transfer_from_another_network_is_refused(tiny_config):
    average = tiny_config.model.model_copy(update={"pooling": "average"})
    larger = tiny_config.model.model_copy(update={"image_size": 64})
    target = model.build(tiny_config.model, 98)
    for options in (average, larger):
        with pytest.raises(ValueError, match=r"model.transfer names .*; set these to match"):
            carry_over(model.build(options, 5), target)


def test_held_variables_then_move_as_if_adam_had_known_them_all_along():
    optimizer = Adam(PiecewiseLinear([(0, 1e-3)], 1), held=[1], held_steps=40)
    free, held = (keras.Variable(np.zeros(3, "f4")) for _ in range(2))
    optimizer.build([free, held])
    for step in range(60):
        before = free.numpy(), held.numpy()
        gradient = tf.random.stateless_normal([3], [step, 0])
        optimizer.apply([gradient, gradient], [free, held])
        free_move, held_move = free.numpy() - before[0], held.numpy() - before[1]
        np.testing.assert_allclose(held_move, 0 * free_move if step < 40 else free_move, atol=1e-8)
