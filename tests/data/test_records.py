"""The record's schema: the bytes are TensorFlow's own, and damage is a ValueError that names it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conversion import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from tfhuber.data import records
from tfhuber.landmarks.known_sets import MPII, WFLW

KINDS = {"bytes": tf.train.BytesList, "float": tf.train.FloatList, "int64": tf.train.Int64List}


def values_for(landmark_set, seed=0):
    """What `encode` is given for an example."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 2, landmark_set.count)
    return {
        "id": f"Zoë/日本 {seed}.jpg#1",
        "image": rng.bytes(50),
        "landmarks": rng.normal(100, 80, (landmark_set.count, 2)) * weights[:, np.newaxis],
        "weights": weights,
        "box": rng.normal(100, 80, 4),
        "crop_to_original": rng.normal(size=(3, 3)),
        "normalizer": rng.uniform(0, 9),
        "attributes": rng.integers(0, 2, len(landmark_set.attributes)),
        "image_size": (1 << 40, 7),
        "people": 3,
    }


def feature(kind, values):
    return tf.train.Feature(**{f"{kind}_list": KINDS[kind](value=values)})


def tensorflows(values):
    """The example as TensorFlow's own classes make it."""
    features = {
        "id": feature("bytes", [values["id"].encode()]),
        "image": feature("bytes", [values["image"]]),
    }
    for name in ("landmarks", "weights", "box", "crop_to_original", "normalizer"):
        features[name] = feature("float", np.ravel(values[name]).astype(np.float32))
    for name in ("attributes", "image_size", "people"):
        features[name] = feature("int64", np.ravel(values[name]))
    return tf.train.Example(features=tf.train.Features(feature=features))


@pytest.mark.parametrize("landmark_set", [WFLW, MPII], ids=lambda s: s.name)
def test_tensorflow_makes_the_same_of_it(landmark_set):
    values = values_for(landmark_set)
    serialized, wanted = records.encode(**values), tensorflows(values)
    assert tf.train.Example.FromString(serialized) == wanted
    assert len(serialized) == len(wanted.SerializeToString())


@pytest.mark.parametrize("landmark_set", [WFLW, MPII], ids=lambda s: s.name)
def test_what_is_encoded_is_decoded_and_parsed(landmark_set):
    values = values_for(landmark_set)
    serialized = records.encode(**values)
    decoded, parsed = records.decode(serialized), records.parse(serialized, landmark_set)
    assert decoded.keys() == parsed.keys() == values.keys()
    assert decoded["id"].decode() == values["id"] and decoded["image"] == values["image"]
    for name in values.keys() - {"id", "image"}:
        kind = np.int64 if name in ("attributes", "image_size", "people") else np.float32
        assert decoded[name].dtype == kind and decoded[name].ndim == 1
        wanted = np.asarray(values[name], kind)
        np.testing.assert_array_equal(decoded[name], wanted.ravel())
        np.testing.assert_array_equal(parsed[name], wanted)
    assert parsed["id"].numpy() == decoded["id"] and parsed["image"].numpy() == decoded["image"]


def test_what_tensorflow_wrote_is_decoded():
    values = values_for(WFLW)
    decoded = records.decode(tensorflows(values).SerializeToString())
    assert records.encode(**decoded | {"id": decoded["id"].decode()}) == records.encode(**values)


def test_the_bytes_do_not_depend_on_protobufs_implementation():
    program = """
from tfhuber.data import records
numbers = dict.fromkeys(("landmarks", "weights", "box", "crop_to_original", "attributes"), [1, 0])
example = records.encode(id="a", image=b"b", normalizer=1, image_size=(2, 3), people=4, **numbers)
print(example.hex())
"""
    command = [sys.executable, "-c", program]
    ours, pure = (
        subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True).stdout
        for env in (os.environ, os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"})
    )
    assert ours == pure


def changed(name, value):
    example = tensorflows(values_for(WFLW))
    del example.features.feature[name]
    if value is not None:
        example.features.feature[name].CopyFrom(value)
    return example.SerializeToString()


@pytest.mark.parametrize(
    "serialized, fault",
    [(changed(name, None), f"{name!r} is missing") for name in values_for(WFLW)]
    + [
        (changed("id", feature("int64", [1])), "'id' .* does not hold bytes values"),
        (changed("box", feature("int64", [1, 2, 3, 4])), "'box' .* does not hold float values"),
        (changed("people", feature("float", [1])), "'people' .* does not hold int64 values"),
        (changed("id", feature("bytes", [b"a", b"b"])), "'id' holds 2 values instead of one"),
        (changed("image", feature("bytes", [])), "'image' holds 0 values instead of one"),
        (b"", "'attributes' is missing"),
        (b"no protocol buffer", "no tf.train.Example"),
        (records.encode(**values_for(WFLW))[:-1], "no tf.train.Example"),
    ],
)
def test_damage_is_named(serialized, fault):
    with pytest.raises(ValueError, match=fault):
        records.decode(serialized)


@given(st.binary(max_size=60) | st.integers(0, 2000))
@settings(max_examples=200)
def test_damage_is_a_value_error_or_decodes(damage):
    whole = records.encode(**values_for(MPII))
    serialized = damage if isinstance(damage, bytes) else whole[:damage] + whole[damage + 1 :]
    try:
        decoded = records.decode(serialized)
    except ValueError:
        return
    assert decoded.keys() == values_for(MPII).keys()


@pytest.mark.parametrize("name", ["landmarks", "weights", "box", "crop_to_original", "normalizer"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_not_parsed(name, value):
    values = values_for(WFLW)
    values[name] = np.full_like(np.asarray(values[name], float), value)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name} is not finite"):
        records.parse(records.encode(**values), WFLW)


def test_another_landmark_sets_example_is_not_parsed():
    with pytest.raises(tf.errors.InvalidArgumentError):
        records.parse(records.encode(**values_for(MPII)), WFLW)
