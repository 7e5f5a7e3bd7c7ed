"""A lock between processes, on this machine and, where the file system can, on others."""

# In a module of its own, because the serving client reads files on systems without fcntl too.
import contextlib
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

__all__ = ["locked"]

_LOGGER = logging.getLogger(__name__)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def locked(path: str | Path, message: str) -> Iterator[None]:
    """Hold the lock on the file `path`, which the system releases when the process ends, even by SIGKILL.

    The file says which process on which host holds it, and is removed afterwards; a file that a killed
    process has left is no lock. Where the file system has no locks, a warning says so, and none is held.

    Args:
      path: the lock file, in a directory that exists.
      message: what the error says if another process holds the lock, such as "runs/a is in use".

    Raises:
      OSError: if another process holds the lock, naming it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        raise OSError(f"{message}: another process has just removed its directory") from None
    try:
        _lock(descriptor, path, message)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        os.fsync(descriptor)  # so that other machines can read who it is
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):  # and not the next one's
                    os.unlink(path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str | Path, message: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            _LOGGER.warning("%s cannot be locked (%s): no second process may start", path, error)
            return
        holder = os.pread(descriptor, 1000, 0).decode(errors="replace") or "another process"
        raise OSError(f"{message}: {holder} is writing there") from None
    # The last holder may have removed the file after it was opened here: that lock guards nothing.
    if not os.path.exists(path) or not os.path.samestat(os.fstat(descriptor), os.stat(path)):
        raise OSError(f"{message}: another process has just left it; try again")
