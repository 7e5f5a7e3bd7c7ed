"""Data sets written aside: a directory appears under its name when it is complete, or not at all.

Beside `PATH/NAME` lies `PATH/.NAME.partial` while work is going on. What is in its folder `data` in
the end becomes `PATH/NAME`: on a local disk by renaming the folder, elsewhere file by file, the
manifest last, without which it is no data set.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from apache_beam.io.filesystems import FileSystems

from pipelines.storage import exists, is_local, names

__all__ = ["Work", "check_output", "written_aside"]

_REPLACED = "replaced"


@dataclass(frozen=True)
class Work:
    """The directory in which a data set grows; its folders are made when they are first asked for."""

    root: str

    def path(self, *parts: str) -> str:
        """The full path of a file or folder, whose parent exists."""
        path = FileSystems.join(self.root, *parts)
        if is_local(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def names(self, folder: str, *, since: float | None = None) -> Iterator[str]:
        """Names of the files in a folder; on a local disk, those written after that time."""
        path = FileSystems.join(self.root, folder)
        for name in names(path):
            if since is None or os.stat(os.path.join(path, name)).st_mtime >= since:
                yield name

    def clear(self, *parts: str) -> None:
        """Removes a file, or a folder with all that is in it."""
        _remove(FileSystems.join(self.root, *parts))


def check_output(output: str, what: str, marker: str, overwrite: bool) -> None:
    """Raises `ValueError` if `output` holds something that may not be replaced.

    Args:
      output: where it is to appear.
      what: what is made, for the message: "a converted data set".
      marker: name of a file that only a data set of ours has.
      overwrite: whether such a one may be replaced.
    """
    if exists(FileSystems.join(output, marker)):
        if not overwrite:
            raise ValueError(f"{output} already holds {what}; --overwrite replaces it")
    elif _is_taken(output) and (is_local(output) or not exists(_aside(output, "data", marker))):
        raise ValueError(f"{output} exists and does not hold {what}; choose another --output")
    if os.path.ismount(output):
        raise ValueError(f"{output} is a mount point; choose a directory below it as --output")


@contextmanager
def written_aside(output: str, marker: str, *, keep: str | None = None) -> Iterator[Work]:
    """The `Work` whose folder `data` becomes `output`, replacing what is there, if all goes well.

    Args:
      output: see `check_output`, which has been asked before.
      marker: the file that is moved last where a folder cannot be renamed at once.
      keep: a folder of the work; if the block fails when something is in it, the work stays, so that
        the next one can go on from there. Otherwise nothing stays. After a kill, all does.

    Raises:
      OSError: if another process is writing `output`.
    """
    work = Work(_aside(output))
    with _locked(work.root):
        try:
            _recover(output, work)
            yield work
            _publish(output, work, marker)
        except BaseException as error:
            if keep is None or not any(work.names(keep)):
                _remove(work.root)
            else:
                error.add_note(f"{work.root} keeps what is done; the same command goes on from there")
            raise
        _remove(work.root)


def _is_taken(output: str) -> bool:
    if is_local(output) and not os.path.isdir(output):
        return os.path.lexists(output)
    return any(names(output))


def _aside(output: str, *names: str) -> str:
    parent, name = FileSystems.split(output.rstrip("/"))
    return FileSystems.join(parent, f".{name}.partial", *names)


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Holds a lock that ends with the process. Object stores have none."""
    if not is_local(directory):
        yield
        return
    os.makedirs(directory, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OSError(f"{directory} is in use: another process is writing there") from None
    try:
        yield
    finally:
        os.close(descriptor)


def _recover(output: str, work: Work) -> None:
    """Brings back what a process was replacing when it was killed between the two renames."""
    if is_local(output):
        replaced = work.path(_REPLACED)
        if os.path.exists(replaced) and not os.path.exists(output):
            os.rename(replaced, output)
        work.clear(_REPLACED)


def _publish(output: str, work: Work, marker: str) -> None:
    data = work.path("data")
    if is_local(output):
        if os.path.exists(output):
            os.rename(output, work.path(_REPLACED))
        os.rename(data, output)
        return
    old = {name: FileSystems.join(output, name) for name in names(output)}
    new = list(names(data))
    if marker in old:
        FileSystems.delete([old.pop(marker)])
    for name in sorted(new, key=lambda name: name == marker):
        FileSystems.rename([work.path("data", name)], [FileSystems.join(output, name)])
    if leftover := [path for name, path in old.items() if name not in new]:
        FileSystems.delete(leftover)


def _remove(path: str) -> None:
    if is_local(path):
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.exists(path):
            os.remove(path)
    elif exists(path):
        FileSystems.delete([path])
    elif files := [FileSystems.join(path, name) for name in names(path, deep=True)]:
        FileSystems.delete(files)
