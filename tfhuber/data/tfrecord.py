"""TFRecord files, written and read without TensorFlow, which takes seconds to import.

A record is its length (8 bytes, little endian), the masked CRC-32C of these, its bytes, and their
masked CRC-32C.
"""

import io
import struct
from collections.abc import Container, Iterator
from typing import Protocol

import google_crc32c

__all__ = ["LARGEST_RECORD", "frame", "read_records"]

# A stored crop and its labels are far smaller; a damaged length must not become an allocation.
LARGEST_RECORD = 1 << 28


class _Readable(Protocol):
    """A binary file; `seek` is called only if records are to be passed over."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int, /) -> int: ...


def frame(record: bytes) -> bytes:
    """Return the bytes that stand for a record in a TFRecord file."""
    length = struct.pack("<Q", len(record))
    return length + _masked_crc(length) + record + _masked_crc(record)


def read_records(file: _Readable, numbers: Container[int] | None = None) -> Iterator[bytes]:
    """Yield the records of a file, each with both of its checksums compared.

    Args:
      file: at its beginning.
      numbers: which records, counted from 1; the others are passed over unread. None for all.

    Raises:
      ValueError: naming the record and its fault.
    """
    number = 0
    while header := file.read(12):
        number += 1
        length = header[:8]
        if len(header) < 12:
            raise ValueError(f"record {number} is cut short")
        if _masked_crc(length) != header[8:]:
            raise ValueError(f"record {number}: the checksum of its length is wrong")
        (size,) = struct.unpack("<Q", length)
        if size > LARGEST_RECORD:
            raise ValueError(f"record {number} claims {size:,} bytes")
        if numbers is not None and number not in numbers:
            file.seek(size + 4, io.SEEK_CUR)
            continue
        body = file.read(size + 4)
        if len(body) < size + 4:
            raise ValueError(f"record {number} is cut short")
        if _masked_crc(body[:-4]) != body[-4:]:
            raise ValueError(f"record {number}: the checksum of its content is wrong")
        yield body[:-4]


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
