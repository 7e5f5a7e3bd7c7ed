"""The line of JSON that stands for a picture's prediction, wherever predictions are written."""

from collections.abc import Mapping

import numpy as np
import orjson

__all__ = ["answer_line", "readable"]


def answer_line(
    source: str, box: np.ndarray | None, found: Mapping[str, np.ndarray | str], **frame: object
) -> bytes:
    """Return the line, without its end: `source`, the frame's, `box`, and what was found.

    Args:
      source: the picture's name.
      box: [4] x0, y0, x1, y1 in its pixels; None for all of it.
      found: `landmarks` [K, 2], `covariance` [K, 2, 2] and, if the model has it, `precision_factor`
        [K, 2, 2] in its pixels, each number with the digits that make it the same float32 again, and
        flags as true and false; or `error`, why there are none.
      frame: `frame` and `seconds` of a video's.

    Example:
      >>> answer_line("a.jpg", None, {"landmarks": np.array([[0.1, 2.0]])})
      b'{"source":"a.jpg","box":null,"landmarks":[[0.1,2.0]]}'
    """
    head = {"source": readable(source), **frame, "box": None if box is None else box.tolist()}
    tail = {name: _encodable(value) for name, value in found.items()}
    return orjson.dumps(head | tail, option=orjson.OPT_SERIALIZE_NUMPY)


def readable(name: str) -> str:
    """Return a file's name with backslashes for what is no UTF-8 in it."""
    return name.encode(errors="backslashreplace").decode()


def _encodable(value: np.ndarray | str) -> object:
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    return array.tolist() if array.dtype == bool else np.ascontiguousarray(array, np.float32)
