"""The REST codec's way out: how numbers, strings and shapes are written, and that they read back."""

import json
import struct

import numpy as np
import pytest
from fake_server import b64
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.local_server.json_codec import (
    RequestError,
    decode_inputs,
    encode_outputs,
    parse_body,
)

finite_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def test_rows_and_columns_of_outputs():
    outputs = {"landmarks": np.float32([[[1, 2.5]], [[3, 4]]]), "valid": np.array([True, False])}
    rows = json.loads(encode_outputs(outputs, rows=True))
    columns = json.loads(encode_outputs(outputs, rows=False))
    assert rows == {
        "predictions": [
            {"landmarks": [[1.0, 2.5]], "valid": True},
            {"landmarks": [[3.0, 4.0]], "valid": False},
        ]
    }
    assert columns == {
        "outputs": {"landmarks": [[[1.0, 2.5]], [[3.0, 4.0]]], "valid": [True, False]}
    }


def test_a_single_output_is_bare():
    outputs = {"y": np.int32([[1, 2], [3, 4]])}
    assert encode_outputs(outputs, rows=True) == b'{"predictions":[[1,2],[3,4]]}'
    assert encode_outputs(outputs, rows=False) == b'{"outputs":[[1,2],[3,4]]}'
    assert encode_outputs({"y": np.float64(1)}, rows=False) == b'{"outputs":1.0}'
    assert encode_outputs({"y": np.array(b"ab", object)}, rows=False) == b'{"outputs":"ab"}'


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (2, 0, 3), (2, 3, 0), (1, 2, 3, 2)])
@pytest.mark.parametrize("dtype", ["int64", "float32", "float64"])
@pytest.mark.parametrize("rows", [True, False])
def test_shapes_survive(shape, dtype, rows):
    array = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    document = json.loads(encode_outputs({"y": array}, rows=rows))
    assert document == {"predictions" if rows else "outputs": array.tolist()}


def test_strings_and_bytes():
    array = np.array([b'"quoted" \xc3\xa9', b"\xff"], dtype=object)
    rows = json.loads(encode_outputs({"label": array, "crop_bytes": array}, rows=True))
    assert rows["predictions"] == [
        {"label": '"quoted" é', "crop_bytes": b64(array[0])},
        {"label": "\ufffd", "crop_bytes": b64(array[1])},
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (np.float32(0.1), "0.1"),
        (np.float32(-0.0), "-0.0"),
        (np.float32(100), "100.0"),
        (np.float32(2.1336), "2.1336"),
        (np.float32(1e20), "1e+20"),
        (np.float32(3.4028235e38), "3.4028235e+38"),
        (np.float32(1e-45), "1e-45"),
        (np.float64(0.1), "0.1"),
        (np.float64(1 / 3), "0.3333333333333333"),
        (np.float32(np.nan), "NaN"),
        (np.float32(np.inf), "Infinity"),
        (np.float64(-np.inf), "-Infinity"),
        (np.int64(-(2**63)), "-9223372036854775808"),
        (np.uint8(255), "255"),
        (np.bool_(True), "true"),
    ],
)
def test_how_numbers_are_written(number, text):
    answer = encode_outputs({"y": number[None]}, rows=True).decode()
    assert answer.replace(" ", "") == f'{{"predictions":[{text}]}}'


def test_a_number_that_is_none_changes_no_others():
    outputs = {
        "y": np.float32([[0.1, np.nan], [np.inf, 2]]),
        "n": np.int32([1, 2]),
        "v": np.bool([1, 0]),
    }
    answer = encode_outputs(outputs, rows=True).decode()
    rows = '{"y": [0.1, NaN], "n": 1, "v": true}, {"y": [Infinity, 2.0], "n": 2, "v": false}'
    assert answer == f'{{"predictions": [{rows}]}}'


@given(st.lists(finite_float32, min_size=1, max_size=6))
def test_float32_prints_shortest_marked_as_float_and_reads_back(values):
    array = np.float32(values)
    text = encode_outputs({"y": array}, rows=True).decode()
    np.testing.assert_array_equal(np.float32(json.loads(text)["predictions"]), array, strict=True)
    for token, number in zip(text[16:-2].split(","), array, strict=True):
        assert "." in token or "e" in token
        digits = len(token.split("e")[0].replace("-", "").replace(".", "").strip("0")) or 1
        with np.errstate(over="ignore"):
            shortest = next(n for n in range(1, 10) if np.float32(f"{number:.{n - 1}e}") == number)
        assert digits <= shortest


@given(st.binary(min_size=8, max_size=8))
def test_any_float64_reads_back(data):
    array = np.array(struct.unpack("d", data))
    decoded = json.loads(encode_outputs({"y": array}, rows=False))["outputs"]
    np.testing.assert_array_equal(decoded, array)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"y": np.float16([1])}, "Failed to write JSON value for tensor type: float16"),
        ({"y": np.complex64([1])}, "tensor type: complex64"),
        ({"y": np.float32(1)}, "Tensor name: y has no shape information"),
        ({"y": np.array(b"ab", object)}, "Tensor name: y has no shape information"),
        ({"y": np.zeros(2), "z": np.zeros(3)}, "z has inconsistent batch size: 3 expecting: 2"),
    ],
)
def test_outputs_without_a_row_form_are_refused(outputs, message):
    with pytest.raises(RequestError, match=message) as caught:
        encode_outputs(outputs, rows=True)
    assert caught.value.status == 400


@given(st.data())
def test_what_is_encoded_by_columns_decodes_to_the_same(data):
    """Every type and shape that has a form in JSON, through a client's own request."""
    dtype = data.draw(st.sampled_from(["float32", "float64", "int8", "int64", "uint8", "bool"]))
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3))
    array = data.draw(arrays.arrays(dtype, shape))
    outputs = json.loads(encode_outputs({"x": array}, rows=False))["outputs"]
    specs = {"x": dtype}
    inputs, _ = decode_inputs(parse_body(json.dumps({"inputs": outputs}).encode()), specs)
    np.testing.assert_array_equal(inputs["x"], array, strict=True)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4))
def test_bytes_that_are_encoded_by_rows_decode_to_the_same(values):
    array = np.empty(len(values), object)
    array[:] = values
    rows = json.loads(encode_outputs({"x_bytes": array}, rows=True))["predictions"]
    document = parse_body(json.dumps({"instances": rows}).encode())
    inputs, _ = decode_inputs(document, {"x_bytes": "string"})
    assert inputs["x_bytes"].tolist() == values
