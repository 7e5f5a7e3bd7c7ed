"""Frames that have no file of their own: in a video, or inside a SLEAP package, by `sleap-io`.

Such an image is called `clip.mp4#000012`, or `labels.pkg.slp#1/000012` for video 1 of a package.
"""

import io
import re
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipelines.errors import Unusable
from pipelines.storage import SourceFiles
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    import sleap_io
else:  # from the extra `formats`
    sleap_io = lazy_module("sleap_io")

__all__ = ["check_sleap_io", "file_of", "frame_bytes", "frame_name", "is_frame", "tail_in"]

_FRAME = re.compile(r"(?P<file>.+)#(?:(?P<video>\d+)/)?(?P<frame>\d{6,})")
# Of a decoded frame: more than that is no video's.
_MOST_PIXELS = 80_000_000
# Decoders keep their place in a file, which two threads must not move.
_LOCK = threading.Lock()


def check_sleap_io(dataset: str) -> None:
    """Raise `ValueError` if `sleap-io` is not installed."""
    try:
        sleap_io.load_slp  # noqa: B018
    except ImportError:
        raise ValueError(
            f"{dataset} needs sleap-io: pip install -e '.[formats]' -c constraints.txt"
        ) from None


def frame_name(file: str, frame: int, video: int | None = None) -> str:
    """Return what a frame is called, of a video's file or of that video in a package."""
    return f"{file}#{'' if video is None else f'{video}/'}{frame:06d}"


def is_frame(image: str) -> bool:
    """Return whether an image is a frame without a file."""
    return _FRAME.fullmatch(image) is not None


def file_of(image: str) -> str:
    """Return the video of such a frame: its file, with the number of a video in a package."""
    return image.rpartition("/" if re.search(r"#\d+/\d+$", image) else "#")[0]


def frame_bytes(image: str, source: SourceFiles) -> bytes:
    """Return the PNG file of a frame.

    Raises:
      Unusable: if there is no such file in the source, or the frame cannot be had of it.
    """
    found = _FRAME.fullmatch(image)
    if found is None:
        raise Unusable("missing_image", f"{image!r} is no frame of a video")
    path = source.find(found["file"], "image")
    number, frame = found["video"], int(found["frame"])
    try:
        with _LOCK:
            video = _opened(path) if number is None else _packed(path)[int(number)]
            if number is None and not 0 <= frame < len(video):
                raise IndexError(f"it has {len(video)} frames")
            pixels = np.asarray(video[frame])
        if pixels.dtype != np.uint8 or not 0 < pixels.size <= 3 * _MOST_PIXELS:
            raise ValueError(f"its pixels are {pixels.dtype} of shape {pixels.shape}")
        data = io.BytesIO()
        grey = pixels.ndim == 3 and pixels.shape[-1] == 1
        Image.fromarray(pixels[..., 0] if grey else pixels).save(data, "PNG", compress_level=1)
    except Exception as error:  # whatever the decoder of a damaged file raises
        text = " ".join(str(error).split()) or type(error).__name__
        raise Unusable("unreadable_image", f"{image!r}: {text:.300}") from None
    return data.getvalue()


def tail_in(path: str, has: Callable[[str], bool]) -> str:
    """Return the longest end of another machine's path for which a file is there; the path if none is.

    Example:
      >>> tail_in(r"C:\\mice\\videos\\a.mp4", {"videos/a.mp4"}.__contains__)
      'videos/a.mp4'
    """
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." not in parts:
        for index in range(len(parts)):
            if has(tail := "/".join(parts[index:])):
                return tail
    return path


@lru_cache(maxsize=2)
def _opened(path: str) -> Any:
    return sleap_io.load_video(path)


@lru_cache(maxsize=2)
def _packed(path: str) -> list[Any]:
    """Return the videos of a package; those that are not inside it raise when they are asked for."""
    videos = sleap_io.load_slp(path, open_videos=False).videos
    for video in videos:
        if video.filename == path:
            video.open()
    return [video if video.filename == path else () for video in videos]
