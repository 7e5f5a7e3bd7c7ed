"""An image of a data set, from bytes that are not trusted: its size, and its pixels by region."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import pyvips
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from pipelines.errors import Unusable

__all__ = ["MAX_PIXELS", "SourceImage", "UprightImage"]

# Pillow holds a pixel in 4 bytes: 320 MB, and below the size at which it warns by itself.
MAX_PIXELS = 80_000_000

# Every scan of a progressive JPEG goes over all of the image, and may take no more than 100 bytes
# of the file. Encoders write about ten.
_MAX_SCANS = 100

# Formats that are decoded in this process, without running other programs as EPS does.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

# What Pillow calls a JPEG: MPO is several of them in one file, of which the first counts.
_JPEGS = ("JPEG", "MPO")
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"

_ORIENTATION = 0x0112  # EXIF's tag
_Turn = Image.Transpose
_TURNS = {
    **{2: _Turn.FLIP_LEFT_RIGHT, 3: _Turn.ROTATE_180, 4: _Turn.FLIP_TOP_BOTTOM},
    **{5: _Turn.TRANSPOSE, 6: _Turn.ROTATE_270, 7: _Turn.TRANSVERSE, 8: _Turn.ROTATE_90},
}

# A part of a JPEG takes 0.5 ms and, for all the rows down to its last, 1.2 times what Pillow takes
# for them. From here on, parts of random size and position are on average the quicker way (at 12
# megapixels by a fifth), and a small part of 64 megapixels takes 16 MB instead of 245.
_WORTHWHILE = 1_500_000

# One image at a time is decoded, in a process that is one of several; images do not come again.
pyvips.concurrency_set(1)
pyvips.cache_set_max(0)

# A fault that matters is raised; what libraries think of metadata is of no use to a job's log.
for _library in ("PIL", "pyvips"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)


class SourceImage:
    """An encoded image, of which no pixel is decoded before it is needed.

    Pixels are those that the file stores, whatever EXIF's orientation (a TIFF's is part of its layout,
    and followed); `UprightImage` follows it. Of an animation it is the first picture.

    Attributes:
      size: (width, height) in pixels.
      orientation: EXIF's, from 1 to 8; 1 is upright.

    Example:
      >>> face = SourceImage(data).region(1200, 300, 1600, 700)
    """

    size: tuple[int, int]
    orientation: int

    def __init__(self, data: bytes):
        """Read the header.

        Args:
          data: the file's content; what it is follows from it alone, not from any name.

        Raises:
          Unusable: "undecodable_image", "image_too_large" or "unsupported_pixels".
        """
        with _verdict():
            image = _open(data)
            self.size = image.size
            self.orientation = _orientation(image)
            self._data = data
            self._opened: Image.Image | None = image
            # Rows that may be decoded in parts. It is one pass over the image: boxes that need more
            # in all share the whole image, and cost at most twice what they had to.
            self._rows = image.height if _decodes_in_parts(image, data) else 0

    def region(self, x0: int, y0: int, x1: int, y1: int) -> Image.Image:
        """Return the pixels [x0, x1) x [y0, y1) in RGB, the same as if all of the image were decoded.

        A JPEG may be damaged below a region and the region still be good. In a truncated one none
        is, wherever the cut. The result may be shared with other calls: it is not to be written to.

        Raises:
          Unusable: "undecodable_image".
          ValueError: if the region is empty or not all within the image.
        """
        box, (width, height) = (x0, y0, x1, y1), self.size
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ValueError(f"region {box} must be a part of the {width} x {height} image")
        if y1 <= self._rows and 2 * (x1 - x0) * (y1 - y0) <= width * height:
            self._rows -= y1
            try:
                return _part_of_jpeg(self._data, box)
            except pyvips.Error:
                pass  # A part of it is damaged; whether too much is for Pillow to say, as ever.
        self._rows = 0
        with _verdict():
            part = self._whole if box == (0, 0, *self.size) else self._whole.crop(box)
            return part if part.mode == "RGB" else part.convert("RGB")

    @cached_property
    def _whole(self) -> Image.Image:
        # An image whose decoding failed would afterwards pass for a good one: it is never kept.
        image, self._opened = self._opened or _open(self._data), None
        image.load()
        image.info.clear()  # Pillow would write a comment into each crop that is saved.
        return image


class UprightImage:
    """An image as EXIF's orientation turns it, which is how viewers and labelling tools show it.

    Attributes:
      size: (width, height) in pixels, as it is shown.
    """

    def __init__(self, image: SourceImage):
        self._image = image
        self.size = image.size[::-1] if image.orientation >= 5 else image.size

    def region(self, x0: int, y0: int, x1: int, y1: int) -> Image.Image:
        """Return the pixels [x0, x1) x [y0, y1) of what is shown, otherwise as `SourceImage` does."""
        (width, height), orientation = self._image.size, self._image.orientation
        x, y = (x0, x1), (y0, y1)
        if orientation >= 5:
            x, y = y, x
        if orientation in (2, 3, 7, 8):
            x = width - x[1], width - x[0]
        if orientation in (3, 4, 6, 7):
            y = height - y[1], height - y[0]
        part = self._image.region(x[0], y[0], x[1], y[1])
        return part.transpose(_TURNS[orientation]) if orientation in _TURNS else part


def _orientation(image: Image.Image) -> int:
    """Return EXIF's orientation; 1 where there is none that can be read."""
    # A PNG's metadata may come after its pixels, and would be looked for there.
    if "exif" not in image.info or isinstance(image, TiffImageFile):
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # On damaged bytes Pillow raises nearly anything; the pixels may be good.
        return 1
    return orientation if orientation in _TURNS else 1


def _open(data: bytes) -> Image.Image:
    """Read the header; raise `Unusable` if the pixels must not be decoded."""
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise Unusable(
            "image_too_large",
            f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}",
        )
    if isinstance(image, TiffImageFile):
        width, height = (image.tag_v2.get(tag, 1) for tag in (322, 323))
        if width * height > MAX_PIXELS:
            raise Unusable("image_too_large", f"tiles of {width} x {height} pixels")
    deep = any(";16" in str(part) for part in image.tile)  # Of which Pillow drops the lower bits.
    if deep or image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise Unusable("unsupported_pixels", "more than 8 bits a channel")
    if _is_progressive(image) and data.count(_START_OF_SCAN) > _MAX_SCANS:
        raise Unusable("undecodable_image", f"more than {_MAX_SCANS} scans of all pixels")
    return image


def _is_progressive(image: Image.Image) -> bool:
    return image.format in _JPEGS and "progressive" in image.info


def _decodes_in_parts(image: Image.Image, data: bytes) -> bool:
    return (
        image.format in _JPEGS
        and image.mode in ("L", "RGB")
        and image.width * image.height >= _WORTHWHILE
        # Any row takes all the scans; and where scans are missing, decoders guess differently.
        and not _is_progressive(image)
        # The image's end comes after its last scan; that of a thumbnail in it comes before.
        and data.rfind(_END_OF_IMAGE) > data.rfind(_START_OF_SCAN)
    )


def _part_of_jpeg(data: bytes, box: tuple[int, int, int, int]) -> Image.Image:
    """Decode the rows down to the last of the box, one after the other.

    Raises:
      pyvips.Error: if the decoder as much as warns of any of them.
    """
    x0, y0, x1, y1 = box
    jpeg = pyvips.Image.jpegload_buffer(data, access="sequential", fail_on="warning")
    part = jpeg.crop(x0, y0, x1 - x0, y1 - y0)
    mode = "L" if part.bands == 1 else "RGB"
    size, pixels = (part.width, part.height), part.write_to_memory()
    return Image.frombuffer(mode, size, pixels, "raw", mode, 0, 1).convert("RGB")


@contextmanager
def _verdict() -> Iterator[None]:
    """Turn whatever Pillow says against an image into the reason of a reject."""
    try:
        with warnings.catch_warnings():
            # Of sizes that are checked here, and of metadata that nobody reads.
            warnings.simplefilter("ignore")
            yield
    except Unusable:
        raise
    except UnidentifiedImageError:  # Its text has an address of memory in it.
        raise Unusable("undecodable_image", f"no image in any of {', '.join(_FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise Unusable("image_too_large", str(error)) from None
    except Exception as error:  # On damaged bytes Pillow's decoders raise nearly anything.
        detail = " ".join(str(error).split()) or type(error).__name__
        raise Unusable("undecodable_image", detail) from None
