"""Incomplete gamma functions as logarithms, which neither underflow nor lose the tails; float64."""

import math

import tensorflow as tf

__all__ = ["log_igamma", "log_inner", "log_inner_scale", "log_outer", "log_outer_scale"]


def log_inner(n: int, radius: tf.Tensor) -> tf.Tensor:
    """Log of the integral of `t^n exp(-t^2/2)` from 0 to `radius`: a lower incomplete gamma."""
    return log_inner_scale(n) + log_igamma((n + 1) / 2, tf.square(radius) / 2)


def log_inner_scale(n: int) -> float:
    return (n - 1) / 2 * math.log(2) + math.lgamma((n + 1) / 2)


def log_outer(n: int, radius: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Log of the integral of `t^n exp(-delta (t - delta/2))` from `radius` on.

    The upper incomplete gamma function of a whole number is a finite sum, so no tail underflows:
    Gamma(n+1, x) = n! exp(-x) (1 + x + ... + x^n / n!).
    """
    product = delta * radius
    terms = [tf.math.xlogy(_double(k), product) - math.lgamma(k + 1) for k in range(n + 1)]
    log_sum = tf.reduce_logsumexp(tf.stack(terms), axis=0)
    return log_outer_scale(n, delta) - product + log_sum


def log_outer_scale(n: int, delta: tf.Tensor) -> tf.Tensor:
    return math.lgamma(n + 1) + tf.square(delta) / 2 - (n + 1) * tf.math.log(delta)


def log_igamma(a: float, x: tf.Tensor) -> tf.Tensor:
    """Log of the regularised lower incomplete gamma function, without underflow for small `x`."""
    small = 2e-4  # below, the first terms of the power series are exact to float64
    x_small, x_large = tf.minimum(x, _double(small)), tf.maximum(x, _double(small))
    series = 1 / a - x_small / (a + 1) + x_small**2 / (2 * (a + 2)) - x_small**3 / (6 * (a + 3))
    log_series = tf.math.xlogy(_double(a), x_small) + tf.math.log(series) - math.lgamma(a)
    return tf.where(x < small, log_series, tf.math.log(tf.math.igamma(_double(a), x_large)))


def _double(value: float) -> tf.Tensor:
    return tf.constant(value, tf.float64)
