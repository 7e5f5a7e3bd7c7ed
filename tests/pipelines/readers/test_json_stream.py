"""Streaming a JSON document gives what reading it whole gives, whatever the pieces, in little memory."""

import io
import json
import math
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.readers import json_stream
from pipelines.readers.json_stream import members


def read(text, chunk=3):
    data = text if isinstance(text, bytes) else text.encode()
    return list(members(io.BytesIO(data), "x.json", chunk=chunk))


def whole(document):
    """The members of a document that was read at once."""
    for key, value in document.items():
        if isinstance(value, list):
            yield from ((key, number, element) for number, element in enumerate(value, start=1))
        else:
            yield key, None, value


characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters, max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
documents = st.dictionaries(texts, st.lists(values, max_size=5) | values, max_size=5)


@settings(max_examples=300)
@given(
    documents, st.integers(1, 70), st.sampled_from([None, 1, "\t"]), st.booleans(), st.booleans()
)
def test_any_document_in_any_pieces_is_what_json_says(document, chunk, indent, ascii, mark):
    text = json.dumps(document, indent=indent, ensure_ascii=ascii)
    data = text.encode("utf-8-sig" if mark else "utf-8")
    for encoded in (data, data.replace(b"\n", b"\r\n")):
        assert read(encoded, chunk) == read(encoded, 1) == list(whole(document))


@settings(max_examples=300)
@given(documents, st.data())
def test_a_document_cut_or_changed_is_refused_as_json_refuses_it(document, data):
    """What is yielded before the fault is what the whole document has there."""
    text = json.dumps(document)
    cut = data.draw(st.integers(0, len(text)))
    text = text[:cut] + data.draw(st.sampled_from(["", ",", "]", "}", "[", "1", "x", '"', " {}"]))
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    if isinstance(expected, dict) and len(json.loads(text, object_pairs_hook=list)) == len(
        expected
    ):
        assert read(text) == list(whole(expected))
    elif not isinstance(expected, dict):
        with pytest.raises(ValueError, match=r"x\.json is not a JSON object: ") as info:
            read(text)
        assert "\n" not in str(info.value)


@given(st.binary(max_size=40))
@example(b"\xff\xfe{\x00}\x00")
def test_any_bytes_are_members_or_one_line(data):
    try:
        read(data)
    except ValueError as error:
        assert str(error).startswith("x.json is not") and "\n" not in str(error)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    "number", ["0", "-0.0", "12345678901234567890", "1.25", "-1.5e-7", "2E+10", "true", "null"]
)
def test_numbers_are_whole_wherever_a_piece_ends(number, chunk):
    value = json.loads(number)
    text = f'{{"a": [{number},{number} ,\r\n{number}], "b":{number}, "c" : {number} }}'
    assert read(text, chunk) == [
        *(("a", i, value) for i in (1, 2, 3)),
        ("b", None, value),
        ("c", None, value),
    ]


def test_what_is_not_json_but_read_by_everyone_is_read():
    (_, _, nan), (_, _, low) = read('{"a": [NaN, -Infinity]}', 1)
    assert math.isnan(nan) and low == -math.inf


def test_a_number_of_thousands_of_digits_is_infinite():
    assert read('{"a": [' + "1" * 5000 + ', 2], "b": [3]}', 1) == [
        ("a", 1, math.inf),
        ("a", 2, 2),
        ("b", 1, 3),
    ]


def test_bytes_that_are_no_text_spoil_their_element_alone():
    assert read(b'{"a": ["\xff\xfe", "b"]}') == [("a", 1, "\ufffd\ufffd"), ("a", 2, "b")]


def test_a_key_that_is_there_twice_is_read_twice():
    assert read('{"a": [1], "b": 2, "a": [3]}') == [("a", 1, 1), ("b", None, 2), ("a", 1, 3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the top level is empty"),
        (" \r\n ", "the top level is empty"),
        ("[{}]", "the top level is a list"),
        ("12", "the top level is no object"),
        ('{"a": [1, 2', "expected ',' or an end in line 1, column 12"),
        ('{"a": [1, 2 ', "expected ',' or ']' in line 1, column 13"),
        ('{"a": [1, {"b": ', "Expecting value in line 1, column 17"),
        ('{"a": ["b', "Unterminated string starting at in line 1, column 8"),
        ('{\n  "a": [\n    1,\n  ]\n}', "Expecting value in line 4, column 3"),
        ('{"a": 1,}', "expected a key in line 1, column 9"),
        ('{"a" 1}', "expected ':' in line 1, column 6"),
        ("{'a': 1}", "expected a key in line 1, column 2"),
        ('{"a": 1}\n}', "the document has ended, and there is more in line 2, column 1"),
        ('{"a": [1.x]}', "expected ',' or an end in line 1, column 9"),
        ('{"a": [' + "[" * 200_000, "nested too deeply in line 1, column 8"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 4, 1 << 20])
def test_what_is_wrong_is_said_with_its_place(text, message, chunk):
    with pytest.raises(ValueError) as info:
        read(text, chunk)
    assert str(info.value) == f"x.json is not a JSON object: {message}"


def test_the_form_is_named():
    with pytest.raises(ValueError, match=r"^a is not COCO keypoints: the top level is a list$"):
        list(members(io.BytesIO(b"[]"), "a", "COCO keypoints"))


class Endless(io.RawIOBase):
    """A start, and then the same text for ever, or for as often as asked."""

    def __init__(self, start, text, times=10**9, end=b""):
        self.pieces = iter([start])
        self.text, self.times, self.end = text, times, end

    def read(self, size):
        if piece := next(self.pieces, None):
            return piece
        self.times -= 1
        if self.times < 0:
            self.end, end = b"", self.end
            return end
        return self.text * (max(size, len(self.text)) // len(self.text))


def peak(file):
    tracemalloc.start()
    try:
        count = sum(1 for _ in members(file, "x", chunk=1 << 14))
        return count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_a_piece_however_long_the_list():
    element = b'{"a": [1, 2, 3]},'
    few, small = peak(Endless(b'{"a": [', element, 4, b"1]}"))
    many, large = peak(Endless(b'{"a": [', element, 100, b"1]}"))
    assert many > 20 * few > 1000 and large < 1.1 * small < 2**20


def test_memory_is_that_of_a_piece_however_long_the_white_space():
    count, memory = peak(Endless(b'{"a": [1', b" ", 1000, b",2]}"))
    assert count == 2 and memory < 2**18


@pytest.mark.parametrize(("start", "text"), [(b'"', b"b"), (b"1", b"1"), (b"[[", b"1,")])
def test_a_member_without_an_end_is_refused_before_it_fills_the_memory(start, text, monkeypatch):
    monkeypatch.setattr(json_stream, "LARGEST_MEMBER", 2**17)
    with pytest.raises(ValueError, match=r"line 1, .*, or a value of more than 131,072 characters"):
        peak(Endless(b'{"a": ' + start, text))
