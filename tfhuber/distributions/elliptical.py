"""Elliptical distributions: densities that depend on a point through |A (y - mu)| alone.

With a symmetric positive definite `precision_factor` A, `loc` mu, `nu` = A mu and a radial energy
rho, the density in d dimensions is (eq. 3)

    p(y) = |A| / c_d exp(-rho(|A y - nu|)),

its mean and mode are mu and its covariance is kappa inv(A A) with kappa = E[r^2] / d: not inv(A A).
Points, locations and covariances are in one frame, whichever the caller uses, and all parameters are
float32 or all float64.
"""

import numbers
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfhuber.distributions.arguments import (
    assertions_of_positive_definite,
    checked_dimension,
    common_dtype,
    parameter,
)
from tfhuber.distributions.composite import ParametersSpec
from tfhuber.distributions.likelihood import negative_log_likelihood, residual_length
from tfhuber.distributions.radial import Gauss, Huber, RadialEnergy
from tfhuber.linalg import small_matrix

__all__ = ["Elliptical", "MultivariateHuber"]

tfb = tfp.bijectors
tfd = tfp.distributions


class Elliptical(tfp.distributions.Distribution, tfp.experimental.AutoCompositeTensor):
    """The elliptical distribution of any radial energy (eq. 3; eq. 11-13 with their constants).

        p(y) = |A| / c_d exp(-rho(|A (y - loc)|))

    Parameters broadcast against each other; they may be tensors or variables. The distribution is a
    composite tensor: it passes into and out of a `tf.function`.

    >>> dist = Elliptical([1.0, 2.0], [[2.0, 0.0], [0.0, 1.0]], Laplace())
    >>> print(dist.covariance().numpy())
    [[0.75 0.  ]
     [0.   3.  ]]

    Args:
      loc: [..., d], the mean and mode, float32 or float64 as all others.
      precision_factor: [..., d, d], A, symmetric positive definite. The covariance is
        `kappa inv(A A)`.
      radial: rho, for example `Gauss()`.
      nu: [..., d], A loc, instead of `loc`.
      log_det: [...], log |A| if it is known better than from A itself, as from `spd_matrix`.
      validate_args: whether to check, as it runs, that A is symmetric and positive definite to within
        the rounding of its largest element.
      allow_nan_stats: as for every distribution of TensorFlow Probability.
      name: a name for the operations.
      dtype: of the parameters; by default their common one.
      parameters: for a subclass: what its own constructor was called with.

    Raises:
      ValueError: both or neither of `loc` and `nu` are given, `precision_factor` or `radial` is missing,
        `radial` is a batch, the shapes do not fit each other, the number of dimensions d is not known
        statically, or the dtypes differ or are neither float32 nor float64.
    """

    def __init__(
        self,
        loc: Any = None,
        precision_factor: Any = None,
        radial: RadialEnergy | None = None,
        nu: Any = None,
        log_det: Any = None,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "Elliptical",
        dtype: tf.DType | None = None,
        parameters: dict[str, Any] | None = None,
    ):
        own_parameters = dict(locals())
        if (loc is None) == (nu is None):
            raise ValueError("exactly one of loc and nu must be given.")
        if precision_factor is None:
            raise ValueError("precision_factor must be given.")
        if not isinstance(radial, RadialEnergy):
            raise ValueError(f"radial must be a RadialEnergy such as Gauss(), got {radial!r}.")
        if parameters is None and radial.batch_shape.rank != 0:
            raise ValueError(
                "radial must be one energy; MultivariateHuber takes a batch of deltas."
            )
        with tf.name_scope(name) as name:
            given = {"loc": loc, "precision_factor": precision_factor, "nu": nu, "log_det": log_det}
            dtype = common_dtype(**given) if dtype is None else dtype
            self._loc = parameter(loc, dtype, "loc")
            self._nu = parameter(nu, dtype, "nu")
            self._precision_factor = parameter(precision_factor, dtype, "precision_factor")
            self._log_det = parameter(log_det, dtype, "log_det")
            self._radial = radial
            self._dimension = checked_dimension(
                self._precision_factor, self._nu if loc is None else self._loc
            )
            super().__init__(
                dtype=dtype,
                reparameterization_type=tfd.FULLY_REPARAMETERIZED,
                validate_args=validate_args,
                allow_nan_stats=allow_nan_stats,
                parameters=own_parameters if parameters is None else parameters,
                name=name,
            )

    @classmethod
    def from_natural(cls, nu: Any, precision_factor: Any, *family: Any, **options: Any) -> Any:
        """Make the distribution of `nu` = A loc and A, which is what a network predicts.

        `log_prob` and `radius` then never invert A; `loc` is solved when it is asked for. What follows
        A is as in the constructor: the radial energy, or `delta` of a `MultivariateHuber`.
        """
        options["nu"] = nu
        return cls(None, precision_factor, *family, **options)

    @property
    def radial(self) -> RadialEnergy:
        """The radial energy, which also answers for the distribution of the radius."""
        return self._radial

    @property
    def loc(self) -> tf.Tensor:
        """The location mu [..., d]; solved from `nu` where that was given."""
        if self._loc is not None:
            return self._loc
        return small_matrix.matvec(self._inverse(), self._nu)

    @property
    def nu(self) -> tf.Tensor:
        """A mu [..., d]."""
        if self._nu is not None:
            return self._nu
        return small_matrix.matvec(self._precision_factor, self._loc)

    @property
    def precision_factor(self) -> tf.Tensor:
        """The symmetric positive definite A [..., d, d]."""
        return self._precision_factor

    @property
    def log_det(self) -> tf.Tensor:
        """log |A| [...]; computed from A where it was not given."""
        if self._log_det is not None:
            return self._log_det
        return small_matrix.log_determinant(self._precision_factor)

    @property
    def composite_parameters(self) -> dict[str, Any]:
        """The constructor's arguments with tensors for arrays, without the name and what was left out."""
        parameters = {
            "loc": self._loc,
            "precision_factor": self._precision_factor,
            "radial": self._radial,
            "nu": self._nu,
            "log_det": self._log_det,
        }
        options = {"validate_args": self.validate_args, "allow_nan_stats": self.allow_nan_stats}
        return {k: v for k, v in parameters.items() if v is not None} | options

    @property
    def _type_spec(self) -> ParametersSpec:
        return _EllipticalSpec.of(self.composite_parameters)

    def radius(self, value: Any) -> tf.Tensor:
        """Compute the distance |A (value - loc)| [...] in which the density falls."""
        value = tf.convert_to_tensor(value, dtype=self.dtype)
        return residual_length(*self._y_and_nu(value), self._precision_factor)

    def radial_cdf(self, value: Any) -> tf.Tensor:
        """Compute the probability [...] inside the ellipse of equal density through `value`."""
        return self.radial.cdf(self.radius(value), self._dimension)

    def radius_quantile(self, probability: Any) -> tf.Tensor:
        """Compute the `radius` [...] of the ellipse of equal density that holds `probability`.

        That ellipse is `loc + radius inv(A) u` with u on the unit circle.
        """
        probability = tf.convert_to_tensor(probability, dtype=self.dtype)
        return self.radial.quantile(probability, self._dimension)

    @classmethod
    def _parameter_properties(cls, dtype: tf.DType, num_classes: Any = None) -> dict[str, Any]:
        properties = tfp.util.ParameterProperties

        def spd_bijector() -> Any:
            return tfb.Chain([tfb.CholeskyOuterProduct(), tfb.FillScaleTriL()])

        return {
            "loc": properties(event_ndims=1),
            "precision_factor": properties(
                event_ndims=2,
                shape_fn=lambda shape: tf.concat([shape, shape[-1:]], axis=0),
                default_constraining_bijector_fn=spd_bijector,
            ),
            "nu": properties(event_ndims=1, is_preferred=False),
            "log_det": properties(
                event_ndims=0, shape_fn=lambda shape: shape[:-1], is_preferred=False
            ),
        }

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant([self._dimension], tf.int32)

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([self._dimension])

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        y, nu = self._y_and_nu(value)
        loss = negative_log_likelihood(y, nu, self._precision_factor, self.log_det, self.radial)
        return -loss - self.radial.log_normalizer(self._dimension)

    def _y_and_nu(self, value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Arguments of the residual A y - nu: without inverting A, and without cancelling."""
        if self._loc is None:
            return value, self._nu
        return value - self._loc, tf.zeros_like(self._loc)

    def _sample_n(self, n: tf.Tensor, seed: Any = None) -> tf.Tensor:
        radius_seed, direction_seed = tfp.random.split_seed(seed, salt="elliptical_sample")
        shape = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        radius = self.radial.sample(shape, self._dimension, seed=radius_seed, dtype=self.dtype)
        shape = tf.concat([shape, [self._dimension]], axis=0)
        draw = tf.random.stateless_normal(shape, direction_seed, dtype=self.dtype)
        step = radius[..., tf.newaxis] * _direction(draw)
        return self.loc + small_matrix.matvec(self._inverse(), step)

    def _mean(self) -> tf.Tensor:
        return tf.broadcast_to(self.loc, self._full_shape([self._dimension]))

    def _mode(self) -> tf.Tensor:
        return self._mean()

    def _covariance(self) -> tf.Tensor:
        inverse = self._inverse()
        square = small_matrix.matmul(inverse, inverse)
        covariance = self._kappa()[..., tf.newaxis, tf.newaxis] * square
        return tf.broadcast_to(covariance, self._full_shape([self._dimension] * 2))

    def _variance(self) -> tf.Tensor:
        squares = tf.reduce_sum(tf.square(self._inverse()), axis=-1)
        return tf.broadcast_to(
            self._kappa()[..., tf.newaxis] * squares, self._full_shape([self._dimension])
        )

    def _entropy(self) -> tf.Tensor:
        entropy = self.radial.entropy(self._dimension) - self.log_det
        return tf.broadcast_to(entropy, self.batch_shape_tensor())

    def _kappa(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.radial.kappa(self._dimension), self.dtype)

    def _inverse(self) -> tf.Tensor:
        return small_matrix.inverse(self._precision_factor, self._log_det)

    def _full_shape(self, event_shape: list[int]) -> tf.Tensor:
        return tf.concat([self.batch_shape_tensor(), event_shape], axis=0)

    def _is_checked(self, is_init: bool) -> bool:
        """Return whether to assert now: at each use, and as soon as made where that can fail at once."""
        return self.validate_args and (tf.executing_eagerly() or not is_init)

    def _default_event_space_bijector(self) -> Any:
        return tfb.Identity(validate_args=self.validate_args)

    def _parameter_control_dependencies(self, is_init: bool) -> list[Any]:
        if not self._is_checked(is_init):
            return []
        return assertions_of_positive_definite(self._precision_factor)


class MultivariateHuber(Elliptical):
    """The L2 multivariate Huber distribution (section 3.1): a Gaussian centre, exponential tails.

        p(y) = |A| / c_d(delta) exp(-rho(|A (y - loc)|)),
        rho(r) = r^2 / 2 up to delta, delta (r - delta / 2) beyond.

    It is a composite tensor, and its parameters broadcast against each other, as for `Elliptical`.

    >>> dist = MultivariateHuber(loc=[1.0, 2.0], precision_factor=[[2.0, 0.0], [0.0, 1.0]])
    >>> print(dist.covariance().numpy().round(3))
    [[0.769 0.   ]
     [0.    3.076]]

    Args:
      delta: [...], positive: where the energy turns linear. A Python number is cheapest.
      loc, precision_factor, nu, log_det, allow_nan_stats, name: as for `Elliptical`.
      validate_args: whether to check `delta > 0` as well, as it runs.

    Raises:
      ValueError: as for `Elliptical`, or a numeric `delta` is not positive.
    """

    def __init__(
        self,
        loc: Any = None,
        precision_factor: Any = None,
        delta: Any = 1.0,
        nu: Any = None,
        log_det: Any = None,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "MultivariateHuber",
    ):
        parameters = dict(locals())
        given = {"loc": loc, "precision_factor": precision_factor, "nu": nu, "log_det": log_det}
        if isinstance(delta, numbers.Real):  # which says nothing of the dtype
            delta, dtype = float(delta), common_dtype(**given)
        else:
            dtype = common_dtype(**given, delta=delta)
            delta = parameter(delta, dtype, "delta")
        self._delta = delta
        super().__init__(
            loc=loc,
            precision_factor=precision_factor,
            radial=Huber(delta),
            nu=nu,
            log_det=log_det,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            name=name,
            dtype=dtype,
            parameters=parameters,
        )

    @property
    def delta(self) -> tf.Tensor:
        """Where the energy turns from quadratic to linear, in units of the radius."""
        return tf.convert_to_tensor(self._delta, dtype=self.dtype)

    @property
    def composite_parameters(self) -> dict[str, Any]:
        parameters = {**super().composite_parameters, "delta": self._delta}
        return {k: v for k, v in parameters.items() if k != "radial"}

    @property
    def _type_spec(self) -> ParametersSpec:
        return _HuberSpec.of(self.composite_parameters)

    @classmethod
    def _parameter_properties(cls, dtype: tf.DType, num_classes: Any = None) -> dict[str, Any]:
        smallest = np.finfo(tf.as_dtype(dtype).as_numpy_dtype).eps
        return {
            **super()._parameter_properties(dtype, num_classes),
            "delta": tfp.util.ParameterProperties(
                event_ndims=0,
                shape_fn=lambda shape: shape[:-1],
                default_constraining_bijector_fn=lambda: tfb.Softplus(low=smallest),
            ),
        }

    def _parameter_control_dependencies(self, is_init: bool) -> list[Any]:
        assertions = super()._parameter_control_dependencies(is_init)
        if self._is_checked(is_init):
            assertions.append(
                tf.debugging.assert_positive(self.delta, message="delta must be positive.")
            )
        return assertions


class _EllipticalSpec(ParametersSpec):
    value_type = property(lambda self: Elliptical)


class _HuberSpec(ParametersSpec):
    value_type = property(lambda self: MultivariateHuber)


@tfd.RegisterKL(Elliptical, Elliptical)
def _kl_divergence(a: Elliptical, b: Elliptical, name: str | None = None) -> tf.Tensor:
    """Compute KL(a || b) [...] of Gaussians, the only family here for which it has a closed form."""
    if not (isinstance(a.radial, Gauss) and isinstance(b.radial, Gauss)):
        raise NotImplementedError(
            f"KL(a || b) has a closed form where both are Gauss, got {a.radial!r} and {b.radial!r}."
        )
    with tf.name_scope(name or "kl_elliptical_elliptical"):
        ratio = small_matrix.matmul(b.precision_factor, a._inverse())
        squared_distance = tf.square(b.radius(a.loc))
        trace = tf.reduce_sum(tf.square(ratio), axis=[-2, -1])
        return (trace + squared_distance - a.event_shape[0]) / 2 + a.log_det - b.log_det


def _direction(draw: tf.Tensor) -> tf.Tensor:
    """Directions [..., d], of length 1, of normal draws; the first axis where a draw is 0."""
    if draw.shape[-1] == 1:
        return tf.where(draw < 0, -tf.ones_like(draw), tf.ones_like(draw))
    length = tf.norm(draw, axis=-1, keepdims=True)
    first_axis = tf.one_hot(0, draw.shape[-1], dtype=draw.dtype)
    return tf.where(length > 0, draw / tf.where(length > 0, length, 1), first_axis)
