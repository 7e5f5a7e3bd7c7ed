"""The training step under `tf.distribute`."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfhuber.config.schema import Train
from tfhuber.distributions.likelihood import negative_log_likelihood
from tfhuber.distributions.radial import RadialEnergy
from tfhuber.model import network
from tfhuber.model.whitening import Whitening
from tfhuber.training.map_loss import map_cross_entropy
from tfhuber.training.state import State

__all__ = ["training_step"]


# What a step returns, by name.
Outcome = dict[str, Any]


def training_step(
    state: State,
    whitening: Whitening,
    energy: RadialEnergy,
    train: Train,
    strategy: tf.distribute.Strategy,
) -> Callable[[dict], Outcome]:
    """Return a step of gradient descent on eq. 6, summed over landmarks, averaged over the global batch.

    Every replica divides its sum by the GLOBAL batch size and gradients are summed over replicas,
    which gives the same numbers whatever the number of devices.

    Args:
      state: what the step changes.
      whitening: from network-crop pixels to the coordinates of the loss.
      energy: of the predicted distributions.
      train: the `train` section of the configuration.
      strategy: whose replicas share each batch.

    Returns:
      A function from a (distributed) batch to `loss` (eq. 6 alone) and `gradient_norm` (before clipping);
      `skipped`, whether float16 overflowed; and of each replica `example_loss` [B] and the `outputs`.
    """
    replicas = strategy.num_replicas_in_sync
    gradients_of = _gradients_of(state, whitening, energy, train, replicas)
    variables = state.model.trainable_variables
    scale = state.loss_scale

    def replica_step(batch: dict) -> tuple[tf.Tensor, tf.Tensor, dict]:
        factor = 1.0 if scale is None else tf.convert_to_tensor(scale.value)
        gradients, loss, seen = gradients_of(batch, factor)
        replica = tf.distribute.get_replica_context()
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if scale is not None:
            gradients = [gradient / factor for gradient in gradients]
        norm = tf.linalg.global_norm(gradients)
        if train.gradient_clip is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, train.gradient_clip, norm)
        if scale is not None:
            gradients = [scale.marked(gradient, norm) for gradient in gradients]
        before = tf.cast(state.optimizer.iterations, tf.float32)
        state.optimizer.apply(gradients, variables)
        if state.average is not None:
            # Little at first, so that the start, far from everything, is soon forgotten.
            _update_average(
                state.average, state.model, tf.minimum(train.ema, before / (before + 10))
            )
        return loss, norm / replicas, seen

    @tf.function(autograph=False)
    def step(batch: dict) -> Outcome:
        loss, norm, seen = strategy.run(replica_step, args=(batch,))
        total = tf.distribute.ReduceOp.SUM
        norm = strategy.reduce(total, norm, axis=None)
        skipped = tf.constant(False) if scale is None else scale.update(norm)
        loss = strategy.reduce(total, loss, axis=None)
        return {"loss": loss, "gradient_norm": norm, "skipped": skipped, **seen}

    return step


def _gradients_of(
    state: State, whitening: Whitening, energy: RadialEnergy, train: Train, replicas: int
) -> Callable[[dict, float | tf.Tensor], tuple[list[tf.Tensor], tf.Tensor, dict]]:
    """Return a function from one replica's batch and a factor to gradients, loss, and what else is seen.

    The factor multiplies the gradients. XLA may compile the loss with the SPD map: a function without
    variables, which every strategy can have compiled. (Of all else, the gradient of max-pooling has no
    deterministic implementation in XLA.)
    """
    model, head = state.model, state.model.get_layer("head")
    maps = [model.get_layer("feature_logits").output] if train.map_loss else []
    features = keras.Model(model.input, [head.input, *maps] if maps else head.input)
    variables = model.trainable_variables
    kernels = network.penalised_kernels(model)

    @tf.function(jit_compile=train.xla == "loss", autograph=False)
    def loss_of(
        parameters: tf.Tensor, landmarks: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, dict]:
        outputs = head.distributions(parameters)
        loss = negative_log_likelihood(
            whitening.normalise(landmarks),
            outputs["nu"],
            outputs["precision_factor"],
            outputs["log_det"],
            energy,
        )
        return tf.reduce_sum(loss * weights, axis=1), outputs

    def gradients_of(
        batch: dict, factor: float | tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor, dict]:
        with tf.GradientTape() as tape:
            found = features(batch["image"], training=True)
            inputs, *logits = found if maps else [found]
            parameters = head.linear(inputs)
            example_loss, outputs = loss_of(parameters, batch["landmarks"], batch["weights"])
            loss = tf.reduce_sum(example_loss) / train.batch_size
            penalty = train.head_l2 * tf.add_n([tf.nn.l2_loss(k) for k in kernels]) / replicas
            for channels in logits:
                size = batch["image"].shape[1]
                crossed = map_cross_entropy(channels, batch["landmarks"], size) * batch["weights"]
                penalty += train.map_loss * tf.reduce_sum(crossed) / train.batch_size
            total = (loss + penalty) * tf.cast(factor, loss.dtype)
        gradients = tape.gradient(total, variables)
        return gradients, loss, {"example_loss": example_loss, "outputs": outputs}

    return gradients_of


def _update_average(average: keras.Model, model: keras.Model, decay: tf.Tensor) -> None:
    for mean, weight in zip(average.weights, model.weights, strict=True):
        mean.assign(mean + tf.cast(1 - decay, mean.dtype) * (weight - mean))
