"""Image files as the exported model sees them: which it decodes, and their pixels as they are stored."""

import contextlib
import io
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["MAX_PIXELS", "decode_rgb", "open_image", "read_image"]

# An image of 100 megapixels is 1.2 GB as float32 RGB; the model decodes nothing larger.
MAX_PIXELS = 100_000_000

# What the model decodes; MPO is a JPEG with more pictures behind the first.
_FORMATS = ("JPEG", "MPO", "PNG")
_EXIF_ORIENTATION = 0x0112
_MAX_BYTES = 256 * 2**20


def open_image(path: Path) -> tuple[bytes, Image.Image, int]:
    """Return an image file's bytes, its image with the pixels not yet decoded, and its EXIF orientation.

    The orientation is 1 where viewers need not rotate the image.

    Raises:
      ValueError: the file is not known as a JPEG or PNG by its first bytes, or is too large.
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        image_bytes = file.read(_MAX_BYTES + 1)
    if len(image_bytes) > _MAX_BYTES:
        raise ValueError(f"{path} is larger than {_MAX_BYTES >> 20} MiB, too large for the model")
    with _readable(path):
        image = Image.open(io.BytesIO(image_bytes))
        kind = image.format
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if kind in _FORMATS else 1
    if kind not in _FORMATS:
        raise ValueError(f"{path} is a {kind} file; the model reads JPEG and PNG")
    if math.prod(image.size) > MAX_PIXELS:
        width, height = image.size
        raise ValueError(f"{path} has {width} x {height} pixels, more than {MAX_PIXELS:,}")
    return image_bytes, image, orientation or 1


def read_image(path: Path) -> tuple[bytes, Image.Image]:
    """Return an image file's bytes and its image as stored, RGB; an EXIF orientation is not applied.

    Raises:
      ValueError: the file is no JPEG or PNG, or damaged.
      OSError: it cannot be read.
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
    """Return an image as stored, RGB, from its file's bytes.

    Raises:
      ValueError: it is damaged; the message calls it `name`.
    """
    with _readable(name):
        return _rgb(Image.open(io.BytesIO(image_bytes)))


def _rgb(image: Image.Image) -> Image.Image:
    """Return RGB as the model sees it: of 16 bits the upper 8, where Pillow would make most of it white."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


@contextlib.contextmanager
def _readable(name: object) -> Iterator[None]:
    """Turn whatever Pillow raises for a damaged or far too large image into a `ValueError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:  # Pillow raises almost anything for a damaged file
            reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
            raise ValueError(f"{name} is not an image that can be read{reason}") from None
