"""Arguments of energies and distributions as tensors of one supported dtype: float32 or float64."""

from typing import Any

import numpy as np
import tensorflow as tf

__all__ = [
    "as_float",
    "assertions_of_positive_definite",
    "checked_dimension",
    "common_dtype",
    "is_reference",
    "parameter",
]

DTYPES = (tf.float32, tf.float64)


def as_float(value: Any, name: str) -> tf.Tensor:
    """Return `value` as a float32 or float64 tensor; Python numbers become float32.

    Raises:
      ValueError: `value` has another dtype.
    """
    tensor = tf.convert_to_tensor(float(value) if isinstance(value, int) else value)
    _checked_dtype(tensor.dtype, name)
    return tensor


def common_dtype(**values: Any) -> tf.DType:
    """Return the dtype that those of the values have which have any, by default float32.

    Raises:
      ValueError: they have several dtypes, or one that is neither float32 nor float64.
    """
    dtypes = {
        name: _checked_dtype(part.dtype, name)
        for name, value in values.items()
        for part in tf.nest.flatten(value)
        if getattr(part, "dtype", None) is not None
    }
    if len(set(dtypes.values())) > 1:
        listed = ", ".join(f"{name} is {dtype.name}" for name, dtype in dtypes.items())
        raise ValueError(f"parameters must have one dtype, but {listed}.")
    return next(iter(dtypes.values()), tf.float32)


def parameter(value: Any, dtype: tf.DType, name: str) -> Any:
    """Return `value` as a tensor; None, and what is read at each use such as a variable, as it is."""
    if value is None or is_reference(value):
        return value
    return tf.convert_to_tensor(value, dtype=dtype, name=name)


def is_reference(value: Any) -> bool:
    """Return whether `value` may change later: a variable, or a `tfp.util.DeferredTensor` of one."""
    return isinstance(value, tf.Variable | tf.Module)


def checked_dimension(precision_factor: tf.Tensor, vector: tf.Tensor) -> int:
    """Return the d that the shapes [..., d, d] and [..., d] agree on.

    Raises:
      ValueError: they don't, or it is not known statically.
    """
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


def assertions_of_positive_definite(precision_factor: Any) -> list[Any]:
    """Return assertions that hold to within the rounding of the largest element of each [..., d, d]."""
    factor = tf.convert_to_tensor(precision_factor)
    largest = tf.reduce_max(tf.abs(factor), axis=[-2, -1])
    rounding = 16 * np.finfo(factor.dtype.as_numpy_dtype).eps * largest
    asymmetry = tf.reduce_max(tf.abs(factor - tf.linalg.matrix_transpose(factor)), axis=[-2, -1])
    return [
        tf.debugging.assert_less_equal(
            asymmetry, rounding, message="precision_factor must be symmetric."
        ),
        tf.debugging.assert_greater(
            tf.linalg.eigvalsh(factor),
            -rounding[..., tf.newaxis],
            message="precision_factor must be positive definite.",
        ),
    ]


def _checked_dtype(dtype: Any, name: str) -> tf.DType:
    dtype = tf.as_dtype(dtype)
    if dtype not in DTYPES:
        raise ValueError(f"{name} must be float32 or float64, got {dtype.name}.")
    return dtype
