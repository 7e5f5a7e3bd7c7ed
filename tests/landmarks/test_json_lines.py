"""The line of JSON of a prediction."""

import json

import numpy as np

from tfhuber.landmarks.json_lines import answer_line, readable


def test_a_line_has_its_fields_in_order_and_every_digit_that_counts():
    landmarks = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    box = np.array([1.5, 2, 3, 4])
    line = answer_line("a.jpg", box, {"landmarks": landmarks}, frame=7, seconds=0.25)
    values = json.loads(line)
    assert list(values) == ["source", "frame", "seconds", "box", "landmarks"]
    assert (values["source"], values["frame"], values["box"]) == ("a.jpg", 7, [1.5, 2, 3, 4])
    np.testing.assert_array_equal(np.float32(values["landmarks"]), landmarks)


def test_a_fault_stands_where_numbers_would():
    assert answer_line("a.jpg", None, {"error": "why"}) == (
        b'{"source":"a.jpg","box":null,"error":"why"}'
    )


def test_a_name_that_is_no_text_can_be_written():
    assert readable(b"\xff.jpg".decode(errors="surrogateescape")) == "\\udcff.jpg"
    assert json.loads(answer_line("\udcff", None, {}))["source"] == "\\udcff"
