"""Adam with variables held still, decay and marked gradients; piecewise learning rates."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfhuber.training.loss_scale import is_marked

__all__ = ["Adam", "PiecewiseCosine", "PiecewiseLinear"]


@keras.saving.register_keras_serializable(package="tfhuber")
class PiecewiseLinear(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that is linear between (epoch, rate) points and constant beyond them."""

    def __init__(self, points: Sequence[tuple[float, float]], steps_per_epoch: int):
        self.points = [tuple(point) for point in points]
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        epoch = tf.cast(step, tf.float32) / self.steps_per_epoch
        rate = tf.constant(self.points[0][1], tf.float32)
        for (e0, r0), (e1, r1) in zip(self.points, self.points[1:], strict=False):
            fraction = tf.clip_by_value((epoch - e0) / (e1 - e0), 0.0, 1.0)
            rate = tf.where(epoch >= e0, r0 + self.curve(fraction) * (r1 - r0), rate)
        return rate

    def curve(self, fraction: tf.Tensor) -> tf.Tensor:
        """Return how far the rate has gone to the next, at a fraction of the way between two points."""
        return fraction

    def get_config(self) -> dict[str, Any]:
        return {"points": self.points, "steps_per_epoch": self.steps_per_epoch}


@keras.saving.register_keras_serializable(package="tfhuber")
class PiecewiseCosine(PiecewiseLinear):
    """A learning rate that follows half a cosine between (epoch, rate) points, level at each."""

    def curve(self, fraction: tf.Tensor) -> tf.Tensor:
        """Return half a cosine from 0 to 1."""
        return (1 - tf.cos(math.pi * fraction)) / 2


class Adam(keras.optimizers.Adam):
    """Adam or AdamW that holds some variables still for the first steps, while their moments fill.

    It takes gradients that are summed over the replicas already. Where `LossScale.marked` has marked
    them as of no use, no weight moves, and the moments fade by one step.

    Gradients of 0 would hold variables too, but leave their moments empty while the bias correction goes
    on: once let go, such variables would move at more than four times the learning rate.

    The decay is not Keras's own with `exclude_from_weight_decay`: that rounds otherwise, so that old runs
    would not go on bit for bit, and decays held variables and those of marked gradients as well.

    Args:
      learning_rate: a rate, or a schedule.
      held: which variables are held, by their places in the list that `build` gets.
      held_steps: for how many steps.
      decayed: which variables decay, by their places.
      decay: what, times the learning rate, each step takes off them before it follows the gradient.
      may_be_marked: whether to look for marked gradients.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
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

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Update one variable, as Keras asks each optimizer to."""
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

    def _move(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor, index: int
    ) -> None:
        """Do what Keras's own update does, in TensorFlow's single operation for it, in half the time."""
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

    def _all_reduce_sum_gradients(self, grads_and_vars: list) -> list:
        return grads_and_vars  # Keras would sum them over the replicas once more.
