"""Distributions as the output of any Keras model: a head, its loss, and a metric of what it is worth.

What passes from the head to the loss is one tensor, as Keras wants it: [..., K, d + d^2 + 1], of which each
row holds nu = A mu, the precision factor A row by row, and log|A|; with a learned delta also that.
"""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhuber.distributions.elliptical import Elliptical, MultivariateHuber
from tfhuber.distributions.likelihood import negative_log_likelihood, residual_length
from tfhuber.distributions.radial import Huber, RadialEnergy, radial_energy
from tfhuber.linalg.small_matrix import matvec
from tfhuber.linalg.spd import spd_matrix

__all__ = ["Coverage", "DistributionHead", "NegativeLogLikelihood", "distribution"]

LEARNED = "learned"
# Where a delta is learned: below and above, likelihoods hardly tell one from another.
_LOW, _HIGH = math.log(0.1), math.log(30.0)


@keras.saving.register_keras_serializable(package="tfhuber", name="RegressionHead")
class DistributionHead(keras.layers.Layer):
    """A linear layer from features to `count` distributions in `dimension` dimensions each.

    It computes in float32 under a mixed-precision policy too. It starts at mu = 0, A = I: targets of about
    that size are learned soonest.

    >>> inputs = keras.Input([8])
    >>> outputs = DistributionHead(1, dimension=3)(keras.layers.Dense(16, "relu")(inputs))
    >>> model = keras.Model(inputs, outputs)
    >>> model.compile("adam", NegativeLogLikelihood(), metrics=[Coverage(0.9)])

    Args:
      count: K, distributions for each row of features.
      dimension: d.
      theta: smallest reasonable eigenvalue of A (eq. 9).
      parameterization: whether the layer's first outputs are "nu" = A mu, as in the paper, or "mu".
      delta: "learned" for a delta of Huber's distribution that the head learns for each of the K, between
        0.1 and 30, starting at 1; None if the loss knows it.

    Raises:
      ValueError: an argument is none of these.
    """

    def __init__(
        self,
        count: int,
        dimension: int = 2,
        theta: float = 1.0,
        parameterization: str = "nu",
        delta: str | None = None,
        **kwargs: Any,
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        for name, value in (("count", count), ("dimension", dimension)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if parameterization not in ("nu", "mu"):
            raise ValueError(f"parameterization must be 'nu' or 'mu', got {parameterization!r}")
        if delta not in (None, LEARNED):
            raise ValueError(
                f"delta must be None or {LEARNED!r}, got {delta!r}; the loss takes numbers"
            )
        self.count, self.dimension, self.theta = count, dimension, theta
        self.parameterization, self.delta = parameterization, delta
        self.linear = keras.layers.Dense(
            count * (dimension + dimension * (dimension + 1) // 2),
            kernel_initializer="zeros",
            bias_initializer=self._initial_bias,
            dtype=self.dtype_policy,
            name="linear",
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.linear.build(input_shape)
        if self.delta == LEARNED:
            # The logit of log delta's place between its bounds, from which it always finds back.
            start = math.log(-_LOW / _HIGH)
            self.raw_delta = self.add_weight(
                shape=(self.count,),
                initializer=keras.initializers.Constant(start),
                name="raw_delta",
            )

    def call(self, features: Any) -> tf.Tensor:
        """Map features [..., F] to what the module's docstring describes."""
        d = self.dimension
        raw = self.linear(features)
        raw = tf.reshape(raw, tf.concat([tf.shape(raw)[:-1], [self.count, -1]], axis=0))
        raw = tf.ensure_shape(raw, [*features.shape[:-1], self.count, d + d * (d + 1) // 2])
        factor, log_det = spd_matrix(raw[..., d:], self.theta)
        delta = []
        if self.delta == LEARNED:
            # As delta changes, the covariance does not: A takes sqrt(kappa) with it.
            place = tf.sigmoid(tf.convert_to_tensor(self.raw_delta))
            value = tf.exp(_LOW + (_HIGH - _LOW) * place)
            root = tf.sqrt(Huber(value).kappa(d))
            factor *= root[:, tf.newaxis, tf.newaxis]
            log_det += d * tf.math.log(root)
            delta = [tf.broadcast_to(value, tf.shape(log_det))[..., tf.newaxis]]
        nu = raw[..., :d] if self.parameterization == "nu" else matvec(factor, raw[..., :d])
        flat = tf.reshape(factor, tf.concat([tf.shape(log_det), [d * d]], axis=0))
        return tf.concat([nu, flat, log_det[..., tf.newaxis], *delta], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple:
        d = self.dimension
        return (*input_shape[:-1], self.count, d + d * d + 1 + (self.delta == LEARNED))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "count": self.count,
            "dimension": self.dimension,
            "theta": self.theta,
            "parameterization": self.parameterization,
            "delta": self.delta,
        }

    def _initial_bias(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        # What g takes to 1, on the diagonal.
        one = 1.0 if self.theta <= 1 else self.theta * (1 - math.log(self.theta))
        rows, columns = np.tril_indices(self.dimension)
        row = np.concatenate([np.zeros(self.dimension), np.where(rows == columns, one, 0.0)])
        return keras.ops.convert_to_tensor(np.tile(row, self.count), dtype=dtype)


@keras.saving.register_keras_serializable(package="tfhuber")
class NegativeLogLikelihood(keras.losses.Loss):
    """Minus the log-density of targets under what a `DistributionHead` predicts, its constant included.

    Targets are [..., K, d], where a K or d of 1 may be left out. A target with a NaN or an infinity is
    missing. The loss of a row [...] is the mean over its targets that are there, and that of a batch the
    mean over the rows that have any, weighed by `sample_weight`.

    A saved model is loaded by `keras.models.load_model`, once a name such as `tfhuber.DistributionHead` has
    been used: until then tfhuber has not told Keras of it.

    Args:
      family: "huber", "gauss", "laplace" or "charbonnier".
      delta: the knee of Huber's energy; "learned" if the head learns it.
      reduction: Keras's.

    Raises:
      ValueError: there is no such family, or `delta` is neither positive nor "learned".
    """

    def __init__(
        self,
        family: str = "huber",
        delta: float | str = 1.0,
        name: str = "negative_log_likelihood",
        reduction: str = "sum_over_batch_size",
        **kwargs: Any,
    ):
        super().__init__(
            name=name, reduction=reduction, dtype=kwargs.pop("dtype", "float32"), **kwargs
        )
        self.family, self.delta = _checked(family, delta)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the losses [...] of rows."""
        nu, factor, log_det, energy = _parts(y_pred, self.family, self.delta)
        y, present = _targets(y_true, nu)
        d = nu.shape[-1]
        loss = negative_log_likelihood(y, nu, factor, log_det, energy)
        loss += tf.cast(energy.log_normalizer(d), loss.dtype)
        there = tf.cast(present, loss.dtype)
        count = tf.reduce_sum(there, axis=-1)
        rows = tf.reduce_sum(tf.where(present, loss, 0.0), axis=-1) / tf.maximum(count, 1.0)
        if self.reduction not in ("sum", "none", None):  # a mean, of which empty rows are a part
            rows /= tf.maximum(tf.reduce_mean(tf.cast(count > 0, loss.dtype)), 1e-9)
        return rows

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "family": self.family, "delta": self.delta}


@keras.saving.register_keras_serializable(package="tfhuber")
class Coverage(keras.metrics.Mean):
    """The part of the targets inside the region that should hold `probability` of them.

    Args:
      probability: between 0 and 1.
      family: as the loss has it.
      delta: as the loss has it.
      name: of the metric; by default such as `coverage_90`.

    Raises:
      ValueError: an argument is none of these.
    """

    def __init__(
        self,
        probability: float = 0.9,
        family: str = "huber",
        delta: float | str = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ):
        if not 0 < probability < 1:
            raise ValueError(f"probability must be between 0 and 1, got {probability!r}")
        super().__init__(name=name or f"coverage_{100 * probability:g}", **kwargs)
        self.probability = probability
        self.family, self.delta = _checked(family, delta)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count the targets of a batch that are there; `sample_weight` [...] is of rows."""
        nu, factor, _, energy = _parts(y_pred, self.family, self.delta)
        y, present = _targets(y_true, nu)
        inside = energy.cdf(residual_length(y, nu, factor), nu.shape[-1]) <= self.probability
        weight = tf.cast(present, tf.float32)
        if sample_weight is not None:
            rows = tf.cast(sample_weight, tf.float32)
            weight *= tf.reshape(rows, tf.shape(weight)[:-1])[..., tf.newaxis]
        super().update_state(*(tf.reshape(x, [-1]) for x in (tf.cast(inside, tf.float32), weight)))

    def get_config(self) -> dict[str, Any]:
        own = {"probability": self.probability, "family": self.family, "delta": self.delta}
        return {**super().get_config(), **own}


def distribution(prediction: Any, family: str = "huber", delta: float | str = 1.0) -> Elliptical:
    """Return the distributions [..., K] that a model with a `DistributionHead` predicts.

    Args:
      prediction: what the model's `predict` or call returned.
      family: as the loss has it.
      delta: as the loss has it.

    Raises:
      ValueError: the last dimension is no head's, or an argument is none of these.
    """
    nu, factor, log_det, energy = _parts(tf.convert_to_tensor(prediction), *_checked(family, delta))
    parameters = {"nu": nu, "precision_factor": factor, "log_det": log_det}
    if delta == LEARNED:
        return MultivariateHuber(delta=energy.delta, **parameters)
    return Elliptical(radial=energy, **parameters)


def _checked(family: str, delta: float | str) -> tuple[str, float | str]:
    if delta == LEARNED and family != "huber":
        raise ValueError(f"only Huber's delta can be learned, not that of {family!r}")
    radial_energy(family, 1.0 if delta == LEARNED else delta)
    return family, delta


def _parts(
    prediction: tf.Tensor, family: str, delta: float | str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, RadialEnergy]:
    """Return nu [..., d], A [..., d, d], log|A| [...] and the energy that a head's output holds."""
    learned = delta == LEARNED
    width = prediction.shape[-1] or 0
    d = (math.isqrt(4 * max(width - 1 - learned, 0) + 1) - 1) // 2
    if d < 1 or d + d * d + 1 + learned != width:
        raise ValueError(
            f"a prediction must be a DistributionHead's, with d + d^2 + {1 + learned} numbers for "
            f"delta={delta!r}, got {width}; is delta 'learned' in the head and not here, or here alone?"
        )
    nu, flat, log_det = tf.split(prediction[..., : d + d * d + 1], [d, d * d, 1], axis=-1)
    factor = tf.reshape(flat, tf.concat([tf.shape(flat)[:-1], [d, d]], axis=0))
    factor = tf.ensure_shape(factor, [*prediction.shape[:-1], d, d])
    energy = Huber(prediction[..., -1]) if learned else radial_energy(family, float(delta))
    return nu, factor, log_det[..., 0], energy


def _targets(y_true: Any, nu: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the targets in the shape of `nu`, with zeros where one is missing, and which are there.

    Raises:
      ValueError: the targets have another shape.
    """
    y = tf.cast(y_true, nu.dtype)
    *rows, count, d = nu.shape
    shapes = [[*rows, count, d]]
    shapes += [[*rows, count]] if d == 1 else []
    shapes += [[*rows, d]] if count == 1 else []
    shapes += [rows] if count == d == 1 else []
    if not any(y.shape.is_compatible_with(shape) for shape in shapes):
        raise ValueError(f"targets must be {shapes[0]} or leave out a 1 at its end, got {y.shape}")
    y = tf.ensure_shape(tf.reshape(y, tf.shape(nu)), nu.shape)
    present = tf.reduce_all(tf.math.is_finite(y), axis=-1)
    return tf.where(present[..., tf.newaxis], y, 0.0), present
