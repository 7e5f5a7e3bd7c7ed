"""An export is examined in a fresh process before it is published, and publishing overwrites nothing."""

import contextlib
import json
import os
import shutil
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from serving.local_server.saved_model import SavedModel
from tfhuber import predict
from tfhuber.data import dataset as inputs
from tfhuber.evaluation import predictions
from tfhuber.landmarks import known_sets
from tfhuber.runs.load import load_run
from tfhuber.saved_model import export as export_module
from tfhuber.saved_model import lint, metadata, served_examples, session, versions, warmup

SIGNATURES = ["metadata", "serving_default", "tensor", "tta"]


@contextlib.contextmanager
def this_process():
    """In place of `session.fresh_process`, which takes seconds to start."""
    yield lambda function, *arguments: function(*arguments)


def test_versions_count_up_and_nothing_else_is_left(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "fresh_process", this_process)
    (tmp_path / "1").mkdir()
    assert export_module.export(tiny_run, tmp_path, "best") == tmp_path / "2"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2"]
    assert versions.find_version(tmp_path) == tmp_path / "2"


def test_landmark_names_lie_beside_the_model(exported):
    facts = metadata.ModelMetadata.read(exported / "1")
    assert len(facts.names) == 98 and facts.names[96] == "left_pupil_0"
    assert (51, 52) in facts.edges and facts.delta == 1.0


def test_a_fresh_process_gives_the_predictors_numbers(tiny_run, tiny_config, faces, exported):
    """From the original photographs: what evaluation computes from the stored crops, to their pixels."""
    predictor = load_run(tiny_run)
    split = inputs.open_split(tiny_config.data.directory, "test")
    expected = predictions.collect(predictor, split)
    files, boxes = [], []
    for example in inputs.evaluation_batches(split, 32, 8).unbatch():
        name = example["id"].numpy().decode().rsplit("#", 1)[0]
        files.append((faces / "WFLW_images" / name).read_bytes())
        boxes.append(example["box"].numpy())
    with session.fresh_process() as call:
        found = call(session.run, exported / "1", files, boxes)
    assert found["valid"].all()
    extent = np.ptp(expected.landmarks, axis=1).max(-1)
    difference = np.linalg.norm(found["landmarks"] - expected.landmarks, axis=-1).mean(1) / extent
    # Stored crops are JPEGs of a resized image, so the two inputs are alike, not equal.
    assert difference.max() < 0.02
    spread = found["covariance"].trace(axis1=2, axis2=3) / expected.covariance.trace(
        axis1=2, axis2=3
    )
    assert 0.8 < np.median(spread) < 1.25


def test_all_signatures_share_one_set_of_variables(tiny_run, exported):
    stored = tf.train.list_variables(str(exported / "1/variables/variables"))
    sizes = sorted(int(np.prod(shape)) for name, shape in stored if "CHECKPOINTABLE" not in name)
    weights = load_run(tiny_run).model.weights
    assert sizes == sorted(v.shape.num_elements() for v in weights)
    total = sum(weight.numpy().nbytes for weight in weights)
    files = (exported / "1/variables").glob("variables.data-*")
    assert total <= sum(path.stat().st_size for path in files) <= 1.02 * total


def test_the_local_server_and_the_command_know_the_second_signature(
    picture, exported, tmp_path, monkeypatch
):
    served = SavedModel(exported / "1")
    inputs = {"image_bytes": np.array([picture], object), "box": np.zeros((1, 4), np.float32)}
    answer = served.run("tta", inputs)
    monkeypatch.setattr(sys, "argv", ["predict", "--model", str(exported / "1"), "--tta"])
    (tmp_path / "face.jpg").write_bytes(picture)
    sys.argv += [str(tmp_path / "face.jpg"), "--json", str(tmp_path / "found.json")]
    assert predict.main() == 0
    found = json.loads((tmp_path / "found.json").read_text())
    np.testing.assert_allclose(found["landmarks"], answer["landmarks"][0], atol=1e-3)


def test_the_exported_graph_is_fit_to_be_served(exported):
    assert lint.faults(exported / "1") == []
    described = SavedModel(exported / "1").describe_signatures()
    assert [name for name in described if not name.startswith("__")] == SIGNATURES
    outputs = {name: sorted(described[name]["outputs"]) for name in SIGNATURES}
    assert outputs == {
        "metadata": ["json"],
        "serving_default": ["covariance", "landmarks", "precision_factor", "valid"],
        "tensor": ["covariance", "landmarks", "valid"],
        "tta": ["covariance", "landmarks", "precision_factor", "valid"],
    }
    shape = described["tta"]["outputs"]["precision_factor"]["tensor_shape"]["dim"]
    assert [int(dim["size"]) for dim in shape] == [-1, 98, 2, 2]


def test_the_warm_up_requests_are_examples_of_the_test_split(exported, tiny_config):
    requests = list(warmup.requests(exported / "1"))
    assert sorted({signature for signature, _ in requests}) == SIGNATURES
    split = inputs.open_split(tiny_config.data.directory, "test")
    batch = next(iter(inputs.evaluation_batches(split, 32, 8, range(4))))
    few = next(values for s, values in requests if s == "tensor" and len(values["image"]) == 4)
    # The same crops, but for where blocks begin that are averaged, and rounding.
    assert np.abs(few["image"] - batch["image"].numpy()).mean() < 2


def strictly_doubled(x):
    return {"landmarks": 2 * tf.ensure_shape(x, [None])}


@pytest.fixture
def doubling(tmp_path):
    """A small SavedModel without warm-up requests."""
    module = tf.Module()
    spec = tf.TensorSpec([None], tf.float32, name="x")
    module.double = tf.function(strictly_doubled, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path), signatures={"double": module.double})
    return tmp_path


def test_a_warm_up_request_that_fails_refuses_the_model(doubling):
    numbers = np.ones(3, np.float32)
    warmup.write(doubling, [("double", {"x": numbers})])
    np.testing.assert_array_equal(lint.examine(doubling)[0]["landmarks"], [2, 2, 2])
    warmup.write(doubling, [("double", {"x": numbers}), ("double", {"y": numbers})])
    with pytest.raises(ValueError, match=r"double takes \['x'\], got \['y'\]"):
        lint.examine(doubling)
    (doubling / warmup.FILE).write_bytes(b"junk")
    with pytest.raises(ValueError, match="is damaged: record 1 is cut short"):
        lint.examine(doubling)


def test_a_graph_that_would_be_refused_is_not_even_loaded(doubling):
    module = tf.Module()
    spec = tf.TensorSpec([None], tf.float32, name="x")
    module.double = tf.function(lambda x: 2 * x, input_signature=[spec])
    tf.saved_model.save(module, str(doubling), signatures={"double": module.double})
    with pytest.raises(
        ValueError, match="not fit for TensorFlow Serving: double: output 'output_0'"
    ):
        lint.examine(doubling)


def test_other_numbers_than_the_runs_are_not_published(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "fresh_process", this_process)
    monkeypatch.setattr(export_module, "_write", lambda directory, *_: (directory / "half").touch())
    monkeypatch.setattr(lint, "examine", lambda _: [])

    def differ(directory, *_):
        assert directory.parent == tmp_path and directory.name.startswith(".export-")
        raise ValueError("differs")

    monkeypatch.setattr(export_module, "_compare", differ)
    with pytest.raises(ValueError, match="differs"):
        export_module.export(tiny_run, tmp_path)
    assert list(tmp_path.iterdir()) == []


def compared(tmp_path, run, found):
    """Compare the run's numbers with those of an exported model."""
    warmup.write(tmp_path, [("look", {"x": np.ones(1, np.float32)})])
    functions = {"look": lambda x: {name: tf.constant(value) for name, value in run.items()}}
    export_module._compare(tmp_path, functions, [found])


@pytest.mark.parametrize(
    ("name", "run", "found", "equal"),
    [
        ("covariance", [[100.0, 1e-4]], [[100.005, 2e-4]], True),
        ("covariance", [[100.0, 1.0]], [[100.0, 1.01]], False),
        ("json", [b"{}"], [b"{}"], True),
        ("json", [b"{}"], [b"[]"], False),
    ],
)
def test_what_counts_as_the_same_number(tmp_path, name, run, found, equal):
    dtype = object if name == "json" else np.float32
    differs = pytest.raises(ValueError, match=f"{name} in look differs from the run's")
    with contextlib.nullcontext() if equal else differs:
        compared(tmp_path, {name: run}, {name: np.array(found, dtype)})


@pytest.mark.parametrize(
    ("found", "deviation", "equal"),
    [
        (100.00005, 0.0, True),
        (100.0002, 0.0, False),
        (100.0002, 0.01, False),
        (100.0002, 1.0, True),
        (100.02, 30.0, True),
        (100.05, 30.0, False),
        (np.nan, 30.0, False),
    ],
)
def test_points_are_the_same_within_a_thousandth_of_their_deviation(
    tmp_path, found, deviation, equal
):
    """The optimum of two views that contradict each other is flat: rounding moves it by more than 1e-4."""
    covariance = np.eye(2, dtype=np.float32)[None, None] * np.float32(deviation**2)
    differs = pytest.raises(ValueError, match="landmarks in look differs from the run's")
    with contextlib.nullcontext() if equal else differs:
        compared(
            tmp_path,
            {"landmarks": [[[100.0, -50.0]]], "covariance": covariance},
            {"landmarks": np.float32([[[found, -50.0]]]), "covariance": covariance},
        )


def test_without_mirror_images_in_training_there_is_no_tta(
    tiny_run, tmp_path, picture, monkeypatch
):
    monkeypatch.setattr(session, "fresh_process", this_process)
    run = shutil.copytree(tiny_run, tmp_path / "run")
    values = json.loads((run / "run.json").read_text())
    values["config"]["augmentation"]["mirror"] = 0
    (run / "run.json").write_text(json.dumps(values))
    model = export_module.export(run, tmp_path / "models")
    signatures = [name for name in SavedModel(model).describe_signatures() if name[0] != "_"]
    assert signatures == ["metadata", "serving_default", "tensor"]
    assert sorted({name for name, _ in warmup.requests(model)}) == signatures
    (tmp_path / "face.jpg").write_bytes(picture)
    arguments = ["predict", "--model", str(model), str(tmp_path / "face.jpg"), "--tta"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--json", str(tmp_path / "found.json")])
    with pytest.raises(
        ValueError, match=r"trained on mirror images too; .*augmentation\.mirror = 0"
    ):
        predict.main()
    sys.argv.remove("--tta")
    assert predict.main() == 0


def test_the_data_set_may_have_moved_but_must_be_the_runs(tiny_run, tmp_path, face_records):
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    values = json.loads((copy / "run.json").read_text())
    values["config"]["data"]["directory"] = str(tmp_path / "gone")
    (copy / "run.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="gone holds no manifest") as refused:
        export_module.export(copy, tmp_path / "models")
    assert refused.value.__notes__ == ["--data DIR says where the run's data set is now"]
    assert not (tmp_path / "models").exists()
    with pytest.raises(
        ValueError, match="must hold the landmarks that the run predicts, mpii; got wflw"
    ):
        served_examples.read(face_records, known_sets.MPII, 32, 4)


def test_examples_are_spread_over_the_split(face_records):
    found = served_examples.read(face_records, known_sets.WFLW, 32, 5)
    everything = served_examples.read(face_records, known_sets.WFLW, 32, 256)
    assert len(everything["box"]) == inputs.open_split(face_records, "test").examples > 10
    np.testing.assert_array_equal(found["box"], everything["box"][::3])


def test_a_number_taken_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "saved_model.pb").write_bytes(b"theirs")
    (tmp_path / ".export-x").mkdir()
    monkeypatch.setattr(versions, "numbered", lambda _: {})
    assert export_module._publish(tmp_path / ".export-x", tmp_path) == tmp_path / "3"
    assert (tmp_path / "1/saved_model.pb").read_bytes() == b"theirs"


def test_only_what_was_abandoned_long_ago_is_removed(tmp_path):
    for name, hours in ((".export-old", 25), (".export-new", 1), ("3", 100), (".other", 100)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"")
        os.utime(tmp_path / name, times=(time.time() - 3600 * hours,) * 2)
    export_module._remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".export-new", ".other", "3"]
