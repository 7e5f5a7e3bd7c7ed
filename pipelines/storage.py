"""Files on any of Beam's file systems, local or `gs://` ...; those of a source are not trusted."""

import hashlib
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, BinaryIO, Protocol

import google_crc32c
from apache_beam.io.filesystem import CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems

from pipelines.errors import Unusable
from pipelines.file_names import folded, only_match

__all__ = [
    "ReadSum",
    "Source",
    "SourceFiles",
    "create",
    "digest",
    "exists",
    "is_folder",
    "is_local",
    "names",
    "open_file",
    "rename",
]

_CHUNK = 1 << 20


def is_local(path: str) -> bool:
    """Return whether a path is one of this machine's, and not `scheme://...`."""
    return FileSystems.get_scheme(path) is None


def open_file(path: str) -> BinaryIO:
    """Open a file for reading, as it is stored.

    Raises:
      OSError: if it is not there or cannot be read.
    """
    if is_local(path) and not os.path.isfile(path) and os.path.exists(path):
        raise OSError(f"{path} is no regular file")  # A pipe or a device may have no end.
    with _own_errors(path):
        return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def create(path: str) -> BinaryIO:
    """Open a new file for writing; on object stores it appears when it is closed."""
    return FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)


def digest(path: str, checksum: Any) -> str:
    """Return the checksum of a file's content in hexadecimal, computed by a new `checksum` object."""
    with open_file(path) as file:
        while chunk := file.read(_CHUNK):
            checksum.update(chunk)
    return checksum.digest().hex()


class ReadSum:
    """How many files and bytes were read, and the CRC-32C of these bytes in a row."""

    def __init__(self) -> None:
        self._files, self._bytes, self._checksum = 0, 0, google_crc32c.Checksum()

    def add(self, content: bytes) -> None:
        """Count what was read of a file."""
        self._files += 1
        self._bytes += len(content)
        self._checksum.update(content)

    def add_fault(self, fault: Unusable) -> None:
        """Let a file that could not be read be told from one that could."""
        self._checksum.update(str(fault).encode())

    def summary(self) -> dict:
        """Return the sums, for a shard's summary."""
        crc = self._checksum.digest().hex()
        return {"files": self._files, "bytes": self._bytes, "crc32c": crc}


def exists(path: str) -> bool:
    """Return whether there is such a file, or a folder."""
    with _own_errors(path):
        return FileSystems.exists(path)


def is_folder(path: str) -> bool:
    """Return whether there is such a folder; an object store has those that are not empty."""
    return os.path.isdir(path) if is_local(path) else any(_match(f"{path.rstrip('/')}/**", 1))


def rename(path: str, new: str) -> None:
    """Move a file to a new name, replacing what is there."""
    FileSystems.rename([path], [new])


def names(folder: str, *, deep: bool = False) -> Iterator[str]:
    """Yield the names in a folder or, with `deep`, the paths of all files below it; none if absent."""
    if is_local(folder) and not deep:
        yield from os.listdir(folder) if os.path.isdir(folder) else ()
        return
    prefix = folder.rstrip("/") + "/"
    for found in _match(f"{prefix}{'**' if deep else '*'}"):
        yield found.path.removeprefix(prefix)


class SourceFiles(Protocol):
    """What a reader's `labels` may ask of a `Source`."""

    def has(self, name: str) -> bool:
        """Return whether there is such a file or a folder that is not empty."""

    def read(self, name: str, kind: str, most: int, folder: str = "") -> bytes:
        """Return a file's content; raise `Unusable` if it cannot be had."""

    def find(self, name: str, kind: str, folder: str = "") -> str:
        """Return a file's full path; raise `Unusable` if it is not there."""


@dataclass(frozen=True)
class Source:
    """The directory of a data set; every name is relative to it, with `/` between its parts.

    Example:
      >>> Source("gs://bucket/wflw").read("a.jpg", "image", most=1 << 20, folder="WFLW_images")
    """

    root: str

    def path(self, *names: str) -> str:
        """Return the full path of a name, which is not checked."""
        return FileSystems.join(self.root, *names)

    def has(self, name: str) -> bool:
        """Return whether there is such a file or a folder that is not empty."""
        path = self.path(name)
        return exists(path) or any(_match(f"{path}/**", 1))

    def open(self, name: str) -> BinaryIO:
        """Open one of the lists that a reader names by itself."""
        return open_file(self.path(name))

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names in a folder; none if there is no such folder."""
        return names(self.path(folder))

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of one of the lists."""
        return digest(self.path(name), hashlib.sha256())

    def read(self, name: str, kind: str, most: int, folder: str = "") -> bytes:
        """Return the content of a file that the source names itself and that is therefore not trusted.

        Args:
          name: path below `folder`; or what can only mean one, as `file_names.only_match` says.
          kind: "image" or "labels": what the reasons of rejects call it.
          most: bytes; a larger file is refused, unread.
          folder: below the source's directory; no name, nor a symbolic link, may leave it.

        Raises:
          Unusable: as `find`, and `unreadable_` or the kind with `_too_large`.
        """
        path = self.find(name, kind, folder)
        try:
            with open_file(path) as file:
                chunks, size = [], 0
                while size <= most and (chunk := file.read(_CHUNK)):
                    chunks.append(chunk)
                    size += len(chunk)
        except OSError as error:
            if not is_local(path):
                raise  # A connection that fails is no fault of the data: the runner tries again.
            raise Unusable(f"unreadable_{kind}", f"{name!r}: {_one_line(error)}") from None
        if size > most:
            raise Unusable(f"{kind}_too_large", f"{name!r} has more than {most:,} bytes")
        return b"".join(chunks)

    def find(self, name: str, kind: str, folder: str = "") -> str:
        """Return the full path of a file that the source names itself; the arguments are those of `read`.

        Raises:
          Unusable: `path_outside_source`, or `missing_` and the kind.
        """
        root = self.path(folder) if folder else self.root
        root = _real(root) if is_local(root) else root
        path = _inside(root, name, kind)
        if not _is_file(path):
            meant = only_match(
                name,
                posixpath.basename(root.rstrip("/")),
                lambda path: _is_file(FileSystems.join(root, path)),
                partial(_listed, root),
            )
            if meant is None:
                raise Unusable(
                    f"missing_{kind}", f"{name!r} is no file of {folder or 'the source'}"
                )
            path = _inside(root, meant, kind)
        return path


def _inside(root: str, name: str, kind: str) -> str:
    """Return the path of a name below a folder; raise `Unusable` if it leads out of there."""
    try:
        if is_local(root):
            path = os.path.realpath(os.path.join(root, name))
            inside = os.path.commonpath([root, path]) == root
        else:
            relative = posixpath.normpath(name)
            inside = not f"{relative}/".startswith(("/", "../")) and "://" not in name
            path = FileSystems.join(root, relative)
    except (OSError, ValueError) as error:  # A loop of links, a NUL in the name.
        raise Unusable(f"missing_{kind}", f"{name!r}: {_one_line(error)}") from None
    if not inside:
        raise Unusable("path_outside_source", f"{name!r} leaves {posixpath.basename(root)}")
    return path


@lru_cache
def _real(root: str) -> str:
    """Return the folder that a path leads to; asked for with every file in it."""
    return os.path.realpath(root)


@lru_cache(maxsize=16)
def _listed(root: str, folder: str) -> dict[str, list[str]]:
    """Return the names in a folder below another one, by `folded`; asked for where files are not found."""
    found: dict[str, list[str]] = {}
    with suppress(PermissionError):
        for name in names(FileSystems.join(root, folder) if folder else root):
            found.setdefault(folded(name), []).append(name)
    return found


def _is_file(path: str) -> bool:
    if is_local(path):
        return os.path.isfile(path)
    # Object stores' longest names have 1,024 bytes; asking for a longer one is an error there.
    return len(path.encode(errors="replace")) <= 1024 and exists(path)


@contextmanager
def _own_errors(path: str) -> Iterator[None]:
    """Raise `OSError` for what object stores raise instead: `NotFound`, `Forbidden` and so on."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise OSError(f"{path}: {type(error).__name__}: {_one_line(error)}") from error


def _match(pattern: str, limit: int | None = None) -> list[FileMetadata]:
    limits = None if limit is None else [limit]
    return FileSystems.match([pattern], limits)[0].metadata_list


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
