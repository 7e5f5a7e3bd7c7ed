"""Private names of Keras that `training.optimizer` uses; pyproject.toml bounds Keras for their sake.

A failure says which of them has changed, so that the bound can be raised with the code.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhuber.training.optimizer import Adam


@pytest.fixture
def variables():
    return [keras.Variable(np.full(3, value, "f4")) for value in (1.0, 2.0)]


def test_adam_finds_a_variables_place(variables):
    """`_get_variable_index`, by which variables are held and decayed."""
    optimizer = Adam(1e-3)
    optimizer.build(variables)
    assert [optimizer._get_variable_index(v) for v in variables] == [0, 1]
    assert [optimizer._get_variable_index(v.value) for v in variables] == [0, 1]


def test_adam_keeps_its_moments_where_old_checkpoints_have_them(variables, tmp_path):
    """`_momentums` and `_velocities`, a list each in the order of the variables."""
    optimizer = Adam(1e-3)
    optimizer.build(variables)
    optimizer.apply([tf.fill([3], 1.0), tf.fill([3], 2.0)], variables)
    for name, expected in (("_momentums", [0.1, 0.2]), ("_velocities", [0.001, 0.004])):
        found = [moment.numpy()[0] for moment in getattr(optimizer, name)]
        np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=name)
    path = tf.train.Checkpoint(optimizer=optimizer).save(str(tmp_path / "ckpt"))
    saved = tf.train.load_checkpoint(path)
    found = [
        saved.get_tensor(f"optimizer/_variables/{i}/.ATTRIBUTES/VARIABLE_VALUE")[0]
        for i in range(2, 6)
    ]
    np.testing.assert_allclose(found, [0.1, 0.001, 0.2, 0.004], rtol=1e-4)


def test_the_update_of_keras_is_what_adam_does_in_one_operation(variables):
    """Five steps of `keras.optimizers.Adam`, to float32's rounding."""
    ours, theirs = Adam(1e-2), keras.optimizers.Adam(1e-2)
    others = [keras.Variable(v.numpy()) for v in variables]
    ours.build(variables)
    theirs.build(others)
    for step in range(5):
        gradients = [tf.random.stateless_normal([3], [step, i]) for i in range(2)]
        ours.apply(gradients, variables)
        theirs.apply(gradients, others)
    for a, b in zip(variables, others, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)


def test_keras_asks_for_the_sum_over_replicas_by_the_name_that_adam_overrides(variables):
    """`_all_reduce_sum_gradients`: under another name, gradients would be summed twice in silence."""
    asked = []

    class Asked(Adam):
        def _all_reduce_sum_gradients(self, grads_and_vars):
            asked.append(len(grads_and_vars))
            return super()._all_reduce_sum_gradients(grads_and_vars)

    optimizer = Asked(1e-3)
    optimizer.build(variables)
    optimizer.apply([tf.zeros(3)] * 2, variables)
    assert asked == [2]
