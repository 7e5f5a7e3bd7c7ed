"""The training step under `tf.distribute`, and the state that it changes."""

import keras
import tensorflow as tf

from tfhuber.config.schema import Config
from tfhuber.distributions.likelihood import negative_log_likelihood
from tfhuber.distributions.radial import radial_energy
from tfhuber.model import network
from tfhuber.model.whitening import Whitening
from tfhuber.training.state import State, _variables_of

__all__ = ["training_step"]


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
