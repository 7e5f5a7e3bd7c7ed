"""Exported LiteRT models (`.tflite`), run by ai-edge-litert."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from tfhuber.console.cli import progress
from tfhuber.console.cpus import available_cpus
from tfhuber.console.files import reason
from tfhuber.saved_model import decoding, litert_file
from tfhuber.saved_model.metadata import ModelMetadata

__all__ = ["SIGNATURE", "LiteRTModel", "Runner"]

# Of the one signature: the SavedModel's with the same inputs and outputs, but for one row.
SIGNATURE = "tensor"

_OUTPUTS = ["covariance", "landmarks", "valid"]


class Runner:
    """A LiteRT model in memory, as `litert_export` makes it.

    Args:
      model: its bytes.
      threads: how many it may use; by default one a processor.

    Attributes:
      size: side S of its network crops in pixels.

    Raises:
      ValueError: it is not laid out like that, or ai-edge-litert is missing.
    """

    def __init__(self, model: bytes, threads: int | None = None):
        interpreter = litert_file.litert_library("interpreter").Interpreter
        threads = threads or available_cpus()
        try:
            self._interpreter = interpreter(model_content=model, num_threads=threads)
            self._run = self._interpreter.get_signature_runner(SIGNATURE)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"it cannot be loaded ({reason(error)})") from error
        image = self._run.get_input_details().get("image")
        shape = [] if image is None else image["shape"].tolist()
        if len(shape) != 4 or shape != [1, shape[1], shape[1], 3] or image["dtype"] != np.uint8:
            raise ValueError("it takes no network crop `image` [1, S, S, 3] uint8")
        if sorted(self._run.get_output_details()) != _OUTPUTS:
            raise ValueError(f"it does not give {', '.join(_OUTPUTS)}")
        self.size = shape[1]

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs for one network crop [S, S, 3] uint8, in its pixels, without the row."""
        answer = self._run(image=image[np.newaxis])
        return {name: value[0] for name, value in answer.items()}

    def many(self, images: np.ndarray, desc: str = "examples") -> dict[str, np.ndarray]:
        """Return the outputs for network crops [N, S, S, 3] uint8, N > 0, in their pixels."""
        answers = [self(image) for image in progress(images, desc=desc, unit="example")]
        return {name: np.stack([answer[name] for answer in answers]) for name in _OUTPUTS}


class LiteRTModel:
    """A `.tflite` file that `python -m tfhuber.export --format litert` wrote.

    Args:
      path: the file.

    Attributes:
      metadata: what it says of itself.

    Raises:
      ValueError: it is another file or damaged, or ai-edge-litert is missing.
      OSError: it cannot be read.
    """

    def __init__(self, path: Path):
        model = litert_file.read(path)
        try:
            self._runner = Runner(model)
            self.metadata = ModelMetadata.parse(litert_file.metadata_of(model))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if self.metadata.square is None:
            raise ValueError(f"{path}: its rule for the square around a box is not known here")
        self._square = self.metadata.square

    def predict(self, image_bytes: Sequence[bytes], boxes: ArrayLike) -> dict[str, np.ndarray]:
        """Return `landmarks` [N, K, 2], `covariance` [N, K, 2, 2] and `valid` [N] in original pixels.

        As `session.run` of a SavedModel, from the same crops, rounded to whole grey levels.

        Args:
          image_bytes: N whole JPEG or PNG files.
          boxes: [N, 4] x0, y0, x1, y1 in original pixels; all zeros: the whole image.
        """
        rows = zip(image_bytes, np.asarray(boxes, np.float32), strict=True)
        answers = [self._predict(tf.constant(image), tf.constant(box)) for image, box in rows]
        return {name: np.stack([answer[name] for answer in answers]) for name in _OUTPUTS}

    def _predict(self, image_bytes: tf.Tensor, box: tf.Tensor) -> dict[str, np.ndarray]:
        image, decoded = decoding.decode(image_bytes)
        crop, to_network, usable = decoding.network_crop(
            image, box, self._runner.size, self._square
        )
        found = self._runner(tf.cast(tf.round(crop), tf.uint8).numpy())
        valid = found["valid"] & decoded.numpy() & usable.numpy()
        h = to_network.numpy()  # the image scaled and shifted
        scale = np.diagonal(h)[:2]
        landmarks = (found["landmarks"] - h[:2, 2]) / scale
        covariance = found["covariance"] / np.outer(scale, scale)
        return {
            "landmarks": np.where(valid, landmarks, 0),
            "covariance": np.where(valid, covariance, 0),
            "valid": valid,
        }
