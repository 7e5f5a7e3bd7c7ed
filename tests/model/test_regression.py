"""Any Keras model with a distribution at its end: fitted, saved, loaded; a learned delta is the law's."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import tfhuber
from tfhuber.distributions.radial import Huber


def heavy_tails(count=4000, seed=0):
    """y = 2 sin(3 x) + t(3) noise of scale 0.2 to 0.7, wider to the right."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, 1)).astype("f4")
    y = 2 * np.sin(3 * x[:, 0]) + (0.45 + 0.25 * x[:, 0]) * stats.t(3).rvs(count, random_state=rng)
    return x, y.astype("f4")


def model_of(head, features=1):
    inputs = keras.Input([features])
    hidden = keras.layers.Dense(32, "tanh")(inputs)
    return keras.Model(inputs, head(hidden))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_regression_with_heavy_tails(jit_compile, tmp_path):
    keras.utils.set_random_seed(0)
    x, y = heavy_tails()
    model = model_of(tfhuber.DistributionHead(1, dimension=1))
    model.compile(
        keras.optimizers.Adam(1e-2),
        tfhuber.NegativeLogLikelihood(),
        metrics=[tfhuber.Coverage(0.9)],
        jit_compile=jit_compile,
    )
    model.fit(x, y, batch_size=100, epochs=8, verbose=0)
    found = model.evaluate(*heavy_tails(seed=1), verbose=0, return_dict=True)
    assert 0.88 < found["coverage_90"] < 0.96  # the law is not Student's
    there = tfhuber.distribution(model.predict(np.array([[-0.8], [0.8]], "f4"), verbose=0))
    deviation = there.stddev()[:, 0, 0].numpy()
    assert deviation[1] > 1.5 * deviation[0]  # the noise is 2.6 times as wide there
    np.testing.assert_allclose(there.mean()[:, 0, 0], 2 * np.sin([-2.4, 2.4]), atol=0.3)

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.evaluate(*heavy_tails(seed=1), verbose=0, return_dict=True) == found


@pytest.mark.parametrize("parameterization", ["nu", "mu"])
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("family", ["huber", "laplace"])
def test_the_loss_is_minus_the_log_density(d, family, parameterization):
    keras.utils.set_random_seed(d)
    head = tfhuber.DistributionHead(4, dimension=d, parameterization=parameterization)
    model = model_of(head, 5)
    head.linear.kernel.assign(0.3 * np.random.default_rng(0).normal(size=head.linear.kernel.shape))
    prediction = model(np.random.default_rng(1).normal(size=(6, 5)).astype("f4"))
    assert prediction.shape == (6, 4, d + d * d + 1) == model.output_shape[:0] + prediction.shape
    y = np.random.default_rng(2).normal(size=(6, 4, d)).astype("f4")
    found = tfhuber.distribution(prediction, family)
    loss = tfhuber.NegativeLogLikelihood(family)
    expected = -found.log_prob(y).numpy()
    np.testing.assert_allclose(loss(y, prediction), expected.mean(), rtol=1e-5)
    rows = expected.mean(axis=1)
    np.testing.assert_allclose(loss.call(y, prediction), rows, rtol=1e-4, atol=1e-5)
    weights = np.arange(1.0, 7.0, dtype="f4")
    np.testing.assert_allclose(loss(y, prediction, weights), np.mean(weights * rows), rtol=1e-4)


def test_a_missing_target_counts_nothing():
    prediction = model_of(tfhuber.DistributionHead(2, dimension=2))(np.ones((3, 1), "f4"))
    y = np.random.default_rng(0).normal(size=(3, 2, 2)).astype("f4")
    expected = -tfhuber.distribution(prediction).log_prob(y).numpy()
    y[0, 1, 0] = y[2, 0] = np.nan
    loss = tfhuber.NegativeLogLikelihood()
    rows = [expected[0, 0], expected[1].mean(), expected[2, 1]]
    np.testing.assert_allclose(loss(y, prediction), np.mean(rows), rtol=1e-5)
    total = tfhuber.NegativeLogLikelihood(reduction="sum")(y, prediction)
    np.testing.assert_allclose(total, np.sum(rows), rtol=1e-5)
    gone = np.where(np.arange(3)[:, None, None] == 1, np.inf, y)
    np.testing.assert_allclose(loss(gone, prediction), (rows[0] + rows[2]) / 2, rtol=1e-5)
    coverage = tfhuber.Coverage(0.999999)
    coverage.update_state(y, prediction)
    assert float(coverage.result()) == 1.0 and float(coverage.count) == 4
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        value = loss(y, prediction)
    assert np.isfinite(tape.gradient(value, prediction)).all()
    assert float(loss(np.full_like(y, np.nan), prediction)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("true_delta", [1.2])
def test_a_learned_delta_ends_near_the_laws(true_delta):
    """60,000 samples of the very law: within 5 % of its delta, and its standard deviation within 2 %."""
    keras.utils.set_random_seed(0)
    law = tfhuber.MultivariateHuber(np.zeros(2, "f4"), 2 * np.eye(2, dtype="f4"), delta=true_delta)
    y = law.sample(60_000, seed=(1, 2)).numpy()[:, None]
    head = tfhuber.DistributionHead(1, delta="learned")
    model = keras.Sequential([keras.Input([1]), head])
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 100, 0.6)
    coverage = tfhuber.Coverage(0.5, delta="learned")
    loss = tfhuber.NegativeLogLikelihood(delta="learned")
    model.compile(keras.optimizers.Adam(rate), loss, metrics=[coverage], jit_compile=True)
    found = model.fit(np.zeros((len(y), 1), "f4"), y, batch_size=20_000, epochs=200, verbose=0)
    assert abs(found.history["coverage_50"][-1] - 0.5) < 0.02
    prediction = model.predict(np.zeros((1, 1), "f4"), verbose=0)
    assert prediction.shape == (1, 1, 8)
    assert prediction[0, 0, -1] == pytest.approx(true_delta, rel=0.05)
    found = tfhuber.distribution(prediction, delta="learned").stddev()
    np.testing.assert_allclose(found[0, 0], law.stddev(), rtol=0.02)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_gradient_of_a_learned_delta_against_differences(d):
    """Through the normaliser, and through A, which takes sqrt(kappa) with it."""
    head = tfhuber.DistributionHead(2, dimension=d, delta="learned", dtype="float64")
    head(np.zeros((1, 3)))
    features = tf.constant(np.random.default_rng(0).normal(size=(5, 3)))
    head.linear.kernel.assign(0.4 * np.random.default_rng(1).normal(size=head.linear.kernel.shape))
    y = np.random.default_rng(2).normal(size=(5, 2, d)) * 2
    loss = tfhuber.NegativeLogLikelihood(delta="learned", dtype="float64")

    def value(raw_delta):
        head.raw_delta.assign(raw_delta)
        return loss(y, head(features))

    np.testing.assert_allclose(head(features)[0, :, -1], 1, rtol=1e-6)
    start = np.array([0.3, -0.5])
    head.raw_delta.assign(start)
    with tf.GradientTape() as tape:
        result = loss(y, head(features))
    gradient = tape.gradient(result, head.raw_delta.value)
    step = 1e-5 * np.eye(2)
    differences = [float(value(start + s) - value(start - s)) / 2e-5 for s in step]
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-7)


def test_a_saved_model_is_loaded_by_another_process(tmp_path):
    model = model_of(tfhuber.DistributionHead(2, dimension=2))
    model.compile("adam", tfhuber.NegativeLogLikelihood("laplace"), metrics=[tfhuber.Coverage()])
    model.save(tmp_path / "model.keras")
    code = (
        "import keras, tfhuber; tfhuber.DistributionHead; "
        f"print(keras.models.load_model({str(tmp_path / 'model.keras')!r}).loss.family)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "laplace"


@pytest.mark.parametrize(
    ("count", "d", "shape"),
    [(1, 1, [6]), (1, 1, [6, 1]), (1, 1, [6, 1, 1]), (1, 2, [6, 2]), (3, 1, [6, 3])],
)
def test_a_one_may_be_left_out(count, d, shape):
    prediction = model_of(tfhuber.DistributionHead(count, dimension=d))(np.ones((6, 1), "f4"))
    y = np.random.default_rng(0).normal(size=(6, count, d)).astype("f4")
    loss = tfhuber.NegativeLogLikelihood()
    assert float(loss(y.reshape(shape), prediction)) == float(loss(y, prediction))


@pytest.mark.parametrize("shape", [[2, 6, 2], [24], [6, 4], [6, 2]])
def test_targets_of_another_shape_are_refused(shape):
    prediction = model_of(tfhuber.DistributionHead(2, dimension=2))(np.ones((6, 1), "f4"))
    with pytest.raises(ValueError, match="targets must be"):
        tfhuber.NegativeLogLikelihood()(np.zeros(shape, "f4"), prediction)


def test_under_mixed_precision_distributions_are_float32():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = model_of(tfhuber.DistributionHead(1, dimension=2))
        model.compile("adam", tfhuber.NegativeLogLikelihood(), metrics=[tfhuber.Coverage(0.5)])
        x = np.random.default_rng(0).normal(size=(64, 1)).astype("f4")
        found = model.fit(x, np.concatenate([x, -x], 1)[:, None], epochs=2, verbose=0)
        assert model.output.dtype == "float32" and np.isfinite(found.history["loss"]).all()
    finally:
        keras.mixed_precision.set_global_policy("float32")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tfhuber.DistributionHead(0), "count must be a positive integer"),
        (lambda: tfhuber.DistributionHead(1, dimension=1.5), "dimension must be a positive"),
        (lambda: tfhuber.DistributionHead(1, parameterization="sigma"), "'nu' or 'mu'"),
        (lambda: tfhuber.DistributionHead(1, delta=2.0), "the loss takes numbers"),
        (lambda: tfhuber.NegativeLogLikelihood("student"), "family must be one of"),
        (lambda: tfhuber.NegativeLogLikelihood("laplace", "learned"), "only Huber's delta"),
        (lambda: tfhuber.NegativeLogLikelihood(delta=-1.0), "delta must be positive"),
        (lambda: tfhuber.Coverage(90), "between 0 and 1"),
        (lambda: tfhuber.distribution(np.zeros((1, 1, 6), "f4")), "must be a DistributionHead's"),
        (
            lambda: tfhuber.distribution(np.zeros((1, 1, 7), "f4"), delta="learned"),
            "must be a DistributionHead's",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_huber_is_what_a_number_says():
    prediction = np.zeros((1, 1, 7), "f4")
    prediction[0, 0, 2:6] = [1, 0, 0, 1]
    found = tfhuber.distribution(prediction, delta=2.0)
    np.testing.assert_allclose(found.variance(), np.full((1, 1, 2), Huber(2.0).kappa(2)), rtol=1e-6)
