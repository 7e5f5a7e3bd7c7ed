"""The distributions keep TensorFlow Probability's conventions: shapes, copies, variables, graphs, KL."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
import tensorflow_probability as tfp
from random_parameters import random_parameters

from tfhuber.distributions.elliptical import Elliptical, MultivariateHuber
from tfhuber.distributions.radial import Charbonnier, Gauss, Huber, Laplace
from tfhuber.linalg.spd import spd_matrix

tfd = tfp.distributions


def test_batch_shapes_broadcast():
    loc, _ = random_parameters(2, batch=(5, 1))
    _, factor = random_parameters(2, batch=(4,))
    delta = tf.constant([[[0.5]], [[1.0]], [[2.0]]], tf.float64)
    dist = MultivariateHuber(loc, factor, delta)
    assert dist.batch_shape == (3, 5, 4) and dist.event_shape == (2,)
    np.testing.assert_array_equal(dist.batch_shape_tensor(), [3, 5, 4])
    assert dist.mean().shape == dist.mode().shape == (3, 5, 4, 2)
    assert dist.variance().shape == dist.stddev().shape == (3, 5, 4, 2)
    assert dist.covariance().shape == (3, 5, 4, 2, 2)
    assert dist.entropy().shape == (3, 5, 4)
    assert dist.sample(6, seed=0).shape == (6, 3, 5, 4, 2)
    y = np.ones(2)
    assert dist.log_prob(y).shape == (3, 5, 4)
    single = MultivariateHuber(loc[2, 0], factor[1], 2.0)
    np.testing.assert_allclose(dist.log_prob(y)[2, 2, 1], single.log_prob(y), rtol=1e-12)
    np.testing.assert_allclose(dist.covariance()[2, 2, 1], single.covariance(), rtol=1e-12)
    np.testing.assert_allclose(dist.entropy()[2, 2, 1], single.entropy(), rtol=1e-12)


@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.parametrize("delta", [1.5, np.array([0.5, 1.0, 2.0])])
def test_slicing_and_copying(natural, delta):
    loc, factor = random_parameters(2, batch=(4, 3))
    make = MultivariateHuber.from_natural if natural else MultivariateHuber
    dist = make(loc, factor, delta, log_det=np.linalg.slogdet(factor)[1])
    y = np.array([0.3, -0.2])
    part = dist[1:3, ..., 0]
    assert part.batch_shape == (2,)
    np.testing.assert_allclose(part.log_prob(y), dist.log_prob(y)[1:3, 0], rtol=1e-12)
    np.testing.assert_allclose(part.covariance(), dist.covariance()[1:3, 0], rtol=1e-12)
    wider = dist.copy(delta=3.0)
    np.testing.assert_allclose(wider.delta, 3.0)
    np.testing.assert_allclose(wider.loc, dist.loc, rtol=1e-14)


def test_works_inside_independent_and_mixtures():
    tfd = tfp.distributions
    loc, factor = random_parameters(2, batch=(3,), dtype="float32")
    dist = MultivariateHuber(loc, factor)
    joint = tfd.Independent(dist, 1)
    np.testing.assert_allclose(
        joint.log_prob(np.zeros((3, 2), "f4")), np.sum(dist.log_prob([0.0, 0.0])), rtol=1e-5
    )
    mixture = tfd.MixtureSameFamily(tfd.Categorical(logits=[0.0, 1.0, 2.0]), dist)
    np.testing.assert_allclose(
        mixture.log_prob([0.0, 0.0]),
        scipy.special.logsumexp(
            dist.log_prob([0.0, 0.0]) + scipy.special.log_softmax([0.0, 1.0, 2.0])
        ),
        rtol=1e-5,
    )


def test_parameter_properties_make_it_trainable():
    dist = tfp.experimental.util.make_trainable(
        MultivariateHuber, batch_and_event_shape=[3, 2], seed=(0, 1)
    )
    assert dist.batch_shape == (3,) and dist.event_shape == (2,)
    assert len(dist.trainable_variables) == 3
    assert np.all(np.linalg.eigvalsh(dist.precision_factor) > 0)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(dist.log_prob([0.5, 1.0]))
    gradients = tape.gradient(loss, dist.trainable_variables)
    assert all(g is not None and np.all(np.isfinite(g)) for g in gradients)


def test_variables_are_read_when_used():
    delta = tf.Variable(1.0)
    loc = tf.Variable([0.0, 0.0])
    dist = MultivariateHuber(loc, np.eye(2, dtype="f4"), delta)
    before = dist.log_prob([3.0, 0.0])
    delta.assign(2.0)
    loc.assign([1.0, 0.0])
    expected = MultivariateHuber([1.0, 0.0], np.eye(2, dtype="f4"), 2.0).log_prob([3.0, 0.0])
    np.testing.assert_allclose(dist.log_prob([3.0, 0.0]), expected, rtol=1e-6)
    assert abs(before - expected) > 0.1


def test_graph_mode_with_unknown_batch():
    loc, factor = random_parameters(2, batch=(5,), dtype="float32")

    @tf.function(
        input_signature=[tf.TensorSpec([None, 2]), tf.TensorSpec([None, 2, 2]), tf.TensorSpec([])]
    )
    def statistics(nu, factor, delta):
        dist = MultivariateHuber.from_natural(nu, factor, delta)
        sample = dist.sample(2, seed=(1, 2))
        return dist.log_prob(sample), dist.covariance(), dist.entropy(), dist.stddev(), dist.loc

    answers = statistics(loc, factor, 1.0)
    expected = statistics.python_function(loc, factor, tf.constant(1.0))
    for answer, value in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer, value, rtol=1e-4, atol=1e-5)


def test_indefinite_factor_gives_nan_or_is_refused():
    factor = np.array([[1.0, 2.0], [2.0, 1.0]])
    assert np.isnan(MultivariateHuber(np.zeros(2), factor).log_prob(np.zeros(2)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="positive definite"):
        MultivariateHuber(np.zeros(2), factor, validate_args=True).log_prob(np.zeros(2))
    with pytest.raises(tf.errors.InvalidArgumentError, match="symmetric"):
        lopsided = np.array([[1.0, 0.5], [0.0, 1.0]])
        MultivariateHuber(np.zeros(2), lopsided, validate_args=True).log_prob(np.zeros(2))
    with pytest.raises(tf.errors.InvalidArgumentError, match="delta must be positive"):
        delta = tf.constant(-1.0, tf.float64)
        MultivariateHuber(np.zeros(2), np.eye(2), delta, validate_args=True).entropy()


def test_bad_arguments_name_themselves():
    with pytest.raises(ValueError, match="exactly one of loc and nu"):
        MultivariateHuber(precision_factor=np.eye(2))
    with pytest.raises(ValueError, match="exactly one of loc and nu"):
        MultivariateHuber(np.zeros(2), np.eye(2), nu=np.zeros(2))
    with pytest.raises(ValueError, match="precision_factor must be given"):
        MultivariateHuber(np.zeros(2))
    with pytest.raises(ValueError, match=r"same d, got \(3, 3\) and \(2,\)"):
        MultivariateHuber(np.zeros(2), np.eye(3))
    with pytest.raises(ValueError, match="delta must be positive"):
        MultivariateHuber(np.zeros(2), np.eye(2), -1.0)


def distributions(dtype="float64"):
    """One of each class, family and form, with batch shape [3]."""
    loc, factor = random_parameters(2, batch=(3,), dtype=dtype)
    delta = tf.constant([0.5, 1.0, 2.0], dtype)
    return {
        "huber": MultivariateHuber(loc, factor, 0.7),
        "huber batch": MultivariateHuber(loc, factor, delta),
        "huber natural": MultivariateHuber.from_natural(loc, factor, delta, validate_args=True),
        "with log_det": Elliptical.from_natural(loc, factor, Gauss(), log_det=np.ones(3, dtype)),
        "elliptical huber": Elliptical(loc, factor, Huber(tf.constant(1.3, dtype))),
        "laplace": Elliptical(loc, factor, Laplace(), allow_nan_stats=False),
        "charbonnier": Elliptical.from_natural(loc, factor, Charbonnier()),
    }


@pytest.mark.parametrize("name", distributions())
def test_a_distribution_goes_through_a_function_and_tf_nest(name):
    dist = distributions()[name]
    point = tf.constant([0.3, -0.2], tf.float64)

    @tf.function
    def copy(dist):
        return dist, dist.log_prob(point)

    returned, log_prob = copy(dist)
    copy(distributions()[name])
    assert copy.experimental_get_tracing_count() == 1
    leaves = tf.nest.flatten(dist, expand_composites=True)
    assert leaves and all(tf.is_tensor(leaf) for leaf in leaves)
    packed = tf.nest.pack_sequence_as(dist, leaves, expand_composites=True)
    np.testing.assert_allclose(log_prob, dist.log_prob(point), rtol=1e-12)
    for again in (returned, packed):
        assert type(again) is type(dist) and type(again.radial) is type(dist.radial)
        assert again.validate_args == dist.validate_args
        assert again.allow_nan_stats == dist.allow_nan_stats
        np.testing.assert_array_equal(again.log_prob(point), dist.log_prob(point))
        np.testing.assert_array_equal(again.loc, dist.loc)
        np.testing.assert_array_equal(again.covariance(), dist.covariance())


def test_a_distribution_is_a_branch_and_a_loop_variable():
    first, second = (MultivariateHuber([x, 0.0], tf.eye(2), 0.7) for x in (1.0, 2.0))

    @tf.function
    def chosen(is_first):
        dist = tf.cond(is_first, lambda: first, lambda: second)
        return tf.while_loop(
            lambda n, _: n < 3,
            lambda n, dist: (n + 1, MultivariateHuber(dist.loc * 2, tf.eye(2), 0.7)),
            (0, dist),
        )[1]

    np.testing.assert_array_equal(chosen(tf.constant(False)).loc, [16.0, 0.0])
    np.testing.assert_array_equal(chosen(tf.constant(True)).loc, [8.0, 0.0])


@pytest.mark.parametrize("family", ["multivariate", "elliptical"])
def test_variables_keep_their_gradients_through_a_function(family):
    loc, delta = tf.Variable([0.0, 0.0]), tf.Variable(1.0)
    if family == "multivariate":
        dist = MultivariateHuber(loc, tf.eye(2), delta)
    else:
        dist = Elliptical(loc, tf.eye(2), Huber(delta))
    assert {id(v) for v in dist.trainable_variables} == {id(loc), id(delta)}
    log_prob = tf.function(lambda dist: dist.log_prob([3.0, 4.0]))
    with tf.GradientTape() as tape:
        value = log_prob(dist)
    d_loc, d_delta = tape.gradient(value, [loc, delta])
    np.testing.assert_allclose(d_loc, [0.6, 0.8], rtol=1e-6)
    high, low = (
        MultivariateHuber([0.0, 0.0], tf.eye(2), x).log_prob([3.0, 4.0]) for x in (1.01, 0.99)
    )
    assert float(d_delta) == pytest.approx(float(high - low) / 0.02, rel=1e-3)


def test_hubers_energy_reads_its_variable_at_each_call():
    delta = tf.Variable(1.0, dtype=tf.float64)
    energy = Huber(delta)
    dist = Elliptical(np.zeros(2), np.eye(2), energy)
    before = float(dist.log_prob([3.0, 0.0]))
    delta.assign(2.0)
    assert float(energy.kappa(2)) == pytest.approx(Huber(2.0).kappa(2), rel=1e-14)
    assert float(energy.energy(25.0)) == 2 * (5 - 1)
    expected = float(Elliptical(np.zeros(2), np.eye(2), Huber(2.0)).log_prob([3.0, 0.0]))
    assert float(dist.log_prob([3.0, 0.0])) == pytest.approx(expected, rel=1e-14) != before


@pytest.mark.parametrize(("d", "natural"), [(1, False), (2, False), (2, True), (3, True)])
def test_a_value_of_unknown_rank_is_taken_in_any_dimension(d, natural):
    loc, factor = random_parameters(d, batch=(3,))
    dist = (Elliptical.from_natural if natural else Elliptical)(loc, factor, Huber(0.8))
    value = np.random.default_rng(0).normal(size=(4, 3, d))

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float64)])
    def answers(value):
        with tf.GradientTape() as tape:
            tape.watch(value)
            log_prob = dist.log_prob(value)
        return log_prob, dist.radial_cdf(value), tape.gradient(log_prob, value)

    for found, expected in zip(
        answers(value), answers.python_function(tf.constant(value)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_a_numeric_delta_works_in_a_graph_of_tensorflow_1():
    expected = Huber(0.7).kappa(2), Huber(0.7).entropy(2)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        assert (Huber(0.7).kappa(2), Huber(0.7).entropy(2)) == expected
        dist = MultivariateHuber([0.0, 0.0], tf.eye(2), 0.7)
        covariance, log_prob = session.run([dist.covariance(), dist.log_prob([1.0, 2.0])])
    np.testing.assert_allclose(covariance, expected[0] * np.eye(2), rtol=1e-6)
    eager = MultivariateHuber([0.0, 0.0], tf.eye(2), 0.7).log_prob([1.0, 2.0])
    assert log_prob == pytest.approx(float(eager), rel=1e-6)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_divergence_of_gaussians(d):
    loc, factor = random_parameters(d, batch=(4,))
    a, b = Elliptical(loc, factor, Gauss()), Elliptical(loc[::-1], factor[::-1], Gauss())
    theirs = [
        tfd.MultivariateNormalTriL(dist.loc, tf.linalg.cholesky(dist.covariance()))
        for dist in (a, b)
    ]
    np.testing.assert_allclose(tfd.kl_divergence(a, b), tfd.kl_divergence(*theirs), rtol=1e-9)
    np.testing.assert_allclose(a.kl_divergence(a), 0, atol=1e-12)
    with pytest.raises(NotImplementedError, match="closed form where both are Gauss, got Gauss"):
        tfd.kl_divergence(a, MultivariateHuber(loc, factor))


@pytest.mark.parametrize("d", [2, 3, 5])
def test_the_maps_own_float32_output_is_valid(d):
    """500 vectors of all magnitudes up to 1e6; an asymmetry of 1e-4 of the largest element is not."""
    rng = np.random.default_rng(d)
    size = 10 ** rng.uniform(-2, 6, size=(500, 1))
    vector = rng.normal(size=(500, d * (d + 1) // 2)) * size
    vector[:, 0] = size[:, 0]  # so that not all of A underflows to 0
    factor, log_det = spd_matrix(vector.astype("float32"))
    nu = np.zeros((500, d), "float32")
    dist = Elliptical.from_natural(nu, factor, Laplace(), log_det=log_det, validate_args=True)
    assert np.all(np.isfinite(dist.log_prob(nu)))
    lopsided = factor.numpy()
    lopsided[7, 0, 1] += 1e-4 * np.abs(lopsided[7]).max()
    with pytest.raises(tf.errors.InvalidArgumentError, match="symmetric"):
        Elliptical(nu, lopsided, Laplace(), validate_args=True).log_prob(nu)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.int32])
def test_other_dtypes_are_refused(dtype):
    zeros, ones = tf.zeros([2], dtype), tf.ones([2, 2], dtype)
    message = f"must be float32 or float64, got {dtype.name}"
    with pytest.raises(ValueError, match="loc " + message):
        MultivariateHuber(zeros, ones)
    with pytest.raises(ValueError, match="radius " + message):
        Gauss().cdf(zeros, 2)
    with pytest.raises(ValueError, match="squared_radius " + message):
        Huber(1.0).energy(zeros)
    with pytest.raises(ValueError, match="delta is float64"):
        MultivariateHuber(np.zeros(2, "f4"), np.eye(2, dtype="f4"), tf.constant(1.0, tf.float64))
