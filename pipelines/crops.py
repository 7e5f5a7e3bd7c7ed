"""From an image of a data set to the crop that a record stores, and the map back."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.annotation import Unusable
from tfhuber.geometry import square_around

__all__ = ["MARGIN", "MAX_PIXELS", "load_image", "store_crop"]

# Side of the stored region over side of the network's square: enough for every augmentation of
# the recipe. In half sides of the square, an output pixel is within 1 of the centre on each axis.
# From there back to the image: the second shift, 0.1 on each axis, makes it u, |u| <= 1.1 sqrt 2;
# the perspective x' = x / (1 + p x), |p| <= 0.3 / 2, divides by at least 1 - 0.15 |u| = 0.767; the
# first shift adds up to 0.1 sqrt 2. That is a corner c on the diagonal, |c| = 2.171. Rotation by
# 30 degrees brings it to 15 degrees from an image axis n, and undoing a scale of 1 / 1.2 along an
# axis a gives n (I + 0.2 a a') c, largest with a halfway: (cos 15 + 0.2 cos^2 7.5) |c| = 2.523.
MARGIN = 2.53

# 80 million pixels are 240 MB once decoded, and below the size at which Pillow warns by itself.
MAX_PIXELS = 80_000_000

# Formats that are decoded in this process, without running other programs as EPS does.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")


def load_image(folder: Path, name: str) -> Image.Image:
    """The decoded image in RGB, as stored: an orientation tag is ignored, as the labels ignore it.

    Args:
      folder: the data set's image folder, which no path may leave.
      name: path below it.

    Raises:
      Unusable: if the path leaves the folder, or the file is missing, larger than `MAX_PIXELS`,
        truncated, or no image.
    """
    path = _inside(folder, name)
    try:
        with warnings.catch_warnings():
            # Of sizes that are checked here, and of metadata that nobody reads.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                _check_header(image, name)
                return image.convert("RGB")
    except Unusable:
        raise
    except Image.DecompressionBombError as error:
        raise Unusable("image_too_large", f"{name}: {error}") from None
    except Exception as error:  # On damaged bytes Pillow's decoders raise nearly anything.
        raise Unusable("undecodable_image", f"{name}: {_one_line(error)}") from None


def store_crop(
    image: Image.Image,
    box: np.ndarray,
    *,
    rule: str,
    size: int,
    margin: float = MARGIN,
    quality: int = 95,
) -> tuple[bytes, np.ndarray]:
    """The JPEG bytes of the stored crop, and the map [3, 3] from its pixels to the image's.

    The crop is the square that the network sees for the box, enlarged by `margin` and clipped to
    the image, so that its border is the image's own wherever the square is cut off. It is reduced,
    never enlarged, until the network's square measures at most `size` pixels.

    Args:
      image: RGB.
      box: [4] x0, y0, x1, y1 in the image's pixels.
      rule: how the box becomes a square, as in `geometry.square_around`.
      size: largest side in stored pixels of the network's square.
      margin: side of the stored region over side of the network's square.
      quality: of the JPEG, which is written without chroma subsampling.

    Raises:
      Unusable: if the box lies outside the image.
    """
    if not (box[0] < image.width - 0.5 and box[1] < image.height - 0.5 and np.all(box[2:] > -0.5)):
        raise Unusable(
            "box_outside_image",
            f"box {' '.join(f'{value:g}' for value in box)} does not meet the "
            f"{image.width} x {image.height} image",
        )
    *centre, half = square_around(np.asarray(box, np.float64), rule)
    reduction = min(1.0, size / (2 * half))
    # One more stored pixel: bilinear sampling at the very rim reads the next one too.
    reach = margin * half + 1 / reduction
    limits = np.array([image.width, image.height])
    # Pixel u covers [u - 0.5, u + 0.5]; counted from the image's rim, its edges are whole numbers.
    start = np.floor(np.clip(np.array(centre) + 0.5 - reach, 0, limits)).astype(int)
    stop = np.ceil(np.clip(np.array(centre) + 0.5 + reach, 0, limits)).astype(int)
    region = (*start.tolist(), *stop.tolist())
    if reduction == 1:
        crop = image.crop(region)
    else:
        shape = np.maximum(np.floor((stop - start) * reduction), 1).astype(int)
        crop = image.resize(tuple(shape.tolist()), Image.Resampling.BICUBIC, region, 3.0)
    step = (stop - start) / crop.size
    crop_to_original = np.diag([*step, 1.0])
    crop_to_original[:2, 2] = start + (step - 1) / 2
    jpeg = io.BytesIO()
    crop.save(jpeg, "JPEG", quality=quality, subsampling=0)
    return jpeg.getvalue(), crop_to_original


def _inside(folder: Path, name: str) -> Path:
    try:
        root = folder.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise Unusable("path_outside_source", f"{name!r} leaves the image folder")
        if not path.is_file():
            raise Unusable("missing_image", f"{name!r} is no file of the image folder")
    except (OSError, RuntimeError, ValueError) as error:  # A loop of links, a NUL in the name.
        raise Unusable("missing_image", f"{name!r}: {_one_line(error)}") from None
    return path


def _check_header(image: Image.Image, name: str) -> None:
    """Opening has read the size and the kind of pixels only; what passes here gets decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise Unusable(
            "image_too_large",
            f"{name} claims {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}",
        )
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise Unusable("unsupported_pixels", f"{name} has more than 8 bits a channel")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
