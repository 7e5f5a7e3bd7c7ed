"""Decoding in a graph fails for nothing that a file holds, and boxes are checked."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfhuber.geometry import projective
from tfhuber.saved_model import decoding


def _file(kind: str, mode: str = "RGB", size=(50, 40)) -> bytes:
    gradient = np.linspace(0, 255, size[0] * size[1]).reshape(size[1], size[0])
    out = io.BytesIO()
    Image.fromarray(gradient.astype(np.uint8)).convert(mode).save(out, kind)
    return out.getvalue()


def _png_of(width: int, height: int) -> bytes:
    """A PNG's signature, header and end that claim any size, without the pixels."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_whole_files_are_decoded(kind, mode):
    data = _file(kind, mode)
    image, whole = decoding.decode(tf.constant(data))
    assert bool(whole)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int32)
    assert np.abs(image.numpy().astype(np.int32) - expected).max() <= 2


def test_alpha_is_dropped_and_what_follows_the_end_marker_is_ignored():
    assert decoding.decode(tf.constant(_file("png", "RGBA")))[0].shape == (40, 50, 3)
    image, whole = decoding.decode(tf.constant(_file("jpeg") + b"\0" * 100))
    assert bool(whole) and image.shape == (40, 50, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"not an image at all",
        b"GIF89a" + b"\0" * 50,
        _file("jpeg")[:-200],
        _file("jpeg")[:3],
        _file("png")[:-20],
        _png_of(100_000, 100_000),
        _png_of(2**31 - 1, 2**31 - 1),
        _png_of(0, 5),
    ],
    ids=["empty", "x", "text", "gif", "cut jpeg", "magic", "cut png", "huge", "huger", "no width"],
)
def test_what_is_no_whole_image_is_said_so(data):
    image, whole = tf.function(decoding.decode)(tf.constant(data))
    assert not bool(whole) and image.shape == (1, 1, 3)


def _crop(box, size=32, rule="longest"):
    # Smooth, because shrinking averages whole blocks, which the cut may place otherwise.
    noise = tf.random.stateless_uniform([5, 6, 3], [3, 4]) * 255
    image = tf.image.resize(noise, [60, 80], method="bicubic")
    return image, *decoding.network_crop(image, tf.constant(box, tf.float32), size, rule)


@pytest.mark.parametrize("box", [[10, 10, 42, 42], [-20, -10, 30, 40], [60, 30, 120, 90], [0] * 4])
@pytest.mark.parametrize("rule", ["longest", "diagonal"])
def test_the_crop_is_the_warp_of_the_whole_image(box, rule):
    image, crop, h, usable = _crop(box, rule=rule)
    assert bool(usable)
    np.testing.assert_allclose(crop, projective.warp(image, h, 32), atol=4)


def test_all_zeros_is_the_whole_image():
    _, _, h, _ = _crop([0, 0, 0, 0])
    corners = projective.apply_map(h, tf.constant([[-0.5, 29.5], [79.5, 29.5]]))
    np.testing.assert_allclose(corners, [[-0.5, 15.5], [31.5, 15.5]], atol=1e-4)


@pytest.mark.parametrize(
    "box",
    [
        [10, 10, 10, 40],
        [40, 10, 10, 40],
        [200, 10, 300, 40],
        [-90, 10, -5, 40],
        [np.nan, 0, 1, 1],
        [0, 0, np.inf, 10],
        [10, 10, 10.001, 40],
        [-1e30, -1e30, 1e30, 1e30],
        [10, 10, 10 + 1e-6, 40],
    ],
)
def test_unusable_boxes_are_said_so(box):
    _, crop, h, usable = _crop(box)
    assert not bool(usable)
    assert np.isfinite(crop).all() and np.isfinite(h).all()
