"""Real examples as a server would be asked about them: stored crops with the boxes in their own pixels."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from tfhuber.data import dataset, records
from tfhuber.geometry import projective
from tfhuber.landmarks.known_sets import LandmarkSet
from tfhuber.saved_model import decoding

__all__ = ["read"]


def read(
    directory: str | Path, landmark_set: LandmarkSet, size: int, count: int
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
