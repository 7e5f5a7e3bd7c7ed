"""The versions of an exported model: numbered directories below a base directory."""

from pathlib import Path

__all__ = ["find_version", "numbered"]

# A request's version is an int64 in TensorFlow Serving.
_MAX_VERSION = 2**63 - 1


def numbered(base: str | Path) -> dict[int, Path]:
    """Return the version directories below `base` by number, as TensorFlow Serving finds them.

    A name counts if it is made of the digits 0 to 9 and its number fits into 63 bits.

    Raises:
      OSError: the directory, or what is in it, cannot be looked at.
    """
    return {
        int(child.name): child
        for child in Path(base).iterdir()
        if child.name.isascii()
        and child.name.isdecimal()
        and int(child.name) <= _MAX_VERSION
        and child.is_dir()
    }


def find_version(directory: str | Path) -> Path:
    """Return the SavedModel in `directory`: itself, or its version with the highest number.

    Raises:
      ValueError: there is none; the message says how to make one.
      OSError: the directory cannot be looked at.
    """
    directory = Path(directory)
    if (directory / "saved_model.pb").is_file():
        return directory
    found = numbered(directory) if directory.is_dir() else {}
    whole = {n: path for n, path in found.items() if (path / "saved_model.pb").is_file()}
    if not whole:
        raise ValueError(
            f"{directory} holds no exported model; make one with "
            f"`python -m tfhuber.export --run DIR --output {directory}`"
        )
    return whole[max(whole)]
