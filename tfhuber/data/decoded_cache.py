"""Stored crops decoded once and kept in memory, where they fit."""

from collections.abc import Callable

import tensorflow as tf

__all__ = ["keep_decoded"]


def keep_decoded(
    examples: tf.data.Dataset, gigabytes: float
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]] | None:
    """Return a function from an example's place to the example with its `image` decoded, [H, W, 3] uint8.

    Args:
      examples: all of them, as `records.parse` returns one.
      gigabytes: the most memory that the images may take.

    Returns:
      The function, for use in a graph as well. None where the images would take more than that, or one
      cannot be read: an ordinary pass through the examples says which.
    """
    try:
        if not _fit(examples, gigabytes):
            return None
        images = _list_of(examples.map(_decoded, num_parallel_calls=tf.data.AUTOTUNE))
        rest = examples.map(lambda e: {name: e[name] for name in e if name != "image"})
        columns = rest.batch(len(examples)).get_single_element()
    except tf.errors.OpError:
        return None

    def example(place: tf.Tensor) -> dict[str, tf.Tensor]:
        image = tf.raw_ops.TensorListGetItem(
            input_handle=images,
            index=tf.cast(place, tf.int32),
            element_shape=[-1, -1, 3],
            element_dtype=tf.uint8,
        )
        image.set_shape([None, None, 3])
        return {name: column[place] for name, column in columns.items()} | {"image": image}

    return example


def _fit(examples: tf.data.Dataset, gigabytes: float) -> bool:
    most = gigabytes * 1e9
    shapes = examples.map(lambda e: tf.io.extract_jpeg_shape(e["image"], output_type=tf.int64))
    # Of a data set that is far too large, the first ones settle it.
    size = 0
    for shape in shapes:
        size += int(tf.reduce_prod(shape))
        if size > most:
            return False
    return True


def _decoded(example: dict[str, tf.Tensor]) -> tf.Tensor:
    return tf.io.decode_jpeg(example["image"], channels=3)


def _list_of(images: tf.data.Dataset) -> tf.Tensor:
    """Return a tensor list: unlike a tensor, it holds images of any sizes, and gives one without a copy."""
    empty = tf.raw_ops.EmptyTensorList(
        element_shape=[-1, -1, 3], max_num_elements=-1, element_dtype=tf.uint8
    )
    return images.reduce(
        empty, lambda all, image: tf.raw_ops.TensorListPushBack(input_handle=all, tensor=image)
    )
