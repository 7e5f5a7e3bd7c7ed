"""A JSON document of any size, member by member: the memory is that of its largest member.

`ijson` 3.6, whose C parser is two to four times as fast, will not do: it refuses NaN, integers beyond
64 bits and bytes that are not UTF-8, names no line, and a number of 5,000 digits crashes the process.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

__all__ = ["LARGEST_MEMBER", "members"]

# Characters of one element of a top-level list, or of another top-level value.
LARGEST_MEMBER = 16 * 2**20

_CHUNK = 2**18
_NO_SPACE = re.compile(r"[^ \t\r\n]")
_AFTER_A_NUMBER = frozenset(" \t\r\n,]}")
# Python reads integers of at most 4,300 digits; float makes infinity of longer ones.
_DECODER = json.JSONDecoder(parse_int=lambda text: int(text) if len(text) <= 4300 else float(text))


def members(
    file: BinaryIO, name: str, form: str = "a JSON object", chunk: int = _CHUNK
) -> Iterator[tuple[str, int | None, Any]]:
    """Yield (key, number, element) of the lists in a JSON object, and (key, None, value) of the rest.

    Elements are numbered from 1. The text is UTF-8, with or without a byte-order mark. Bytes that are not
    UTF-8 become U+FFFD, and NaN and Infinity are numbers, so that only their element is spoilt.

    Args:
      file: the document.
      name: what errors call the file.
      form: what errors say that the file is not.
      chunk: bytes to read at a time.

    Raises:
      ValueError: naming the file, the line and the column, where it is not JSON, or a member has more
        than `LARGEST_MEMBER` characters; what comes before has been yielded.

    Example:
      >>> list(members(io.BytesIO(b'{"a": [1, 2], "b": {}}'), "x.json"))
      [('a', 1, 1), ('a', 2, 2), ('b', None, {})]
    """
    text = _Text(file, chunk)
    try:
        yield from _object(text)
    except _Fault as fault:
        raise ValueError(f"{name} is not {form}: {fault}") from None


class _Fault(Exception):
    """What is wrong with the document, and where."""


def _object(text: "_Text") -> Iterator[tuple[str, int | None, Any]]:
    if text.peek() != "{":
        kind = {"[": "a list", "": "empty"}.get(text.peek(), "no object")
        raise _Fault(f"the top level is {kind}")
    for _ in _items(text, "}"):
        if text.peek() != '"':
            raise text.fault("expected a key")
        key = text.value()
        text.take(":")
        if text.peek() == "[":
            for number in _items(text, "]"):
                yield key, number, text.value()
        else:
            yield key, None, text.value()
    if text.peek():
        raise text.fault("the document has ended, and there is more")


def _items(text: "_Text", end: str) -> Iterator[int]:
    """Yield the number, from 1, of each item of a list or object; the caller then reads the item."""
    text.take("{", "[")
    if text.peek() == end:
        text.take(end)
        return
    number = 1
    yield number
    while text.take(",", end) == ",":
        number += 1
        yield number


class _Text:
    """The part of a file's text that has not been taken yet, read a piece at a time."""

    def __init__(self, file: BinaryIO, chunk: int):
        self._file, self._chunk = file, chunk
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._text, self._at = "", 0
        self._line, self._column = 1, 1  # Of the first character of `_text`.

    def peek(self) -> str:
        """Return the next character that is no white space; empty at the end."""
        while True:
            if found := _NO_SPACE.search(self._text, self._at):
                self._at = found.start()
                return found[0]
            self._at = len(self._text)
            if not self._more():
                return ""

    def take(self, *expected: str) -> str:
        """Take the next character that is no white space, which must be one of these."""
        found = self.peek()
        if found not in expected:
            raise self.fault(f"expected {' or '.join(map(repr, expected))}")
        self._at += 1
        return found

    def value(self) -> Any:
        """Take the next JSON value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                fault = self.fault(error.msg, error.pos)
            except RecursionError:
                raise self.fault("nested too deeply") from None
            else:
                # What has been read of `1.5` may be `1.`, of which the decoder makes 1.
                if self._text[end - 1] in '"]}' or self._text[end : end + 1] in _AFTER_A_NUMBER:
                    self._at = end
                    return value
                fault = self.fault("expected ',' or an end", end)
            if len(self._text) - self._at > LARGEST_MEMBER:
                raise _Fault(f"{fault}, or a value of more than {LARGEST_MEMBER:,} characters")
            if not self._more():
                raise fault

    def fault(self, problem: str, at: int | None = None) -> _Fault:
        """Return the fault that there is this problem at that index of the text, or else here."""
        line, column = self._place(self._at if at is None else at)
        return _Fault(f"{problem} in line {line}, column {column}")

    def _more(self) -> bool:
        """Read on, in ever larger pieces while one value fills the text; return False at the end."""
        self._line, self._column = self._place(self._at)
        self._text, self._at = self._text[self._at :], 0
        data = self._file.read(max(self._chunk, len(self._text)))
        text = self._decoder.decode(data, final=not data)
        self._text += text
        return bool(data or text)

    def _place(self, at: int) -> tuple[int, int]:
        """Return line and column, from 1, of the character at that index."""
        last = self._text.rfind("\n", 0, at)
        if last < 0:
            return self._line, self._column + at
        return self._line + self._text.count("\n", 0, at), at - last
