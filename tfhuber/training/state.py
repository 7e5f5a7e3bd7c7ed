"""What training changes: weights, optimiser, moving average."""

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import tensorflow as tf

from tfhuber.config.schema import Config
from tfhuber.model import network
from tfhuber.training.loss_scale import LossScale, policy
from tfhuber.training.optimizer import Adam, PiecewiseCosine, PiecewiseLinear
from tfhuber.training.strategy import synchronise

__all__ = ["State", "carry_over"]


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


def _variables_of(layers: Iterable[keras.layers.Layer]) -> set[int]:
    """The ids of the layers' trainable variables."""
    return {id(v) for layer in layers for v in layer.trainable_variables}
