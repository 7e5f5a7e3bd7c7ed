"""SIGTERM and SIGINT while a run trains: what is under way is finished and saved before it ends."""

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["Interrupted", "Watch"]

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


class Watch:
    """Takes note of SIGTERM and SIGINT inside a `with` block, whose end puts back what was there.

    The first one raises `Interrupted` at once, until `defer` is called; from then on it only sets
    `received`, for whoever looks there. A SIGINT after it kills the process. Signals that the process
    ignores stay ignored, and outside of the main thread, where Python hears none, nothing happens.

    Attributes:
      received: the number of the first signal, or None.

    Example:
      >>> with Watch() as watch:
      ...     watch.defer()
      ...     signal.raise_signal(signal.SIGTERM)
      ...     print(watch.received == signal.SIGTERM)
      True
    """

    def __init__(self):
        self.received: int | None = None
        self._at_once = True
        self._before = {}

    def __enter__(self) -> "Watch":
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in _SIGNALS}
            ignored = (signal.SIG_IGN, None)
            self._before = {n: handler for n, handler in handlers.items() if handler not in ignored}
        self.listen()
        return self

    def __exit__(self, *failure) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Takes the signals back from a library that has taken them meanwhile."""
        for number in self._before:
            signal.signal(number, self._note)

    def defer(self) -> None:
        """From now on, signals wait until somebody looks."""
        self._at_once = False

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside of this block a signal raises `Interrupted` again, one that has come before too."""
        self._at_once = True
        try:
            if self.received is not None:
                raise self.interrupted()
            yield
        finally:
            self._at_once = False

    def interrupted(self, state: str = "the same command goes on") -> Interrupted:
        """What to raise once all is saved; for a process that stops for another's signal too.

        Args:
          state: what the command says; in one line, what is saved where.
        """
        return Interrupted(self.received or signal.SIGTERM, state)

    def _note(self, number: int, _) -> None:
        if self.received is None:
            self.received = number
            if signal.SIGINT in self._before:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            if self._at_once:
                raise self.interrupted()
