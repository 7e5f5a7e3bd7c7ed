"""What a crop looks like changes at random, by its key alone, and nothing moves."""

import numpy as np
import pytest
import tensorflow as tf

from tfhuber.config.schema import Augmentation
from tfhuber.data.appearance import random_appearance

SIZE = 48


def keys(count, seed=0):
    return [tf.constant([i * 7919 + 3, seed * 2**32 + i % 5], tf.int64) for i in range(count)]


@pytest.fixture(scope="module")
def image():
    return tf.constant(np.random.default_rng(0).uniform(0, 255, (SIZE, SIZE, 3)), tf.float32)


def of(image, count, **options):
    """Return so many random variants of an image."""
    parsed = Augmentation(**options)
    function = tf.function(lambda key: random_appearance(image, key, parsed))
    return np.stack([function(key).numpy() for key in keys(count)])


def test_nothing_is_changed_unless_asked_for(image):
    assert random_appearance(image, keys(1)[0], Augmentation()) is image


def test_the_key_alone_decides(image):
    options = {"occlusion": 0.7, "colour": 0.5, "blur": 0.5}
    first, again = of(image, 8, **options), of(image, 8, **options)
    np.testing.assert_array_equal(first, again)
    assert len({each.tobytes() for each in first}) == 8
    assert np.isfinite(first).all() and first.min() >= 0 and first.max() <= 255


def test_a_patch_is_one_rectangle_of_the_stated_size_as_often_as_asked(image):
    variants = of(image, 400, occlusion=0.6)
    covered = (variants != image.numpy()).any(axis=-1)
    hit = covered.any(axis=(1, 2))
    # 400 draws at 0.6: a standard deviation of 9.8, and a patch may lie outside by none at all.
    assert abs(hit.sum() - 240) < 4 * 9.8
    for mask in covered[hit]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        block = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert block.mean() > 0.98  # a rolled or noisy pixel may be equal by chance
        assert max(block.shape) <= np.ceil(0.64 * SIZE) + 1


def test_patches_are_plain_or_noise_or_of_the_same_photograph(image):
    variants = of(image, 300, occlusion=1.0)
    plain = 0
    values = set(image.numpy().ravel().tolist())
    same_photograph = 0
    for each in variants:
        patch = each[(each != image.numpy()).all(axis=-1)]
        if len(patch):
            plain += bool((patch == patch[0]).all())
            same_photograph += set(patch.ravel().tolist()) <= values
    assert 0.25 < plain / 300 < 0.45
    assert 0.35 < same_photograph / 300 < 0.65


def test_colours_change_but_not_where_things_are():
    """A black and white edge stays where it is, whatever its colours."""
    halves = np.zeros((SIZE, SIZE, 3), np.float32) + 60
    halves[:, SIZE // 2 :] = 190
    for each in of(tf.constant(halves), 60, colour=0.6):
        for half in (each[:, : SIZE // 2], each[:, SIZE // 2 :]):
            np.testing.assert_array_equal(half, np.broadcast_to(half[0, 0], half.shape))
        assert each[0, -1].sum() >= each[0, 0].sum()


def test_some_images_become_grey(image):
    variants = of(image, 400, colour=1.0)
    # Grey has channels that differ by the white balance alone: monotone functions of one value.
    ranks = np.argsort(variants.reshape(400, -1, 3), axis=1, kind="stable")
    grey = (ranks[..., 0] == ranks[..., 1]).mean(axis=1) > 0.5
    assert abs(grey.sum() - 80) < 4 * 8


def test_blur_takes_detail_and_keeps_means(image):
    variants = of(image, 200, blur=0.5)
    blurred = (variants != image.numpy()).any(axis=(1, 2, 3))
    assert abs(blurred.sum() - 100) < 4 * 7.1
    mean = np.broadcast_to(image.numpy().mean((0, 1)), (blurred.sum(), 3))
    np.testing.assert_allclose(variants[blurred].mean((1, 2)), mean, atol=3)
    assert (variants[blurred].std((1, 2, 3)) < 0.95 * image.numpy().std()).all()
    flat = tf.fill([SIZE, SIZE, 3], 77.0)
    np.testing.assert_allclose(of(flat, 20, blur=1.0), 77.0, rtol=1e-5)
