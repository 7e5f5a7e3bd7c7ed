"""The training step under `tf.distribute`, and the state that it changes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import keras
import tensorflow as tf

from tfhuber.config.schema import Config
from tfhuber.distributions.elliptical import negative_log_likelihood
from tfhuber.distributions.radial import radial_energy
from tfhuber.model import network
from tfhuber.model.whitening import Whitening
from tfhuber.training.loss_scale import LossScale, is_marked, policy
from tfhuber.training.strategy import synchronise

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

    It takes gradients that are summed over the replicas already. Where `LossScale.marked` has marked
    them as of no use, no weight moves, and the moments fade by one step.

    Gradients of 0 would hold them too, but leave the moments empty while their bias correction goes on:
    once let go, such variables would move at more than four times the learning rate.

    Args:
      learning_rate: a schedule.
      held: which variables, by their places in the list that `build` gets.
      held_steps: how long.
      decayed: which variables decay, by their places.
      decay: what, times the learning rate, each step takes off them before it follows the gradient.
      may_be_marked: whether to look for marked gradients.
    """

    def __init__(
        self,
        learning_rate,
        held: Iterable[int] = (),
        held_steps: int = 0,
        decayed: Iterable[int] = (),
        decay: float = 0.0,
        may_be_marked: bool = False,
    ):
        super().__init__(learning_rate)
        self._held, self._held_steps = frozenset(held), held_steps
        self._decayed, self._decay = frozenset(decayed), decay
        self._may_be_marked = may_be_marked

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        if self._may_be_marked:
            marked = is_marked(gradient)
            gradient = tf.where(marked, 0.0, gradient)
            learning_rate *= 1 - tf.cast(marked, tf.float32)
        if self._held_steps and index in self._held:
            learning_rate *= tf.cast(self.iterations >= self._held_steps, tf.float32)
        if self._decay and index in self._decayed:
            self.assign_sub(
                variable, tf.cast(learning_rate * self._decay, variable.dtype) * variable
            )
        self._move(gradient, variable, learning_rate, index)

    def _move(self, gradient, variable, learning_rate, index):
        """Keras's own update, formula by formula, in TensorFlow's one operation for it: half the time."""
        dtype = variable.dtype
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        step = tf.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars  # Keras would sum them once more.


@dataclass(frozen=True)
class State:
    """What training changes: the weights, the optimiser and its step, and what else is asked for.

    Attributes:
      model: is trained.
      optimizer: of its weights.
      average: of the weights, in float32; of mixed precision without averaging, the weights themselves.
      loss_scale: of float16.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    average: keras.Model | None = None
    loss_scale: LossScale | None = None

    @classmethod
    def create(cls, config: Config, landmark_count: int, steps_per_epoch: int) -> "State":
        """The state before the first step; call it in the strategy's scope."""
        precision = config.train.precision
        model = network.build(config.model, landmark_count, policy(precision))
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
        loss_scale = LossScale() if precision == "float16" else None
        decay = config.train.weight_decay
        optimizer = Adam(schedule, old, frozen_steps, kernels, decay, loss_scale is not None)
        optimizer.build(variables)
        if not config.train.ema and precision == "float32":
            return cls(model, optimizer)
        options = config.model.model_copy(update={"pretrained": None, "transfer": None})
        return cls(model, optimizer, network.build(options, landmark_count), loss_scale)

    @property
    def evaluated(self) -> keras.Model:
        """The model to evaluate, to keep as the best and to export."""
        return self.model if self.average is None else self.average

    @property
    def kept(self) -> "State":
        """What a checkpoint holds: the model to evaluate, and as its optimiser all else to go on with."""
        if self.average is None:
            return self
        rest = {"trained": self.model, "optimizer": self.optimizer}
        if self.loss_scale is not None:
            rest["loss_scale"] = self.loss_scale
        return State(self.average, tf.train.Checkpoint(**rest))

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
      clipping), scalars; `skipped`, whether float16 overflowed and the weights were left alone; and of
      each replica `example_loss` [B] and the model's `outputs`.
    """
    replicas = strategy.num_replicas_in_sync
    gradients_of = _gradients_of(state, whitening, config, replicas)
    variables = state.model.trainable_variables
    scale = state.loss_scale

    def replica_step(batch):
        factor = 1.0 if scale is None else tf.convert_to_tensor(scale.value)
        gradients, loss, seen = gradients_of(batch, factor)
        replica = tf.distribute.get_replica_context()
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if scale is not None:
            gradients = [gradient / factor for gradient in gradients]
        norm = tf.linalg.global_norm(gradients)
        if config.train.gradient_clip is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, config.train.gradient_clip, norm)
        if scale is not None:
            gradients = [scale.marked(gradient, norm) for gradient in gradients]
        before = tf.cast(state.optimizer.iterations, tf.float32)
        state.optimizer.apply(gradients, variables)
        if state.average is not None:
            # Little at first, so that the start, far from everything, is soon forgotten.
            _average(state, tf.minimum(config.train.ema, before / (before + 10)))
        return loss, norm / replicas, seen

    @tf.function
    def step(batch):
        loss, norm, seen = strategy.run(replica_step, args=(batch,))
        total = tf.distribute.ReduceOp.SUM
        norm = strategy.reduce(total, norm, axis=None)
        skipped = tf.constant(False) if scale is None else scale.update(norm)
        loss = strategy.reduce(total, loss, axis=None)
        return {"loss": loss, "gradient_norm": norm, "skipped": skipped, **seen}

    return step


def _gradients_of(state: State, whitening: Whitening, config: Config, replicas: int):
    """A function from one replica's batch and a factor to gradients, loss, and what else is seen.

    The factor multiplies the gradients. XLA may compile the loss with the SPD map: a function without
    variables, which every strategy can have compiled. (Of all else, the gradient of max-pooling has no
    deterministic implementation in XLA.)
    """
    model, head = state.model, state.model.get_layer("head")
    features = keras.Model(model.input, head.input)
    energy = radial_energy(config.model.family, config.model.delta)
    variables = model.trainable_variables
    new = _variables_of(network.new_layers(model))
    kernels = [v for v in variables if id(v) in new and "kernel" in v.name]

    @tf.function(jit_compile=config.train.xla == "loss")
    def loss_of(parameters, landmarks, weights):
        outputs = head.distributions(parameters)
        loss = negative_log_likelihood(
            whitening.normalise(landmarks),
            outputs["nu"],
            outputs["precision_factor"],
            outputs["log_det"],
            energy,
        )
        return tf.reduce_sum(loss * weights, axis=1), outputs

    def gradients_of(batch, factor):
        with tf.GradientTape() as tape:
            parameters = head.linear(features(batch["image"], training=True))
            example_loss, outputs = loss_of(parameters, batch["landmarks"], batch["weights"])
            loss = tf.reduce_sum(example_loss) / config.train.batch_size
            penalty = config.train.head_l2 * tf.add_n([tf.nn.l2_loss(k) for k in kernels])
            total = (loss + penalty / replicas) * tf.cast(factor, loss.dtype)
        gradients = tape.gradient(total, variables)
        return gradients, loss, {"example_loss": example_loss, "outputs": outputs}

    return gradients_of


def _average(state: State, decay: tf.Tensor) -> None:
    for average, weight in zip(state.average.weights, state.model.weights, strict=True):
        change = tf.cast(1 - decay, average.dtype) * (weight - average)
        average.assign(average + change)


def _variables_of(layers: Iterable[keras.layers.Layer]) -> set[int]:
    """The ids of the layers' trainable variables."""
    return {id(v) for layer in layers for v in layer.trainable_variables}
