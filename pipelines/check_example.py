"""Checks of one example: shapes, ranges, an image that decodes, a map that fits it."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = ["check_example"]

# A map in float32 misses the original image's rim by this part of its side at most.
_ROUNDING = 1e-6
_END_OF_IMAGE = b"\xff\xd9"


def check_example(example: dict, landmark_set: LandmarkSet) -> None:
    """Raise `ValueError`, naming the feature, unless an example is one that can be trained on.

    Args:
      example: as `records.decode` gives it; its image is decoded.
      landmark_set: of the data set.
    """
    count = landmark_set.count
    lengths = {
        "landmarks": 2 * count,
        "weights": count,
        "box": 4,
        "crop_to_original": 9,
        "normalizer": 1,
        "attributes": len(landmark_set.attributes),
        "image_size": 2,
        "people": 1,
    }
    for name, length in lengths.items():
        if len(example[name]) != length:
            raise ValueError(f"{name} has {len(example[name])} values instead of {length}")
        if not np.all(np.isfinite(example[name])):
            raise ValueError(f"{name} is not finite")
    x0, y0, x1, y1 = example["box"]
    unlabelled = np.repeat(example["weights"] == 0, 2)
    for name, is_sound, what in (
        ("id", example["id"], "not empty"),
        ("weights", np.isin(example["weights"], (0, 1)), "0 or 1"),
        ("landmarks", example["landmarks"][unlabelled] == 0, "0 where there is no label"),
        ("box", (x0 < x1, y0 < y1), "not empty"),
        ("normalizer", example["normalizer"] >= 0, "at least 0"),
        ("attributes", np.isin(example["attributes"], (0, 1)), "0 or 1"),
        ("image_size", example["image_size"] > 0, "at least 1"),
        ("people", example["people"] > 0, "at least 1"),
    ):
        if not np.all(is_sound):
            raise ValueError(f"{name} must be {what}")
    _check_map(_decoded_size(example["image"]), example["crop_to_original"], example["image_size"])


def _decoded_size(jpeg: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            image.load()
    except UnidentifiedImageError:  # Its text has an address of memory in it.
        raise ValueError("image is no JPEG") from None
    except Exception as error:  # On damaged bytes Pillow's decoders raise nearly anything.
        raise ValueError(f"image does not decode: {error or type(error).__name__}") from None
    if not jpeg.endswith(_END_OF_IMAGE):  # Pillow may do without.
        raise ValueError("image does not decode: its end is missing")
    return np.array(image.size)


def _check_map(crop_size: np.ndarray, matrix: np.ndarray, image_size: np.ndarray) -> None:
    """Raise `ValueError` unless the map takes all of the crop into the original image."""
    matrix = matrix.reshape(3, 3).astype(np.float64)
    if not np.array_equal(matrix[2], (0, 0, 1)) or abs(np.linalg.det(matrix)) < _ROUNDING:
        raise ValueError("crop_to_original is no affine map that can be inverted")
    corners = np.array([(0, 0), (0, 1), (1, 0), (1, 1)]) * crop_size - 0.5
    mapped = corners @ matrix[:2, :2].T + matrix[:2, 2]
    beyond = np.maximum(-0.5 - mapped, mapped - (image_size - 0.5)).max()
    if beyond > _ROUNDING * image_size.max():
        raise ValueError(f"crop_to_original leaves the original image by {beyond:.3g} pixels")
