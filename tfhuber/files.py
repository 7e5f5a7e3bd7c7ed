"""JSON files: written whole or not at all, read with an error that names what is wrong."""

import json
import os
import re
from pathlib import Path
from typing import Any

__all__ = ["read_json", "reason", "write_json"]

# Far more than any of the project's JSON files; an endless one, such as a device, ends here.
_MOST_BYTES = 64 * 2**20


def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

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
    """What an error says, on one line, without the graph nodes that TensorFlow puts around it."""
    message = getattr(error, "message", None) or str(error)
    message = message.removeprefix("Graph execution error:").strip() or type(error).__name__
    line = message.splitlines()[0]
    return re.sub(r"^(\{\{.*?\}\}\s*)+|\s*\[Op:.*$", "", line)


def write_json(path: str | Path, values: Any, *, indent: int | None = 2) -> None:
    """Writes JSON aside and renames it into place, so that a killed process leaves no half file.

    What is there and no regular file, such as `/dev/stdout`, is written to.
    """
    path = Path(path)
    text = json.dumps(values, indent=indent) + "\n"
    if path.exists() and not path.is_file():  # /dev/stdout, say, must not be replaced
        path.write_text(text, encoding="utf-8")
        return
    aside = path.with_name(path.name + ".tmp")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        error.filename = str(path)  # which a full disk leaves out
        raise
