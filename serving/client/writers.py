"""Where answers go: JSON lines, CSV, pictures and videos, each written aside and renamed when whole."""

import contextlib
import csv
import io
import itertools
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from PIL import Image

from serving.client.batches import Answer
from serving.client.sources import Video, VideoFrame, check_av
from tfhuber.console.files import Aside, blamed
from tfhuber.console.lazy import lazy_module
from tfhuber.drawing.fast_overlay import Painter
from tfhuber.landmarks.json_lines import answer_line, readable

__all__ = ["Csv", "JsonLines", "OverlayFolder", "OverlayVideo", "Writer", "overlay_name"]

_av = lazy_module("av")  # PyAV, from the extra `video`

# Pictures are enlarged before they are drawn on until their shorter side has the first, unless the longer
# side would then exceed the second.
_MIN_SIDE, _MAX_SIDE = 480, 1920

# Slower presets make smaller files, but the server may need the processor. At 20 losses are hard to see.
_VIDEO_OPTIONS = {"preset": "ultrafast", "crf": "20"}

# Ticks in a second, of which a video's times are multiples.
_TICKS = 90_000

# FFmpeg's numbers for brightness from 16 to 235, which players assume, and for RGB and BT.709 colours.
_LIMITED, _RGB, _BT709 = 1, 0, 1


class Writer(Protocol):
    """A context manager that takes answers; leaving it without an error puts the result in place."""

    path: Path

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None: ...

    def write(self, answer: Answer) -> None:
        """Add an answer."""


class JsonLines:
    """A file with one JSON object in a line for each picture.

    On an error or an interrupt the lines so far are kept: in the file, or, if there was one of that
    name, in one that has `.part` after it, or `.part2` and so on.

    A line has `source`; for a video `frame` and `seconds`; `box`; and `landmarks` [K, 2], `covariance`
    [K, 2, 2] and, if the model has them, `precision_factor` [K, 2, 2], `reliable` [K] and
    `in_distribution`, each number with the digits that make it the same float32 again; or `error` instead.
    """

    def __init__(self, path: Path):
        self.path = path
        self._count = self._end = 0

    def __enter__(self) -> Self:
        self._aside = _aside(self.path)
        self._stream = self._aside.open()
        return self

    def write(self, answer: Answer) -> None:
        line = _line(answer) + b"\n"
        with blamed(self.path):
            self._stream.write(line.decode())
            self._stream.flush()
        self._count += 1
        self._end += len(line)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        with contextlib.suppress(OSError):  # a line that could not be written does not count
            self._stream.close()
        if kind is None or not self._count:
            self._aside.__exit__(kind, error, traceback)
        else:
            error.add_note(f"{self._keep()} holds the {self._count} results until then")

    def _keep(self) -> Path:
        """Put the whole lines in place, and return which that is."""
        if self._aside.is_stream:
            return self.path
        os.truncate(self._aside.path, self._end)  # if the disk was full, the last line may be cut
        names = itertools.chain(("", ".part"), (f".part{i}" for i in itertools.count(2)))
        places = (self.path.with_name(self.path.name + name) for name in names)
        return self._aside.path.replace(next(place for place in places if not place.exists()))


class Csv:
    """A CSV file with a row for each landmark: source, frame, landmark (index), name, x, y, sxx, sxy, syy.

    Pixels, and square pixels for the covariance; frame is empty where there is none. Pictures without
    an answer have no rows.
    """

    def __init__(self, path: Path, names: list[str]):
        self.path = path
        self._names = names

    def __enter__(self) -> Self:
        self._aside = _aside(self.path)
        self._stream = self._aside.open(newline="")
        self._stream.write("source,frame,landmark,name,x,y,sxx,sxy,syy\n")
        return self

    def write(self, answer: Answer) -> None:
        if answer.error is not None:
            return
        names = self._names if len(self._names) == len(answer.landmarks) else []
        names = names or [str(k) for k in range(len(answer.landmarks))]
        number = answer.picture.number
        start = _csv_row(readable(answer.picture.source), "" if number is None else number)
        middles = (f"{k},{_csv_row(name)}" for k, name in enumerate(names))
        covariance = answer.covariance.reshape(-1, 4)[:, [0, 1, 3]]
        rows = np.concatenate([answer.landmarks, covariance], axis=1).tolist()
        with blamed(self.path):
            for middle, row in zip(middles, rows, strict=True):
                self._stream.write(f"{start},{middle},{','.join(f'{v:.9g}' for v in row)}\n")

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._aside.__exit__(kind, error, traceback)


class OverlayFolder:
    """A folder with each picture that has landmarks, drawn on, as a JPEG or PNG under the same name.

    A frame of a video is `frame_000000.jpg` and so on. Small pictures are enlarged.
    """

    def __init__(self, path: Path, painter: Painter):
        self.path = path
        self._painter = painter

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        return self

    def draw(self, answer: Answer) -> bytes:
        """Return the file to write; called in any thread."""
        pixels = answer.picture.pixels()
        height, width, _ = pixels.shape
        scale = min(_MIN_SIDE / min(width, height), _MAX_SIDE / max(width, height))
        scale = max(1.0, scale)
        if scale > 1:
            size = max(1, round(scale * width)), max(1, round(scale * height))
            pixels = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
        box = answer.picture.box
        self._painter.paint(pixels, answer.landmarks, answer.covariance, box=box, scale=scale)
        data = io.BytesIO()
        kind = "PNG" if _name(answer).lower().endswith(".png") else "JPEG"
        Image.fromarray(pixels).save(data, kind, quality=92)
        return data.getvalue()

    def write(self, answer: Answer) -> None:
        if answer.drawing is not None:
            path = self.path / _name(answer)
            with _aside(path) as aside, blamed(path):
                aside.path.write_bytes(answer.drawing)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        pass


class OverlayVideo:
    """A video of the frames, drawn on, at the times that they have in the original; without its sound.

    Times that repeat or go back, as in joined recordings, go on instead. H.264 in MP4, which needs even
    sides: an odd one becomes a pixel shorter. If there is no frame at all, there is no video.
    """

    def __init__(self, path: Path, painter: Painter, video: Video):
        self.path = path
        self._painter = painter
        self._video = video
        check_av()
        width, height = video.size
        self._size = max(2, width // 2 * 2), max(2, height // 2 * 2)
        self._last, self._shift = -1, 0  # last frame's time, and what is added to times; ticks

    def __enter__(self) -> Self:
        self._aside = _aside(self.path)
        place = str(self._aside.path.absolute())  # `a:b.mp4` alone would be the protocol `a`
        self._container = _av.open(place, "w", format="mp4")
        self._stream = self._container.add_stream("libx264", self._video.rate)
        self._stream.options = _VIDEO_OPTIONS
        self._stream.pix_fmt = "yuv420p"
        self._stream.width, self._stream.height = self._size
        context = self._stream.codec_context
        context.thread_count = self._video.threads
        context.time_base = Fraction(1, _TICKS)
        context.sample_aspect_ratio = self._video.pixel_shape
        for name, value in self._video.colours.items():
            setattr(context, name, value)
        context.colorspace = _yuv(context.colorspace)
        context.color_range = _LIMITED
        return self

    def draw(self, answer: Answer) -> Any:
        """Return the frame to encode, an `av.VideoFrame`; called in any thread."""
        picture, landmarks, covariance = answer.picture, answer.landmarks, answer.covariance
        assert isinstance(picture, VideoFrame)
        self._painter.paint(picture.pixels(), landmarks, covariance, box=picture.box)
        return self._encodable(picture.rgb, picture)

    def write(self, answer: Answer) -> None:
        picture = answer.picture
        if not isinstance(picture, VideoFrame):
            return  # it could not be decoded
        with self._naming_the_file():
            frame = answer.drawing or self._encodable(picture.frame, picture)
            frame.pts, frame.time_base = self._next_time(picture), Fraction(1, _TICKS)
            self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None or self._last < 0:
            # The first error is the one to report, not what closing raises.
            with contextlib.suppress(_av.error.FFmpegError):
                self._container.close()
            self._aside.discard()
            return
        with self._aside, self._naming_the_file():
            self._container.mux(self._stream.encode(None))
            self._container.close()

    @contextlib.contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        """Turn what PyAV raises into a `ValueError` that names the file."""
        try:
            yield
        except _av.error.FFmpegError as error:
            raise ValueError(f"{self.path} cannot be written: {error.strerror or error}") from None

    def _encodable(self, frame: Any, picture: VideoFrame) -> Any:
        """Return an `av.VideoFrame` as the encoder takes it."""
        width, height = self._size
        if (frame.width - width, frame.height - height) in ((0, 1), (1, 0), (1, 1)):
            even = np.ascontiguousarray(picture.pixels()[:height, :width])
            frame = _av.VideoFrame.from_ndarray(even, format="rgb24")
        # Without them, FFmpeg would convert by other formulas than those by which it made the RGB.
        return frame.reformat(
            width,
            height,
            "yuv420p",
            dst_colorspace=_yuv(picture.frame.colorspace),
            dst_color_range=_LIMITED,
            threads=1,
        )

    def _next_time(self, picture: VideoFrame) -> int:
        """Return the frame's time in ticks, later than that of the last one."""
        frame, step = picture.frame, max(1, round(_TICKS / self._video.rate))
        if frame.pts is None:
            time = (picture.number or 0) * step
        else:
            time = round(frame.pts * frame.time_base * _TICKS) + self._shift
        if time < self._last - 2 * step:  # another recording begins at its own time 0
            self._shift += self._last + step - time
            time = self._last + step
        self._last = time = max(time, self._last + 1)
        return time


def _yuv(colorspace: int) -> int:
    """Return the matrix that a video's colours are written by: as they were, but BT.709 for RGB."""
    return _BT709 if colorspace == _RGB else colorspace


def overlay_name(source: str) -> str:
    """Return where in a folder of overlays a source's picture goes: its path, without root and `..`."""
    return str(Path(*(part for part in Path(source).parts if part not in ("/", ".."))))


def _aside(path: Path) -> Aside:
    """Return a `files.Aside` for a path, whose folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return Aside(path)


def _line(answer: Answer) -> bytes:
    picture = answer.picture
    frame = {}
    if picture.number is not None:
        frame = {"frame": picture.number, "seconds": picture.seconds}
    if answer.error is not None:
        return answer_line(picture.source, picture.box, {"error": answer.error}, **frame)
    arrays = {"landmarks": answer.landmarks, "covariance": answer.covariance} | answer.optional
    return answer_line(picture.source, picture.box, arrays, **frame)


def _csv_row(*values: object) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(values)  # so that \r and \n are quoted
    return out.getvalue()[:-2]


def _name(answer: Answer) -> str:
    number = answer.picture.number
    return overlay_name(answer.picture.source) if number is None else f"frame_{number:06d}.jpg"
