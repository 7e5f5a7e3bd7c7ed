"""MATLAB 5 files that are not trusted: size and depth are bounded before SciPy parses them."""

import io
import zlib
from typing import TYPE_CHECKING, Literal

import numpy as np

from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    import scipy.io as scipy_io
else:
    scipy_io = lazy_module("scipy.io")  # Workers that read no such file start without it.

__all__ = ["load_matlab"]

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_Order = Literal["little", "big"]
_ORDERS: dict[bytes, _Order] = {b"IM": "little", b"MI": "big"}
# MPII's file, the deepest that is read, has six levels.
_DEEPEST = 16


def load_matlab(content: bytes, name: str, most: int) -> tuple[np.ndarray | None, str]:
    """Return the variable of that name, or None, and its class, such as "double" or "struct".

    Args:
      content: the file.
      name: the variable's.
      most: bytes of all variables, uncompressed.

    Raises:
      ValueError: if it is no MATLAB 5 file, is damaged, larger than that, or nested too deeply.
    """
    plain = _uncompressed(content, most)
    try:
        kinds = {each: kind for each, _, kind in scipy_io.whosmat(io.BytesIO(plain))}
        found = scipy_io.loadmat(io.BytesIO(plain), variable_names=[name]).get(name)
    except Exception as error:  # The parser raises nearly anything on damaged files.
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    return found, kinds.get(name, "")


def _uncompressed(content: bytes, most: int) -> bytes:
    """Return the same file with its variables not compressed; ValueError if one is nested too deeply."""
    if content.startswith(b"MATLAB 7.3"):
        raise ValueError(
            "it is a MATLAB 7.3 file; MATLAB's save(..., '-v7') writes one that can be read"
        )
    order = _ORDERS.get(content[126:128])
    if order is None or content[124:126] not in (b"\x00\x01", b"\x01\x00"):
        raise ValueError("it is no MATLAB 5 file")
    pieces, size, at = [content[:_HEADER]], 0, _HEADER
    while at < len(content):
        kind, start, end = _element(content, at, order)
        piece = content[at:end]
        if kind == _COMPRESSED:
            try:
                piece = zlib.decompressobj().decompress(content[start:end], most + 1)
            except zlib.error as error:
                raise ValueError(f"a compressed variable is damaged: {error}") from None
        size += len(piece)
        if size > most:
            raise ValueError(f"its variables have more than {most:,} bytes")
        _check_depth(piece, order)
        pieces.append(piece)
        at = end
    return b"".join(pieces)


def _check_depth(piece: bytes, order: _Order) -> None:
    """Raise `ValueError` if a variable's matrices, which hold elements in turn, are nested too deeply."""
    ends: list[int] = []
    at = 0
    while at < len(piece):
        while ends and at >= ends[-1]:
            ends.pop()
        kind, start, end = _element(piece, at, order)
        if kind == _MATRIX:
            ends.append(end)
            if len(ends) > _DEEPEST:
                raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
            at = start
        else:
            at = end


def _element(data: bytes, at: int, order: _Order) -> tuple[int, int, int]:
    """Return kind, first and past-the-last byte of the element whose tag is at that place."""
    kind, size = (int.from_bytes(data[at + i : at + i + 4], order) for i in (0, 4))
    if kind >> 16:  # A small one: size and kind in 4 bytes, the content in the next 4.
        return kind & 0xFFFF, at + 4, at + 8
    start = at + 8
    end = start + size + (0 if kind == _COMPRESSED else -size % 8)
    if start > len(data):
        raise ValueError("it is cut short")
    return kind, start, end
