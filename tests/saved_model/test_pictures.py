"""Boxes as users type them; the rest of the module is tested with the commands that use it."""

import argparse
import sys

import numpy as np
import pytest
from PIL import Image

from tfhuber.saved_model.pictures import (
    decode_rgb,
    open_image,
    parse_box,
    read_arguments,
    read_image,
)


@pytest.mark.parametrize(
    ("text", "box"),
    [("1,2,30,40", [1, 2, 30, 40]), (" 1.5, -2 ,3e1,400", [1.5, -2, 30, 400])],
)
def test_boxes_are_read(text, box):
    np.testing.assert_array_equal(parse_box(text, (100, 50)), box)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "four numbers"),
        ("1,2,3", "four numbers"),
        ("1,2,3,4,5", "four numbers"),
        ("1;2;3;4", "four numbers"),
        ("a,b,c,d", "four numbers"),
        ("0,0,nan,1", "four numbers"),
        ("0,0,inf,1", "four numbers"),
        ("0,0,0,0", "is empty"),
        ("30,2,1,40", "is empty"),
        ("1,2,30,2", "is empty"),
        ("100,0,120,40", "outside the image, which has 100 x 50 pixels"),
        ("0,-20,10,-1", "outside the image"),
    ],
)
def test_other_boxes_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_box(text, (100, 50))


def test_of_16_bits_the_upper_ones_are_seen(tmp_path):
    grey = np.arange(0, 256, 5, np.uint8).reshape(4, 13)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "a.png")
    _, image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(image), grey[..., None].repeat(3, -1))
    decoded = decode_rgb((tmp_path / "a.png").read_bytes(), "a.png")
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(image))


@pytest.mark.parametrize(
    ("size", "fault"),
    [((9999, 10_000), None), ((10_001, 10_000), "has 10001 x 10000 pixels, more than 100,000,000")],
)
def test_pictures_may_be_as_large_as_the_model_allows(size, fault, tmp_path):
    Image.new("1", size).save(tmp_path / "a.png")
    if fault is None:
        assert open_image(tmp_path / "a.png")[1].size == size
    else:
        with pytest.raises(ValueError, match=fault):
            open_image(tmp_path / "a.png")


@pytest.mark.parametrize("flag", ["--output", "--json"])
def test_the_picture_that_is_read_is_not_written_over(flag, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 10)).save(path)
    monkeypatch.setattr(sys, "argv", ["predict", str(path), flag, str(tmp_path / "." / "a.png")])
    with pytest.raises(ValueError, match=r"a\.png would be written over, it is read too"):
        read_arguments(argparse.ArgumentParser())
