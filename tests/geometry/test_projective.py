"""Maps, points, covariances and images go through the same matrix."""

import numpy as np
import pytest
import tensorflow as tf

from tfhuber.config import schema
from tfhuber.data.augmentation import random_map
from tfhuber.geometry import box_square, projective


def _random_projective(rng) -> np.ndarray:
    h = np.eye(3) + rng.normal(0, 0.2, (3, 3))
    h[2, :2] = rng.normal(0, 1e-3, 2)
    h[2, 2] = 1.0
    return h


def test_apply_map_agrees_with_homogeneous_coordinates():
    rng = np.random.default_rng(0)
    h, points = _random_projective(rng), rng.normal(0, 50, (7, 2))
    homogeneous = np.c_[points, np.ones(7)] @ h.T
    expected = homogeneous[:, :2] / homogeneous[:, 2:]
    np.testing.assert_allclose(projective.apply_map(tf.constant(h), tf.constant(points)), expected)


def test_invert_and_compose():
    rng = np.random.default_rng(4)
    maps = np.stack([_random_projective(rng) for _ in range(4)])
    np.testing.assert_allclose(projective.invert(tf.constant(maps)), np.linalg.inv(maps), rtol=1e-9)
    composed = projective.compose(tf.constant(maps[:2]), tf.constant(maps[2:]))
    np.testing.assert_allclose(composed, maps[:2] @ maps[2:], rtol=1e-12)
    assert not np.isfinite(projective.invert(tf.zeros([3, 3]))).any()


def test_jacobian_agrees_with_finite_differences():
    rng = np.random.default_rng(1)
    h, points = tf.constant(_random_projective(rng)), tf.constant(rng.normal(0, 50, (5, 2)))
    step = 1e-5
    columns = [
        (projective.apply_map(h, points + step * e) - projective.apply_map(h, points - step * e))
        / (2 * step)
        for e in np.eye(2)
    ]
    np.testing.assert_allclose(
        projective.jacobian(h, points), np.stack(columns, axis=-1), rtol=1e-6, atol=1e-8
    )


def test_covariance_and_precision_factor_are_pushed_alike():
    rng = np.random.default_rng(2)
    h, points = tf.constant(_random_projective(rng)), tf.constant(rng.normal(0, 50, (5, 2)))
    root = rng.normal(size=(5, 2, 2))
    factor = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(2)
    covariance = np.linalg.inv(factor @ factor)
    j = projective.jacobian(h, points)
    pushed = projective.push_covariance(j, tf.constant(covariance)).numpy()
    pushed_factor = projective.push_precision_factor(j, tf.constant(factor)).numpy()
    np.testing.assert_allclose(np.linalg.inv(pushed_factor @ pushed_factor), pushed, rtol=1e-8)
    np.testing.assert_allclose(pushed_factor, pushed_factor.transpose(0, 2, 1), rtol=1e-12)
    assert np.linalg.eigvalsh(pushed_factor).min() > 0


@pytest.mark.parametrize(
    ("rule", "halves"), [("diagonal", (25, 25)), ("longest", (20, 20)), ("stretch", (20, 15))]
)
def test_the_region_fills_the_crop_from_edge_to_edge(rule, halves):
    box = tf.constant([10.0, 20.0, 50.0, 50.0])
    cx, cy, *half = box_square.region_around(box, rule)
    assert tuple(map(float, half)) == halves
    corners = tf.stack([[cx - half[0], cy - half[1]], [cx + half[0], cy + half[1]]])
    mapped = projective.apply_map(projective.box_to_crop(box, 64, rule), corners)
    np.testing.assert_allclose(mapped, [[-0.5, -0.5], [63.5, 63.5]], atol=1e-5)


def test_the_region_is_the_same_for_numpy_and_tensors():
    box = np.random.default_rng(3).uniform(0, 100, (6, 4)).astype(np.float32)
    for rule in box_square.SQUARE_RULES:
        np.testing.assert_allclose(
            box_square.region_around(box, rule),
            [t.numpy() for t in box_square.region_around(tf.constant(box), rule)],
            rtol=1e-6,
        )


def test_the_region_refuses_an_unknown_rule():
    with pytest.raises(ValueError, match="rule must be one of"):
        box_square.region_around(np.zeros(4), "circle")


def test_scaling_keeps_the_edges_of_the_image():
    edges = tf.constant([[-0.5, -0.5], [99.5, 49.5]])
    mapped = projective.apply_map(projective.scaling(0.5, 2.0), edges)
    np.testing.assert_allclose(mapped, [[-0.5, -0.5], [49.5, 99.5]])


def test_mirror_map_is_the_image_flip():
    image = tf.random.stateless_uniform([8, 8, 3], [1, 2]) * 255
    flipped = projective.warp(image, projective.mirror_map(8), 8)
    np.testing.assert_allclose(flipped, image[:, ::-1], atol=1e-3)


def _blob(size: int, centre, sigma: float) -> tf.Tensor:
    y, x = np.mgrid[:size, :size]
    value = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    return tf.constant((255 * value)[..., None].repeat(3, -1), tf.float32)


def _centroid(image) -> np.ndarray:
    mass = np.asarray(image)[..., 0].astype(np.float64)
    y, x = np.mgrid[: mass.shape[0], : mass.shape[1]]
    return np.array([(x * mass).sum(), (y * mass).sum()]) / mass.sum()


@pytest.mark.parametrize("shrink", [0.8, 1.0, 2.3, 5.0])
@pytest.mark.parametrize("in_pipeline", [False, True])
def test_a_drawn_dot_lands_where_the_map_says(shrink, in_pipeline):
    angle = 0.4
    # A similarity that keeps the dot (at 130, 90 of 203) inside the 64-pixel result.
    s = 1 / shrink
    rotation = s * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    h = np.eye(3, dtype=np.float32)
    h[:2, :2] = rotation
    h[:2, 2] = np.array([30.0, 35.0]) - rotation @ [130, 90] + [0.3, -0.2]
    h = tf.constant(h)
    image = _blob(203, (130, 90), 4.0 * max(1.0, shrink / 2))  # 203: in no blocks of 2 or 5
    if in_pipeline:
        dataset = tf.data.Dataset.from_tensors(image).map(lambda i: projective.warp(i, h, 64))
        warped = next(iter(dataset))
    else:
        warped = projective.warp(image, h, 64)
    np.testing.assert_allclose(_centroid(warped), [30.3, 34.8], atol=0.03)


def test_beyond_the_border_the_edge_pixels_continue():
    image = tf.constant(np.arange(16, dtype=np.float32).reshape(4, 4, 1))
    h = tf.constant([[1.0, 0, 3], [0, 1.0, 3], [0, 0, 1]])
    warped = projective.warp(image, h, 10)[..., 0].numpy()
    np.testing.assert_allclose(warped[3:7, 3:7], image[..., 0], atol=1e-4)
    assert warped[0, 0] == 0 and warped[9, 9] == 15


def test_shrinking_does_not_alias():
    stripes = tf.constant(np.indices((256, 256)).sum(0)[..., None] % 2 * 255, tf.uint8)
    warped = projective.warp(stripes, projective.scaling(0.25, 0.25), 64).numpy()
    np.testing.assert_allclose(warped, 127.5, atol=1.0)


@pytest.mark.parametrize("size", [96, 160])
def test_the_visible_part_gives_what_the_whole_image_gives(size):
    image = tf.random.stateless_uniform([157, 203, 3], [1, 2]) * 255
    smaller = 0
    for seed in range(20):
        box = tf.random.stateless_uniform([4], [seed, 1]) * [140.0, 100, 60, 50] + [
            -20.0,
            -20,
            0,
            0,
        ]
        box = tf.concat([box[:2], box[:2] + 20 + box[2:]], axis=0)
        random, _ = random_map(tf.constant([seed, 0], tf.int64), size, schema.Augmentation())
        h = projective.compose(random, projective.box_to_crop(box, size, "longest"))
        part, seen = projective.visible_part(tf.shape(image), h, size)
        y, x, height, width = part.numpy()
        part = image[y : y + height, x : x + width]
        assert part.shape == (height, width, 3)
        smaller += height * width < 157 * 203 / 2
        np.testing.assert_allclose(
            projective.warp(part, seen, size), projective.warp(image, h, size), atol=0.05
        )
    assert smaller > 15


@pytest.mark.parametrize("fault", ["beside", "horizon", "nan"])
def test_of_an_image_that_is_not_seen_some_part_is_visible(fault):
    h = np.eye(3, dtype=np.float32)
    if fault == "beside":
        h[0, 2] = 1000
    else:
        h[2] = [0.05, 0.0, -1.0] if fault == "horizon" else np.nan
    part, _ = projective.visible_part(tf.constant([50, 60, 3]), tf.constant(h), 32)
    y, x, height, width = part.numpy()
    assert 0 <= y < y + height <= 50 and 0 <= x < x + width <= 60
