"""The crop of an image that a record stores, and the map back."""

import io

import numpy as np
from PIL import Image

from pipelines.errors import Unusable
from pipelines.source_image import SourceImage, UprightImage
from tfhuber.geometry.box_square import region_around

__all__ = ["MARGIN", "store_crop"]

# Side of the stored region over side of the network's square: enough for every augmentation of
# the recipe. In half sides of the square, an output pixel is within 1 of the centre on each axis.
# From there back to the image: the second shift, 0.1 on each axis, makes it u, |u| <= 1.1 sqrt 2;
# the perspective x' = x / (1 + p x), |p| <= 0.3 / 2, divides by at least 1 - 0.15 |u| = 0.767; the
# first shift adds up to 0.1 sqrt 2. That is a corner c on the diagonal, |c| = 2.171. Rotation by
# 30 degrees brings it to 15 degrees from an image axis n, and undoing a scale of 1 / 1.2 along an
# axis a gives n (I + 0.2 a a') c, largest with a halfway: (cos 15 + 0.2 cos^2 7.5) |c| = 2.523.
MARGIN = 2.53


def store_crop(
    image: SourceImage | UprightImage,
    box: np.ndarray,
    *,
    rule: str,
    size: int,
    margin: float = MARGIN,
    quality: int = 95,
) -> tuple[bytes, np.ndarray]:
    """Return the JPEG bytes of the stored crop, and the map [3, 3] from its pixels to the image's.

    The crop is the region that the network sees for the box, enlarged by `margin` and clipped to
    the image, so that its border is the image's own wherever the region is cut off. It is reduced,
    never enlarged, until the shorter side of the network's region measures at most `size` pixels.

    Args:
      image: of which only the region that the crop shows is decoded.
      box: [4] x0, y0, x1, y1 in the image's pixels.
      rule: how the box becomes a region, as in `box_square.region_around`.
      size: largest shorter side of the network's region, in stored pixels.
      margin: side of the stored region over side of the network's.
      quality: of the JPEG, which is written without chroma subsampling.

    Raises:
      Unusable: if the box lies outside the image, or the region cannot be decoded.
    """
    width, height = image.size
    if not (box[0] < width - 0.5 and box[1] < height - 0.5 and np.all(box[2:] > -0.5)):
        raise Unusable(
            "box_outside_image",
            f"box {' '.join(f'{value:g}' for value in box)} does not meet the "
            f"{width} x {height} image",
        )
    region = np.array(region_around(np.asarray(box, np.float64), rule))
    centre, half = region[:2], region[2:]
    reduction = min(1.0, size / (2 * half.min()))
    # One more stored pixel: bilinear sampling at the very rim reads the next one too.
    reach = margin * half + 1 / reduction
    limits = np.array(image.size)
    # Pixel u covers [u - 0.5, u + 0.5]; counted from the image's rim, its edges are whole numbers.
    start = np.floor(np.clip(centre + 0.5 - reach, 0, limits)).astype(int)
    stop = np.ceil(np.clip(centre + 0.5 + reach, 0, limits)).astype(int)
    crop = image.region(*start.tolist(), *stop.tolist())
    if reduction < 1:
        shape = np.maximum(np.floor((stop - start) * reduction), 1).astype(int)
        crop = crop.resize(shape.tolist(), Image.Resampling.BICUBIC, reducing_gap=3.0)
    step = (stop - start) / crop.size
    crop_to_original = np.diag([*step, 1.0])
    crop_to_original[:2, 2] = start + (step - 1) / 2
    jpeg = io.BytesIO()
    crop.save(jpeg, "JPEG", quality=quality, subsampling=0)
    return jpeg.getvalue(), crop_to_original
