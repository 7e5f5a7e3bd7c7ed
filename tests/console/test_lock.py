"""One process at a time, by name, and none after it has ended."""

import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest

from tfhuber.console.lock import locked

HOLDER = """
import sys
from tfhuber.console.lock import locked
with locked(sys.argv[1], "x is in use"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_process_is_told_who_holds_it_until_that_is_killed(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        expected = f"x is in use: process {holder.pid} on {socket.gethostname()} is writing there"
        with pytest.raises(OSError) as caught, locked(path, "x is in use"):
            pytest.fail("two have the lock")
        assert str(caught.value) == expected
        holder.kill()
    assert path.exists()
    with locked(path, "x is in use"):
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert not path.exists()


def test_the_lock_ends_with_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path / "lock", "in use"):
            raise KeyError
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("leave", ["removes the file", "removes the file and makes another"])
def test_a_lock_on_a_file_that_is_gone_is_none(tmp_path, monkeypatch, leave):
    path, flock = tmp_path / "lock", fcntl.flock

    def late(*arguments):
        path.unlink()
        if "another" in leave:
            path.touch()
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(OSError, match=r"in use: .* just left it"), locked(path, "in use"):
        pytest.fail("it was let in")


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock", "in use"):
        pass
    assert "lock cannot be locked" in caplog.text
