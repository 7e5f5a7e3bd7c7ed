"""What every command shares: one-line errors for bad input, and progress bars."""

import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn, TextIO

from tqdm import tqdm

from tfhuber.console.files import is_stream

__all__ = ["import_tensorflow", "progress", "result_path", "run_main", "summary_stream"]


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's `main` and exit; what the user can mend becomes one line, not a traceback.

    `ValueError` and `OSError` are how the library reports bad input (a wrong path, a malformed file,
    an unknown configuration key): they print as `error: ...` on stderr with exit code 2. Anything else
    is a defect of ours and keeps its traceback.
    """
    try:
        sys.exit(main())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (ValueError, OSError) as error:
        _last_word(f"error: {_one_line(error) or type(error).__name__}")
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        _last_word("; ".join(["interrupted", *getattr(interrupt, "__notes__", [])]))
        sys.exit(getattr(interrupt, "status", 130))


def _last_word(line: str) -> None:
    """Write a line in one piece, as threads that still run may write to stderr too."""
    sys.stderr.write(line + "\n")


def _one_line(error: Exception) -> str:
    """Return what an error says, and the notes that were added on its way."""
    return "; ".join(
        " ".join(text.split()) for text in (str(error), *getattr(error, "__notes__", []))
    )


def result_path(text: str) -> Path:
    """Return where a result goes, for `argparse`; `-` is the standard output."""
    return Path("/dev/stdout" if text == "-" else text)


def summary_stream(results: Iterable[Path]) -> TextIO:
    """Return where a command sums up what it has done: stdout, unless a result may go there."""
    return sys.stderr if any(map(is_stream, results)) else sys.stdout


def import_tensorflow() -> None:
    """Import TensorFlow without its start-up chatter; call it first in a command that needs it.

    The libraries underneath write to file descriptor 2 before any log level counts, looking for a GPU
    included. What they write is shown after all if the import fails, or if there is an NVIDIA GPU.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    stderr = os.dup(2)
    failed = True
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            importlib.import_module("keras")
            tf = importlib.import_module("tensorflow")
            tf.config.list_physical_devices()
            tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
            failed = False
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            if failed or os.path.exists("/dev/nvidiactl"):
                chatter.seek(0)
                os.write(2, chatter.read())


def progress(
    items: Iterable | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    desc: str = "",
    unit: str = "it",
) -> tqdm:
    """Return a progress bar on stderr with rate and time left; iterate over it or call its `update`.

    Where stderr is not a terminal, it prints a line about every ten seconds instead of redrawing.
    """
    interactive = sys.stderr.isatty()
    return tqdm(
        items,
        total=total,
        initial=initial,
        desc=desc,
        unit=unit,
        dynamic_ncols=interactive,
        ncols=None if interactive else 88,
        mininterval=0.2 if interactive else 10.0,
        ascii=not interactive,
        file=sys.stderr if interactive else _Lines(),
    )


class _Lines:
    """A stderr for files and pipes: what would be redrawn in place becomes a line of its own."""

    def write(self, text: str) -> None:
        """Write what a bar draws, if anything, as a line."""
        text = text.replace("\r", "").rstrip("\n")
        if text.strip():
            sys.stderr.write(text + "\n")

    def flush(self) -> None:
        """Flush the real stderr."""
        sys.stderr.flush()
