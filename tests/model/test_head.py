"""The head computes in float32 whatever the global dtype policy is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhuber.model.network import DistributionHead


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("covariance", ["full", "identity"])
def test_under_a_global_mixed_policy(policy, covariance):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        head = DistributionHead(3, covariance)
        outputs = head(tf.ones([2, 7], policy.removeprefix("mixed_")))
    finally:
        keras.config.set_dtype_policy(before)
    assert {x.dtype for x in outputs.values()} == {tf.float32}
    np.testing.assert_allclose(outputs["precision_factor"], np.tile(np.eye(2), (2, 3, 1, 1)))
    assert head.linear.compute_dtype == "float32"
