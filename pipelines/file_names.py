r"""File names as other systems write them: `images\A.JPG` for `a.jpg` in the folder `images`."""

import posixpath
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["folded", "only_match"]

# Parts of a path: deeper than anyone's folders, so that a hostile name takes no time.
_DEEPEST = 32


def folded(name: str) -> str:
    """Return a name such that names which differ in case or in Unicode's composition are the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def only_match(
    name: str,
    folder: str,
    is_file: Callable[[str], bool],
    listed: Callable[[str], Mapping[str, Sequence[str]]],
) -> str | None:
    r"""Return the only file of a folder that a name can mean which is not there as it is written.

    The name may have `\` between its parts, begin with the folder's own name, or with what leads there
    on another machine, have a folder twice in a row, or differ in case or in Unicode's composition.

    Args:
      name: the path below the folder.
      folder: the folder's own name; "" if it has none.
      is_file: whether a path below the folder is a file's.
      listed: the names in a folder below it, by `folded`.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or not 0 < len(parts) <= _DEEPEST:
        return None
    plain = posixpath.join(*parts)
    if plain != name and is_file(plain):
        return plain
    readings = [parts, *_without_repetition(parts, folder)]
    exact = {posixpath.join(*reading) for reading in readings}
    found = {path for path in exact if is_file(path)}
    if not found:
        found = {path for reading in readings for path in _walk(reading, listed) if is_file(path)}
    return found.pop() if len(found) == 1 else None


def _without_repetition(parts: list[str], folder: str) -> Iterator[list[str]]:
    for index, part in enumerate(parts[:-1]):
        if folder and folded(part) == folded(folder):
            yield parts[index + 1 :]
        for length in range(1, (len(parts) - index) // 2 + 1):
            middle = index + length
            if parts[index:middle] == parts[middle : middle + length]:
                yield parts[:index] + parts[middle:]


def _walk(parts: list[str], listed: Callable[[str], Mapping[str, Sequence[str]]]) -> list[str]:
    """Return the paths whose parts differ from these in case or composition only."""
    found = [""]
    for depth, part in enumerate(parts, start=1):
        # Object stores have no folders that could be listed: those of a path are as they are written.
        missing = () if depth == len(parts) else (part,)
        found = [
            posixpath.join(folder, name)
            for folder in found
            for name in listed(folder).get(folded(part), missing)
        ]
    return found
