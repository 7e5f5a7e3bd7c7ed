"""An object store for tests: `toy://bucket/name`, as flat as `gs://`, kept in a directory."""

import os
import uuid
from collections import Counter
from pathlib import Path
from urllib.parse import quote, unquote

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem

# Names the directory, so that other processes find it too. They must import this module, as Beam's
# workers do by themselves if it is on their path.
DIRECTORY = "TOY_FILE_SYSTEM"

# How often each path was opened for reading in this process.
opened = Counter()


def upload(folder: Path, url: str) -> None:
    """Copies all files of a folder, whatever its links lead to, to names below the URL."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _file(f"{url}/{path.relative_to(folder).as_posix()}").write_bytes(path.read_bytes())


def download(url: str, folder: Path) -> None:
    """Copies all objects below the URL into a folder."""
    for path in _paths():
        if path.startswith(f"{url}/"):
            target = folder / path.removeprefix(f"{url}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_file(path).read_bytes())


def _file(path: str) -> Path:
    if not path.startswith("toy://"):
        raise ValueError(f"{path!r} is no path of the toy file system")
    return Path(os.environ[DIRECTORY], quote(path.removeprefix("toy://"), safe=""))


def _paths() -> list[str]:
    return [f"toy://{unquote(name)}" for name in sorted(os.listdir(os.environ[DIRECTORY]))]


def _each(action, message, items) -> None:
    """Does all that can be done, and then raises what could not, as Beam's file systems do."""
    failures = {}
    for item in items:
        try:
            action(item)
        except OSError as error:
            failures[item] = error
    if failures:
        raise BeamIOError(message, failures)


class NotFound(Exception):
    """No `OSError`, as little as that of Google's client."""


class _Upload:
    """An object being written: it appears, or replaces the one before, when it is closed."""

    def __init__(self, path: str):
        self._file = _file(path)
        # Beside the directory, where nobody lists it.
        self._aside = self._file.parent.with_name(f"{self._file.parent.name}.{uuid.uuid4()}")
        self._stream = self._aside.open("wb")

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()

    def close(self):
        if not self._stream.closed:
            self._stream.close()
            self._aside.replace(self._file)


class ToyFileSystem(FileSystem):
    """Names are names: there are no folders, `..` is no way up, and a name may hold any character."""

    @classmethod
    def scheme(cls):
        return "toy"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *(path.strip("/") for path in paths)])

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return (path, "") if head == "toy:/" else (head, tail)

    def has_dirs(self):
        return False

    def mkdirs(self, path):
        pass

    def _list(self, dir_or_prefix):
        for path in _paths():
            if path.startswith(dir_or_prefix):
                yield self.metadata(path)

    def create(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        return _Upload(path)

    def open(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        opened[path] += 1
        if not self.exists(path):
            raise NotFound(path)
        return _file(path).open("rb")

    def copy(self, source_file_names, destination_file_names):
        def copy(pair):
            source, destination = map(_file, pair)
            destination.write_bytes(source.read_bytes())

        _each(copy, "Copy", zip(source_file_names, destination_file_names, strict=True))

    def rename(self, source_file_names, destination_file_names):
        def rename(pair):
            source, destination = map(_file, pair)
            source.replace(destination)

        _each(rename, "Rename", zip(source_file_names, destination_file_names, strict=True))

    def delete(self, paths):
        def delete(path):
            for each in _paths():
                if each == path or each.startswith(f"{path.rstrip('/')}/"):
                    _file(each).unlink()

        _each(delete, "Delete", paths)

    def exists(self, path):
        return _file(path).exists()

    def metadata(self, path):
        try:
            status = _file(path).stat()
        except OSError as error:
            raise BeamIOError("Metadata", {path: error}) from None
        return FileMetadata(path, status.st_size, status.st_mtime)

    def size(self, path):
        return self.metadata(path).size_in_bytes

    def last_updated(self, path):
        return self.metadata(path).last_updated_in_seconds

    def checksum(self, path):
        return str(self.size(path))
