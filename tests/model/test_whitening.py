"""Normalised coordinates have zero mean and identity covariance, and lead back to pixels."""

import numpy as np
import tensorflow as tf

from tfhuber.model import whitening


def _labels(rng, n=4000):
    root = np.array([[[9.0, 0], [5, 3]], [[2, 0], [-1, 6]]])
    points = np.einsum("kij,nkj->nki", root, rng.normal(size=(n, 2, 2))) + np.array(
        [[30, 40], [70, 20]]
    )
    return points, rng.random((n, 2)) < 0.7


def test_whitened_labels_have_zero_mean_and_identity_covariance():
    points, weights = _labels(np.random.default_rng(0))
    fitted = whitening.fit(
        [(points[:1500], weights[:1500]), (points[1500:], weights[1500:])], 2, 128
    )
    normalised = fitted.normalise(tf.constant(points)).numpy()
    for k in range(2):
        used = normalised[weights[:, k], k]
        np.testing.assert_allclose(used.mean(0), 0, atol=1e-9)
        np.testing.assert_allclose(np.cov(used.T, ddof=0), np.eye(2), atol=1e-9)
    np.testing.assert_allclose(fitted.factor, fitted.factor.transpose(0, 2, 1))
    np.testing.assert_allclose(np.exp(fitted.log_det), np.linalg.det(fitted.factor))


def test_rare_and_missing_landmarks_stay_usable():
    points = np.full((3, 3, 2), 50.0)
    weights = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0]])
    fitted = whitening.fit([(points, weights)], 3, 100)
    np.testing.assert_allclose(fitted.mean, [[50, 50], [50, 50], [49.5, 49.5]])
    np.testing.assert_allclose(fitted.factor[0], np.eye(2))  # one pixel is 1/100 of the size
    np.testing.assert_allclose(fitted.factor[2], np.eye(2) / 25)


def test_to_network_undoes_normalise_and_keeps_the_radius(tmp_path):
    rng = np.random.default_rng(1)
    fitted = whitening.fit([_labels(rng)], 2, 128)
    fitted.save(tmp_path / "w.json")
    fitted = whitening.Whitening.load(tmp_path / "w.json", 2)
    root = rng.normal(size=(5, 2, 2, 2))
    a = root @ root.transpose(0, 1, 3, 2) + 0.5 * np.eye(2)
    mu = rng.normal(size=(5, 2, 2))
    nu = np.einsum("nkij,nkj->nki", a, mu)
    outputs = {"precision_factor": a, "nu": nu, "log_det": np.linalg.slogdet(a)[1]}
    found = fitted.to_network({name: tf.constant(value) for name, value in outputs.items()})
    loc, factor = found.loc, found.precision_factor
    np.testing.assert_allclose(fitted.normalise(loc), mu, atol=1e-9)
    label = rng.normal(50, 30, (5, 2, 2))
    y = fitted.normalise(tf.constant(label)).numpy()
    radius = np.linalg.norm(np.einsum("nkij,nkj->nki", a, y) - nu, axis=-1)
    in_pixels = np.einsum("nkij,nkj->nki", factor.numpy(), label - loc.numpy())
    np.testing.assert_allclose(np.linalg.norm(in_pixels, axis=-1), radius, rtol=1e-9)
    expected = outputs["log_det"] + fitted.log_det
    np.testing.assert_allclose(np.linalg.slogdet(factor)[1], expected, rtol=1e-9)
    np.testing.assert_allclose(found.log_det, expected, rtol=1e-12)
