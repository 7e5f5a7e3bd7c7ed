"""What the two commands that predict on one picture share: its file, its box, and the result's files."""

import argparse
import contextlib
import io
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tfhuber.console.cli import result_path, summary_stream
from tfhuber.console.files import place_aside, write_json
from tfhuber.saved_model.metadata import Facts

__all__ = [
    "add_options",
    "check_outputs",
    "decode_rgb",
    "is_outside",
    "open_image",
    "parse_box",
    "read_arguments",
    "read_image",
    "refuse_overwriting",
    "write_result",
]

# What the exported model decodes; MPO is a JPEG with more pictures behind the first.
_FORMATS = ("JPEG", "MPO", "PNG")
_EXIF_ORIENTATION = 0x0112
_MOST_BYTES = 256 * 2**20

# As many as the exported model decodes; beyond fewer, Pillow warns.
_MOST_PIXELS = 100_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--box`, `--output` and `--json` to a command line."""
    parser.add_argument(
        "--box",
        metavar="X0,Y0,X1,Y1",
        help="where the face or person is, in pixels (default: the whole image); "
        "write --box=-5,... if it begins with a minus",
    )
    parser.add_argument(
        "--output", type=Path, help="the picture to write, with landmarks and 90%% ellipses"
    )
    parser.add_argument(
        "--json",
        type=result_path,
        metavar="FILE",
        help="a file for landmarks, covariance and names, in pixels (- for the standard output)",
    )


def read_arguments(
    parser: argparse.ArgumentParser,
) -> tuple[argparse.Namespace, bytes, Image.Image, np.ndarray | None]:
    """The command line, with the picture, its box and where the result goes added and read.

    Returns:
      The arguments; the picture's file; the picture; the box [4] in its pixels, None for all of it.

    Raises:
      ValueError: as `read_image` and `parse_box`.
      OSError: if the picture cannot be read.
    """
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a JPEG or PNG file")
    add_options(parser)
    arguments = parser.parse_args()
    if not (arguments.output or arguments.json):
        parser.error("nothing to write: give --output, --json or both")
    image_bytes, image = read_image(arguments.image)
    check_outputs(arguments, [arguments.image])
    box = None if arguments.box is None else parse_box(arguments.box, image.size)
    return arguments, image_bytes, image, box


def open_image(path: Path) -> tuple[bytes, Image.Image, int]:
    """An image file's bytes, its picture with the pixels not yet decoded, and its EXIF orientation.

    The orientation is 1 where viewers need not turn the picture.

    Raises:
      ValueError: if the file is not known as a JPEG or PNG by its first bytes.
      OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        image_bytes = file.read(_MOST_BYTES + 1)
    if len(image_bytes) > _MOST_BYTES:
        raise ValueError(f"{path} is larger than {_MOST_BYTES >> 20} MiB, too large for the model")
    with _readable(path):
        image = Image.open(io.BytesIO(image_bytes))
        kind = image.format
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if kind in _FORMATS else 1
    if kind not in _FORMATS:
        raise ValueError(f"{path} is a {kind} file; the model reads JPEG and PNG")
    if math.prod(image.size) > _MOST_PIXELS:
        width, height = image.size
        raise ValueError(f"{path} has {width} x {height} pixels, more than {_MOST_PIXELS:,}")
    return image_bytes, image, orientation or 1


def read_image(path: Path) -> tuple[bytes, Image.Image]:
    """An image file's bytes and its picture as stored, RGB; an EXIF orientation is not applied.

    Raises:
      ValueError: if the file is no JPEG or PNG, or damaged.
      OSError: if it cannot be read.
    """
    image_bytes, image, orientation = open_image(path)
    with _readable(path):
        image = _rgb(image)
    if orientation != 1:
        print(
            f"note: {path} asks viewers to turn it (EXIF orientation {orientation}); "
            "the model sees it as stored, and so does the picture with the result",
            file=sys.stderr,
        )
    return image_bytes, image


def decode_rgb(image_bytes: bytes, name: str) -> Image.Image:
    """A picture as stored, RGB, from its file's bytes; ValueError naming it if it is damaged."""
    with _readable(name):
        return _rgb(Image.open(io.BytesIO(image_bytes)))


def _rgb(image: Image.Image) -> Image.Image:
    """RGB as the model sees it: of 16 bits the upper ones, where Pillow would make most of it white."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


@contextlib.contextmanager
def _readable(name: object) -> Iterator[None]:
    """Turns whatever Pillow raises for a damaged or far too large picture into a `ValueError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:  # Pillow raises almost anything for a damaged file
            reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
            raise ValueError(f"{name} is not an image that can be read{reason}") from None


def parse_box(text: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """The box [4] that a user typed as `x0,y0,x1,y1`, float64, in pixels of an image.

    Args:
      text: four numbers with commas between.
      size: width and height of the image, if the box is for a single one.

    Raises:
      ValueError: those are not four finite numbers, or the box is empty or outside the image.
    """
    try:
        box = np.array([float(part) for part in text.split(",")])
    except ValueError:
        box = np.array([np.nan])
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"--box must be four numbers x0,y0,x1,y1, got {text!r}")
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"--box {text} is empty: x0 < x1 and y0 < y1 are required")
    if size and is_outside(box, size):
        raise ValueError(
            f"--box {text} is outside the image, which has {size[0]} x {size[1]} pixels"
        )
    return box


def is_outside(box: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a box [4] and an image of `size` (width, height) have no pixel in common."""
    return bool((box[2:] <= -0.5).any() or (box[:2] >= np.array(size) - 0.5).any())


def check_outputs(arguments: argparse.Namespace, read: Iterable[Path]) -> None:
    """Refuses `--output` and `--json` that cannot be written or would replace what is read.

    Raises:
      ValueError: saying which of them.
    """
    from tfhuber.drawing import overlay

    if arguments.output and arguments.output.suffix.lower() not in overlay.SUFFIXES:
        raise ValueError(f"{arguments.output} must end in .png, .jpg or .jpeg")
    refuse_overwriting([arguments.output, arguments.json], read)


def refuse_overwriting(written: Iterable[Path | None], read: Iterable[Path | None]) -> None:
    """Refuses results that would replace what is read, or each other; devices may be both.

    Raises:
      ValueError: naming the file.
    """
    taken = {_real(path): "is read" for path in read if path}
    for result in filter(None, written):
        for path in {_real(result), _real(place_aside(result))}:
            if path in taken and (path.is_file() or not path.exists()):
                reason = f"it {taken[path]} too"
                raise ValueError(
                    f"{path} would be written over, {reason}; choose another place for the results"
                )
            taken[path] = "is another result's place"


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def write_result(
    arguments: argparse.Namespace, image: Image.Image, landmarks, covariance, box, facts: Facts
) -> None:
    """Writes what `--output` and `--json` ask for and prints a line that sums it up.

    Args:
      arguments: as `read_arguments` gave them.
      image: the photograph.
      landmarks: [K, 2] in its pixels.
      covariance: [K, 2, 2] in its pixels squared.
      box: [4] in its pixels, or None.
      facts: what the landmarks are.
    """
    from tfhuber.drawing import overlay

    if arguments.json:
        values = {
            "names": facts.names,
            "landmarks": np.asarray(landmarks, float).tolist(),
            "covariance": np.asarray(covariance, float).tolist(),
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.json, values)
    if arguments.output:
        picture = overlay.draw_overlay(
            image,
            landmarks,
            covariance,
            edges=facts.edges,
            family=facts.family,
            delta=facts.delta,
            box=box,
        )
        overlay.save_image(picture, arguments.output)
    deviation = np.sqrt(np.trace(covariance, axis1=-2, axis2=-1) / 2)
    written = [path for path in (arguments.output, arguments.json) if path]
    print(
        f"{len(landmarks)} landmarks, median standard deviation {np.median(deviation):.2f} pixels; "
        f"wrote {' and '.join(map(str, written))}",
        file=summary_stream(written),
    )
