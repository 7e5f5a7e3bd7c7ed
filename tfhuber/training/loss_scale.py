"""Mixed precision: what the backbone computes in, and the scale that float16 needs."""

import keras
import tensorflow as tf

__all__ = ["LossScale", "is_marked", "policy"]

_FIRST, _LARGEST, _GROWTH_STEPS = 2.0**15, 2.0**24, 2000


def policy(precision: str) -> keras.DTypePolicy | None:
    """Return Keras's policy for a configuration's `train.precision`; None, the default, for float32."""
    return None if precision == "float32" else keras.DTypePolicy(f"mixed_{precision}")


class LossScale(tf.Module):
    """The factor on the loss that keeps float16 gradients from underflow, found while training.

    It is halved whenever the gradients overflow, and doubled after 2,000 steps in which they did not.
    Make it in the strategy's scope.

    It is not Keras's `LossScaleOptimizer`, which skips the whole step, so that schedule, held variables and
    average fall behind the count of batches, and which has other names in the checkpoints of old runs.
    """

    def __init__(self) -> None:
        super().__init__()
        options = {
            "trainable": False,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        self.value = tf.Variable(_FIRST, dtype=tf.float32, name="loss_scale", **options)
        self.good_steps = tf.Variable(0, dtype=tf.int64, name="good_steps", **options)

    def marked(self, gradient: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
        """Return the gradient, made one that `is_marked` finds where the norm of all is not finite."""
        return tf.where(tf.math.is_finite(norm), gradient, float("nan"))

    def update(self, norm: tf.Tensor) -> tf.Tensor:
        """Choose the next step's scale, after gradients of that norm.

        Returns:
          Whether they overflowed and a smaller scale may help; false as well where they are not finite
          at a scale of 1, so that the fault is elsewhere.
        """
        finite = tf.math.is_finite(norm)
        value, steps = tf.convert_to_tensor(self.value), tf.convert_to_tensor(self.good_steps) + 1
        grows = steps >= _GROWTH_STEPS
        larger = tf.where(grows, tf.minimum(2 * value, _LARGEST), value)
        self.value.assign(tf.where(finite, larger, tf.maximum(value / 2, 1.0)))
        self.good_steps.assign(tf.where(finite & ~grows, steps, 0))
        return ~finite & (value > 1)


def is_marked(gradient: tf.Tensor) -> tf.Tensor:
    """Return whether `LossScale.marked` has marked that gradient as of no use."""
    return tf.math.is_nan(tf.reshape(gradient, [-1])[0])
