"""Where pictures to ask about come from: image files, folders of them, or a video; each with its box.

A picture that cannot be read is one that says why, so that the others go on.
"""

import functools
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from serving.client.boxes import Boxes
from tfhuber.console.lazy import lazy_module
from tfhuber.geometry.box_square import region_around
from tfhuber.saved_model.image_files import decode_rgb, open_image

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "ImageFiles",
    "Picture",
    "PictureFile",
    "Video",
    "VideoFrame",
    "check_av",
    "find_images",
]

_av = lazy_module("av")  # PyAV, from the extra `video`

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".m2ts", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm"),
)

_COLOURS = ("colorspace", "color_primaries", "color_trc")

# A frame is sent as a JPEG of this quality, with colours at half the resolution, as in most videos.
_JPEG_QUALITY = 95

# A JPEG is coded in blocks of 16 pixels. A part of a frame that is cut between blocks decodes to the same
# pixels as the whole frame, except for two at its edge, whose colours are interpolated. The model reads
# at most three pixels beyond its square.
_BLOCK, _MARGIN = 16, 5

# For smaller frames, sharing the work among threads costs more than it saves.
_PIXELS_WORTH_THREADS = 2**20

# Coordinates of boxes are clipped to this, which is beyond any image.
_FURTHEST = 1e9


@dataclass
class Picture:
    """An image or a frame of a video to ask about.

    Attributes:
      source: the file's name.
      number: the frame's, from 0, if this is one of a video.
      seconds: the frame's time in the video.
      box: [4] x0, y0, x1, y1 in its pixels, None for all of it.
      size: its width and height in pixels, 0 if it cannot be read.
      weight: about how many bytes of memory it takes.
      error: why it cannot be read; None if it can.
    """

    source: str
    number: int | None = None
    seconds: float | None = None
    box: np.ndarray | None = None
    size: tuple[int, int] = (0, 0)
    weight: int = 0
    error: str | None = None

    def file(self, square: str | None = None) -> tuple[bytes, tuple[int, int]]:
        """Return the JPEG or PNG file to send, and which pixel (x, y) of the picture is its first.

        Args:
          square: the rule of `region_around` by which the model looks at a box, so that the rest need
            not be sent; None if it is not known.
        """
        raise NotImplementedError

    def pixels(self) -> np.ndarray:
        """Return the picture as stored, RGB [H, W, 3] uint8, to be drawn on."""
        raise NotImplementedError


@dataclass
class PictureFile(Picture):
    """A picture in a file of its own, which is sent as it is."""

    data: bytes = b""

    def file(self, square: str | None = None) -> tuple[bytes, tuple[int, int]]:
        return self.data, (0, 0)

    def pixels(self) -> np.ndarray:
        return np.array(decode_rgb(self.data, self.source))


@dataclass
class VideoFrame(Picture):
    """A frame of a video, of which the part that the model looks at is sent as a JPEG."""

    frame: Any = None  # av.VideoFrame

    def file(self, square: str | None = None) -> tuple[bytes, tuple[int, int]]:
        x0, y0, x1, y1 = self._part_seen(square)
        data = io.BytesIO()
        Image.fromarray(self.pixels()[y0:y1, x0:x1]).save(data, "JPEG", quality=_JPEG_QUALITY)
        return data.getvalue(), (x0, y0)

    def _part_seen(self, square: str | None) -> tuple[int, int, int, int]:
        """Return the part (x0, y0, x1, y1) of the frame that holds all that the model sees of it."""
        whole = (0, 0, self.frame.width, self.frame.height)
        if square is None or self.box is None:
            return whole
        region = np.array(region_around(self.box.clip(-_FURTHEST, _FURTHEST), square))
        low, high = region[:2] - region[2:] - _MARGIN, region[:2] + region[2:] + _MARGIN
        low = np.clip(np.floor(low / _BLOCK) * _BLOCK, 0, whole[2:])
        high = np.clip(np.ceil(high / _BLOCK) * _BLOCK, 0, whole[2:])
        if not (low < high).all():
            return whole  # the server reports what is wrong with the box
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    @functools.cached_property
    def rgb(self) -> Any:
        """The frame in the format of `pixels`, which is a view of it."""
        # One thread: several frames are converted at the same time.
        return self.frame.reformat(format="rgb24", threads=1)

    def pixels(self) -> np.ndarray:
        width, height = self.frame.width, self.frame.height
        plane = self.rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        return rows[:, : 3 * width].reshape(height, width, 3)


class ImageFiles:
    """The pictures in some files, each of its own.

    Attributes:
      paths: each file's name, and where it is.
      count: how many there are.
      oriented: how many of those read so far ask viewers to turn them, by an EXIF orientation.
      boxes: which box belongs to which.
      cut_short: None, as files are whole or cannot be read.

    Args:
      paths: as above.
      boxes: which box belongs to which.
    """

    unit = "images"
    cut_short: str | None = None

    def __init__(self, paths: Mapping[str, Path], boxes: Boxes):
        self.paths = paths
        self.count: int | None = len(paths)
        self.oriented = 0
        self.boxes = boxes

    def __iter__(self) -> Iterator[Picture]:
        for name, path in self.paths.items():
            try:
                box = self.boxes.find(name, path.name)
                data, image, orientation = open_image(path)
            except (ValueError, OSError) as error:
                yield Picture(name, error=str(error))
                continue
            self.oriented += orientation != 1
            yield PictureFile(name, box=box, size=image.size, weight=len(data), data=data)


class Video:
    """The frames of a video, in order, with their pixels as stored.

    Attributes:
      path: its file.
      count: how many frames there are, as far as the file tells; None if it doesn't.
      size: their width and height in pixels.
      rate: frames in a second, a fraction.
      threads: how many are worth while to decode or encode it; 0 for as many as there are cores.
      colours: how its numbers mean colours, as a codec's context has it.
      pixel_shape: a pixel's width over its height, as it is to be shown; 0 if that is not told.
      oriented: 1 if it asks viewers to turn it, which is not done.
      boxes: which box belongs to which frame.
      cut_short: once all frames are read, what says that some are missing at the end; None if nothing does.

    Args:
      path: a file that FFmpeg can read.
      boxes: which box belongs to which frame.

    Raises:
      ValueError: PyAV is not installed, or cannot read the file.
      OSError: the file cannot be opened.
    """

    unit = "frames"

    def __init__(self, path: Path, boxes: Boxes):
        self.path = path
        self.boxes = boxes
        self.cut_short: str | None = None
        check_av()
        with self._open() as container:
            stream = _films(container)[0]
            self.colours = {name: getattr(stream.codec_context, name) for name in _COLOURS}
            self.pixel_shape = stream.sample_aspect_ratio or Fraction(0)
            self.size = stream.codec_context.width, stream.codec_context.height
            self.threads = 1 if math.prod(self.size) < _PIXELS_WORTH_THREADS else 0
            self.rate = stream.average_rate or stream.guessed_rate or 25
            count = self._promised = stream.frames
            self._seconds = (container.duration or 0) / _av.time_base
            if not count:
                count = round(self._seconds * self.rate)
            self.count = count or None
        self.oriented = 0

    def __iter__(self) -> Iterator[Picture]:
        name = str(self.path)
        with self._open() as container:
            stream = _films(container)[0]
            stream.codec_context.thread_count = self.threads
            stream.codec_context.thread_type = "AUTO"
            number, end = -1, 0.0
            for number, frame in enumerate(self._decoded(container, stream)):
                if isinstance(frame, str):
                    yield Picture(name, number, error=frame)
                else:
                    self.oriented |= frame.rotation != 0
                    end = max(end, (frame.time or 0.0) + float(1 / self.rate))
                    yield self._picture(frame, number)
        self.cut_short = self._cut_short(number + 1, end)

    def _cut_short(self, count: int, end: float) -> str | None:
        """Return what says that frames are missing, if times and numbers do; either alone may be edited."""
        fewer = not self._promised or count < 0.98 * self._promised
        if not fewer or end > 0.95 * self._seconds - 0.5:
            return None
        promised = f", {self._promised} frames," if self._promised else ""
        return (
            f"{self.path} says that it is {self._seconds:.1f} seconds long{promised} but ends after "
            f"{end:.1f}: is it cut short?"
        )

    def _open(self) -> Any:  # av.container.InputContainer
        with self.path.open("rb"):  # so that the error, if any, is the system's own
            pass
        try:
            container = _av.open(
                str(self.path.absolute())
            )  # `a:b.mp4` alone would be the protocol `a`
        except _av.error.FFmpegError as error:
            raise ValueError(f"{self.path} is not a video that can be read: {error}") from None
        if not _films(container):
            cover = " and a cover" if container.streams.video else ""
            container.close()
            raise ValueError(f"{self.path} has no moving pictures, only sound{cover}")
        return container

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Yield the frames, each an `av.VideoFrame`, or a string that says why there is none."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except _av.error.FFmpegError as error:
                yield f"the frame cannot be decoded: {error.strerror or error}"
                continue
            yield from frames

    def _picture(self, frame: Any, number: int) -> Picture:
        box, fault = None, None
        try:
            box = self.boxes.find(str(number))
        except ValueError as error:
            fault = str(error)
        size, weight = (frame.width, frame.height), 4 * frame.width * frame.height
        name = str(self.path)
        return VideoFrame(name, number, frame.time, box, size, weight, fault, frame)


def _films(container: Any) -> list[Any]:
    """Return the video streams that are no picture of a cover."""
    cover = _av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def find_images(paths: Sequence[Path], recursive: bool) -> tuple[dict[str, Path], list[Path]]:
    """Return the images among some files and in some folders, by name; and the files that are none.

    A file's name is the path that was given; in a folder, it is the path below that. What is in a
    folder is taken in the order of its name if that ends in .jpg, .jpeg or .png, and not at all if it
    is hidden, as a Mac's ._photo.jpg beside photo.jpg is, which is no picture.

    Args:
      paths: of files, which are all taken, and of folders.
      recursive: whether to look into the folders within the folders.

    Raises:
      ValueError: a path is wrong, nothing is found, or two files have the same name.
      OSError: a folder cannot be read.
    """
    found: dict[str, Path] = {}
    others: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: there is no such file or folder")
        names = {str(path): path}
        if path.is_dir():
            inside = sorted(path.rglob("*") if recursive else path.iterdir())
            inside = [each for each in inside if not (each.is_dir() or _is_hidden(each, path))]
            images = [each for each in inside if each.suffix.lower() in IMAGE_SUFFIXES]
            images = [
                each for each in images if each.is_file()
            ]  # not a pipe, which might block for ever
            others += sorted(set(inside) - set(images))
            names = {each.relative_to(path).as_posix(): each for each in images}
        for name in names.keys() & found.keys():
            raise ValueError(f"{names[name]} and {found[name]} have the same name, {name}")
        found |= names
    if not found:
        below = not recursive and any(each.is_dir() for path in paths for each in path.iterdir())
        hint = ", but folders, which --recursive looks into" if below else ""
        where = ", ".join(map(str, paths))
        raise ValueError(f"{where}: no .jpg, .jpeg or .png file is there{hint}")
    return found, others


def _is_hidden(path: Path, folder: Path) -> bool:
    """Return whether its name, or that of a folder on the way there, begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def check_av() -> None:
    """Raise ValueError if PyAV, which reads and writes videos, is not installed."""
    try:
        _av.open  # noqa: B018
    except ImportError:
        raise ValueError("videos need PyAV: pip install av") from None
