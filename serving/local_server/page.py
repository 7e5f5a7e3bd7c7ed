"""The demo page's files, as the local server hands them out at `/`."""

from collections.abc import Mapping
from pathlib import Path

__all__ = ["read_page"]

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}


def read_page(directory: Path) -> Mapping[str, tuple[bytes, str]]:
    """Return the content and type of a page's files by their URLs' paths, `index.html` as `/` too.

    They are read now, and nothing else is ever handed out, so that no path can lead out of the
    directory. Hidden files, links, and files of other kinds than a page needs are left out.
    """
    files = {}
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.suffix in _TYPES and path.is_file() and not path.is_symlink() and not hidden:
            files[f"/{relative.as_posix()}"] = (path.read_bytes(), _TYPES[path.suffix])
    if "/index.html" in files:
        files["/"] = files["/index.html"]
    return files
