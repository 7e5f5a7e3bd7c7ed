"""The training step under `tf.distribute`, and the state that checkpoints hold."""

import json
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from tfhuber import model as network
from tfhuber.config import Config
from tfhuber.elliptical import negative_log_likelihood
from tfhuber.files import write_json
from tfhuber.radial import Huber
from tfhuber.whitening import Whitening

__all__ = ["Checkpoints", "PiecewiseLinear", "State", "strategy_for", "training_step"]


@keras.saving.register_keras_serializable(package="tfhuber")
class PiecewiseLinear(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that is linear between (epoch, rate) points and constant beyond them."""

    def __init__(self, points: list[tuple[float, float]], steps_per_epoch: int):
        self.points = [tuple(point) for point in points]
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step):
        epoch = tf.cast(step, tf.float32) / self.steps_per_epoch
        rate = tf.constant(self.points[0][1], tf.float32)
        for (e0, r0), (e1, r1) in zip(self.points, self.points[1:], strict=False):
            fraction = tf.clip_by_value((epoch - e0) / (e1 - e0), 0.0, 1.0)
            rate = tf.where(epoch >= e0, r0 + fraction * (r1 - r0), rate)
        return rate

    def get_config(self):
        return {"points": self.points, "steps_per_epoch": self.steps_per_epoch}


@dataclass(frozen=True)
class State:
    """What training changes: the model's weights and the optimiser with its count of steps."""

    model: keras.Model
    optimizer: keras.optimizers.Optimizer

    @classmethod
    def create(cls, config: Config, landmark_count: int, steps_per_epoch: int) -> "State":
        """The state before the first step; call it in the strategy's scope."""
        model = network.build(config.model, landmark_count)
        schedule = PiecewiseLinear(config.train.learning_rate, steps_per_epoch)
        optimizer = keras.optimizers.Adam(schedule)
        optimizer.build(model.trainable_variables)
        return cls(model, optimizer)

    @property
    def step(self) -> int:
        """Steps done so far."""
        return int(self.optimizer.iterations.numpy())


def strategy_for(distribution: str) -> tf.distribute.Strategy:
    """The `tf.distribute` strategy of a configuration's `train.distribution`."""
    if distribution == "mirrored":
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def training_step(
    state: State, whitening: Whitening, config: Config, strategy: tf.distribute.Strategy
):
    """One step of gradient descent on eq. 6, summed over landmarks, averaged over the global batch.

    Every replica divides its sum by the GLOBAL batch size and gradients are summed over replicas,
    which gives the same numbers whatever the number of devices.

    Returns:
      A function from a (distributed) batch to `loss` (eq. 6 alone) and `gradient_norm`, scalars.
    """
    energy = Huber(config.model.delta)
    variables = state.model.trainable_variables
    new = {id(v) for layer in network.new_layers(state.model) for v in layer.trainable_variables}
    kernels = [v for v in variables if id(v) in new and "kernel" in v.name]
    frozen_steps = config.train.frozen_epochs * state.optimizer._learning_rate.steps_per_epoch

    def replica_step(batch):
        with tf.GradientTape() as tape:
            outputs = state.model(batch["image"], training=True)
            target = whitening.normalise(batch["landmarks"])
            loss = negative_log_likelihood(
                target, outputs["nu"], outputs["precision_factor"], outputs["log_det"], energy
            )
            loss = tf.reduce_sum(loss * batch["weights"]) / config.train.batch_size
            penalty = config.train.head_l2 * tf.add_n([tf.nn.l2_loss(k) for k in kernels])
            total = loss + penalty / strategy.num_replicas_in_sync
        gradients = tape.gradient(total, variables)
        if frozen_steps:
            thawed = tf.cast(state.optimizer.iterations >= frozen_steps, tf.float32)
            gradients = [
                g if id(v) in new else g * thawed for g, v in zip(gradients, variables, strict=True)
            ]
        replica = tf.distribute.get_replica_context()
        norm = tf.linalg.global_norm(replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients))
        # Keras sums gradients over the replicas itself.
        state.optimizer.apply(gradients, variables)
        return loss, norm / strategy.num_replicas_in_sync

    @tf.function
    def step(batch):
        loss, norm = strategy.run(replica_step, args=(batch,))
        total = tf.distribute.ReduceOp.SUM
        return {
            "loss": strategy.reduce(total, loss, axis=None),
            "gradient_norm": strategy.reduce(total, norm, axis=None),
        }

    return step


class Checkpoints:
    """The latest and the best checkpoint of a run.

    `latest/` holds model and optimiser; `best/` the model of the best evaluation so far, with its
    metrics beside it in `best.json`.
    """

    def __init__(self, run: Path, state: State):
        self._state = state
        self._latest = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=state.model, optimizer=state.optimizer),
            str(run / "latest"),
            max_to_keep=2,
        )
        self._best = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=state.model), str(run / "best"), max_to_keep=1
        )
        self._record = run / "best.json"

    def restore(self) -> None:
        """Puts the latest checkpoint's values into the state, if there is one."""
        if self._latest.latest_checkpoint:
            status = self._latest.checkpoint.restore(self._latest.latest_checkpoint)
            status.assert_consumed()

    def save(self, step: int) -> None:
        """Writes the latest checkpoint."""
        self._latest.save(checkpoint_number=step)

    def keep_best(self, step: int, metrics: dict) -> None:
        """Writes the best checkpoint if these metrics are better than those on record."""
        score = _score(metrics)
        if self._record.is_file() and json.loads(self._record.read_text())["score"] >= score:
            return
        self._best.save(checkpoint_number=step)
        write_json(self._record, {"step": step, "score": score})


def _score(metrics: dict) -> float:
    """Higher is better: PCKh, or the negative NME."""
    return metrics["pckh_0.5"] if "pckh_0.5" in metrics else -metrics["nme"]
