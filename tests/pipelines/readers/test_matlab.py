"""MATLAB files that were made to break the parser are refused before it sees them."""

import io
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from pipelines.readers.matlab import load_matlab

MOST = 1 << 20


def saved(compressed=True, **variables):
    file = io.BytesIO()
    savemat(file, variables, do_compression=compressed)
    return file.getvalue()


def nested(depth):
    """Cells in cells, written without scipy, which does not write as deep ones as it reads."""
    matrix = b""
    for _ in range(depth):
        inside = [
            (6).to_bytes(4, "little") + (8).to_bytes(4, "little") + bytes([1, 0, 0, 0, 0, 0, 0, 0]),
            (5).to_bytes(4, "little") + (8).to_bytes(4, "little") + bytes([1, 0, 0, 0, 1, 0, 0, 0]),
            (1).to_bytes(4, "little") + (0).to_bytes(4, "little"),
            matrix,
        ]
        body = b"".join(inside)
        matrix = (14).to_bytes(4, "little") + len(body).to_bytes(4, "little") + body
    return saved(x=1)[:128] + matrix


@pytest.mark.parametrize("compressed", [True, False])
def test_variables_come_back(compressed):
    points = np.arange(6.0).reshape(2, 3)
    content = saved(compressed, points=points, name="a", number=3)
    found, kind = load_matlab(content, "points", MOST)
    np.testing.assert_array_equal(found, points)
    assert (kind, load_matlab(content, "name", MOST)[1]) == ("double", "char")
    assert load_matlab(content, "other", MOST) == (None, "")


@pytest.mark.parametrize("depth", [17, 1000, 20_000])
def test_deep_nesting_does_not_reach_the_parser(depth):
    with pytest.raises(ValueError, match="nested deeper than 16 levels"):
        load_matlab(nested(depth), "x", 1 << 24)
    load_matlab(nested(3), "x", MOST)


def test_compressed_zeros_are_bounded_before_memory_is():
    bomb = zlib.compress(bytes(1 << 26), 9)
    content = saved(x=1)[:128] + (15).to_bytes(4, "little") + len(bomb).to_bytes(4, "little") + bomb
    with pytest.raises(ValueError, match="more than 1,048,576 bytes"):
        load_matlab(content, "x", MOST)


@pytest.mark.parametrize("cut", range(0, 300, 7))
def test_what_is_cut_short_is_one_error(cut):
    whole = saved(x=np.random.default_rng(0).normal(size=(20, 20)))
    try:
        load_matlab(whole[:cut], "x", MOST)
    except ValueError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "content", [b"", b"text " * 100, bytes(500), b"\x89HDF\r\n\x1a\n" + bytes(500)]
)
def test_other_files_are_named(content):
    with pytest.raises(ValueError, match="no MATLAB 5 file"):
        load_matlab(content, "x", MOST)


def test_what_to_do_with_a_newer_format_is_said():
    content = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF"
    with pytest.raises(ValueError, match=r"it is a MATLAB 7\.3 file; .*'-v7'"):
        load_matlab(content, "x", MOST)
