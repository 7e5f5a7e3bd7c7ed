"""The order in which an epoch of training sees the examples of a split."""

from collections.abc import Callable

import tensorflow as tf

from tfhuber.config.schema import Data
from tfhuber.data import records
from tfhuber.data.decoded_cache import keep_decoded
from tfhuber.data.split import Split, stored_examples, stored_records

__all__ = ["epoch_order", "interleaved_records"]


def epoch_order(
    split: Split, data: Data, seed: int
) -> tuple[Callable[[tf.Tensor], tf.data.Dataset], Callable[[tf.Tensor], dict[str, tf.Tensor]]]:
    """Return a function from an epoch to a dataset of items in its order, and one from item to example.

    A split no larger than the buffer is shuffled as a whole, and kept in memory decoded if it fits. Of
    a larger one, shards are shuffled and interleaved, and of that stream each block of that many
    examples is shuffled by a permutation of its own.
    """
    buffer = data.shuffle_buffer

    def key(epoch: tf.Tensor, block: tf.Tensor | int = 0) -> tf.Tensor:
        # No run has 2**32 epochs; the first block's key, often the only one, is that of the epoch.
        return tf.stack([tf.cast(seed, tf.int64), epoch + block * 2**32])

    def read(record: tf.Tensor) -> dict[str, tf.Tensor]:
        return records.parse(record, split.landmark_set)

    def shuffled_places(epoch: tf.Tensor) -> tf.data.Dataset:
        places = tf.range(split.examples, dtype=tf.int64)
        places = tf.random.experimental.stateless_shuffle(places, key(epoch))
        return tf.data.Dataset.from_tensor_slices(places)

    def shuffled_records(epoch: tf.Tensor) -> tf.data.Dataset:
        if split.examples <= buffer:
            stored = stored_records(split)
        else:
            stored = interleaved_records(split, key(epoch))
        return (
            stored.batch(min(buffer, split.examples))
            .enumerate()
            .map(lambda i, block: tf.random.experimental.stateless_shuffle(block, key(epoch, i)))
            .unbatch()
        )

    if split.examples <= buffer and data.cache_gigabytes:
        example = keep_decoded(stored_examples(split), data.cache_gigabytes)
        if example is not None:
            return shuffled_places, example
    return shuffled_records, read


def interleaved_records(split: Split, key: tf.Tensor) -> tf.data.Dataset:
    """Return the split's serialized examples, from 16 shards at a time in an order that `key` decides."""
    paths = tf.constant(split.paths)

    def shard(i: tf.Tensor) -> tf.Tensor:
        return paths[tf.random.experimental.index_shuffle(i, key, len(split.paths) - 1)]

    return (
        tf.data.Dataset.range(len(split.paths))
        .map(shard)
        .interleave(tf.data.TFRecordDataset, cycle_length=16, block_length=16)
        .apply(tf.data.experimental.assert_cardinality(split.examples))
    )
