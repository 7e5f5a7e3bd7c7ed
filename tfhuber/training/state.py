"""What training changes: weights, optimiser, moving average, loss scale."""

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import tensorflow as tf

from tfhuber.config.schema import Model, Train
from tfhuber.model.network import build, new_layers
from tfhuber.training.loss_scale import LossScale, policy
from tfhuber.training.optimizer import Adam, PiecewiseCosine, PiecewiseLinear
from tfhuber.training.strategy import synchronise

__all__ = ["State", "variable_ids"]


@dataclass(frozen=True)
class State:
    """What training changes: the weights, the optimiser and its step, and what else is asked for.

    Attributes:
      model: what is trained.
      optimizer: of its weights.
      average: the moving average of the weights, in float32, or None; in mixed precision without
        averaging, a float32 copy of the weights.
      loss_scale: in float16, else None.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    average: keras.Model | None = None
    loss_scale: LossScale | None = None

    @classmethod
    def create(
        cls, model: Model, train: Train, landmark_count: int, steps_per_epoch: int
    ) -> "State":
        """Return the state before the first step; call it in the strategy's scope."""
        network = build(model, landmark_count, policy(train.precision))
        synchronise(network, tf.distribute.get_strategy())
        curve = {"linear": PiecewiseLinear, "cosine": PiecewiseCosine}[train.schedule]
        schedule = curve(train.learning_rate, steps_per_epoch)
        # Of a transferred model, the head alone is new.
        new = variable_ids([network.get_layer("head")] if model.transfer else new_layers(network))
        variables = network.trainable_variables
        loss_scale = LossScale() if train.precision == "float16" else None
        optimizer = Adam(
            schedule,
            held=[i for i, v in enumerate(variables) if id(v) not in new],
            held_steps=train.frozen_epochs * steps_per_epoch,
            decayed=[i for i, v in enumerate(variables) if "kernel" in v.name],
            decay=train.weight_decay,
            may_be_marked=loss_scale is not None,
        )
        optimizer.build(variables)
        if not train.ema and train.precision == "float32":
            return cls(network, optimizer)
        plain = model.model_copy(update={"pretrained": None, "transfer": None})
        return cls(network, optimizer, build(plain, landmark_count), loss_scale)

    @property
    def evaluated(self) -> keras.Model:
        """The model to evaluate, to keep as the best and to export."""
        return self.model if self.average is None else self.average

    @property
    def kept(self) -> tuple[keras.Model, keras.optimizers.Optimizer | tf.train.Checkpoint]:
        """What a checkpoint holds: the model to evaluate, and all else that training needs to go on."""
        if self.average is None:
            return self.model, self.optimizer
        rest = {"trained": self.model, "optimizer": self.optimizer}
        if self.loss_scale is not None:
            rest["loss_scale"] = self.loss_scale
        return self.average, tf.train.Checkpoint(**rest)

    @property
    def step(self) -> int:
        """Steps done so far."""
        return int(self.optimizer.iterations.numpy())


def variable_ids(layers: Iterable[keras.layers.Layer]) -> set[int]:
    """Return the `id` of each of the layers' trainable variables."""
    return {id(v) for layer in layers for v in layer.trainable_variables}
