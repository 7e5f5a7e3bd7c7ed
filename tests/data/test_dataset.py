"""What a training step sees: dots where the labels say, each example once an epoch, resumable."""

import dataclasses
import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.python.framework import op_def_registry

from tfhuber.config import schema
from tfhuber.data import dataset, order, records
from tfhuber.data.augmentation import equal_spacing, random_map
from tfhuber.data.decoded_cache import keep_decoded
from tfhuber.landmarks import known_sets
from tfhuber.training.trainer import recipe_of


def _record_with_dots(points: np.ndarray, crop_to_original: np.ndarray, size=(260, 240), people=1):
    """A parsed record whose stored crop shows a soft dot at each of three landmarks' places."""
    stored = (np.c_[points, np.ones(len(points))] @ np.linalg.inv(crop_to_original).T)[:, :2]
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    image = np.zeros((size[1], size[0], 3))
    for channel, (px, py) in enumerate(stored):
        image[..., channel] = 255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 3.0**2))
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "jpeg", quality=98, subsampling=0)
    k = known_sets.MPII.count
    all_points, weights = np.zeros((k, 2)), np.zeros(k)
    all_points[:3], weights[:3] = points, 1
    serialized = records.encode(
        id="dots#1",
        image=file.getvalue(),
        landmarks=all_points,
        weights=weights,
        box=np.array([100, 100, 300, 300]),
        crop_to_original=crop_to_original,
        normalizer=50.0,
        attributes=np.zeros(0),
        image_size=(400, 400),
        people=people,
    )
    return records.parse(tf.constant(serialized), known_sets.MPII)


def _centroids(image: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    mass = np.where(image > 10, image, 0).astype(np.float64)
    total = mass.sum((0, 1))
    return (
        np.stack([(x[..., None] * mass).sum((0, 1)), (y[..., None] * mass).sum((0, 1))], 1)
        / total[:, None]
    )


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_drawn_dots_land_on_the_augmented_labels(in_pipeline):
    # The stored crop is a part of the original at 0.8 of its scale, not quite the same in x and y.
    crop_to_original = np.array([[1.25, 0, 40.0], [0, 1.24, 55.0], [0, 0, 1]])
    example = _record_with_dots(np.array([[170.0, 180], [230, 160], [205, 240]]), crop_to_original)
    # Weak perspective: a dot's centroid is its centre's image only where the map is nearly affine.
    options = schema.Augmentation(perspective=0.02)
    mirror = np.array(known_sets.MPII.mirror)
    seen = set()
    for i in range(12):
        key = tf.constant([i, 5], tf.int64)

        def make(example, key=key):
            return dataset.network_example(example, known_sets.MPII, 128, options, key)

        if in_pipeline:
            found = next(iter(tf.data.Dataset.from_tensors(example).map(make)))
        else:
            found = make(example)
        mirrored = bool(random_map(key, 128, options)[1])
        seen.add(mirrored)
        where = mirror[:3] if mirrored else np.arange(3)
        np.testing.assert_array_equal(np.flatnonzero(found["weights"]), np.sort(where))
        expected = found["landmarks"].numpy()[where]
        np.testing.assert_allclose(_centroids(found["image"].numpy()), expected, atol=0.25)
        original = tf.linalg.inv(found["to_network"]).numpy() @ np.c_[expected, np.ones(3)].T
        np.testing.assert_allclose(
            (original[:2] / original[2]).T, example["landmarks"].numpy()[:3], atol=1e-2
        )
    assert seen == {False, True}


@pytest.mark.parametrize(
    ("landmark_set", "people", "shifts"), [("mpii", 1, True), ("mpii", 2, False)]
)
def test_nobody_else_is_shifted_to_the_centre(landmark_set, people, shifts):
    """The recipe's bodies: no shift when the image holds several people, whose joints have no label."""
    example = _record_with_dots(np.full((3, 2), 200.0), np.diag([1.25, 1.24, 1]), people=people)
    options = schema.Augmentation(
        mirror=0, rotation_degrees=0, scale=1, perspective=0, equal_spacing=False
    )
    key = tf.constant([3, 5], tf.int64)
    found = dataset.network_example(example, known_sets.get(landmark_set), 128, options, key)
    moved = np.abs(found["landmarks"].numpy()[:3] - 63.5).max()
    assert (moved > 0.5) == shifts and (moved < 1e-3) != shifts


def _ids(batches) -> list[list[str]]:
    return [[i.decode() for i in batch["id"].numpy()] for batch in batches]


def _flat(batches: list[list[str]]) -> list[str]:
    return [example for batch in batches for example in batch]


def _reading(config_, **changes):
    """The configuration with changes of its section `data`."""
    return config_.model_copy(update={"data": config_.data.model_copy(update=changes)})


@pytest.mark.parametrize("buffer", [20, 8192])
def test_every_epoch_has_each_example_once_in_an_order_of_its_own(tiny_config, buffer):
    tiny_config = _reading(tiny_config, shuffle_buffer=buffer)
    split = dataset.open_split(tiny_config.data.directory, "train")
    steps = dataset.steps_per_epoch(split, recipe_of(tiny_config))
    batches = _ids(dataset.training_batches(split, recipe_of(tiny_config)))
    assert len(batches) == 2 * steps and steps == split.examples // 8
    epochs = [_flat(batches[:steps]), _flat(batches[steps:])]
    for ids in epochs:
        assert len(set(ids)) == len(ids) == 8 * steps
    assert epochs[0] != epochs[1]
    assert _ids(dataset.training_batches(split, recipe_of(tiny_config))) == batches


def test_blocks_of_an_epoch_have_permutations_of_their_own(tiny_config):
    """The first block, which is all there is of a small split, keeps the one that runs so far had."""
    config = _reading(tiny_config, shuffle_buffer=16, cache_gigabytes=0)
    split = dataset.open_split(config.data.directory, "train")
    key = tf.constant([config.train.seed, 0], tf.int64)
    stream = list(order.interleaved_records(split, key).as_numpy_iterator())
    epoch, _ = order.epoch_order(split, config.data, config.train.seed)
    shuffled = list(epoch(tf.constant(0, tf.int64)).as_numpy_iterator())
    blocks = range(0, len(stream) - 15, 16)
    places = [[stream.index(r) - start for r in shuffled[start : start + 16]] for start in blocks]
    assert all(sorted(block) == list(range(16)) for block in places) and len(places) == 2
    assert places[0] != places[1]
    expected = tf.random.experimental.stateless_shuffle(tf.range(16), key)
    assert places[0] == expected.numpy().tolist()


@pytest.mark.parametrize("kept", [0, 2])
def test_a_split_of_one_block_keeps_the_order_that_runs_so_far_had(tiny_config, kept):
    config = _reading(tiny_config, cache_gigabytes=kept)
    split = dataset.open_split(config.data.directory, "train")
    stored = _flat(_ids(dataset.evaluation_batches(split, 32, 8)))
    trained = _flat(_ids(dataset.training_batches(split, recipe_of(config))))
    length = len(trained) // 2
    for epoch in (0, 1):
        key = tf.constant([config.train.seed, epoch], tf.int64)
        places = tf.random.experimental.stateless_shuffle(tf.range(len(stored)), key)[:length]
        assert trained[epoch * length :][:length] == [stored[place] for place in places]


def _training(config_, **changes):
    return config_.model_copy(update={"train": config_.train.model_copy(update=changes)})


def test_batches_fill_up_over_passes(tiny_config):
    """7 steps of 24 examples take several passes over 43 examples, each in an order of its own."""
    tiny_config = _training(tiny_config, steps_per_epoch=7, batch_size=24)
    split = dataset.open_split(tiny_config.data.directory, "train")
    count = split.examples
    batches = _ids(dataset.training_batches(split, recipe_of(tiny_config)))
    assert [len(batch) for batch in batches] == [24] * 14
    for epoch in (_flat(batches[:7]), _flat(batches[7:])):
        passes = [epoch[i : i + count] for i in range(0, len(epoch), count)]
        assert all(len(set(ids)) == len(ids) for ids in passes)
        assert len({tuple(ids) for ids in passes}) == len(passes) > 1


def test_passes_of_an_epoch_are_augmented_differently(tiny_config):
    """Both epochs of an ordinary run are the two passes of an epoch of twice as many steps."""
    split = dataset.open_split(tiny_config.data.directory, "train")
    tiny_config = _training(tiny_config, batch_size=1)  # which leaves no example over
    two = list(dataset.training_batches(split, recipe_of(tiny_config)))
    once = _training(tiny_config, epochs=1, steps_per_epoch=2 * split.examples)
    for ours, theirs in zip(dataset.training_batches(split, recipe_of(once)), two, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])


@pytest.mark.parametrize("start", [1, 5, 8])
@pytest.mark.parametrize(
    "reading", [{}, {"cache_gigabytes": 0}, {"shuffle_buffer": 20}, {"steps_per_epoch": 9}]
)
def test_starting_at_any_step_continues_the_same_sequence(tiny_config, start, reading):
    change = _training if "steps_per_epoch" in reading else _reading
    tiny_config = change(tiny_config, **reading)
    split = dataset.open_split(tiny_config.data.directory, "train")
    whole = list(dataset.training_batches(split, recipe_of(tiny_config)))
    rest = list(dataset.training_batches(split, recipe_of(tiny_config), start_step=start))
    assert len(rest) == len(whole) - start
    for ours, theirs in zip(rest, whole[start:], strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("part", [slice(None), slice(3, 5)])
def test_keeping_crops_decoded_changes_nothing(tiny_config, part):
    split = dataset.open_split(tiny_config.data.directory, "train")
    kept, read = (
        list(
            dataset.training_batches(
                split,
                recipe_of(_reading(tiny_config, cache_gigabytes=gigabytes)),
                start_step=2,
                part=part,
            )
        )
        for gigabytes in (2, 0)
    )
    assert len(kept) == len(read) > 3
    for ours, theirs in zip(kept, read, strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_crops_are_kept_only_if_they_fit_and_can_be_read(tiny_config):
    split = dataset.open_split(tiny_config.data.directory, "train")
    stored = [
        records.parse(serialized, split.landmark_set)
        for serialized in tf.data.TFRecordDataset(split.paths)
    ]
    sizes = [tf.io.decode_jpeg(example["image"]).numpy().size for example in stored]

    def examples(images):
        return tf.data.Dataset.from_tensor_slices(
            {
                "image": tf.stack(images),
                "id": tf.stack([example["id"] for example in stored]),
                "landmarks": tf.stack([example["landmarks"] for example in stored]),
            }
        )

    good = examples([example["image"] for example in stored])
    assert keep_decoded(good, (sum(sizes) - 1) / 1e9) is None
    kept = keep_decoded(good, sum(sizes) / 1e9)
    for place in (0, 7, len(stored) - 1):
        image = tf.io.decode_jpeg(stored[place]["image"], channels=3)
        np.testing.assert_array_equal(kept(tf.constant(place))["image"], image)
        assert kept(tf.constant(place))["id"] == stored[place]["id"]
    damaged = [example["image"] for example in stored[:-1]] + [tf.constant(b"no picture")]
    assert keep_decoded(examples(damaged), 2.0) is None


@pytest.mark.parametrize("gigabytes", [0, 2])
def test_deterministic_input_may_use_all_cores(tiny_config, gigabytes):
    # An operation with a state, be it an assertion, would have all of it run one step at a time.
    split = dataset.open_split(tiny_config.data.directory, "train")
    batches = dataset.training_batches(
        split, recipe_of(_reading(tiny_config, cache_gigabytes=gigabytes))
    )
    graph = tf.compat.v1.GraphDef.FromString(batches._as_serialized_graph().numpy())
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    names = {node.op for node in nodes}
    assert "ImageProjectiveTransformV3" in names
    stateful = {name for name in names if op_def_registry.get(name).is_stateful}
    assert {name for name in stateful if "Dataset" not in name} <= {"_Retval"}


def test_evaluation_sees_every_example_in_the_order_of_the_files(tiny_config):
    split = dataset.open_split(tiny_config.data.directory, "test")
    ids = _flat(_ids(dataset.evaluation_batches(split, 32, 8)))
    stored = [
        records.parse(serialized, split.landmark_set)["id"].numpy().decode()
        for serialized in tf.data.TFRecordDataset(split.paths)
    ]
    assert ids == stored and len(ids) == split.examples


def test_augmented_labels_are_those_of_training(tiny_config):
    split = dataset.open_split(tiny_config.data.directory, "train")
    labels = list(dataset.augmented_labels(split, recipe_of(tiny_config), minimum=1))
    points = {tuple(np.round(p, 2).ravel()[:4]) for batch, _ in labels for p in batch.numpy()}
    first_epoch = list(dataset.training_batches(split, recipe_of(tiny_config)))[
        : split.examples // 8
    ]
    trained = [
        tuple(np.round(p, 2).ravel()[:4]) for b in first_epoch for p in b["landmarks"].numpy()
    ]
    assert len(set(trained) & points) >= 0.9 * len(trained)


def test_only_the_jaw_is_spaced_evenly(tiny_config):
    split = dataset.open_split(tiny_config.data.directory, "train")
    plain = tiny_config.augmentation.model_copy(update={"equal_spacing": False})
    plain = tiny_config.model_copy(update={"augmentation": plain})
    before = next(iter(dataset.training_batches(split, recipe_of(plain))))["landmarks"].numpy()
    after = next(iter(dataset.training_batches(split, recipe_of(tiny_config))))["landmarks"].numpy()
    np.testing.assert_array_equal(before[:, 33:], after[:, 33:])
    for first, last in ((0, 16), (16, 32)):
        part = slice(first, last + 1)
        expected = np.stack([equal_spacing(tf.constant(p)) for p in before[:, part]])
        np.testing.assert_allclose(after[:, part], expected, atol=1e-4)
    assert np.abs(before[:, 1:16] - after[:, 1:16]).max() > 0.01


def test_wrong_labels_are_the_same_places_of_the_image_in_every_epoch(tiny_config):
    """About 30 % of 40 x 98 landmarks: 1,176 +- 29, within four deviations."""
    data = tiny_config.data.model_copy(update={"wrong_labels": 0.3})
    wrong_config = tiny_config.model_copy(update={"data": data})
    split = dataset.open_split(tiny_config.data.directory, "train")
    mirror = np.array(split.landmark_set.mirror)
    misplaced = {}
    batches = zip(
        dataset.training_batches(split, recipe_of(tiny_config)),
        dataset.training_batches(split, recipe_of(wrong_config)),
        strict=True,
    )
    for clean, wrong in batches:
        np.testing.assert_array_equal(clean["image"], wrong["image"])
        np.testing.assert_array_equal(clean["landmarks_original"], wrong["landmarks_original"])
        for i, name in enumerate(wrong["id"].numpy()):
            h = wrong["to_network"][i].numpy()
            changed = (wrong["landmarks"][i] != clean["landmarks"][i]).numpy().any(-1)
            points = np.c_[wrong["landmarks"][i], np.ones(len(changed))] @ np.linalg.inv(h).T
            points = points[:, :2] / points[:, 2:]
            if np.linalg.det(h) < 0:
                changed, points = changed[mirror], points[mirror]
            misplaced.setdefault(name, []).append(np.where(changed[:, None], points, 0))
    twice = [places for places in misplaced.values() if len(places) == 2]
    assert len(twice) >= 30
    for first, second in twice:
        np.testing.assert_allclose(first, second, atol=0.05)
    share = np.mean([places[0].any(-1) for places in misplaced.values()])
    assert share == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / (len(misplaced) * 98)))
    first = next(iter(dataset.augmented_labels(split, recipe_of(wrong_config), minimum=1)))[
        0
    ].numpy()
    clean = next(iter(dataset.augmented_labels(split, recipe_of(tiny_config), minimum=1)))[
        0
    ].numpy()
    assert np.mean((first != clean).any(-1)) == pytest.approx(share, abs=0.02)


def test_a_split_smaller_than_a_batch_is_refused(tiny_config):
    train = tiny_config.train.model_copy(update={"batch_size": 4000})
    split = dataset.open_split(tiny_config.data.directory, "train")
    with pytest.raises(ValueError, match=r"fewer than train\.batch_size"):
        dataset.training_batches(split, recipe_of(tiny_config.model_copy(update={"train": train})))


def test_unusable_data_sets_are_named(tiny_config, tmp_path):
    with pytest.raises(ValueError, match="make_tfrecords"):
        dataset.open_split(tmp_path, "train")
    with pytest.raises(ValueError, match=r"split 'valid' .* train, test"):
        dataset.open_split(tiny_config.data.directory, "valid")
    manifest = records.read_manifest(tiny_config.data.directory)
    (tmp_path / records.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="is missing"):
        dataset.open_split(tmp_path, "train")
    (tmp_path / records.MANIFEST).write_text(
        '{"format": 99, "splits": {"a": 1}, "landmark_set": "x"}'
    )
    with pytest.raises(ValueError, match="format 99"):
        dataset.open_split(tmp_path, "train")
    (tmp_path / records.MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        dataset.open_split(tmp_path, "train")


@pytest.mark.parametrize("image", [b"", b"no picture", b"\xff\xd8\xff\xe0 half a picture"])
def test_a_damaged_picture_is_named(tiny_config, tmp_path, image):
    split = dataset.open_split(tiny_config.data.directory, "train")
    (first, second), rest = split.paths[:2], split.paths[2:]
    damaged = tmp_path / "damaged.tfrecord"
    with tf.io.TFRecordWriter(str(damaged)) as writer:
        for i, serialized in enumerate(tf.data.TFRecordDataset(second)):
            example = tf.train.Example.FromString(serialized.numpy())
            if i == 1:
                example.features.feature["image"].bytes_list.value[0] = image
            writer.write(example.SerializeToString())
    split = dataclasses.replace(split, paths=[first, str(damaged), *rest])
    batches = dataset.readable(dataset.evaluation_batches(split, 32, 8), split)
    with pytest.raises(ValueError, match=r"damaged\.tfrecord is damaged after 1 examples \("):
        list(batches)


def test_an_error_that_is_not_the_files_stays_as_it_is(tiny_config):
    split = dataset.open_split(tiny_config.data.directory, "test")

    def failing():
        yield 1
        raise tf.errors.ResourceExhaustedError(None, None, "no memory")

    with pytest.raises(tf.errors.ResourceExhaustedError):
        list(dataset.readable(failing(), split))
