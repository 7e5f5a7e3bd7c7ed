"""Boxes as users type them; the rest of the module is tested with the commands that use it."""

import argparse
import sys

import numpy as np
import pytest
from PIL import Image

from tfhuber.saved_model.image_command import parse_box, read_arguments


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


@pytest.mark.parametrize("flag", ["--output", "--json"])
def test_the_picture_that_is_read_is_not_written_over(flag, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 10)).save(path)
    monkeypatch.setattr(sys, "argv", ["predict", str(path), flag, str(tmp_path / "." / "a.png")])
    with pytest.raises(ValueError, match=r"a\.png would be written over, it is read too"):
        read_arguments(argparse.ArgumentParser())
