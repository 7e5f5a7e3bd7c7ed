"""The training step under `tf.distribute`, and the state that it changes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import keras
import tensorflow as tf

from tfhuber import model as network
from tfhuber.config import Config
from tfhuber.distribution import synchronise
from tfhuber.elliptical import negative_log_likelihood
from tfhuber.radial import radial_energy
from tfhuber.whitening import Whitening

__all__ = ["Adam", "PiecewiseCosine", "PiecewiseLinear", "State", "carry_over", "training_step"]


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
            rate = tf.where(epoch >= e0, r0 + self.curve(fraction) * (r1 - r0), rate)
        return rate

    def curve(self, fraction: tf.Tensor) -> tf.Tensor:
        """How far from one rate to the next, at a fraction of the way from point to point."""
        return fraction

    def get_config(self):
        return {"points": self.points, "steps_per_epoch": self.steps_per_epoch}


@keras.saving.register_keras_serializable(package="tfhuber")
class PiecewiseCosine(PiecewiseLinear):
    """The same with half a cosine between the points, level at each."""

    def curve(self, fraction: tf.Tensor) -> tf.Tensor:
        return (1 - tf.cos(math.pi * fraction)) / 2


class Adam(keras.optimizers.Adam):
    """Adam that holds some variables still for the first steps, while their moments fill, and AdamW.

    It takes gradients that are summed over the replicas already.

    Gradients of 0 would hold them too, but leave the moments empty while their bias correction goes on:
    once let go, such variables would move at more than four times the learning rate.

    Args:
      learning_rate: a schedule.
      held: which variables, by their places in the list that `build` gets.
      held_steps: how long.
      decayed: which variables decay, by their places.
      decay: what, times the learning rate, each step takes off them before it follows the gradient.
    """

    def __init__(
        self,
        learning_rate,
        held: Iterable[int] = (),
        held_steps: int = 0,
        decayed: Iterable[int] = (),
        decay: float = 0.0,
    ):
        super().__init__(learning_rate)
        self._held, self._held_steps = frozenset(held), held_steps
        self._decayed, self._decay = frozenset(decayed), decay

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        if self._held_steps and index in self._held:
            learning_rate *= tf.cast(self.iterations >= self._held_steps, tf.float32)
        if self._decay and index in self._decayed:
            self.assign_sub(
                variable, tf.cast(learning_rate * self._decay, variable.dtype) * variable
            )
        super().update_step(gradient, variable, learning_rate)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars  # Keras would sum them once more.


@dataclass(frozen=True)
class State:
    """What training changes: the weights and, if asked for, their average, the optimiser and its step."""

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    average: keras.Model | None = None

    @classmethod
    def create(cls, config: Config, landmark_count: int, steps_per_epoch: int) -> "State":
        """The state before the first step; call it in the strategy's scope."""
        model = network.build(config.model, landmark_count)
        synchronise(model, tf.distribute.get_strategy())
        curve = {"linear": PiecewiseLinear, "cosine": PiecewiseCosine}[config.train.schedule]
        schedule = curve(config.train.learning_rate, steps_per_epoch)
        # Of a transferred model, the head alone is new.
        new = _variables_of(
            [model.get_layer("head")] if config.model.transfer else network.new_layers(model)
        )
        variables = model.trainable_variables
        old = [i for i, v in enumerate(variables) if id(v) not in new]
        kernels = [i for i, v in enumerate(variables) if "kernel" in v.name]
        frozen_steps = config.train.frozen_epochs * steps_per_epoch
        optimizer = Adam(schedule, old, frozen_steps, kernels, config.train.weight_decay)
        optimizer.build(variables)
        if not config.train.ema:
            return cls(model, optimizer)
        options = config.model.model_copy(update={"pretrained": None, "transfer": None})
        return cls(model, optimizer, network.build(options, landmark_count))

    @property
    def evaluated(self) -> keras.Model:
        """The model to evaluate, to keep as the best and to export."""
        return self.model if self.average is None else self.average

    @property
    def kept(self) -> "State":
        """What a checkpoint holds: the model to evaluate, and as its optimiser all else to go on with."""
        if self.average is None:
            return self
        return State(
            self.average, tf.train.Checkpoint(trained=self.model, optimizer=self.optimizer)
        )

    @property
    def step(self) -> int:
        """Steps done so far."""
        return int(self.optimizer.iterations.numpy())


def carry_over(source: keras.Model, target: keras.Model) -> None:
    """Copies all weights but the head's from one model of `model.build` to another.

    Raises:
      ValueError: if the two have other backbones, another pooling or another size of the image.
    """
    old, new = (
        {layer.name: layer for layer in model.layers if layer.weights and layer.name != "head"}
        for model in (source, target)
    )
    shapes = [
        {name: [w.shape for w in each.weights] for name, each in m.items()} for m in (old, new)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "model.transfer names a run with another model.backbone, model.pooling or "
            "model.image_size; set these to match"
        )
    for name, layer in new.items():
        layer.set_weights(old[name].get_weights())


def training_step(
    state: State, whitening: Whitening, config: Config, strategy: tf.distribute.Strategy
):
    """One step of gradient descent on eq. 6, summed over landmarks, averaged over the global batch.

    Every replica divides its sum by the GLOBAL batch size and gradients are summed over replicas,
    which gives the same numbers whatever the number of devices.

    Returns:
      A function from a (distributed) batch to `loss` (eq. 6 alone) and `gradient_norm` (before
      clipping), scalars.
    """
    energy = radial_energy(config.model.family, config.model.delta)
    variables = state.model.trainable_variables
    new = _variables_of(network.new_layers(state.model))
    kernels = [v for v in variables if id(v) in new and "kernel" in v.name]

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
        replica = tf.distribute.get_replica_context()
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, tape.gradient(total, variables))
        norm = tf.linalg.global_norm(gradients)
        if config.train.gradient_clip is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, config.train.gradient_clip, norm)
        before = tf.cast(state.optimizer.iterations, tf.float32)
        state.optimizer.apply(gradients, variables)
        if state.average is not None:
            # Little at first, so that the start, far from everything, is soon forgotten.
            _average(state, tf.minimum(config.train.ema, before / (before + 10)))
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


def _average(state: State, decay: tf.Tensor) -> None:
    for average, weight in zip(state.average.weights, state.model.weights, strict=True):
        change = tf.cast(1 - decay, average.dtype) * (weight - average)
        average.assign(average + change)


def _variables_of(layers: Iterable[keras.layers.Layer]) -> set[int]:
    """The ids of the layers' trainable variables."""
    return {id(v) for layer in layers for v in layer.trainable_variables}
