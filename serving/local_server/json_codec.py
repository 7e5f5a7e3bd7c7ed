"""TensorFlow Serving's REST format: JSON bodies to arrays and back, in pure functions.

A request is handled in the order in which TensorFlow Serving finds its errors: `parse_body`, then
`signature_name` (with which the caller looks up the model and the signature's inputs), then
`decode_inputs`; the model's outputs go through `encode_outputs`. Nothing here knows TensorFlow or
landmarks. The format: https://www.tensorflow.org/tfx/serving/api_rest
"""

import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from serving.errors import RequestError

__all__ = [
    "TensorSpec",
    "decode_inputs",
    "encode_outputs",
    "parse_body",
    "signature_name",
]

_DEFAULT_SIGNATURE = "serving_default"


class _Constant(float):
    """`NaN`, `Infinity` or `-Infinity` in so many letters; other infinities are numbers too big."""


_JSON = json.JSONDecoder(parse_constant=_Constant)

# Names that messages give to types, where they differ from numpy's.
_TYPE_NAMES = {"float16": "half", "float32": "float", "float64": "double"}
_FLOATS = ("float32", "float64")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")
# The Python types of the JSON values that an input of each type takes.
_KINDS = {
    "bool": (bool,),
    **dict.fromkeys(_FLOATS, (int, float, _Constant)),
    **dict.fromkeys(_INTEGERS, (int,)),
}
# Below NumPy's limit of 64 dimensions, and above what any model is served with.
_MAX_RANK = 32


@dataclass(frozen=True)
class TensorSpec:
    """The type and shape that a signature gives one of its tensors.

    Attributes:
      dtype: numpy's name of the type (`float32`), or `string`.
      shape: sizes, None where a size is open; None as a whole where even the rank is.
    """

    dtype: str
    shape: tuple[int | None, ...] | None

    def admits(self, shape: Sequence[int]) -> bool:
        """Return whether an array of this shape fits."""
        if self.shape is None:
            return len(shape) <= _MAX_RANK
        return len(shape) == len(self.shape) and all(
            wanted in (None, size) for wanted, size in zip(self.shape, shape, strict=True)
        )


def parse_body(body: bytes | bytearray) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises:
      RequestError: the body is empty, not UTF-8, not JSON, nested too deeply, or not an object.
    """
    if not body:
        raise RequestError("JSON Parse error: The document is empty")
    try:
        document = _JSON.decode(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RequestError(
            f"JSON Parse error: Invalid UTF-8 in string. at offset: {error.start}"
        ) from None
    except json.JSONDecodeError as error:
        raise RequestError(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise RequestError(f"JSON Value: {_show(document)} Is not object")
    return document


def signature_name(document: Mapping) -> str:
    """Return the name of the signature that a parsed request asks for.

    Raises:
      RequestError: `signature_name` is there and not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise RequestError(
            f"JSON Value: {_show(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name or _DEFAULT_SIGNATURE


def decode_inputs(
    document: Mapping, specs: Mapping[str, TensorSpec]
) -> tuple[dict[str, np.ndarray], bool]:
    """Return the input arrays of a parsed request, and whether it came by rows.

    By rows, `instances` is a list with one element for each example: an object with exactly the
    signature's input names, or, for a single input, its bare value. By columns, `inputs` is an
    object with one batched value for each input name, or a single input's bare value. Binary
    strings are `{"b64": "..."}` in base64's standard alphabet. Other keys are ignored.

    Numbers must be of the input's kind (no strings, no booleans; only integers for integer inputs)
    and fit its type; an integer for a float input must be one that the float holds exactly.

    Example:
      >>> specs = {"box": TensorSpec("float32", (None, 4))}
      >>> decode_inputs({"instances": [[0, 0, 9.5, 9]]}, specs)
      ({'box': array([[0. , 0. , 9.5, 9. ]], dtype=float32)}, True)

    Args:
      document: what `parse_body` returned.
      specs: the signature's inputs by name.

    Returns:
      Arrays by input name, strings as arrays of `bytes` objects; and True if it came by rows.

    Raises:
      RequestError: the document does not follow this format, or does not fit the signature; also if
        inputs with an open first size disagree on it.
    """
    if not specs:
        raise RequestError(
            f"Failed to get input map for signature: {document.get('signature_name') or 'DEFAULT'}"
        )
    if "instances" in document and "inputs" in document:
        raise RequestError(
            f"JSON Value: {_show(document)} Not formatted correctly expecting only one of 'inputs' "
            "or 'instances' keys to exist"
        )
    values: dict[str, Any]
    if "instances" in document:
        values, rows = _columns_of_rows(document["instances"], specs), True
    elif "inputs" in document:
        values, rows = _columns(document["inputs"], specs), False
    else:
        raise RequestError("Missing 'inputs' or 'instances' key")
    arrays = {name: _array(values[name], name, spec) for name, spec in specs.items()}
    _check_batch(arrays, specs)
    return arrays, rows


def encode_outputs(outputs: Mapping[str, np.ndarray], *, rows: bool) -> bytes:
    """Return the JSON answer with a model's outputs, in the form in which the request came.

    Floats print as the shortest decimal that reads back as the same number of their type, with `.0`
    where nothing else marks a float; what is not finite prints as `NaN`, `Infinity` or `-Infinity`.
    String outputs whose names end in `_bytes` come as `{"b64": "..."}`.

    Example:
      >>> encode_outputs({"area": np.float32([90, 0.1])}, rows=True)
      b'{"predictions": [90.0, 0.1]}'

    Args:
      outputs: arrays by output name.
      rows: True for `predictions`, a list with one element for each example; False for `outputs`.
        Either way a single output stands bare and several are objects by name.

    Raises:
      RequestError: an output has a type that has no form in JSON (half precision is one), or, by
        rows, no first dimension or another batch size than the others.
    """
    if not rows:
        texts = {name: _nested(array, name)[0] for name, array in outputs.items()}
        return f'{{"outputs": {_element(texts)}}}'.encode()
    batch = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise RequestError(f"Tensor name: {name} has no shape information ")
        batch = len(array) if batch is None else batch
        if len(array) != batch:
            raise RequestError(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {batch}"
            )
    columns = [_nested(array, name, keep=1) for name, array in outputs.items()]
    elements = (
        _element(dict(zip(outputs, texts, strict=True))) for texts in zip(*columns, strict=True)
    )
    return f'{{"predictions": [{", ".join(elements)}]}}'.encode()


def _columns_of_rows(instances: Any, specs: Mapping[str, TensorSpec]) -> dict[str, list]:
    """Return one list of values for each input, from `instances`."""
    if not isinstance(instances, list):
        raise RequestError("Excepting 'instances' to be an list/array")
    if not instances:
        raise RequestError("No values in 'instances' array")
    named = _is_object(instances[0])
    if not named and len(specs) > 1:
        raise RequestError(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            f"required: {', '.join(sorted(specs))}"
        )
    for index, element in enumerate(instances):
        if _is_object(element) != named:
            expected, got = ("object", "value/list") if named else ("value/list", "object")
            raise RequestError(f"Expecting {expected} but got {got} at item {index} of input list")
        if named and element.keys() != specs.keys():
            raise RequestError(
                f"Failed to process element: {index} of 'instances' list. JSON object: "
                f"{_show(element)} keys must be equal to: {','.join(sorted(specs))}"
            )
    if named:
        return {name: [element[name] for element in instances] for name in specs}
    return {next(iter(specs)): instances}


def _columns(inputs: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """Return one value for each input, from `inputs`."""
    if not _is_object(inputs):
        if len(specs) > 1:
            raise RequestError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                f"required: {', '.join(sorted(specs))}"
            )
        return {next(iter(specs)): inputs}
    for name in specs:
        if name not in inputs:
            raise RequestError(f"Missing named input: {name} in 'inputs' object.")
    return {name: inputs[name] for name in specs}


def _array(value: Any, name: str, spec: TensorSpec) -> np.ndarray:
    """Return a scalar or nested lists as an array of the input's type and shape."""
    shape: list[int] = []
    leaves = [value]
    while leaves and isinstance(leaves[0], list):
        size = len(leaves[0])
        if any(type(leaf) is not list or len(leaf) != size for leaf in leaves):
            raise RequestError(
                f'Input "{name}": lists at level {len(shape) + 1} differ in length or depth'
            )
        shape.append(size)
        leaves = list(chain.from_iterable(leaves))
    if not spec.admits(shape):
        expected, got = _show_shape(spec.shape), _show_shape(shape)
        raise RequestError(f'Input "{name}": expecting shape {expected} but got {got}')
    if spec.dtype == "string":
        array = np.empty(len(leaves), dtype=object)
        array[:] = [_bytes(leaf) for leaf in leaves]
    else:
        array = _numbers(leaves, spec.dtype)
    return array.reshape(shape)


def _bytes(leaf: object) -> bytes:
    """Return the bytes of a JSON string or of a base64 object."""
    if isinstance(leaf, dict):
        if not _is_base64(leaf):
            raise RequestError(f"JSON Value: {_show(leaf)} not formatted correctly for base64 data")
        return _base64(leaf["b64"])
    if not isinstance(leaf, str):
        raise _type_error(leaf, "string")
    try:
        return leaf.encode()
    except UnicodeEncodeError:
        raise RequestError("JSON Parse error: The surrogate pair in string is invalid.") from None


def _base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        # Line breaks, as the command `base64` makes them, and missing padding are accepted too.
        text = "".join(text.split())
    try:
        padding = "" if "=" in text else "=" * (-len(text) % 4)
        return binascii.a2b_base64(text + padding, strict_mode=True)
    except ValueError:
        raise RequestError("Unable to base64 decode") from None


def _numbers(leaves: list, dtype: str) -> np.ndarray:
    """Return a flat array of JSON numbers or booleans; one that the type cannot hold is an error."""
    kinds = _KINDS.get(dtype)
    if kinds is None:
        raise RequestError(f"Conversion of JSON Value to type: {dtype}", status=501)
    if not set(map(type, leaves)).issubset(kinds):
        raise _type_error(next(leaf for leaf in leaves if type(leaf) not in kinds), dtype)
    if dtype not in _FLOATS:
        try:
            return np.array(leaves, dtype=dtype)
        except OverflowError:
            limits = np.iinfo(dtype)
            wrong = next(leaf for leaf in leaves if not limits.min <= leaf <= limits.max)
            raise _type_error(wrong, dtype) from None
    largest = float(np.finfo(dtype).max)
    largest_integer = 2 ** (np.finfo(dtype).nmant + 1) - 1
    for leaf in leaves:
        if abs(leaf) > largest or (type(leaf) is int and abs(leaf) > largest_integer):
            if type(leaf) is _Constant:
                continue
            if abs(leaf) == np.inf:
                raise RequestError("JSON Parse error: Number too big to be stored in double.")
            raise RequestError(
                f"Cannot convert JSON value: {_show(leaf)} to {_TYPE_NAMES[dtype]} "
                "without loss of precision."
            )
    return np.array(leaves, dtype=dtype)


def _check_batch(arrays: Mapping[str, np.ndarray], specs: Mapping[str, TensorSpec]) -> None:
    batched = {
        name: len(array)
        for name, array in arrays.items()
        if (shape := specs[name].shape) and shape[0] is None
    }
    if len(set(batched.values())) > 1:
        sizes = ", ".join(f"{name} {size}" for name, size in batched.items())
        raise RequestError(f"input tensors must have equal 0th-dimension size; got {sizes}")


def _nested(array: np.ndarray, name: str, keep: int = 0) -> list[str]:
    """Return the JSON of each element of an array's first `keep` dimensions, as a flat list."""
    if array.dtype.name in _FLOATS and np.isfinite(array).all():
        array = np.require(array, requirements="C")
        elements = array if keep else [array[()]]
        dumped = (orjson.dumps(each, option=orjson.OPT_SERIALIZE_NUMPY) for each in elements)
        return [text.decode() for text in dumped]
    texts = _tokens(array, name)
    for axis in reversed(range(keep, array.ndim)):
        size, count = array.shape[axis], int(np.prod(array.shape[:axis]))
        texts = [f"[{', '.join(texts[i * size : (i + 1) * size])}]" for i in range(count)]
    return texts


def _tokens(array: np.ndarray, name: str) -> list[str]:
    """Return the JSON of each single value of an array."""
    dtype = array.dtype.name
    if dtype in _FLOATS:
        special = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
        return [special.get(text, text) for text in map(str, array.ravel())]
    if dtype in _INTEGERS:
        return list(map(str, array.ravel().tolist()))
    if dtype == "bool":
        return ["true" if value else "false" for value in array.ravel().tolist()]
    if array.dtype.kind in "OS":
        if name.endswith("_bytes"):
            encode = binascii.b2a_base64
            return [
                f'{{"b64": "{encode(value, newline=False).decode()}"}}' for value in array.ravel()
            ]
        return [json.dumps(value.decode(errors="replace")) for value in array.ravel()]
    raise RequestError(
        f"Failed to write JSON value for tensor type: {_TYPE_NAMES.get(dtype, dtype)}"
    )


def _element(texts: Mapping[str, str]) -> str:
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in texts.items()) + "}"


def _is_base64(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_object(value: object) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _type_error(value: object, dtype: str) -> RequestError:
    name = _TYPE_NAMES.get(dtype, dtype)
    return RequestError(f"JSON Value: {_show(value)} is not of expected type: {name}")


def _show(value: object) -> str:
    """Return a short description of a JSON value, however large it is."""
    if isinstance(value, list):
        return f"array of {len(value)}"
    if isinstance(value, dict):
        return "object with keys " + (",".join(map(_show, list(value)[:8])) or "(none)")
    if isinstance(value, str) and len(value) > 40:
        value = value[:40] + "..."
    return json.dumps(value)[:80]


def _show_shape(shape: Sequence[int | None] | None) -> str:
    sizes = ["?"] if shape is None else ["?" if size is None else str(size) for size in shape]
    return f"[{','.join(sizes)}]"
