"""What the model says of pictures: predictions in the original images' pixels, or the reason for none."""

import io
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.errors import Unusable
from pipelines.predict.model import LoadedModel
from pipelines.predict.reading import Picture, Reject
from tfhuber.geometry.boxes import is_outside
from tfhuber.landmarks.json_lines import answer_line, readable
from tfhuber.saved_model.image_files import MAX_PIXELS
from tfhuber.saved_model.metadata import FLAGS

__all__ = ["FORMATS", "Prediction", "answers"]

# Bytes of image files that are given to the model together; more make a batch smaller.
_MOST_BYTES = 48 * 2**20

_DECODED = ("JPEG", "MPO", "PNG")


@dataclass(frozen=True)
class Prediction:
    """A picture's prediction.

    Attributes:
      source: the picture's name.
      box: [4] as it was given; None for all of the picture.
      arrays: `landmarks` [K, 2], `covariance` [K, 2, 2] and, if the model has it, `precision_factor`
        [K, 2, 2], float32 in the original image's pixels; likewise the flags `reliable` [K] and
        `in_distribution`.
    """

    source: str
    box: np.ndarray | None
    arrays: dict[str, np.ndarray]


def answers(
    items: Iterable[Picture | Reject], model: LoadedModel, batch: int
) -> Iterator[Prediction | Reject]:
    """Yield the prediction, or the reject, for each item in turn.

    Which pictures are asked about together follows from the items alone, as it may decide the last bit
    of a number.

    Args:
      items: of which those of a batch are held.
      model: who is asked.
      batch: pictures at a time.

    Raises:
      OSError: the model has failed.
    """
    waiting: list[Picture | Reject] = []
    asked = size = 0
    for item in items:
        waiting.append(item)
        if isinstance(item, Picture):
            asked, size = asked + 1, size + len(item.content)
        if asked == batch or size >= _MOST_BYTES:
            yield from _batch_answers(waiting, model)
            waiting, asked, size = [], 0, 0
    yield from _batch_answers(waiting, model)


def _batch_answers(
    items: list[Picture | Reject], model: LoadedModel
) -> Iterator[Prediction | Reject]:
    pictures = [item for item in items if isinstance(item, Picture)]
    rows: Iterator[dict[str, np.ndarray]] = iter(())
    if pictures:
        boxes = np.stack([picture.box_in_file for picture in pictures])
        found = model.predict([picture.content for picture in pictures], boxes)
        rows = ({name: value[i] for name, value in found.items()} for i in range(len(pictures)))
    for item in items:
        yield item if isinstance(item, Reject) else _answer(item, next(rows), model.arrays)


def _answer(
    picture: Picture, row: dict[str, np.ndarray], names: Iterable[str]
) -> Prediction | Reject:
    if not row["valid"]:
        return Reject.of(picture, _why_invalid(picture))
    arrays = {name: row[name] for name in names}
    if picture.to_original is not None:
        arrays = _mapped(arrays, picture.to_original)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        return Reject.of(picture, Unusable("not_finite", "the model's numbers are not finite"))
    return Prediction(picture.source, picture.box, arrays)


def _mapped(arrays: dict[str, np.ndarray], to_original: np.ndarray) -> dict[str, np.ndarray]:
    """Return a prediction's arrays in the pixels that an affine map [3, 3] leads to."""
    scale, shift = to_original[:2, :2], to_original[:2, 2]
    mapped = {
        "landmarks": arrays["landmarks"] @ scale.T + shift,
        "covariance": scale @ arrays["covariance"] @ scale.T,
    }
    if "precision_factor" in arrays:
        # A is the symmetric root of what the inverse of the covariance is proportional to.
        back = np.linalg.inv(scale)
        factor = arrays["precision_factor"].astype(np.float64)
        values, vectors = np.linalg.eigh(back.T @ (factor @ factor) @ back)
        root = np.sqrt(np.maximum(values, 0))[..., np.newaxis, :]
        mapped["precision_factor"] = (vectors * root) @ np.swapaxes(vectors, -1, -2)
    return arrays | {name: array.astype(np.float32) for name, array in mapped.items()}


def _why_invalid(picture: Picture) -> Unusable:
    """Return what is wrong with a picture of which the model says that its answer is not valid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(picture.content))
            kind, (width, height) = image.format, image.size
        except Image.DecompressionBombError as error:
            return Unusable("image_too_large", str(error))
        except Exception:  # On damaged bytes Pillow raises nearly anything.
            return Unusable("undecodable_image", "it is no whole JPEG or PNG file")
        if kind not in _DECODED:
            return Unusable("unsupported_format", f"a {kind} file; the model reads JPEG and PNG")
        if width * height > MAX_PIXELS:
            return Unusable("image_too_large", f"{width} x {height} pixels: over {MAX_PIXELS:,}")
        box = picture.box_in_file
        if box.any() and is_outside(box, (width, height)):
            text = " ".join(f"{value:g}" for value in box)
            detail = f"box {text} does not meet the {width} x {height} image"
            return Unusable("box_outside_image", detail)
        try:
            image.load()
        except Exception:
            return Unusable("undecodable_image", "it is cut short or damaged")
    return Unusable(
        "not_valid",
        "the model cannot use it: its box is too small or far too large, or it is damaged",
    )


def _json_lines(found: list[Prediction], model: LoadedModel) -> bytes:
    return b"".join(answer_line(each.source, each.box, each.arrays) + b"\n" for each in found)


def _parquet(found: list[Prediction], model: LoadedModel) -> bytes:
    """Return a Parquet file whose rows have the fields of a line of JSON, in lists of fixed size."""
    columns = {
        "source": pa.array([readable(each.source) for each in found], pa.string()),
        "box": pa.array(
            [None if each.box is None else each.box.tolist() for each in found],
            pa.list_(pa.float64()),
        ),
    }
    for name, shape in model.arrays.items():
        kind = np.bool_ if name in FLAGS else np.float32
        column: pa.Array = pa.array(np.array([each.arrays[name] for each in found], kind).ravel())
        for length in reversed(shape):
            column = pa.FixedSizeListArray.from_arrays(column, length)
        columns[name] = column
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="zstd")
    return file.getvalue()


# How a shard's predictions become its bytes, by the suffix of its name.
FORMATS = {"jsonl": _json_lines, "parquet": _parquet}
