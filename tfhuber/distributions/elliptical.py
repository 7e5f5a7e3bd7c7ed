"""Elliptical distributions: densities that depend on a point through |A (y - mu)| alone.

With a symmetric positive definite `precision_factor` A, `loc` mu, `nu` = A mu and a radial energy
rho, the density in d dimensions is (eq. 3)

    p(y) = |A| / c_d exp(-rho(|A y - nu|)),

its mean and mode are mu and its covariance is kappa inv(A A) with kappa = E[r^2] / d: not inv(A A).
Points, locations and covariances are in one frame, whichever the caller uses.
"""

import numbers
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.internal import (
    dtype_util,
    parameter_properties,
    samplers,
    tensor_util,
)
from tensorflow_probability.python.internal import prefer_static as ps

from tfhuber.distributions.radial import Huber, RadialEnergy
from tfhuber.linalg import small_matrix

__all__ = ["Elliptical", "MultivariateHuber", "negative_log_likelihood"]

tfb = tfp.bijectors
tfd = tfp.distributions


def negative_log_likelihood(
    y: tf.Tensor,
    nu: tf.Tensor,
    precision_factor: tf.Tensor,
    log_det: tf.Tensor,
    energy: RadialEnergy,
) -> tf.Tensor:
    """The training loss `-log |A| + rho(|A y - nu|)` of eq. 6, without a normalising constant.

    It inverts nothing, and all its gradients are finite wherever its arguments and |A y - nu|^2 are.

    Args:
      y: [..., d], the points.
      nu: [..., d], A times the location.
      precision_factor: [..., d, d], A, as `spd_matrix` gives it.
      log_det: [...], log |A|, as `spd_matrix` gives it.
      energy: rho, for example `Huber(1.0)`.

    Returns:
      [...], the common batch shape.
    """
    return energy.energy(_squared_residual(y, nu, precision_factor)) - log_det


class Elliptical(tfd.Distribution):
    """The elliptical distribution of any radial energy (eq. 3; eq. 11-13 with their constants).

        p(y) = |A| / c_d exp(-rho(|A (y - loc)|))

    Parameters broadcast against each other; they may be tensors or variables.

    >>> dist = Elliptical([1.0, 2.0], [[2.0, 0.0], [0.0, 1.0]], Laplace())
    >>> print(dist.covariance().numpy())
    [[0.75 0.  ]
     [0.   3.  ]]

    Args:
      loc: [..., d], the mean and mode.
      precision_factor: [..., d, d], A, symmetric positive definite. The covariance is
        `kappa inv(A A)`.
      radial: rho, for example `Gauss()`.
      nu: [..., d], A loc, instead of `loc`.
      log_det: [...], log |A| if it is known better than from A itself, as from `spd_matrix`.
      validate_args: whether to check symmetry and positive definiteness as it runs.
      allow_nan_stats: as for every distribution of TensorFlow Probability.
      name: a name for the operations.
      dtype: of the parameters; by default their common one.
      parameters: for a subclass: what its own constructor was called with.

    Raises:
      ValueError: both or neither of `loc` and `nu` are given, `precision_factor` or `radial` is missing,
        `radial` is a batch, the shapes do not fit each other, or the number of dimensions d is not known
        statically.
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
        is_direct = parameters is None
        if (loc is None) == (nu is None):
            raise ValueError("exactly one of loc and nu must be given.")
        if precision_factor is None:
            raise ValueError("precision_factor must be given.")
        if not isinstance(radial, RadialEnergy):
            raise ValueError(f"radial must be a RadialEnergy such as Gauss(), got {radial!r}.")
        if is_direct and tf.convert_to_tensor(radial.kappa(1)).shape.rank != 0:
            raise ValueError(
                "radial must be one energy; MultivariateHuber takes a batch of deltas."
            )
        with tf.name_scope(name) as name:
            if dtype is None:
                tensors = [loc, precision_factor, nu, log_det]
                dtype = dtype_util.common_dtype(tensors, dtype_hint=tf.float32)
            convert = tensor_util.convert_nonref_to_tensor
            self._radial = radial
            self._loc = convert(loc, dtype=dtype, name="loc")
            self._nu = convert(nu, dtype=dtype, name="nu")
            self._precision_factor = convert(precision_factor, dtype=dtype, name="precision_factor")
            self._log_det = convert(log_det, dtype=dtype, name="log_det")
            self._dimension = _checked_dimension(
                self._precision_factor, self._nu if loc is None else self._loc
            )
            super().__init__(
                dtype=dtype,
                reparameterization_type=tfd.FULLY_REPARAMETERIZED,
                validate_args=validate_args,
                allow_nan_stats=allow_nan_stats,
                parameters=own_parameters if is_direct else parameters,
                name=name,
            )

    @classmethod
    def from_natural(cls, nu: Any, precision_factor: Any, *family: Any, **options: Any):
        """The distribution from `nu` = A loc and A, which is what a network predicts.

        `log_prob` and `radius` then never invert A; `loc` is solved when it is asked for. What follows
        A is as in the constructor: the radial energy, or `delta` of a `MultivariateHuber`.
        """
        return cls(None, precision_factor, *family, nu=nu, **options)

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

    def radius(self, value: Any) -> tf.Tensor:
        """The distance |A (value - loc)| [...] in which the density falls."""
        value = tf.convert_to_tensor(value, dtype=self.dtype)
        squared = _squared_residual(*self._y_and_nu(value), self._precision_factor)
        is_positive = squared > 0
        # The square root has no slope at 0; there the gradient is defined as 0.
        root = tf.sqrt(tf.where(is_positive, squared, 1))
        return tf.where(is_positive, root, squared)

    def radial_cdf(self, value: Any) -> tf.Tensor:
        """Probability [...] inside the ellipse (ellipsoid) of equal density through `value`."""
        return self.radial.cdf(self.radius(value), self._dimension)

    def radius_quantile(self, probability: Any) -> tf.Tensor:
        """The `radius` [...] of the ellipse of equal density that holds `probability`.

        That ellipse is `loc + radius inv(A) u` with u on the unit circle.
        """
        probability = tf.convert_to_tensor(probability, dtype=self.dtype)
        return self.radial.quantile(probability, self._dimension)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        def spd_bijector():
            return tfb.Chain([tfb.CholeskyOuterProduct(), tfb.FillScaleTriL()])

        return {
            "loc": parameter_properties.ParameterProperties(event_ndims=1),
            "precision_factor": parameter_properties.ParameterProperties(
                event_ndims=2,
                shape_fn=lambda shape: ps.concat([shape, shape[-1:]], axis=0),
                default_constraining_bijector_fn=spd_bijector,
            ),
            "nu": parameter_properties.ParameterProperties(event_ndims=1, is_preferred=False),
            "log_det": parameter_properties.ParameterProperties(
                event_ndims=0, shape_fn=lambda shape: shape[:-1], is_preferred=False
            ),
        }

    def _event_shape_tensor(self):
        return tf.constant([self._dimension], tf.int32)

    def _event_shape(self):
        return tf.TensorShape([self._dimension])

    def _log_prob(self, value):
        y, nu = self._y_and_nu(value)
        loss = negative_log_likelihood(y, nu, self._precision_factor, self.log_det, self.radial)
        return -loss - self.radial.log_normalizer(self._dimension)

    def _y_and_nu(self, value):
        """Arguments of the residual A y - nu: without inverting A, and without cancelling."""
        if self._loc is None:
            return value, self._nu
        return value - self._loc, tf.zeros_like(self._loc)

    def _sample_n(self, n, seed=None):
        radius_seed, direction_seed = samplers.split_seed(seed, salt="elliptical_sample")
        shape = ps.concat([[n], self._batch_shape_tensor()], axis=0)
        radius = self.radial.sample(shape, self._dimension, seed=radius_seed, dtype=self.dtype)
        direction = samplers.normal(
            ps.concat([shape, [self._dimension]], axis=0), dtype=self.dtype, seed=direction_seed
        )
        direction /= tf.norm(direction, axis=-1, keepdims=True)
        return self.loc + small_matrix.matvec(self._inverse(), radius[..., tf.newaxis] * direction)

    def _mean(self):
        return tf.broadcast_to(self.loc, self._full_shape([self._dimension]))

    def _mode(self):
        return self._mean()

    def _covariance(self):
        inverse = self._inverse()
        covariance = self._kappa()[..., tf.newaxis, tf.newaxis] * small_matrix.matmul(
            inverse, inverse
        )
        return tf.broadcast_to(covariance, self._full_shape([self._dimension] * 2))

    def _variance(self):
        squares = tf.reduce_sum(tf.square(self._inverse()), axis=-1)
        return tf.broadcast_to(
            self._kappa()[..., tf.newaxis] * squares, self._full_shape([self._dimension])
        )

    def _entropy(self):
        entropy = self.radial.entropy(self._dimension) - self.log_det
        return tf.broadcast_to(entropy, self._batch_shape_tensor())

    def _kappa(self):
        return tf.convert_to_tensor(self.radial.kappa(self._dimension), self.dtype)

    def _inverse(self):
        return small_matrix.inverse(self._precision_factor, self._log_det)

    def _full_shape(self, event_shape):
        return ps.concat([self._batch_shape_tensor(), event_shape], axis=0)

    def _default_event_space_bijector(self):
        return tfb.Identity(validate_args=self.validate_args)

    def _parameter_control_dependencies(self, is_init):
        if not self.validate_args:
            return []
        factor = tf.convert_to_tensor(self._precision_factor)
        return [
            tf.debugging.assert_near(
                factor,
                tf.linalg.matrix_transpose(factor),
                message="precision_factor must be symmetric.",
            ),
            tf.debugging.assert_positive(
                tf.linalg.eigvalsh(factor), message="precision_factor must be positive definite."
            ),
        ]


class MultivariateHuber(Elliptical):
    """The L2 multivariate Huber distribution (section 3.1): a Gaussian centre, exponential tails.

        p(y) = |A| / c_d(delta) exp(-rho(|A (y - loc)|)),
        rho(r) = r^2 / 2 up to delta, delta (r - delta / 2) beyond.

    Parameters broadcast against each other; parameters may be tensors or variables.

    >>> dist = MultivariateHuber(loc=[1.0, 2.0], precision_factor=[[2.0, 0.0], [0.0, 1.0]])
    >>> print(dist.covariance().numpy().round(3))
    [[0.769 0.   ]
     [0.    3.076]]

    Args:
      loc: [..., d], the mean and mode.
      precision_factor: [..., d, d], A, symmetric positive definite. The covariance is
        `kappa inv(A A)`.
      delta: [...], positive: where the energy turns linear. A Python number is cheapest.
      nu: [..., d], A loc, instead of `loc`.
      log_det: [...], log |A| if it is known better than from A itself, as from `spd_matrix`.
      validate_args: whether to check symmetry, positive definiteness and `delta > 0` as it runs.
      allow_nan_stats: as for every distribution of TensorFlow Probability.
      name: a name for the operations.

    Raises:
      ValueError: both or neither of `loc` and `nu` are given, the shapes do not fit each other, the
        number of dimensions d is not known statically, or a numeric `delta` is not positive.
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
        is_number = isinstance(delta, numbers.Real)  # which says nothing of the dtype
        tensors = [loc, precision_factor, nu, log_det, None if is_number else delta]
        dtype = dtype_util.common_dtype(tensors, dtype_hint=tf.float32)
        if not is_number:
            delta = tensor_util.convert_nonref_to_tensor(delta, dtype=dtype, name="delta")
        radial = Huber(delta)
        # A variable stays one, so that what is asked later follows it.
        self._delta = radial.delta if is_number else delta
        super().__init__(
            loc=loc,
            precision_factor=precision_factor,
            radial=radial,
            nu=nu,
            log_det=log_det,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            name=name,
            dtype=dtype,
            parameters=parameters,
        )

    @property
    def delta(self) -> Any:
        """Where the energy turns from quadratic to linear, in units of the radius."""
        return tf.convert_to_tensor(self._delta, dtype=self.dtype)

    @property
    def radial(self) -> Huber:
        return Huber(self._delta)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {
            **super()._parameter_properties(dtype, num_classes),
            "delta": parameter_properties.ParameterProperties(
                event_ndims=0,
                shape_fn=lambda shape: shape[:-1],
                default_constraining_bijector_fn=lambda: tfb.Softplus(low=dtype_util.eps(dtype)),
            ),
        }

    def _parameter_control_dependencies(self, is_init):
        assertions = super()._parameter_control_dependencies(is_init)
        if self.validate_args:
            assertions.append(
                tf.debugging.assert_positive(self.delta, message="delta must be positive.")
            )
        return assertions


def _squared_residual(y: tf.Tensor, nu: tf.Tensor, precision_factor: tf.Tensor) -> tf.Tensor:
    """|A y - nu|^2."""
    if precision_factor.shape[-1] == 2:
        m_00, m_01, m_10, m_11 = small_matrix.elements_2x2(precision_factor)
        (y_0, y_1), (nu_0, nu_1) = map(small_matrix.deinterleave, (y, nu))
        residuals = m_00 * y_0 + m_01 * y_1 - nu_0, m_10 * y_0 + m_11 * y_1 - nu_1
        return tf.square(residuals[0]) + tf.square(residuals[1])
    return tf.reduce_sum(tf.square(small_matrix.matvec(precision_factor, y) - nu), axis=-1)


def _checked_dimension(precision_factor: tf.Tensor, vector: tf.Tensor) -> int:
    """The d that both shapes agree on."""
    matrix_shape, vector_shape = precision_factor.shape, vector.shape
    if matrix_shape.rank is None or matrix_shape.rank < 2:
        raise ValueError(f"precision_factor must have shape [..., d, d], got {matrix_shape}.")
    if vector_shape.rank is None or vector_shape.rank < 1:
        raise ValueError(f"loc or nu must have shape [..., d], got {vector_shape}.")
    rows, columns, d = matrix_shape[-2], matrix_shape[-1], vector_shape[-1]
    if d is None or not rows == columns == d:
        raise ValueError(
            "precision_factor must have shape [..., d, d] and loc or nu [..., d] with the same d, "
            f"got {matrix_shape} and {vector_shape}."
        )
    return d
