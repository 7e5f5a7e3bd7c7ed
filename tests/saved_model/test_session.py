"""An exported model through a v1 Session, and in a process of its own."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tfhuber.saved_model import session


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A SavedModel that doubles `x`, or says how long strings are."""
    module = tf.Module()
    numbers = tf.function(
        lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
    )
    strings = tf.function(
        lambda s: {"length": tf.strings.length(s)},
        input_signature=[tf.TensorSpec([None], tf.string, name="s")],
    )
    directory = tmp_path_factory.mktemp("model")
    tf.saved_model.save(
        module, str(directory), signatures={"serving_default": numbers, "strings": strings}
    )
    return directory


def test_answers_to_several_requests(model):
    words = np.array([b"", b"four"], object)
    requests = [("serving_default", {"x": np.ones(3, np.float32)}), ("strings", {"s": words})]
    numbers, lengths = session.answers(model, requests)
    np.testing.assert_array_equal(numbers["y"], [2, 2, 2])
    np.testing.assert_array_equal(lengths["length"], [0, 4])


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        ("median", {}, "it has no signature 'median'; export the model again"),
        ("serving_default", {"z": np.ones(3, np.float32)}, r"takes \['x'\], got \['z'\]"),
        ("serving_default", {}, r"takes \['x'\], got \[\]"),
        ("serving_default", {"x": np.ones([3, 1], np.float32)}, "shape"),
        ("serving_default", {"x": np.array(["a"], object)}, "could not convert"),
    ],
    ids=range(5),
)
def test_requests_that_cannot_be_answered(model, signature, inputs, message):
    with pytest.raises(ValueError, match=f"{model}: .*{message}"):
        session.answers(model, [(signature, inputs)])


def test_the_graph_alone_refuses(model):
    """Two dimensions are not what `x` is declared with, and nothing that doubling minds."""
    loaded = session.SavedModel(model)
    for shape in ([3], [3, 1]):
        doubled = loaded.run("serving_default", {"x": np.ones(shape, np.float32)})["y"]
        np.testing.assert_array_equal(doubled, np.full(shape, 2.0))
    with pytest.raises(tf.errors.InvalidArgumentError, match="float"):
        loaded.run("serving_default", {"x": np.ones(3, np.int64)})


def test_a_fresh_process_answers_fails_and_dies(model):
    request = "serving_default", {"x": np.array([1.5], np.float32)}
    with session.fresh_process() as call:
        assert call(os.getpid) != os.getpid()
        assert call(session.answers, model, [request])[0]["y"] == [3.0]
        with pytest.raises(ValueError, match="no signature"):
            call(session.answers, model, [("median", {})])
        with pytest.raises(ValueError, match="the process that loaded the model has died"):
            call(os._exit, 1)


def test_what_is_no_model(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"junk")
    with pytest.raises(ValueError, match=str(tmp_path)):
        session.answers(tmp_path, [])
