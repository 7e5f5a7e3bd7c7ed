"""Files that are written whole or not at all, and JSON read with an error that names what is wrong."""

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

__all__ = ["Aside", "blamed", "is_stream", "place_aside", "read_json", "reason", "write_json"]

# Far more than any of the project's JSON files; an endless one, such as a device, ends here.
_MOST_BYTES = 64 * 2**20

_STREAMS = ("/dev/std", "/dev/fd/", "/proc/")


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds.

    Raises:
      ValueError: naming the file, and where in it the fault is, if it is not JSON.
      OSError: if it cannot be read.
    """
    with Path(path).open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{path} is not one of this project's JSON files: too large")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError:
        raise ValueError(f"{path} is not JSON that can be read: nested too deeply") from None
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        raise ValueError(f"{path} is not JSON that can be read: {error}") from error


def reason(error: Exception) -> str:
    """Return what an error says, on one line, without the graph nodes that TensorFlow puts around it."""
    message = getattr(error, "message", None) or str(error)
    message = message.removeprefix("Graph execution error:").strip() or type(error).__name__
    line = message.splitlines()[0]
    return re.sub(r"^(\{\{.*?\}\}\s*)+|\s*\[Op:.*$", "", line)


def is_stream(path: Path) -> bool:
    """Return whether something is there that is written to and not replaced: a pipe, a device.

    `/dev/stdout` is one even if it leads to a file.
    """
    there = path.exists() and not (path.is_file() or path.is_dir())
    return there or str(path).startswith(_STREAMS)


@contextlib.contextmanager
def blamed(path: Path) -> Iterator[None]:
    """Name a file in the system's errors, as those of a full disk lack a name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def place_aside(path: Path) -> Path:
    """Return where a file of that name is written until it is whole; a stream is written to at once."""
    if is_stream(path):
        return path
    # No name has more than 255 bytes.
    name = path.name if len(os.fsencode(path.name)) < 250 else path.name[:50]
    return path.with_name(name + ".tmp")


class Aside:
    """A file that gets its name when it is whole; a stream (`is_stream`) is written to as it is.

    Leaving the context without an error is what makes it whole; with one, there is no file.

    Attributes:
      path: where to write meanwhile.
      is_stream: whether that is a stream.

    Args:
      path: the name.

    Raises:
      IsADirectoryError: it is a folder's.

    Example:
      >>> with Aside(folder / "numbers.csv") as aside:
      ...     _ = aside.open().write("1,2")
    """

    def __init__(self, path: str | Path):
        self._target = Path(path)
        if self._target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        self.is_stream = is_stream(self._target)
        self.path = place_aside(self._target)
        if not self.is_stream:
            self.path.unlink(missing_ok=True)  # what it may lead to is not written to
        self._file: IO[str] | None = None

    def open(self, newline: str | None = None) -> IO[str]:
        """Open the file for UTF-8 text until the context ends; a stream goes on at its end."""
        mode = "a" if self.is_stream else "w"
        with blamed(self._target):
            self._file = self.path.open(mode, encoding="utf-8", newline=newline)
        return self._file

    def discard(self) -> None:
        """Remove the file; a stream stays."""
        if not self.is_stream:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with blamed(self._target):
                if self._file:
                    self._file.close()
                if kind is None and not self.is_stream:
                    self.path.replace(self._target)
        except OSError:
            if kind is None:  # else the first error is the one to tell
                raise
        finally:
            self.discard()


def write_json(path: str | Path, values: Any, *, indent: int | None = 2) -> None:
    """Write JSON aside and rename it into place, so that a killed process leaves no half file."""
    path = Path(path)
    text = json.dumps(values, indent=indent) + "\n"
    with Aside(path) as aside, blamed(path):
        file = aside.open()
        file.write(text)
        file.flush()
        if not aside.is_stream:
            os.fsync(file.fileno())
