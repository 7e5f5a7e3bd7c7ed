"""Prints `ok` if this Python can make the environment, else one line saying what to install.

The Makefile runs it with whatever Python 3 it finds, old ones included.
"""

import importlib
import sys

__all__ = ["complaint"]

SUPPORTED = [(3, 11), (3, 12), (3, 13)]


def complaint():  # noqa: ANN201 (older Pythons run this file, and may not read the annotation)
    """Return what stands in the way, as one line, or None."""
    version = "{}.{}".format(*sys.version_info)
    if sys.version_info[:2] not in SUPPORTED:
        return (
            f"Python 3.11, 3.12 or 3.13 is needed, and {sys.executable} is Python {version}: install "
            "one (Debian, Ubuntu: apt install python3.12 python3.12-venv), and name it if it is not "
            "on the PATH (make PYTHON=/path/to/python3.12)"
        )
    for module in ("venv", "ensurepip"):
        try:
            importlib.import_module(module)
        except ImportError:
            return (
                f"{sys.executable} has no module {module}: install it "
                f"(Debian, Ubuntu: apt install python{version}-venv)"
            )
    return None


if __name__ == "__main__":
    message = complaint()
    print(message or "ok")
    sys.exit(1 if message else 0)
