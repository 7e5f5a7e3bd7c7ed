"""LiteRT files: the numbers of the run they are made from, or none; damaged ones are refused."""

import dataclasses
import json
import sys
import typing

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tfhuber import export as export_command
from tfhuber import predict
from tfhuber.config import schema as schema_of_runs
from tfhuber.data import dataset
from tfhuber.runs.load import load_run
from tfhuber.saved_model import litert_export, litert_file, served_examples, session
from tfhuber.saved_model.litert import LiteRTModel
from tfhuber.saved_model.metadata import METADATA, ModelMetadata


@pytest.fixture(scope="module")
def conversions():
    """What was converted before: conversions take seconds, and all tests want the same ones."""
    convert, known = litert_export._converted, {}

    def cached(function, scheme, crops=()):
        key = (function.input_signature[0].name, scheme)
        known[key] = known.get(key) or convert(function, scheme, crops)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litert_export, "_converted", cached)
        yield


@pytest.fixture(scope="module")
def exported_file(tiny_run, conversions, tmp_path_factory):
    """What the export of `tiny_run` in float32 says; the file is not to be changed."""
    return litert_export.export(tiny_run, tmp_path_factory.mktemp("phone") / "face.tflite")


@pytest.fixture(scope="module")
def crops(face_records, tiny_run):
    landmark_set = load_run(tiny_run).landmark_set
    return served_examples.read(face_records, landmark_set, 32, 12)["image"]


def test_the_file_answers_as_the_saved_model(exported_file, exported, crops):
    """Loaded as an app loads it: by its path, seal and all, and by nothing of ours."""
    expected = session.answers(exported / "1", [("tensor", {"image": crops})])[0]
    interpreter = Interpreter(model_path=str(exported_file.path))
    assert list(interpreter.get_signature_list()) == ["tensor"]
    tensor = interpreter.get_signature_runner("tensor")
    (details,) = tensor.get_input_details().values()
    assert details["shape"].tolist() == [1, 32, 32, 3] and details["dtype"] == np.uint8
    found = [tensor(image=crop[np.newaxis]) for crop in crops]
    assert {name: value.shape for name, value in found[0].items()} == {
        "landmarks": (1, 98, 2),
        "covariance": (1, 98, 2, 2),
        "valid": (1,),
    }
    landmarks, covariance, valid = (
        np.concatenate([answer[name] for answer in found])
        for name in ("landmarks", "covariance", "valid")
    )
    assert valid.all() and np.ptp(expected["landmarks"]) > 10
    np.testing.assert_allclose(landmarks, expected["landmarks"], atol=1e-3)
    np.testing.assert_allclose(covariance, expected["covariance"], rtol=1e-3, atol=1e-3)
    assert exported_file.difference.position < 1e-3
    assert exported_file.difference.examples == 14


def test_every_operation_is_built_in(exported_file):
    model = schema.ModelT.InitFromPackedBuf(exported_file.path.read_bytes(), 0)
    assert len(model.subgraphs) == 1 and len(model.subgraphs[0].operators) > 100
    assert not any(code.customCode for code in model.operatorCodes)


def test_one_file_has_the_metadata_of_the_saved_model(exported_file, exported):
    values = litert_file.metadata_of(litert_file.read(exported_file.path))
    reference = json.loads((exported / "1" / METADATA).read_text())
    for name in ("landmark_set", "kappa", "image_size", "square", "ellipses", "uncertainty"):
        assert values[name] == reference[name], name
    assert values["tta"] is False
    assert values["litert"]["difference"]["position"] == exported_file.difference.position
    loaded = LiteRTModel(exported_file.path).metadata
    known = ModelMetadata.read(exported / "1")
    assert loaded == dataclasses.replace(known, tta=False) and loaded.names[96] == "left_pupil_0"


def test_every_pooling_has_a_border_between_what_is_quantised_and_what_is_not():
    poolings = typing.get_args(schema_of_runs.Model.model_fields["pooling"].annotation)
    assert set(litert_export._FIRST_IN_FLOAT) == set(poolings)


def run_predict(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
    assert predict.main() == 0


def test_predict_finds_the_same_points_with_either_model(
    exported_file, exported, picture, tmp_path, monkeypatch
):
    (tmp_path / "face.jpg").write_bytes(picture)
    width = 200.0
    arguments = [tmp_path / "face.jpg", "--box", "40,50,240,250", "--json"]
    found = []
    for model in (exported, exported_file.path):
        run_predict(monkeypatch, "--model", model, *arguments, tmp_path / "found.json")
        found.append(json.loads((tmp_path / "found.json").read_text()))
    assert found[0]["names"] == found[1]["names"]
    (points, matrix), (other, other_matrix) = (
        [np.array(each[name]) for name in ("landmarks", "covariance")] for each in found
    )
    # Whole grey levels make this small difference; the crop has 32 pixels, so the tolerance is 0.3 here.
    np.testing.assert_allclose(other, points, atol=0.05 * width / 32)
    assert (
        np.abs(np.trace(other_matrix - matrix, axis1=1, axis2=2)).max()
        < 0.01 * np.trace(matrix, axis1=1, axis2=2).max()
    )


def test_a_file_that_is_no_image_and_a_box_beside_it_are_not_valid(exported_file, picture):
    boxes = [[0, 0, 0, 0], [1e5, 1e5, 2e5, 2e5], [0, 0, 0, 0]]
    found = LiteRTModel(exported_file.path).predict([picture, picture, b"text"], boxes)
    assert found["valid"].tolist() == [True, False, False]
    assert not found["landmarks"][1:].any() and not found["covariance"][1:].any()
    assert np.abs(found["landmarks"][0]).max() > 10


def test_numbers_that_are_not_finite_are_not_valid(tiny_run, conversions):
    _, head = litert_export._parts(load_run(tiny_run))
    interpreter = Interpreter(model_content=litert_export._converted(head, "float32"))
    run = interpreter.get_signature_runner("tensor")
    features = np.zeros(head.input_signature[0].shape, np.float32)
    assert run(features=features)["valid"].tolist() == [True]
    for bad in (np.nan, np.inf, 1e38):
        answer = run(features=np.full_like(features, bad))
        assert answer["valid"].tolist() == [False]
        assert not answer["landmarks"].any() and not answer["covariance"].any()


@pytest.mark.parametrize("quantize", ["float16", "int8"])
def test_smaller_files_are_near_too(tiny_run, exported_file, quantize, tmp_path, conversions):
    found = litert_export.export(
        tiny_run, tmp_path / "a.tflite", quantize=quantize, representative=8
    )
    assert found.difference.within(litert_export.BOUNDS[quantize])
    share = {"float16": 0.52, "int8": 0.29}[quantize]
    assert found.path.stat().st_size < share * exported_file.path.stat().st_size
    assert found.difference.position > exported_file.difference.position
    assert [path.name for path in tmp_path.iterdir()] == ["a.tflite"]


def test_the_first_scheme_within_the_bound_is_taken(tiny_run, tmp_path, monkeypatch, conversions):
    compare, calls = litert_export.difference, []

    def far_at_first(expected, found):
        calls.append(compare(expected, found))
        return dataclasses.replace(calls[-1], variance=0.11) if len(calls) == 1 else calls[-1]

    monkeypatch.setattr(litert_export, "difference", far_at_first)
    monkeypatch.setitem(litert_export.BOUNDS, "int8", litert_export.Bound(100, 0.1))
    found = litert_export.export(tiny_run, tmp_path / "a.tflite", quantize="int8", representative=8)
    first, second = litert_export.QUANTIZATIONS["int8"]
    assert found.scheme == second and found.missed[first].variance == 0.11
    values = litert_file.metadata_of(litert_file.read(found.path))
    assert values["litert"]["scheme"] == second
    assert calls[0] != calls[1], "both schemes gave the same numbers"


def test_numbers_beyond_the_bound_are_not_published(tiny_run, tmp_path, monkeypatch, conversions):
    monkeypatch.setitem(litert_export.BOUNDS, "none", litert_export.Bound(1e-12, 0.01))
    message = r"not published: 1e-12 pixels and 1% .* allowed; float32: up to \S+ pixels"
    (tmp_path / "a.tflite").write_bytes(b"old")
    with pytest.raises(ValueError, match=message):
        litert_export.export(tiny_run, tmp_path / "a.tflite")
    assert (tmp_path / "a.tflite").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


ANSWER = {
    "landmarks": np.array([[[10.0, 20.0], [30.0, 5.0]]], np.float32),
    "covariance": np.array([[[[4.0, 1.0], [1.0, 2.0]], [[100.0, 0.0], [0.0, 1.0]]]], np.float32),
    "valid": np.array([True]),
}


def changed(name, change):
    return {**ANSWER, name: change(ANSWER[name].copy())}


def thin(covariance):
    """Widen the thin direction of the second landmark by a fifth, which its trace hardly shows."""
    covariance[0, 1, 1, 1] = 1.2
    return covariance


def put(place, value):
    def change(array):
        array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "position", "variance"),
    [
        ("landmarks", lambda x: x, 0, 0),
        ("landmarks", put((0, 1), [30.3, 5.4]), 0.5, 0),
        ("covariance", lambda x: 1.1 * x, 0, 0.1),
        ("covariance", lambda x: 0.75 * x, 0, 0.25),
        ("covariance", thin, 0, 0.2),
        ("landmarks", put((0, 0, 0), np.nan), np.inf, np.inf),
        ("covariance", put((0, 0, 1, 1), np.inf), np.inf, np.inf),
        ("valid", put(0, False), np.inf, np.inf),
    ],
)
def test_how_far_answers_are_from_each_other(name, change, position, variance):
    found = litert_export.difference(ANSWER, changed(name, change))
    assert found.position == pytest.approx(position, abs=1e-5)
    assert found.variance == pytest.approx(variance, rel=1e-3, abs=1e-6)
    assert found.within(litert_export.Bound(0.51, 0.26)) == np.isfinite(position)


def test_a_covariance_of_zeros_is_compared_too():
    nothing = changed("covariance", lambda x: 0 * x)
    assert litert_export.difference(nothing, nothing).variance == pytest.approx(0)
    assert litert_export.difference(nothing, ANSWER).variance > 1e6


def test_representative_images_are_drawn_from_the_training_split(face_records):
    split = dataset.open_split(face_records, "train")
    everything = list(served_examples.random_crops(split, 32, 1000, 0))
    assert len(everything) == split.examples and everything[0].dtype == np.uint8
    known = [crop.tobytes() for crop in everything]
    chosen = [
        [known.index(crop.tobytes()) for crop in served_examples.random_crops(split, 32, 9, seed)]
        for seed in (0, 0, 1)
    ]
    assert len(set(chosen[0])) == 9 and chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: b"", "is no LiteRT model"),
        (lambda whole: b"\x89PNG" * 100, "is no LiteRT model"),
        (lambda whole: whole[:100_000], "is cut short, or was not made by tfhuber; make one with"),
        (lambda whole: whole[:-1], "is cut short, or was not made by tfhuber"),
        (lambda whole: whole[:-79], "is cut short, or was not made by tfhuber"),
        (lambda whole: whole[:70_000] + b"!" + whole[70_001:], "is damaged: its checksum differs"),
        (lambda whole: whole[:-1] + b"z", "is damaged: its checksum differs"),
        (lambda whole: litert_file.sealed(whole[:4000]), "it cannot be loaded"),
    ],
    ids=range(8),
)
def test_other_files_are_refused(exported_file, picture, content, message, tmp_path, monkeypatch):
    (tmp_path / "face.jpg").write_bytes(picture)
    path = tmp_path / "a.tflite"
    path.write_bytes(content(exported_file.path.read_bytes()))
    with pytest.raises(ValueError, match=message) as refused:
        run_predict(
            monkeypatch, "--model", path, tmp_path / "face.jpg", "--json", tmp_path / "found.json"
        )
    assert str(path) in str(refused.value) and not (tmp_path / "found.json").exists()


def test_a_model_of_another_kind_is_refused(tmp_path, conversions):
    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32, name="x")])
    def double(x):
        return {"landmarks": 2 * x}

    other = litert_export._converted(double, "float32")
    (tmp_path / "a.tflite").write_bytes(litert_file.sealed(other))
    with pytest.raises(ValueError, match=r"a\.tflite: it takes no network crop `image`"):
        LiteRTModel(tmp_path / "a.tflite")
    with pytest.raises(ValueError, match="it has no metadata"):
        litert_file.metadata_of(other)


def test_without_the_package_the_extra_is_named(exported_file, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    message = r"need the package ai-edge-litert: pip install -e '\.\[litert\]'"
    with pytest.raises(ValueError, match=message):
        LiteRTModel(exported_file.path)
    with pytest.raises(ValueError, match=message):
        litert_export.export(tiny_run, tmp_path / "a.tflite")


def test_a_phone_has_no_mirrored_view(exported_file, picture, tmp_path, monkeypatch):
    (tmp_path / "face.jpg").write_bytes(picture)
    arguments = [
        "--model",
        exported_file.path,
        tmp_path / "face.jpg",
        "--json",
        tmp_path / "o.json",
    ]
    with pytest.raises(ValueError, match="--tta needs an export for TensorFlow Serving"):
        run_predict(monkeypatch, *arguments, "--tta")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "a", "--format", "litert"], r"must be a file \*\.tflite, got a"),
        (
            ["--output", "a.tflite", "--format", "litert", "--representative", "1001"],
            "must be 1 to 1,000, got 1001",
        ),
    ],
)
def test_what_the_export_refuses(tiny_run, arguments, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["export", "--run", str(tiny_run), *arguments])
    with pytest.raises(ValueError, match=message):
        export_command.main()


def test_only_files_for_phones_are_quantised(tiny_run, monkeypatch, capsys):
    arguments = ["export", "--run", str(tiny_run), "--output", "a", "--quantize", "int8"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        export_command.main()
    assert "--quantize needs --format litert" in capsys.readouterr().err


def test_the_command_says_what_it_wrote(
    tiny_run, conversions, exported_file, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "new" / "a.tflite"
    arguments = ["export", "--run", str(tiny_run), "--output", str(path), "--format", "litert"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert export_command.main() == 0
    said = capsys.readouterr().out
    assert f"{path}: exported and checked, 45.8 MB, float32;" in said
    assert "(median" in said and "14 examples)" in said
    assert path.stat().st_size == pytest.approx(exported_file.path.stat().st_size, abs=100)
