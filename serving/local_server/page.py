"""The demo page's files, as the local server hands them out at `/`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PageFile", "read_page"]

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PageFile:
    """A file to be handed out.

    Attributes:
      content: its bytes.
      media_type: its content type.
    """

    content: bytes
    media_type: str


def read_page(directory: Path) -> Mapping[str, PageFile]:
    """Return the files of a page by their URLs' paths, `index.html` as `/` too.

    They are read now, and nothing else is ever handed out, so that no path can lead out of the
    directory. Hidden files, links, and files of other kinds than a page needs are left out.
    """
    files = {}
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.suffix in _TYPES and path.is_file() and not path.is_symlink() and not hidden:
            files[f"/{relative.as_posix()}"] = PageFile(path.read_bytes(), _TYPES[path.suffix])
    if "/index.html" in files:
        files["/"] = files["/index.html"]
    return files
