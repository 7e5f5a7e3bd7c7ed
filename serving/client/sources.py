"""Pictures to ask about: files, folders of files and the frames of a video, each with its box.

A picture that cannot be read is one that says why, so that the others go on.
"""

import functools
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from serving.client.boxes import Boxes
from tfhuber.geometry.box_square import square_around
from tfhuber.saved_model.pictures import decode_rgb, open_image

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Files",
    "Picture",
    "PictureFile",
    "Video",
    "VideoFrame",
    "find_files",
    "import_av",
]

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")

_COLOURS = ("colorspace", "color_primaries", "color_trc")

# A frame is sent as a JPEG of this quality with half the colour resolution, which is all that videos have.
_QUALITY = 95

# A JPEG is made of blocks of 16 pixels. A part that begins and ends with blocks has the very pixels that
# the whole has, but for two at its edge, where the neighbours' colours play a part. The model looks at
# three pixels around its square at most.
_BLOCK, _AROUND = 16, 5

# With frames of fewer pixels, to share the work among threads costs more than it saves.
_WORTH_THREADS = 2**20

# Boxes that reach beyond this are no different from those that reach as far.
_FURTHEST = 1e9


@dataclass
class Picture:
    """A picture to ask about.

    Attributes:
      source: the file's name.
      number: the frame's, from 0, if this is one of a video.
      seconds: the frame's time in the video.
      box: [4] x0, y0, x1, y1 in its pixels, None for all of it.
      size: its width and height in pixels, None if it cannot be read.
      weight: about how many bytes of memory it takes.
      error: why it cannot be read; None if it can.
    """

    source: str
    number: int | None = None
    seconds: float | None = None
    box: np.ndarray | None = None
    size: tuple[int, int] | None = None
    weight: int = 0
    error: str | None = None

    def file(self, square: str | None = None) -> tuple[bytes, tuple[int, int]]:
        """The JPEG or PNG file to send, and which pixel (x, y) of the picture is its first.

        Args:
          square: the rule of `boxes.square_around` by which the model looks at a box, so that the rest
            need not be sent; None if it is not known.
        """
        raise NotImplementedError

    def pixels(self) -> np.ndarray:
        """The picture as stored, RGB [H, W, 3] uint8, to be drawn on."""
        raise NotImplementedError


@dataclass
class PictureFile(Picture):
    """A picture in a file of its own, which is sent as it is."""

    data: bytes = b""
    turned: bool = False  # whether it has an EXIF orientation, which is not applied

    def file(self, square: str | None = None) -> tuple[bytes, tuple[int, int]]:
        return self.data, (0, 0)

    def pixels(self) -> np.ndarray:
        return np.array(decode_rgb(self.data, self.source))


@dataclass
class VideoFrame(Picture):
    """A frame of a video, of which the part that the model looks at is sent as a JPEG."""

    frame: object = None

    def file(self, square: str | None = None) -> tuple[bytes, tuple[int, int]]:
        x0, y0, x1, y1 = self._seen(square)
        data = io.BytesIO()
        Image.fromarray(self.pixels()[y0:y1, x0:x1]).save(data, "JPEG", quality=_QUALITY)
        return data.getvalue(), (x0, y0)

    def _seen(self, square: str | None) -> tuple[int, int, int, int]:
        """The part (x0, y0, x1, y1) of the frame that holds all of the model's square and is in it."""
        whole = (0, 0, *self.size)
        if square is None or self.box is None:
            return whole
        cx, cy, half = square_around(self.box.clip(-_FURTHEST, _FURTHEST), square)
        low = np.array([cx - half, cy - half]) - _AROUND
        high = np.array([cx + half, cy + half]) + _AROUND
        low = np.clip(np.floor(low / _BLOCK) * _BLOCK, 0, self.size)
        high = np.clip(np.ceil(high / _BLOCK) * _BLOCK, 0, self.size)
        if not (low < high).all():
            return whole  # the server says what is wrong with the box
        return tuple(int(value) for value in (*low, *high))

    @functools.cached_property
    def rgb(self):
        """The frame in the format of `pixels`, which is a view of it."""
        # One thread, as several frames are worked on at the same time.
        return self.frame.reformat(format="rgb24", threads=1)

    def pixels(self) -> np.ndarray:
        width, height = self.size
        plane = self.rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        return rows[:, : 3 * width].reshape(height, width, 3)


class Files:
    """The pictures in some files.

    Attributes:
      paths: each file's name, and where it is.
      count: how many there are.
      turned: how many of those read so far ask viewers to turn them by an EXIF orientation.
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
        self.count = len(paths)
        self.turned = 0
        self.boxes = boxes

    def __iter__(self) -> Iterator[Picture]:
        for name, path in self.paths.items():
            try:
                box = self.boxes.of(name, path.name)
                data, image, orientation = open_image(path)
            except (ValueError, OSError) as error:
                yield Picture(name, error=str(error))
                continue
            self.turned += orientation != 1
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
      turned: 1 if it asks viewers to turn it, which is not done.
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
        self._av = import_av()
        with self._open() as container:
            stream = container.streams.video[0]
            self.colours = {name: getattr(stream.codec_context, name) for name in _COLOURS}
            self.pixel_shape = stream.sample_aspect_ratio or Fraction(0)
            self.size = stream.codec_context.width, stream.codec_context.height
            self.threads = 1 if math.prod(self.size) < _WORTH_THREADS else 0
            self.rate = stream.average_rate or stream.guessed_rate or 25
            count = self._promised = stream.frames
            self._seconds = (container.duration or 0) / self._av.time_base
            if not count:
                count = round(self._seconds * self.rate)
            self.count = count or None
        self.turned = 0

    def __iter__(self) -> Iterator[Picture]:
        name = str(self.path)
        with self._open() as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = self.threads
            stream.codec_context.thread_type = "AUTO"
            number, end = -1, 0.0
            for number, frame in enumerate(self._decoded(container, stream)):
                if isinstance(frame, str):
                    yield Picture(name, number, error=frame)
                else:
                    self.turned |= frame.rotation != 0
                    end = max(end, (frame.time or 0.0) + float(1 / self.rate))
                    yield self._picture(frame, number)
        self.cut_short = self._cut_short(number + 1, end)

    def _cut_short(self, count: int, end: float) -> str | None:
        """What says that frames are missing, if both times and numbers do; either alone may be edited."""
        fewer = not self._promised or count < 0.98 * self._promised
        if not fewer or end > 0.95 * self._seconds - 0.5:
            return None
        promised = f", {self._promised} frames," if self._promised else ""
        return (
            f"{self.path} says that it is {self._seconds:.1f} seconds long{promised} but ends after "
            f"{end:.1f}: is it cut short?"
        )

    def _open(self):
        with self.path.open("rb"):  # for the system's own words where that fails
            pass
        try:
            container = self._av.open(str(self.path.absolute()))  # a:b.mp4 would be a protocol
        except self._av.error.FFmpegError as error:
            raise ValueError(f"{self.path} is not a video that can be read: {error}") from None
        if not container.streams.video:
            container.close()
            raise ValueError(f"{self.path} has no pictures, only sound")
        return container

    def _decoded(self, container, stream) -> Iterator:
        """The frames, and what is wrong where there is none."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except self._av.error.FFmpegError as error:
                yield f"the frame cannot be decoded: {error.strerror or error}"
                continue
            yield from frames

    def _picture(self, frame, number: int) -> Picture:
        box, fault = None, None
        try:
            box = self.boxes.of(str(number))
        except ValueError as error:
            fault = str(error)
        size, weight = (frame.width, frame.height), 4 * frame.width * frame.height
        name = str(self.path)
        return VideoFrame(name, number, frame.time, box, size, weight, fault, frame)


def find_files(paths: Sequence[Path], recursive: bool) -> tuple[dict[str, Path], list[Path]]:
    """The pictures among some files and in some folders, by name, and the files that are none.

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
            pictures = [each for each in inside if each.suffix.lower() in IMAGE_SUFFIXES]
            pictures = [each for each in pictures if each.is_file()]  # no pipe that nobody fills
            others += sorted(set(inside) - set(pictures))
            names = {each.relative_to(path).as_posix(): each for each in pictures}
        for name in names.keys() & found.keys():
            raise ValueError(f"{names[name]} and {found[name]} have the same name, {name}")
        found |= names
    if not found:
        below = not recursive and any(each.is_dir() for path in paths for each in path.iterdir())
        hint = ", but folders, which --recursive looks into" if below else ""
        names = ", ".join(map(str, paths))
        raise ValueError(f"{names}: no .jpg, .jpeg or .png file is there{hint}")
    return found, others


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether its name, or that of a folder on the way there, begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def import_av():
    """PyAV, which reads and writes videos.

    Raises:
      ValueError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise ValueError("videos need PyAV: pip install av") from None
    return av
