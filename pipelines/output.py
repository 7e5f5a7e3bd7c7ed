"""Data sets written aside: a directory appears under its name when it is complete, or not at all.

Beside `PATH/NAME` lies `PATH/.NAME.partial` while work is going on. What is in its folder `data` in
the end becomes `PATH/NAME`: on a local disk by renaming the folder, elsewhere file by file, the
manifest last, without which it is no data set.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch

from apache_beam.io.filesystems import FileSystems

from pipelines.storage import create, exists, is_local, names
from tfhuber.console.lock import locked

__all__ = ["Work", "written_aside"]

# Of the work: the data set that is being replaced on a local disk; the note that files are moving.
_REPLACED, _MOVING = "replaced", "moving"
_LOCK = "lock"
_FOLDERS = ("books", "data", "plans", "rejects", "writing")


@dataclass(frozen=True)
class Work:
    """The directory in which a data set grows; its folders are made when they are first asked for."""

    root: str

    def path(self, *parts: str) -> str:
        """Return the full path of a file or folder, having made its parent."""
        path = FileSystems.join(self.root, *parts)
        if is_local(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def names(self, folder: str, *, since: float | None = None) -> Iterator[str]:
        """Yield the names of the files in a folder; on a local disk, of those written after that time."""
        path = FileSystems.join(self.root, folder)
        for name in names(path):
            if since is None or os.stat(os.path.join(path, name)).st_mtime >= since:
                yield name

    def clear(self, *parts: str) -> None:
        """Remove a file, or a folder with all that is in it."""
        _remove(FileSystems.join(self.root, *parts))


@contextmanager
def written_aside(
    output: str, what: str, files: tuple[str, ...], *, overwrite: bool, keep: str | None = None
) -> Iterator[Work]:
    """Yield the `Work` whose folder `data` becomes `output` if all goes well.

    What a process that was killed while it put its data set in place has left is set right first: an
    old data set that it had taken away is back, or its own is in the work again.

    Args:
      output: where the data set is to appear, with all folders above it.
      what: it is, for messages: "a converted data set".
      files: patterns of all names that such a data set has, the first of them that of the file without
        which it is none; a directory with any other name in it is never replaced.
      overwrite: whether a data set that is there already may be replaced.
      keep: a folder of the work; if the block fails when something is in it, the work stays, so that
        the next one can go on from there. Otherwise nothing stays. After a kill, all does.

    Raises:
      ValueError: if `output` holds something that may not be replaced, or cannot hold a data set.
      OSError: if another process is writing `output`.
    """
    output = os.path.abspath(output) if is_local(output) else output.rstrip("/")
    work = Work(_aside(output))
    _check_work(work.root)
    with _locked(work.root):
        _recover(output, work, files[0])
        _check(output, what, files, overwrite)
        try:
            yield work
            _publish(output, work, files[0])
        except BaseException as error:
            if keep is None or not any(work.names(keep)):
                _remove(work.root)
            else:
                error.add_note(
                    f"{work.root} keeps what is done; the same command goes on from there"
                )
            raise
        _remove(work.root)


def _aside(output: str) -> str:
    if os.path.ismount(output):
        raise ValueError(f"{output} is a mount point; choose a directory below it as --output")
    parent, name = FileSystems.split(output)
    if not name:
        raise ValueError(f"{output} has no directory's name; choose a directory in it as --output")
    return FileSystems.join(parent, f".{name}.partial")


def _check_work(directory: str) -> None:
    """Raise `ValueError` for a link, or for a directory of that name that is not this module's."""
    if is_local(directory) and (
        os.path.islink(directory) or not set(names(directory)) <= {*_FOLDERS, _LOCK, _REPLACED}
    ):
        raise ValueError(f"{directory} is in the way: it is not what this command leaves there")


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Make the directory and hold a lock on it that ends with the process; object stores have none.

    Nothing stays if nothing was put there.
    """
    if not is_local(directory):
        yield
        return
    os.makedirs(directory, exist_ok=True)
    try:
        with locked(os.path.join(directory, _LOCK), f"{directory} is in use"):
            yield
    finally:
        with suppress(OSError):  # it is not empty
            os.rmdir(directory)


def _check(output: str, what: str, files: tuple[str, ...], overwrite: bool) -> None:
    if exists(FileSystems.join(output, files[0])):
        if not overwrite:
            raise ValueError(f"{output} already holds {what}; --overwrite replaces it")
        for name in names(output):
            if not any(fnmatch(name, pattern) for pattern in files):
                raise ValueError(f"{output} is not replaced: {name!r} in it is no part of {what}")
    elif any(names(output, deep=not is_local(output))) or (
        is_local(output) and os.path.lexists(output) and not os.path.isdir(output)
    ):
        raise ValueError(f"{output} exists and does not hold {what}; choose another --output")


def _recover(output: str, work: Work, marker: str) -> None:
    """Undo what a process did that was killed in `_publish`, unless it had come to the end."""
    if is_local(output):
        replaced = work.path(_REPLACED)
        if os.path.exists(replaced) and not os.path.exists(output):
            os.rename(replaced, output)
        work.clear(_REPLACED)
    elif exists(work.path(_MOVING)):
        if not exists(FileSystems.join(output, marker)):
            here, there = set(names(output)), set(work.names("data"))
            _delete(output, here & there)
            _move(here - there, output, work.path("data"))
        work.clear(_MOVING)


def _publish(output: str, work: Work, marker: str) -> None:
    data = work.path("data")
    if is_local(output):
        if os.path.exists(output):
            os.rename(output, work.path(_REPLACED))
        os.rename(data, output)
        return
    with create(work.path(_MOVING)) as note:
        note.write(output.encode())
    old, new = set(names(output)), set(names(data))
    _delete(output, old & {marker})  # From here on, what is there is no data set.
    _delete(output, old - {marker})
    _move(new - {marker}, data, output)
    _move([marker], data, output)


def _move(files: Iterable[str], source: str, target: str) -> None:
    files = sorted(files)
    FileSystems.rename(
        [FileSystems.join(source, name) for name in files],
        [FileSystems.join(target, name) for name in files],
    )


def _delete(folder: str, files: Iterable[str]) -> None:
    FileSystems.delete([FileSystems.join(folder, name) for name in sorted(files)])


def _remove(path: str) -> None:
    if is_local(path):
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.exists(path):
            os.remove(path)
    elif exists(path):
        FileSystems.delete([path])
    else:
        FileSystems.delete([f"{path}/"])
