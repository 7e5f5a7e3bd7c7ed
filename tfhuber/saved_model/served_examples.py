"""Real examples as a server would be asked about them: stored crops with the boxes in their own pixels."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfhuber.console.cli import progress
from tfhuber.data import dataset, records
from tfhuber.geometry import projective
from tfhuber.landmarks.known_sets import LandmarkSet
from tfhuber.saved_model import decoding, description

__all__ = ["deviations", "random_crops", "read"]

# Examples on which the reference of the predicted uncertainty stands, and how many are seen at once.
_EXAMPLES, _BATCH = 256, 16


def read(
    directory: str | Path, landmark_set: LandmarkSet, size: int, count: int = _EXAMPLES
) -> dict[str, np.ndarray]:
    """Read examples evenly spread over the test split, or over the first that has any without one.

    Args:
      directory: the converted data set.
      landmark_set: what its landmarks must be.
      size: side of the network crops in pixels.
      count: how many at most.

    Returns:
      `image_bytes` [N] JPEG files, the stored crops; `box` [N, 4] float32 in their pixels; and `image`
      [N, size, size, 3] uint8, the network crops.

    Raises:
      ValueError: if the data set is not there, has other landmarks or cannot be read.
    """
    manifest = records.read_manifest(directory)
    filled = [name for name, counts in manifest["splits"].items() if counts["examples"]]
    split = dataset.open_split(directory, "test" if "test" in filled or not filled else filled[0])
    if split.landmark_set.names != landmark_set.names:
        raise ValueError(
            f"{directory} must hold the landmarks that the run predicts, {landmark_set.name}; "
            f"got {split.landmark_set.name}"
        )

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = records.parse(serialized, split.landmark_set)
        to_crop = projective.invert(parsed["crop_to_original"])
        corners = projective.apply_map(to_crop, tf.reshape(parsed["box"], [2, 2]))
        box = tf.reshape(corners, [4])
        image, _ = decoding.decode(parsed["image"])
        region, _, _ = decoding.network_crop(image, box, size, landmark_set.square)
        pixels = tf.cast(tf.round(region), tf.uint8)
        return {"image_bytes": parsed["image"], "box": box, "image": pixels}

    apart = -(-split.examples // count)
    chosen = tf.data.TFRecordDataset(split.paths).shard(apart, 0).map(example).batch(count)
    batch = next(dataset.readable(chosen, split))
    return {name: value.numpy() for name, value in batch.items()}


def deviations(
    function: Callable[..., dict[str, tf.Tensor]], examples: dict[str, np.ndarray]
) -> np.ndarray:
    """Return the `description.relative_deviations` [N, K] that a model predicts for examples.

    Args:
      function: as `signatures.image_function` makes it.
      examples: what `read` returned.

    Raises:
      ValueError: its numbers for one of them are not finite.
    """
    files, boxes = examples["image_bytes"], examples["box"]
    found = []
    for start in progress(range(0, len(boxes), _BATCH), desc="examples", unit="batch"):
        rows = slice(start, start + _BATCH)
        answer = {name: value.numpy() for name, value in function(files[rows], boxes[rows]).items()}
        if not answer["valid"].all():
            raise ValueError("the model's numbers for an example of its data set are not finite")
        found.append(description.relative_deviations(answer["covariance"], boxes[rows]))
    return np.concatenate(found)


def random_crops(split: dataset.Split, size: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield network crops [size, size, 3] uint8 of a split, without augmentation, in its order.

    Args:
      split: of which data set.
      size: side of the network crops in pixels.
      count: how many; all, if the split has fewer.
      seed: another one takes other examples.

    Raises:
      ValueError: a file of the split is damaged.
    """
    count = min(count, split.examples)
    places = np.random.default_rng(seed).choice(split.examples, count, replace=False)
    batches = dataset.evaluation_batches(split, size, _BATCH, sorted(places))
    for batch in dataset.readable(batches, split):
        yield from tf.cast(tf.round(batch["image"]), tf.uint8).numpy()
