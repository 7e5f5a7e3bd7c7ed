"""The random map stays within its limits, is a function of its seed, and contours keep their shape."""

import numpy as np
import pytest
import tensorflow as tf

from tfhuber.config.schema import Augmentation
from tfhuber.data.augmentation import equal_spacing, random_map
from tfhuber.geometry.projective import apply_map

NOTHING = {
    "mirror": 0.0,
    "rotation_degrees": 0.0,
    "scale": 1.0,
    "shift": 0.0,
    "perspective": 0.0,
}


def _maps(options: Augmentation, count: int = 300, size: int = 100) -> np.ndarray:
    draw = tf.function(lambda seed: random_map(seed, size, options)[0])
    return np.stack([draw(tf.constant([i, 7], tf.int64)).numpy() for i in range(count)])


def test_no_augmentation_is_the_identity():
    np.testing.assert_allclose(_maps(Augmentation(**NOTHING), 3), [np.eye(3)] * 3, atol=1e-5)


def test_the_same_seed_gives_the_same_map_and_another_seed_another():
    options = Augmentation()
    first, again, other = (
        random_map(tf.constant(s, tf.int64), 100, options)[0].numpy()
        for s in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_rotation_keeps_the_centre_and_reaches_its_limit():
    maps = _maps(Augmentation(**{**NOTHING, "rotation_degrees": 30.0}))
    angles = np.degrees(np.arctan2(maps[:, 0, 1], maps[:, 0, 0]))
    assert np.abs(angles).max() <= 30.001 and np.abs(angles).max() > 29
    centre = apply_map(tf.constant(maps), tf.fill([len(maps), 1, 2], 49.5))
    np.testing.assert_allclose(centre, np.full_like(centre, 49.5), atol=1e-3)


def test_scale_is_bounded_along_every_axis():
    maps = _maps(Augmentation(**{**NOTHING, "scale": 1.2}))
    singular = np.linalg.svd(maps[:, :2, :2].astype(np.float64), compute_uv=False)
    assert singular.max() <= 1.2001 and singular.min() >= 1 / 1.2001
    area = singular.prod(axis=1)
    assert area.max() > 1.15 and area.min() < 1 / 1.15
    shape = singular[:, 0] / singular[:, 1]
    assert 1.15 < shape.max() <= 1.2001
    # Along random axes: the symmetric map's off-diagonal element has either sign.
    np.testing.assert_allclose(maps[:, 0, 1], maps[:, 1, 0], atol=1e-5)
    assert maps[:, 0, 1].max() > 0.05 and maps[:, 0, 1].min() < -0.05


def test_mirror_comes_about_as_often_as_asked_and_is_reported():
    options = Augmentation(**{**NOTHING, "mirror": 0.5})
    seeds = [tf.constant([i, 0], tf.int64) for i in range(400)]
    results = [random_map(seed, 100, options) for seed in seeds]
    mirrored = np.array([bool(m) for _, m in results])
    assert 160 < mirrored.sum() < 240  # four standard deviations of 400 fair throws
    signs = np.array([h.numpy()[0, 0] < 0 for h, _ in results])
    np.testing.assert_array_equal(signs, mirrored)


def test_shift_and_perspective_are_bounded():
    maps = _maps(Augmentation(**{**NOTHING, "shift": 0.05}))
    assert 5.0 < np.abs(maps[:, :2, 2]).max() <= 10.001  # two shifts of at most 5 pixels
    maps = _maps(Augmentation(**{**NOTHING, "perspective": 0.3}))
    depth = maps[:, 2] @ [49.5, 49.5, 1.0]  # at the centre
    slope = maps[:, 2, :2] / depth[:, None]
    strength = np.linalg.norm(slope, axis=1)
    assert 0.29 / 100 < strength.max() <= 0.3001 / 100 and strength.min() < 0.01 / 100
    assert all(np.any((np.sign(slope) == [x, y]).all(1)) for x in (-1, 1) for y in (-1, 1))


@pytest.mark.parametrize("size", [96, 224])
def test_the_stored_margin_is_enough_for_every_map(size):
    from pipelines.crops import MARGIN

    corners = tf.constant([[-0.5, -0.5], [size - 0.5, -0.5], [-0.5, size - 0.5], [size - 0.5] * 2])
    reach = 0.0
    for i in range(500):
        h, _ = random_map(tf.constant([i, 11], tf.int64), size, Augmentation())
        source = apply_map(tf.linalg.inv(h), corners).numpy()
        reach = max(reach, np.abs(source - (size - 1) / 2).max() / (size / 2))
    assert 1.5 < reach <= MARGIN


def test_equal_spacing_on_a_bent_line():
    corner = tf.constant([[0.0, 0], [1, 0], [9, 0], [10, 0], [10, 10]])
    expected = [[0, 0], [5, 0], [10, 0], [10, 5], [10, 10]]
    np.testing.assert_allclose(equal_spacing(corner), expected, atol=1e-5)


def test_equal_spacing_leaves_a_point_a_point():
    same = tf.ones([17, 2])
    np.testing.assert_array_equal(equal_spacing(same), same)
