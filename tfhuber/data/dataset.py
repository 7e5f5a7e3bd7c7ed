"""The input pipeline: TFRecords in, batches of network crops and labels out, all of it reproducible.

What is random comes from (seed, epoch, example id) alone, so that a run that starts at any step sees
what an undisturbed one would have seen there.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import tensorflow as tf

from tfhuber.config.schema import Augmentation, Data
from tfhuber.console.files import reason
from tfhuber.data import records
from tfhuber.data.appearance import random_appearance
from tfhuber.data.augmentation import example_key, random_map, space_contour
from tfhuber.data.order import epoch_order
from tfhuber.data.split import Split, open_split, stored_examples
from tfhuber.data.wrong_labels import misplace
from tfhuber.geometry.projective import apply_map, box_to_crop, compose, visible_part, warp
from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = [
    "Recipe",
    "Split",
    "augmented_labels",
    "evaluation_batches",
    "network_example",
    "open_split",
    "readable",
    "steps_per_epoch",
    "training_batches",
]


Tensors = dict[str, tf.Tensor]  # an example, or a batch of them, by the names of its values
_Batch = TypeVar("_Batch")

# Nothing in these graphs needs to be rewritten, over which AutoGraph takes seconds in every process.
_as_written = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class Recipe:
    """How a split's examples are read, ordered, augmented and put into batches for training.

    Attributes:
      data: the `data` section of the configuration.
      augmentation: its `augmentation` section.
      image_size: side S of the network crop in pixels.
      batch_size: examples per step, over all devices.
      epochs: of `steps` steps each.
      steps: of an epoch; None for one pass over the split, see `steps_per_epoch`.
      seed: of order, augmentation and wrong labels.
    """

    data: Data
    augmentation: Augmentation
    image_size: int
    batch_size: int
    epochs: int
    steps: int | None
    seed: int


@_as_written
def training_batches(
    split: Split, recipe: Recipe, *, start_step: int = 0, part: slice = slice(None)
) -> tf.data.Dataset:
    """Return augmented batches for all steps from `start_step` to the end of training.

    Each epoch takes full batches, `steps_per_epoch` of them, from as many passes over the split as they
    need. Every pass has a fresh order and fresh augmentation; the examples left over after the last
    batch differ from epoch to epoch.

    Args:
      split: what to train on.
      recipe: how.
      start_step: the first step.
      part: of each batch; the rest is not decoded.

    Returns:
      A dataset of dicts: `image` [B, S, S, 3] float32 in 0..255, `landmarks` [B, K, 2] in
      network-crop pixels, `weights` [B, K], and what `network_example` lists.

    Raises:
      ValueError: as `steps_per_epoch`.
    """
    batch = recipe.batch_size
    steps = steps_per_epoch(split, recipe)
    first_epoch, first_batch = divmod(start_step, steps)
    passes = -(-steps * batch // split.examples)
    order, read = epoch_order(split, recipe.data, recipe.seed)
    misplaced = _misplacing(split, recipe)

    def one_pass(number: tf.Tensor) -> tf.data.Dataset:
        return order(number).map(lambda item: (item, number))

    def epoch_examples(epoch: tf.Tensor) -> tf.data.Dataset:
        numbers = tf.data.Dataset.range(epoch * passes, (epoch + 1) * passes)
        ordered = numbers.flat_map(one_pass)
        skipped = tf.where(epoch == first_epoch, first_batch * batch, 0)
        ordered = ordered.take(steps * batch).skip(tf.cast(skipped, tf.int64))
        if part != slice(None):
            ordered = (
                ordered.batch(batch).map(lambda *items: tuple(i[part] for i in items)).unbatch()
            )
        return ordered.map(lambda item, number: (read(item), number))

    def prepare(example: Tensors, number: tf.Tensor) -> Tensors:
        key = example_key(example["id"], recipe.seed, number)
        size, augmentation = recipe.image_size, recipe.augmentation
        result = network_example(example, split.landmark_set, size, augmentation, key)
        result["landmarks"] = misplaced(result["landmarks"], example, result["to_network"])
        return result

    return (
        tf.data.Dataset.range(first_epoch, recipe.epochs)
        .flat_map(epoch_examples)
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(len(range(batch)[part]), drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


@_as_written
def evaluation_batches(
    split: Split, size: int, batch_size: int, indices: Iterable[int] | None = None
) -> tf.data.Dataset:
    """Return all examples of a split, or those at `indices`, in its order; the last batch may be small.

    Args:
      split: whose examples.
      size: side of the network crops in pixels.
      batch_size: examples a batch.
      indices: places in the split; None: all.
    """
    stored = stored_examples(split)
    if indices is not None:
        wanted = tf.constant(list(indices), tf.int64)
        stored = stored.enumerate().filter(lambda index, _: tf.reduce_any(index == wanted))
        stored = stored.map(lambda _, example: example)

    def prepare(example: Tensors) -> Tensors:
        return network_example(example, split.landmark_set, size)

    return (
        stored.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


@_as_written
def augmented_labels(split: Split, recipe: Recipe, minimum: int = 20_000) -> tf.data.Dataset:
    """Return batches of augmented (landmarks [B, K, 2] in network-crop pixels, weights [B, K]).

    As many whole epochs as give at least `minimum` examples, but no more than 100; images are not
    decoded.
    """
    epochs = min(-(-minimum // split.examples), 100)
    misplaced = _misplacing(split, recipe)

    def prepare(example: Tensors, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        key = example_key(example["id"], recipe.seed, epoch)
        h, points, weights = _network_labels(
            example, split.landmark_set, recipe.image_size, recipe.augmentation, key
        )
        return misplaced(points, example, h), weights

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        return stored_examples(split).map(lambda example: (example, epoch))

    return (
        tf.data.Dataset.range(epochs)
        .flat_map(one_epoch)
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(1024)
    )


def readable(batches: Iterable[_Batch], split: Split) -> Iterator[_Batch]:
    """Yield the batches made from a split, and say which of its files is at fault if that fails.

    Raises:
      ValueError: if an example cannot be read, or the files hold more or fewer than the manifest says.
    """
    try:
        yield from batches
    except tf.errors.OpError as error:
        fault = _fault(split)
        if fault is None:
            raise
        raise ValueError(f"{fault}; convert the data set again") from error


def steps_per_epoch(split: Split, recipe: Recipe) -> int:
    """Return the steps of an epoch: those asked for, or the full batches in one pass over the split.

    Raises:
      ValueError: if none are asked for and the split is smaller than one batch.
    """
    steps = recipe.steps or split.examples // recipe.batch_size
    if steps == 0:
        raise ValueError(
            f"split {split.name!r} of {split.directory} holds {split.examples} examples, fewer than "
            f"train.batch_size = {recipe.batch_size}; lower it with --set train.batch_size=N, or say how "
            "many steps an epoch has with --set train.steps_per_epoch=N"
        )
    return steps


def network_example(
    example: Tensors,
    landmark_set: LandmarkSet,
    size: int,
    augmentation: Augmentation | None = None,
    key: tf.Tensor | None = None,
) -> Tensors:
    """Return one parsed record in the network crop's frame, augmented if `augmentation` is given.

    Args:
      example: as `records.parse` returns it; `image` may be decoded.
      landmark_set: the data set's landmarks.
      size: side of the network crop in pixels.
      augmentation: how far the random map may go; None gives the plain crop.
      key: [2] seed of the random map.

    Returns:
      `image` [size, size, 3] float32 in 0..255; `landmarks` [K, 2] in network-crop pixels;
      `weights` [K]; `to_network` [3, 3], the map from the original image to the network crop;
      `landmarks_original` [K, 2] and `normalizer` in original pixels; `attributes` [A]; `id`; `box`.
    """
    h, points, weights = _network_labels(example, landmark_set, size, augmentation, key)
    image = _network_image(example["image"], compose(h, example["crop_to_original"]), size)
    return {
        "image": random_appearance(image, key, augmentation),
        "landmarks": points,
        "weights": weights,
        "to_network": h,
        "landmarks_original": example["landmarks"],
        "normalizer": example["normalizer"],
        "attributes": example["attributes"],
        "box": example["box"],
        "id": example["id"],
    }


def _network_image(stored: tf.Tensor, h: tf.Tensor, size: int) -> tf.Tensor:
    """Return the crop that a map `h` from the stored image makes; a JPEG's unseen parts stay coded."""
    if stored.dtype == tf.string:
        part, h = visible_part(tf.io.extract_jpeg_shape(stored), h, size)
        return warp(tf.image.decode_and_crop_jpeg(stored, part, channels=3), h, size)
    part, h = visible_part(tf.shape(stored), h, size)
    y, x, height, width = tf.unstack(part)
    return warp(stored[y : y + height, x : x + width], h, size)


def _network_labels(
    example: Tensors,
    landmark_set: LandmarkSet,
    size: int,
    augmentation: Augmentation | None,
    key: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the map from the original image to the network crop, and labels and weights in that crop."""
    h = box_to_crop(example["box"], size, landmark_set.square)
    weights = example["weights"]
    if augmentation is None:
        return h, apply_map(h, example["landmarks"]), weights
    # With others in the image, a shift could bring one of them to the crop's centre.
    shift = landmark_set.shift_in_company or example["people"] <= 1
    random, mirrored = random_map(key, size, augmentation, shift)
    h = compose(random, h)
    points = apply_map(h, example["landmarks"])
    mirror = tf.constant(landmark_set.mirror)
    points = tf.where(mirrored, tf.gather(points, mirror), points)
    weights = tf.where(mirrored, tf.gather(weights, mirror), weights)
    if augmentation.equal_spacing:
        for first, last in landmark_set.contours:
            points = space_contour(points, weights, first, last)
    return h, points, weights


def _misplacing(split: Split, recipe: Recipe) -> Callable[..., tf.Tensor]:
    """Return `misplace` for a split."""
    return functools.partial(
        misplace,
        landmark_set=split.landmark_set,
        size=recipe.image_size,
        share=recipe.data.wrong_labels,
        seed=recipe.seed,
    )


def _fault(split: Split) -> str | None:
    """Return what is wrong with a split's files, found by reading every example; None if nothing is."""
    total = 0
    for path in split.paths:
        count = 0
        try:
            for serialized in tf.data.TFRecordDataset(path):
                example = records.parse(serialized, split.landmark_set)
                network_example(example, split.landmark_set, 32)
                count += 1
        except tf.errors.OpError as error:
            return f"{path} is damaged after {count} examples ({reason(error)})"
        total += count
    if total == split.examples:
        return None
    return (
        f"split {split.name!r} of {split.directory} holds {total} examples, but its manifest says "
        f"{split.examples}"
    )
