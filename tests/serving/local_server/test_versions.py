"""SavedModels in v1 sessions, and the versions of a directory as they come, break and go."""

import gc
import logging
import shutil
import threading
import weakref

import numpy as np
import pytest
import tensorflow as tf
from fake_server import COUNT, save_toy

from serving.errors import RequestError
from serving.local_server.saved_model import SavedModel
from serving.local_server.versions import ModelVersions
from tfhuber.saved_model import warmup

v1 = tf.compat.v1


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    directory = tmp_path_factory.mktemp("toy") / "1"
    save_toy(directory)
    return directory


@pytest.fixture(scope="module")
def model(toy):
    return SavedModel(toy)


def publish(toy, base, version):
    """Writes a version aside and renames it in."""
    shutil.copytree(toy, base / "incoming")
    (base / "incoming").rename(base / version)


def states(versions):
    return [(status.version, status.state) for status in versions.statuses()]


# --- one version


def test_inputs_and_signatures_are_described(model):
    assert model.input_types("serving_default") == {"box": "float32", "image_bytes": "string"}
    described = model.describe_signatures()["serving_default"]
    assert described["method_name"] == "tensorflow/serving/predict"
    assert described["inputs"]["box"]["dtype"] == "DT_FLOAT"
    assert described["inputs"]["box"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": "4", "name": ""}],
        "unknown_rank": False,
    }
    sizes = [dim["size"] for dim in described["outputs"]["covariance"]["tensor_shape"]["dim"]]
    assert sizes == ["-1", "98", "2", "2"]


def test_a_signature_runs(model):
    box = np.float32([[10, 20, 30, 60], [0, 0, 2, 2]])
    images = np.array([b"no picture", b""], dtype=object)
    outputs = model.run("serving_default", {"box": box, "image_bytes": images})
    assert list(outputs) == ["covariance", "landmarks", "valid"]
    assert outputs["landmarks"].shape == (2, COUNT, 2)
    np.testing.assert_allclose(outputs["landmarks"].mean(1), [[20, 40], [1, 1]], atol=1e-4)
    np.testing.assert_allclose(outputs["covariance"][0, 5], np.diag([0.04, 0.16]), atol=1e-6)
    assert outputs["valid"].tolist() == [False, False]
    np.testing.assert_array_equal(model.run("double", {"x": box[:, :3]})["y"], 2 * box[:, :3])


def test_an_unknown_signature_is_refused(model):
    with pytest.raises(RequestError, match='"x" not found in signature def') as caught:
        model.input_types("x")
    assert caught.value.status == 400


def test_what_the_graph_refuses_is_a_bad_request(model):
    junk = np.array([b"junk"], dtype=object)
    with pytest.raises(RequestError) as caught:
        model.run("strict", {"image_bytes": junk})
    assert caught.value.status == 400
    assert caught.value.message == "Invalid JPEG data, size 4"


def test_several_threads_share_a_model(model):
    """4 threads, 50 runs each; each must get the answer to its own question."""
    failures = []

    def ask(number):
        x = np.full([2, 3], number, np.float32)
        for _ in range(50):
            if not np.array_equal(model.run("double", {"x": x})["y"], 2 * x):
                failures.append(number)

    threads = [threading.Thread(target=ask, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# --- models of other kinds


def save_v1(directory, dtype, shape, function, *, change=None):
    """Writes a v1 graph: y is a function of a placeholder x; `change` alters the signature."""
    with tf.Graph().as_default(), v1.Session() as session:
        placeholder = v1.placeholder if shape != "sparse" else v1.sparse_placeholder
        x = placeholder(dtype, None if shape == "sparse" else shape, name="x")
        y = function(x)
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.build_signature_def(
            {"x": v1.saved_model.build_tensor_info(x)},
            {"y": v1.saved_model.build_tensor_info(y)},
            v1.saved_model.PREDICT_METHOD_NAME,
        )
        if change:
            change(signature)
        builder = v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()


def run_v1(directory, function, x, shape=(None,), **options):
    save_v1(
        directory / "1", x.dtype if x.dtype != object else tf.string, shape, function, **options
    )
    return SavedModel(directory / "1").run("serving_default", {"x": x})["y"]


@pytest.mark.parametrize(
    ("function", "x", "shape", "y"),
    [
        (tf.strings.reduce_join, np.array([b"a", b"b"], object), [None], b"ab"),
        (tf.strings.lower, np.array(b"A", object), None, b"a"),
    ],
)
def test_a_string_of_rank_0_is_an_array(tmp_path, function, x, shape, y):
    array = run_v1(tmp_path, function, x, shape)
    assert (array.shape, array.dtype, array.item()) == ((), object, y)


def test_what_a_v1_graph_refuses_is_told_in_the_runtimes_words(tmp_path):
    def lookup(x):
        return tf.gather([1.0, 2.0, 3.0], x, name="lookup")

    with pytest.raises(RequestError) as caught:
        run_v1(tmp_path, lookup, np.int32([7]))
    assert caught.value.message == "indices[0] = 7 is not in [0, 3)"
    assert caught.value.status == 400


def test_a_tensor_of_another_type_is_not_cast(model):
    for x in (np.ones([1, 3]), np.ones([1, 3], np.int64)):
        with pytest.raises(RequestError) as caught:
            model.run("double", {"x": x})
        assert "expect float" in caught.value.message
        assert caught.value.status == 400


def test_a_version_whose_warm_up_has_another_type_does_not_serve(toy, tmp_path):
    publish(toy, tmp_path, "1")
    warmup.write(tmp_path / "1", [("double", {"x": np.ones([1, 3], np.int64)})])
    versions = ModelVersions("toy", tmp_path)
    versions.poll()
    (status,) = versions.statuses()
    assert (status.state, status.error_code) == ("END", "INVALID_ARGUMENT")
    assert status.error_message == "Type mismatch: actual int64 vs. expect float"


@pytest.mark.parametrize("shape", [(), (0,), (2,), (1, 2), (3, 1, 3)])
def test_shapes_are_the_graphs_business(model, shape):
    """As in TensorFlow Serving, which the signature's [?, 3] does not stop."""
    x = np.ones(shape, np.float32)
    np.testing.assert_array_equal(model.run("double", {"x": x})["y"], 2 * x, strict=True)


def _missing(signature):
    signature.outputs["y"].name = "gone:0"


@pytest.mark.parametrize(
    ("function", "shape", "change", "message"),
    [
        (lambda x: x, [None], None, "x:0 is both fed and fetched."),
        (tf.sparse.from_dense, [None], None, "Tensor :0, specified in either"),
        (tf.sparse.to_dense, "sparse", None, "Tensor :0, specified in either"),
        (tf.abs, [None], _missing, "Tensor gone:0, specified in either"),
    ],
)
def test_signatures_that_cannot_be_asked_say_why(tmp_path, function, shape, change, message):
    with pytest.raises(RequestError) as caught:
        run_v1(tmp_path, function, np.float32([1]), shape, change=change)
    assert caught.value.status == 400 and caught.value.message.startswith(message)


@pytest.mark.parametrize("timeout_ms", [2**63 - 1, 10**20])
def test_a_time_limit_without_end_is_none(model, timeout_ms):
    x = np.ones([1, 3], np.float32)
    assert model.run("double", {"x": x}, timeout_ms=timeout_ms)["y"].tolist() == [[2, 2, 2]]


# --- versions


def test_the_highest_number_serves_and_takes_over(toy, tmp_path):
    for name in ("assets", "1.5", "-1", "v2", "²"):
        (tmp_path / name).mkdir()
    (tmp_path / "9").write_text("a file, no directory")
    publish(toy, tmp_path, "2")
    publish(toy, tmp_path, "10")
    versions = ModelVersions("toy", tmp_path)
    assert versions.serving is None and versions.get() is None and versions.statuses() == []

    versions.poll()
    assert versions.serving == 10 and states(versions) == [(10, "AVAILABLE")]
    number, first = versions.get()
    assert number == 10 and versions.get(10)[1] is first and versions.get(2) is None

    publish(toy, tmp_path, "0011")
    versions.poll()
    assert states(versions) == [(11, "AVAILABLE"), (10, "END")]
    assert versions.serving == 11 and versions.get(10) is None

    # A request that was under way still gets its answer; then the old version goes.
    assert first.run("double", {"x": np.ones([1, 3], np.float32)})["y"].tolist() == [[2, 2, 2]]
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None

    shutil.rmtree(tmp_path / "0011")
    versions.poll()
    assert states(versions) == [(11, "END"), (10, "AVAILABLE")]


def test_a_broken_version_is_reported_and_the_old_one_serves(toy, tmp_path, caplog):
    publish(toy, tmp_path, "1")
    versions = ModelVersions("toy", tmp_path)
    versions.poll()
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "saved_model.pb").write_bytes(b"half written")
    for _ in range(3):
        versions.poll()
    assert versions.serving == 1
    broken = versions.statuses()[0]
    assert (broken.version, broken.state) == (2, "END")
    assert broken.error_code != "OK" and broken.error_message
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1 and errors[0].startswith("version 2 of toy cannot be loaded: ")

    # When its files change, it is tried again.
    shutil.copytree(toy, tmp_path / "2", dirs_exist_ok=True)
    versions.poll()
    assert versions.serving == 2 and states(versions) == [(2, "AVAILABLE"), (1, "END")]


def test_a_version_without_files_is_not_found(tmp_path):
    (tmp_path / "1").mkdir()
    versions = ModelVersions("toy", tmp_path)
    versions.poll()
    (status,) = versions.statuses()
    assert (status.state, status.error_code) == ("END", "NOT_FOUND")
    assert "SavedModel file does not exist" in status.error_message


def test_an_empty_directory_is_reported_once_and_watched(toy, tmp_path, caplog):
    versions = ModelVersions("toy", tmp_path / "later")
    for _ in range(3):
        versions.poll()
    (record,) = caplog.records
    assert "no version of toy to serve in" in record.message and "later/1" in record.message

    (tmp_path / "later").mkdir()
    publish(toy, tmp_path / "later", "1")
    versions.poll()
    assert versions.serving == 1

    shutil.rmtree(tmp_path / "later")
    versions.poll()
    assert versions.serving == 1, "it may come back"
    (tmp_path / "later").mkdir()
    versions.poll()
    assert versions.serving is None and states(versions) == [(1, "END")]
