"""SIGTERM and SIGINT: what is under way is finished and saved before a process or its child ends."""

import contextlib
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

__all__ = ["Interrupted", "SignalWatch", "run_child", "undisturbed"]

_Loaded = TypeVar("_Loaded")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end, and what it had to save is saved.

    Attributes:
      status: what a command exits with, 128 plus the signal's number, as shells have it.
    """

    def __init__(self, number: int, state: str):
        super().__init__(state)
        self.status = 128 + number
        self.add_note(state)


class SignalWatch:
    """A watch for SIGTERM and SIGINT inside a `with` block, whose end puts back the handlers before.

    The first signal raises `Interrupted` at once, until `defer` is called; from then on it only sets
    `received`, for whoever looks there. A SIGINT after that one kills the process. Signals that the process
    ignores stay ignored, and outside of the main thread, where Python hears none, nothing happens.

    Attributes:
      received: the number of the first signal, or None.

    Example:
      >>> with SignalWatch() as watch:
      ...     watch.defer()
      ...     signal.raise_signal(signal.SIGTERM)
      ...     print(watch.received == signal.SIGTERM)
      True
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._deferred = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "SignalWatch":
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in _SIGNALS}
            ignored = (signal.SIG_IGN, None)
            self._before = {n: handler for n, handler in handlers.items() if handler not in ignored}
        self.listen()
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Take the signals back from a library that has taken them meanwhile."""
        for number in self._before:
            signal.signal(number, self._note)

    def defer(self) -> None:
        """Let signals wait from now on, until somebody looks at `received`."""
        self._deferred = True

    @contextlib.contextmanager
    def not_deferred(self) -> Iterator[None]:
        """Let signals raise `Interrupted` inside of this block, one that came before it too."""
        self._deferred = False
        try:
            if self.received is not None:
                raise self.interrupted()
            yield
        finally:
            self._deferred = True

    def interrupted(self, state: str = "the same command goes on") -> Interrupted:
        """Return what to raise once all is saved; a process that stops for another's signal needs it too.

        Args:
          state: one line that says what is saved and where.
        """
        return Interrupted(self.received or signal.SIGTERM, state)

    def _note(self, number: int, _: object) -> None:
        if self.received is None:
            self.received = number
            if signal.SIGINT in self._before:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            if not self._deferred:
                raise self.interrupted()


def run_child(command: list[str]) -> int:
    """Run a command, pass SIGTERM on to it, and return its exit status.

    Raises:
      KeyboardInterrupt: once the command has ended, if it or this process was asked to end.
    """
    received = []

    def note(number: int, _: object) -> None:
        received.append(number)
        # A terminal's interrupt goes to both processes, and a second one kills.
        if number == signal.SIGTERM:
            process.terminate()

    process = subprocess.Popen(command)
    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt
    return status


def undisturbed(load: Callable[[], _Loaded]) -> _Loaded:
    """Return what `load` imports, and heed signals afterwards.

    Libraries that are interrupted while they are imported fail in their own ways.

    Raises:
      Interrupted: a signal came meanwhile.
    """
    with SignalWatch() as signals:
        signals.defer()
        loaded = load()
    if signals.received is not None:
        raise signals.interrupted()
    return loaded
