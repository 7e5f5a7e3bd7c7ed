"""TensorFlow Serving's REST format: JSON bodies to arrays and back, in pure functions.

A request is handled in the order in which TensorFlow Serving finds its errors: `parse_body`, then
`signature_name` (with which the caller looks up the model and the signature's inputs), then
`decode_inputs`; the model's outputs go through `encode_outputs`. Nothing here knows TensorFlow or
landmarks. The format: https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import binascii
import contextlib
import json
import math
import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pybase64

from serving.errors import RequestError

__all__ = ["decode_inputs", "encode_outputs", "parse_body", "signature_name"]

_FLOATS = ("float32", "float64")
# The type that a JSON value must fit for each type of input; it is then cast, so that 256 as uint8 is 0.
_FITTING = {
    **dict.fromkeys(_FLOATS, "float64"),
    **dict.fromkeys(("int8", "int16", "int32", "uint8"), "int32"),
    **{name: name for name in ("bool", "int64", "uint32", "uint64")},
}
_MAX_DIMENSIONS = 64  # NumPy's
_MAX_DEPTH = 300  # above any number of dimensions, and below what Python's parser can

_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_BRACKET = re.compile(rf"(?s){_STRING}|[\[\]{{}}]")
_ODD_NUMBER = re.compile(rf"(?s){_STRING}|-(NaN)\b|\b(Inf)\b")
_LONE_SURROGATE = re.compile(r"(?i)(?<!\\)(?:\\\\)*\\ud[89ab]..(?!\\ud[c-f]..)")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("Number too big to be stored in double.")
    return number


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


_JSON = json.JSONDecoder(parse_float=_float, object_pairs_hook=_first_of_each)


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the JSON object at the start of a request's body; what follows it is ignored.

    Of a key that an object has twice, the first counts.

    Raises:
      RequestError: the body is empty, not JSON, or not an object.
    """
    # TensorFlow Serving does not check that strings are UTF-8.
    text = body.decode("utf-8-sig", "surrogateescape").lstrip(" \t\r\n")
    if not text:
        raise RequestError("JSON Parse error: The document is empty")
    try:
        document = _parse(text)
    except json.JSONDecodeError as error:
        raise RequestError(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise RequestError(f"JSON Value: {_show(document)} Is not object")
    return document


def _parse(text: str) -> Any:
    """Return the value of JSON, of which TensorFlow Serving takes a little more than Python."""
    if "\\" in text and _LONE_SURROGATE.search(text):
        raise ValueError("The surrogate pair in string is invalid.")
    try:
        return _JSON.raw_decode(text)[0]
    except RecursionError:
        return _JSON.raw_decode(_shallow(text))[0]
    except json.JSONDecodeError:
        with_python_names = _ODD_NUMBER.sub(_number_of_python, text)
        if with_python_names == text:
            raise
        return _JSON.raw_decode(with_python_names)[0]


def _shallow(text: str) -> str:
    """Return JSON with a 0 in place of each value that is nested too deeply to be an input."""
    kept, start, depth = [], 0, 0
    for match in _BRACKET.finditer(text):
        if match[0] in ("[", "{"):
            depth += 1
            if depth == _MAX_DEPTH + 1:
                kept.append(text[start : match.start()])
        elif match[0] in ("]", "}"):
            depth -= 1
            if depth == _MAX_DEPTH:
                kept.append("0")
                start = match.end()
    return "".join(kept) + (text[start:] if depth <= _MAX_DEPTH else "")


def _number_of_python(match: re.Match) -> str:
    return "NaN" if match[1] else "Infinity" if match[2] else match[0]


def signature_name(document: Mapping) -> str:
    """Return the name of the signature that a parsed request asks for.

    Raises:
      RequestError: `signature_name` is there and not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise RequestError("JSON Value: 'signature_name' key must be a string value.")
    return name or "serving_default"


def decode_inputs(
    document: Mapping, types: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], bool]:
    """Return the input arrays of a parsed request, strings as `bytes`, and whether it came by rows.

    By rows, `instances` is a list with one element for each example: an object with exactly the
    signature's input names, or, for a single input, its bare value. By columns, `inputs` is an
    object with one batched value for each input name, or a single input's bare value. Binary
    strings are `{"b64": "..."}` in base64's standard alphabet. Other keys are ignored.

    Numbers must be of the input's kind: no strings, no booleans, only integers for integer inputs. A
    number beyond its type's range is infinite as a float and wraps around as a small integer. What
    shape an input has is the graph's business, as in TensorFlow Serving.

    Args:
      document: what `parse_body` returned.
      types: numpy's names of the types of the signature's inputs, or `string`, by the inputs' names.

    Raises:
      RequestError: the document does not follow this format, or does not fit the signature.
    """
    if not types:
        raise RequestError("Failed to get input map for signature: it has no inputs")
    if "instances" in document and "inputs" in document:
        raise RequestError("expecting only one of 'inputs' or 'instances' keys to exist")
    values: dict[str, Any]
    if "instances" in document:
        values, rows = _columns_of_rows(document["instances"], types), True
    elif "inputs" in document:
        values, rows = _columns(document["inputs"], types), False
    else:
        raise RequestError("Missing 'inputs' or 'instances' key")
    for dtype in types.values():
        if dtype not in ("string", *_FITTING):
            what = f"Conversion of JSON Value to type: {dtype}"
            raise RequestError(what, status=400 if rows else 501)
    return {name: _array(values[name], name, dtype) for name, dtype in types.items()}, rows


def encode_outputs(outputs: Mapping[str, np.ndarray], *, rows: bool) -> bytes:
    """Return the JSON answer with a model's outputs, in the form in which the request came.

    Floats print as the shortest decimal that reads back as the same number of their type, with `.0`
    where nothing else marks a float; what is not finite prints as `NaN`, `Infinity` or `-Infinity`.
    String outputs whose names end in `_bytes` come as `{"b64": "..."}`.

    Args:
      outputs: arrays by output name.
      rows: True for `predictions`, a list with one element for each example; False for `outputs`.
        Either way a single output stands bare and several are objects by name.

    Raises:
      RequestError: an output has a type that has no form in JSON (half precision is one), or, by
        rows, no first dimension or another batch size than the others.
    """
    columns = {name: _column(array, name) for name, array in outputs.items()}
    document: dict[str, Any]
    if rows:
        batch = _batch_size(outputs)
        elements = ({name: column[i] for name, column in columns.items()} for i in range(batch))
        document = {"predictions": [_bare(element) for element in elements]}
    else:
        document = {"outputs": _bare(columns)}
    if all(np.isfinite(array).all() for array in outputs.values() if array.dtype.name in _FLOATS):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(document, default=_shortest).encode()


def _columns_of_rows(instances: Any, types: Mapping[str, str]) -> dict[str, list]:
    """Return one list of values for each input, from `instances`."""
    if not isinstance(instances, list):
        raise RequestError("Excepting 'instances' to be an list/array")
    if not instances:
        raise RequestError("No values in 'instances' array")
    named = _is_object(instances[0])
    if not named and len(types) > 1:
        names = ", ".join(sorted(types))
        raise RequestError(f"'instances' is a plain list, but expecting a list of objects: {names}")
    for index, element in enumerate(instances):
        if _is_object(element) != named:
            expected, got = ("object", "value/list") if named else ("value/list", "object")
            raise RequestError(f"Expecting {expected} but got {got} at item {index} of input list")
        if named and element.keys() != types.keys():
            keys = ",".join(sorted(types))
            raise RequestError(f"Element {index} of 'instances': keys must be equal to: {keys}")
    if named:
        return {name: [element[name] for element in instances] for name in types}
    return {next(iter(types)): instances}


def _columns(inputs: Any, types: Mapping[str, str]) -> dict[str, Any]:
    """Return one value for each input, from `inputs`."""
    if not _is_object(inputs):
        if len(types) > 1:
            names = ", ".join(sorted(types))
            raise RequestError(f"'inputs' is a plain value, but expecting an object: {names}")
        return {next(iter(types)): inputs}
    for name in types:
        if name not in inputs:
            raise RequestError(f"Missing named input: {name} in 'inputs' object.")
    return {name: inputs[name] for name in types}


def _array(value: Any, name: str, dtype: str) -> np.ndarray:
    """Return a scalar or nested lists as an array of the input's type."""
    shape: list[int] = []
    leaves = [value]
    while leaves and isinstance(leaves[0], list):
        size = len(leaves[0])
        if any(type(leaf) is not list or len(leaf) != size for leaf in leaves):
            level = len(shape) + 1
            raise RequestError(f'Input "{name}": lists at level {level} differ in length or depth')
        shape.append(size)
        leaves = list(chain.from_iterable(leaves))
    if len(shape) > _MAX_DIMENSIONS:
        raise RequestError(f'Input "{name}" has more than {_MAX_DIMENSIONS} dimensions')
    if dtype == "string":
        array = np.empty(len(leaves), dtype=object)
        array[:] = [_bytes(leaf) for leaf in leaves]
    else:
        array = _numbers(leaves, dtype)
    return array.reshape(shape)


def _bytes(leaf: object) -> bytes:
    """Return the bytes of a JSON string or of a base64 object."""
    if isinstance(leaf, dict) and _is_base64(leaf):
        return _base64(leaf["b64"])
    if not isinstance(leaf, str):
        raise _type_error(leaf, "string")
    try:
        return leaf.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return leaf.encode("utf-8", "surrogatepass")


def _base64(text: str) -> bytes:
    with contextlib.suppress(ValueError):
        return pybase64.b64decode(text, validate=True)
    # Line breaks, as the command `base64` makes them, and missing padding are accepted too.
    text = "".join(text.split()).replace(".", "=")
    try:
        padded = text if "=" in text else text + "=" * (-len(text) % 4)
        return binascii.a2b_base64(padded, strict_mode=True)
    except ValueError:
        raise RequestError("Unable to base64 decode") from None


def _numbers(leaves: list, dtype: str) -> np.ndarray:
    """Return a flat array of JSON numbers or booleans."""
    kinds = (bool,) if dtype == "bool" else (int, float) if dtype in _FLOATS else (int,)
    if not set(map(type, leaves)).issubset(kinds):
        raise _type_error(next(leaf for leaf in leaves if type(leaf) not in kinds), dtype)
    fitting = _FITTING[dtype]
    try:
        with np.errstate(over="ignore"):
            return np.array(leaves, fitting).astype(dtype)
    except OverflowError:
        raise RequestError(f"JSON Value: a number is not of expected type: {fitting}") from None


def _column(array: np.ndarray, name: str) -> Any:
    """Return an output as what orjson writes: an array, a NumPy scalar, or nested lists of strings."""
    if array.dtype.name in _FITTING:
        return np.require(array, requirements="C") if array.ndim else array[()]
    if array.dtype.kind not in "OS":
        raise RequestError(f"Failed to write JSON value for tensor type: {array.dtype.name}")
    texts = np.empty(array.size, object)
    if name.endswith("_bytes"):
        texts[:] = [{"b64": base64.b64encode(value).decode()} for value in array.ravel()]
    else:
        texts[:] = [value.decode(errors="replace") for value in array.ravel()]
    return texts.reshape(array.shape).tolist()


def _batch_size(outputs: Mapping[str, np.ndarray]) -> int:
    batch = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise RequestError(f"Tensor name: {name} has no shape information ")
        batch = len(array) if batch is None else batch
        if len(array) != batch:
            raise RequestError(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {batch}"
            )
    return batch or 0


def _bare(values: dict[str, Any]) -> Any:
    return next(iter(values.values())) if len(values) == 1 else values


def _shortest(values: Any) -> Any:
    """Return a NumPy array or scalar as JSON's numbers, a float32 as the shortest text for it."""
    if values.dtype == np.float32:
        numbers = [float(str(value)) for value in values.ravel()]
        values = np.array(numbers, np.float64).reshape(values.shape)
    return values.tolist()


def _is_base64(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_object(value: object) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _type_error(value: object, dtype: str) -> RequestError:
    return RequestError(f"JSON Value: {_show(value)} is not of expected type: {dtype}")


def _show(value: object) -> str:
    """Return a short description of a JSON value, however large it is."""
    if isinstance(value, (list, dict)):
        return f"{'an array' if isinstance(value, list) else 'an object'} of {len(value)}"
    return json.dumps(value[:40] if isinstance(value, str) else value)[:80]
