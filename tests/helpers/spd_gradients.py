"""The gradient of a sum over what the SPD map gives, for its tests."""

import tensorflow as tf

from tfhuber.linalg.spd import spd_matrix


def gradient_tensor(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        matrix, log_det = spd_matrix(x)
        loss = tf.reduce_sum(matrix) + tf.reduce_sum(log_det)
    return tape.gradient(loss, x)
