"""Files that are either whole or not there."""

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["write_json"]


def write_json(path: str | Path, values: Any, *, indent: int | None = 2) -> None:
    """Writes JSON aside and renames it into place, so that a killed process leaves no half file."""
    path = Path(path)
    aside = path.with_name(path.name + ".tmp")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(values, file, indent=indent)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
