"""The REST codec's way in: what a request may hold, and what is refused and how."""

import json
import math
import time

import numpy as np
import pytest
from fake_server import b64
from hypothesis import given
from hypothesis import strategies as st

from serving.local_server.json_codec import (
    RequestError,
    decode_inputs,
    parse_body,
    signature_name,
)

# The exported model's signature, and one with a single input.
LANDMARKS = {
    "box": "float32",
    "image_bytes": "string",
}
POINTS = {"points": "float32"}

finite_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def decode(document, specs):
    return decode_inputs(parse_body(json.dumps(document).encode()), specs)


def decode_one(value, dtype):
    """The array that a single input's column becomes."""
    return decode({"inputs": value}, {"x": dtype})[0]["x"]


# --- the body and the signature


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"   ", "JSON Parse error: "),
        (b"instances = [1]", "JSON Parse error: Expecting value at offset: 0"),
        (b'{"instances": [1, 2}', "at offset: 19"),
        (b'{"a": "\\uD800"}', "The surrogate pair in string is invalid."),
        (b'{"a": 1e400}', "Number too big to be stored in double."),
        (b"[1]", "JSON Value: an array of 1 Is not object"),
        (b"null", "JSON Value: null Is not object"),
        (b'"text"', 'JSON Value: "text" Is not object'),
        (b"[" * 200_000 + b"]" * 200_000, "JSON Value: an array of 1 Is not object"),
        (b'{"a": ' + b"[" * 200_000, "JSON Parse error: "),
        (b'{"a": ' + b"9" * 5_000 + b"}", "JSON Parse error: "),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body, message):
    with pytest.raises(RequestError) as caught:
        parse_body(body)
    assert caught.value.status == 400
    assert message in caught.value.message and len(caught.value.message) < 200


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"inputs": 1}',
        b' \n{"inputs": 1} x',
        b'{"inputs": 1}{"inputs": 2}',
        b'{"inputs": 1}\x00\xff',
        b'{"inputs": 1, "inputs": 2}',
    ],
)
def test_what_is_around_the_object_and_again_in_it_is_ignored(body):
    assert parse_body(body) == {"inputs": 1}


def test_strings_need_not_be_text():
    body = b'{"inputs": ["\xff\xc3", "\\ud83d\\ude00", "\\\\ud800", "\xed\xa0\x80", "\\udc00"]}'
    inputs, _ = decode_inputs(parse_body(body), {"x": "string"})
    smile, backslash = "\U0001f600".encode(), b"\\ud800"
    low = b"\xed\xb0\x80"  # UTF-8 of a surrogate, as rapidjson writes it
    assert inputs["x"].tolist() == [b"\xff\xc3", smile, backslash, b"\xed\xa0\x80", low]


def test_names_that_rapidjson_has_for_numbers_that_are_none():
    body = b'{"Inf": "-NaN Inf", "inputs": [Inf, -Inf, -NaN, NaN, Infinity, -Infinity]}'
    document = parse_body(body)
    assert document["Inf"] == "-NaN Inf"
    expected = np.float32([np.inf, -np.inf, np.nan, np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(decode_inputs(document, {"x": "float32"})[0]["x"], expected)


def test_what_is_nested_deeply_and_not_used_does_not_matter():
    for opening, closing in ((b"[", b"]"), (b'{"a": ', b"}")):
        deep = opening * 50_000 + b"1" + closing * 50_000
        body = b'{"x": ' + deep + b', "inputs": [[["]"], ["["]]], "y": ' + deep + b"}"
        assert parse_body(body)["inputs"] == [[["]"], ["["]]]
    with pytest.raises(RequestError, match="JSON Parse error"):
        parse_body(body[:-1].replace(b"}", b"", 1))


def test_the_signature_is_named_or_the_default():
    assert signature_name({}) == signature_name({"signature_name": ""}) == "serving_default"
    assert signature_name({"signature_name": "tta"}) == "tta"
    for wrong in (1, None, ["tta"]):
        with pytest.raises(RequestError, match="'signature_name' key must be a string value"):
            signature_name({"signature_name": wrong})


# --- rows and columns


def test_rows_of_objects():
    document = {
        "instances": [
            {"image_bytes": b64(b"\xff\xd8\x00"), "box": [0, 1.5, 2, 3]},
            {"box": [4, 5, 6, 7], "image_bytes": b64(b"")},
        ]
    }
    inputs, rows = decode(document, LANDMARKS)
    assert rows is True
    assert inputs["image_bytes"].tolist() == [b"\xff\xd8\x00", b""]  # the NUL at the end stays
    assert inputs["box"].dtype == np.float32
    np.testing.assert_array_equal(inputs["box"], [[0, 1.5, 2, 3], [4, 5, 6, 7]])


def test_columns_give_the_same_as_rows():
    columns = {"image_bytes": [b64(b"a"), b64(b"b")], "box": [[0, 0, 1, 1], [0, 0, 2, 2]]}
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    from_columns, is_rows = decode({"inputs": columns}, LANDMARKS)
    from_rows, _ = decode({"instances": rows}, LANDMARKS)
    assert is_rows is False
    assert from_columns["image_bytes"].tolist() == from_rows["image_bytes"].tolist()
    np.testing.assert_array_equal(from_columns["box"], from_rows["box"])


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [[1, 2], [3, 4]]},
        {"instances": [{"points": [1, 2]}, {"points": [3, 4]}]},
        {"inputs": [[1, 2], [3, 4]]},
        {"inputs": {"points": [[1, 2], [3, 4]]}},
        {"inputs": {"points": [[1, 2], [3, 4]], "more": 1}, "unknown": True},
    ],
)
def test_a_single_input_may_be_bare_and_other_keys_are_ignored(document):
    inputs, _ = decode(document, POINTS)
    np.testing.assert_array_equal(inputs["points"], [[1, 2], [3, 4]])


def test_bare_base64_is_a_value_and_no_named_input():
    specs = {"image_bytes": "string"}
    assert decode({"instances": [b64(b"x"), "plain"]}, specs)[0]["image_bytes"].tolist() == [
        b"x",
        b"plain",
    ]
    scalar = {"image_bytes": "string"}
    assert decode({"inputs": b64(b"x")}, scalar)[0]["image_bytes"].item() == b"x"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"instance": [1]}, "Missing 'inputs' or 'instances' key"),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, "expecting only one of 'inputs' or"),
        ({"instances": {"points": [1, 2]}}, "'instances' to be an list/array"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": [[1, 2], {"points": [3, 4]}]}, "value/list but got object at item 1"),
        ({"instances": [{"points": [1, 2]}, [3, 4]]}, "object but got value/list at item 1"),
        ({"instances": [{}]}, "Element 0 of 'instances'"),
        ({"instances": [{"point": [1, 2]}]}, "keys must be equal to: points"),
        ({"instances": [{"points": [1, 2], "more": 1}]}, "keys must be equal to: points"),
        ({"inputs": {}}, "Missing named input: points in 'inputs' object"),
        ({"inputs": {"Points": [[1, 2]]}}, "Missing named input: points in 'inputs' object"),
        ({"inputs": None}, "null is not of expected type: float"),
        ({"instances": [None]}, "null is not of expected type: float"),
        ({"instances": [[1, 2], [3]]}, "lists at level 2 differ in length or depth"),
        ({"instances": [[1, 2], 3]}, "lists at level 2 differ in length or depth"),
        ({"instances": [[1, [2]]]}, "an array of 1 is not of expected type: float"),
    ],
)
def test_a_document_of_another_form_is_refused(document, message):
    with pytest.raises(RequestError) as caught:
        decode(document, POINTS)
    assert caught.value.status == 400
    assert message in caught.value.message


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_several_inputs_must_be_named(key):
    with pytest.raises(RequestError, match=r"expecting .*object.* box, image_bytes"):
        decode({key: [b64(b"x")]}, LANDMARKS)


def test_shapes_are_the_graphs_business():
    columns = {"image_bytes": [b64(b"a"), b64(b"b")], "box": [[0, 0, 1]]}
    inputs, _ = decode({"inputs": columns}, LANDMARKS)
    assert inputs["image_bytes"].shape == (2,) and inputs["box"].shape == (1, 3)


def test_a_signature_without_inputs_is_refused():
    with pytest.raises(RequestError, match="Failed to get input map for signature"):
        decode({"signature_name": "init", "instances": [1]}, {})


# --- values


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (["1"], "float32", '"1" is not of expected type: float'),
        ([True], "float32", "true is not of expected type: float"),
        ([None], "float64", "null is not of expected type: float64"),
        ([b64(b"x")], "float32", "an object of 1 is not"),
        ([1.0], "int32", "1.0 is not of expected type: int32"),
        ([True], "int64", "true is not of expected type: int64"),
        ([2**31], "int32", "a number is not of expected type: int32"),
        ([2**31], "uint8", "is not of expected type: int32"),
        ([-1], "uint32", "is not of expected type: uint32"),
        ([10**30], "uint64", "is not of expected type: uint64"),
        ([1], "bool", "1 is not of expected type: bool"),
        ([1], "string", "1 is not of expected type: string"),
        ([{"b64": 1}], "string", "an object of 1 is not of expected type"),
        ([{"b64": "", "x": 1}], "string", "is not of expected type: string"),
        ([10**400], "float32", "a number is not of expected type: float64"),
    ],
)
def test_a_value_of_another_kind_is_refused(value, dtype, message):
    with pytest.raises(RequestError) as caught:
        decode_one(value, dtype)
    assert caught.value.status == 400
    assert message in caught.value.message and len(caught.value.message) < 200


def test_types_without_a_json_form_are_not_implemented():
    with pytest.raises(RequestError) as caught:
        decode_one([1.0], "bfloat16")
    assert caught.value.status == 501
    with pytest.raises(RequestError) as caught:
        decode({"instances": [1.0]}, {"x": "bfloat16"})
    assert caught.value.status == 400  # by rows, as TensorFlow Serving


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"])
def test_integers_go_to_the_ends_of_their_type(dtype):
    limits = np.iinfo(dtype)
    array = decode_one([int(limits.min), int(limits.max)], dtype)
    assert array.dtype == dtype and array.tolist() == [limits.min, limits.max]


def test_floats_take_integers_and_what_is_not_finite():
    """And what is beyond their range or precision."""
    array = decode_one([2**24 - 1, -7, math.nan, math.inf, -math.inf, 1e-46], "float32")
    np.testing.assert_array_equal(
        array, np.float32([16777215, -7, np.nan, np.inf, -np.inf, 0]), strict=True
    )
    array = decode_one([2**24 + 1, 1435774380, 1e39, -(10**300), 2**64], "float32")
    expected = np.float32([2**24, 1435774380, np.inf, -np.inf, 2**64])
    np.testing.assert_array_equal(array, expected, strict=True)


def test_small_integers_wrap_around():
    assert decode_one([-1, 256, 300, -300, 2**31 - 1], "uint8").tolist() == [255, 0, 44, 212, 255]
    assert decode_one([128, -129, 255], "int8").tolist() == [-128, 127, -1]
    assert decode_one([65535, -32769], "int16").tolist() == [-1, 32767]


@pytest.mark.parametrize("number", ["1e400", "-1e999", "0.1e310"])
def test_a_number_beyond_all_floats_is_not_infinity(number):
    body = f'{{"instances": [Infinity, 1, {number}]}}'.encode()
    with pytest.raises(RequestError, match="Number too big to be stored in double") as caught:
        parse_body(body)
    assert caught.value.status == 400


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3, 4)])
def test_any_rank(shape):
    array = np.zeros(shape, np.int32)
    decoded = decode_one(array.tolist(), "int32")
    assert decoded.shape == shape and decoded.dtype == np.int32


def test_more_dimensions_than_numpy_has_are_refused():
    deep = json.loads("[" * 70 + "]" * 70)
    with pytest.raises(RequestError, match="more than 64 dimensions"):
        decode_one(deep, "int32")


@pytest.mark.parametrize("text", ["+/+/", "_-_-", "ab=c", "a", "====", "YQ=", "é", "YQ==YQ=="])
def test_only_standard_base64_is_decoded(text):
    if text == "+/+/":
        assert decode_one([{"b64": text}], "string").tolist() == [b"\xfb\xff\xbf"]
    else:
        with pytest.raises(RequestError, match="Unable to base64 decode"):
            decode_one([{"b64": text}], "string")


def test_base64_as_command_lines_write_it():
    """With line breaks, and with or without padding."""
    assert decode_one([{"b64": "aGVs\nbG8=\n"}, {"b64": "aGVsbG8"}], "string").tolist() == [
        b"hello",
        b"hello",
    ]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=4))
def test_any_bytes_come_through_base64(values):
    assert decode_one([b64(value) for value in values], "string").tolist() == values


@given(st.lists(finite_float32.filter(lambda value: abs(value) < 3e38), min_size=1, max_size=8))
def test_float32_inputs_read_back_exactly(values):
    np.testing.assert_array_equal(decode_one(values, "float32"), np.float32(values), strict=True)


def test_an_image_of_megabytes_is_decoded_in_milliseconds():
    """A gross bound, against copies in Python: 8 MB take about 20 ms on one core of 2020."""
    image = bytes(range(256)) * (8 * 2**20 // 256)
    body = json.dumps({"instances": [{"image_bytes": b64(image), "box": [0, 0, 9, 9]}]}).encode()
    start = time.perf_counter()
    inputs, _ = decode_inputs(parse_body(body), LANDMARKS)
    assert time.perf_counter() - start < 1.0
    assert inputs["image_bytes"][0] == image


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["b64", "box", "image_bytes", "points", "x"]), children, max_size=3
        )
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["instances", "inputs", "signature_name"]), json_values, max_size=2
    ),
    st.sampled_from([LANDMARKS, POINTS, {"x": "int32"}]),
)
def test_any_json_is_decoded_or_refused(document, specs):
    """Nothing but RequestError leaves the codec."""
    try:
        signature_name(document)
        inputs, _ = decode_inputs(document, specs)
    except RequestError as error:
        assert error.message
    else:
        assert inputs.keys() == specs.keys()
        wanted = {name: object if dtype == "string" else dtype for name, dtype in specs.items()}
        assert all(array.dtype == wanted[name] for name, array in inputs.items())


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_a_document_or_refused(body):
    try:
        document = parse_body(body)
    except RequestError as error:
        assert error.status == 400 and len(error.message) < 400
    else:
        assert isinstance(document, dict)
