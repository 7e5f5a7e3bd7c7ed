"""Columns are aligned, and long texts go on below."""

from tfhuber.console.table import aligned


def test_columns_are_aligned_as_asked():
    rows = [("run", "images", ""), ("a", "1,024", "done"), ("b", "1e3", "--x-y")]
    text = aligned(rows, right=[1])
    assert text.splitlines() == ["run  images", "a     1,024  done", "b       1e3  --x-y"]


def test_a_long_last_text_goes_on_below_and_options_stay_whole():
    rows = [("check", "install it with pip --force-reinstall x"), ("other", "")]
    lines = aligned(rows, last_width=20).splitlines()
    assert lines == ["check  install it with pip", "       --force-reinstall x", "other"]
