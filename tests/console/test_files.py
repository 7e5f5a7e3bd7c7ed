"""JSON files are written whole or not at all, and what is wrong with one is said."""

import os
import threading

import pytest

from tfhuber.console.files import read_json, reason, write_json


def test_what_is_written_is_read(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, 0.1]})
    assert read_json(tmp_path / "a.json") == {"é": [1, 0.1]}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_byte_order_mark_is_fine(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON: Expecting value in line 1, column 1"),
        (b"{\n 3}", "in line 2, column 2"),
        (b"\xff", "can't decode byte 0xff"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "Exceeds the limit"),
    ],
)
def test_what_is_no_json_is_named(tmp_path, data, message):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_an_endless_file_ends():
    with pytest.raises(ValueError, match="/dev/zero is not one of this project's JSON files"):
        read_json("/dev/zero")


def test_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", object())
    with pytest.raises(IsADirectoryError):
        write_json(tmp_path, [2])
    assert read_json(tmp_path / "a.json") == [1]
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_json(pipe, [1], indent=None)
    reader.join(10)
    assert read == ["[1]\n"] and pipe.is_fifo()


def test_tensorflows_own_words_are_left_out():
    error = Exception("{{function_node __wrapped__X}} {{node Y}} no such thing [Op:X] name: \nmore")
    assert reason(error) == "no such thing"
    assert reason(Exception("Graph execution error:\n\nbad")) == "bad"
    assert reason(KeyError()) == "KeyError"
