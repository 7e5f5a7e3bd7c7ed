"""An exported model gives the training side's numbers in a fresh process, and refuses rows, not batches."""

import io
import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from tensorflow.core.protobuf import saved_model_pb2

from serving.runner import SavedModel
from tfhuber import evaluate, export, inputs, predict, savedmodel
from tfhuber.inference import load_run


@pytest.fixture(scope="module")
def model(tiny_run, tmp_path_factory):
    """The base path of an exported model with one version."""
    base = tmp_path_factory.mktemp("models") / "wflw"
    assert export.export(tiny_run, base) == base / "1"
    return base


@pytest.fixture(scope="module")
def picture(faces) -> bytes:
    return next(iter(sorted((faces / "WFLW_images").rglob("*.jpg")))).read_bytes()


def test_versions_count_up_and_nothing_else_is_left(tiny_run, model):
    assert export.export(tiny_run, model, "best") == model / "2"
    assert sorted(p.name for p in model.iterdir()) == ["1", "2"]
    assert savedmodel.find_version(model) == model / "2"
    assert savedmodel.find_version(model / "1") == model / "1"


def test_landmark_names_lie_beside_the_model(model):
    facts = savedmodel.read_facts(model / "1")
    assert len(facts.names) == 98 and facts.names[96] == "left_pupil_0"
    assert (51, 52) in facts.edges and facts.delta == 1.0


def test_a_fresh_process_gives_the_predictors_numbers(tiny_run, tiny_config, faces, model):
    """From the original photographs: what evaluation computes from the stored crops, to their pixels."""
    predictor = load_run(tiny_run)
    split = inputs.open_split(tiny_config.data.directory, "test")
    expected = evaluate.collect(predictor, split)
    files, boxes = [], []
    for example in inputs.evaluation_batches(split, tiny_config).unbatch():
        name = example["id"].numpy().decode().rsplit("#", 1)[0]
        files.append((faces / "WFLW_images" / name).read_bytes())
        boxes.append(example["box"].numpy())
    found = savedmodel.run_in_fresh_process(model / "1", files, boxes, ["serving_default"])
    found = found["serving_default"]
    assert found["valid"].all()
    extent = np.ptp(expected.landmarks, axis=1).max(-1)
    difference = np.linalg.norm(found["landmarks"] - expected.landmarks, axis=-1).mean(1) / extent
    # Stored crops are JPEGs of a resized image, so the two inputs are alike, not equal.
    assert difference.max() < 0.02
    spread = found["covariance"].trace(axis1=2, axis2=3) / expected.covariance.trace(
        axis1=2, axis2=3
    )
    assert 0.8 < np.median(spread) < 1.25


def test_the_graph_equals_the_functions_it_was_made_from(tiny_run, picture, model):
    boxes = np.array([[20, 20, 150, 160], [0, 0, 0, 0]], np.float32)
    signatures = export.SIGNATURES
    found = savedmodel.run_in_fresh_process(model / "1", [picture] * 2, boxes, list(signatures))
    predictor = load_run(tiny_run)
    for signature, tta in signatures.items():
        function = export.serving_function(predictor, tta)
        for name, value in function(tf.constant([picture] * 2), tf.constant(boxes)).items():
            atol = 1e-4 + 1e-5 * np.abs(value).max()
            np.testing.assert_allclose(found[signature][name], value, rtol=1e-4, atol=atol)
            assert found[signature][name].dtype in (np.float32, np.bool_)
    landmarks = [outputs["landmarks"] for outputs in found.values()]
    assert np.abs(landmarks[0] - landmarks[1]).max() > 0.1


def test_fused_with_its_mirror_image_a_mirrored_picture_gives_the_mirrored_answer(
    tiny_run, picture, model
):
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    files = []
    for view in (image, ImageOps.mirror(image)):
        out = io.BytesIO()
        view.save(out, "png")
        files.append(out.getvalue())
    found = savedmodel.run(model / "1", files, np.zeros((2, 4)), "tta")
    order = list(load_run(tiny_run).landmark_set.mirror)
    mirrored = found["landmarks"][1][order] * [-1, 1] + [image.width - 1, 0]
    np.testing.assert_allclose(mirrored, found["landmarks"][0], atol=0.02)
    covariance = found["covariance"][1][order] * [[1, -1], [-1, 1]]
    np.testing.assert_allclose(covariance, found["covariance"][0], rtol=0.01, atol=0.05)


def test_both_signatures_share_one_set_of_variables(tiny_run, model):
    stored = tf.train.list_variables(str(model / "1/variables/variables"))
    sizes = sorted(int(np.prod(shape)) for name, shape in stored if "CHECKPOINTABLE" not in name)
    assert sizes == sorted(v.shape.num_elements() for v in load_run(tiny_run).model.weights)


def test_the_local_server_and_the_command_know_the_second_signature(
    picture, model, tmp_path, monkeypatch
):
    served = SavedModel(model / "1")
    inputs = {"image_bytes": np.array([picture], object), "box": np.zeros((1, 4), np.float32)}
    answer = served.run("tta", inputs)
    monkeypatch.setattr(sys, "argv", ["predict", "--model", str(model / "1"), "--tta"])
    (tmp_path / "face.jpg").write_bytes(picture)
    sys.argv += [str(tmp_path / "face.jpg"), "--json", str(tmp_path / "found.json")]
    assert predict.main() == 0
    found = json.loads((tmp_path / "found.json").read_text())
    np.testing.assert_allclose(found["landmarks"], answer["landmarks"][0], atol=1e-3)
    with pytest.raises(ValueError, match="no signature 'median'; export the model again"):
        savedmodel.run(model / "1", [picture], [[0] * 4], "median")


def test_all_zeros_is_the_whole_image(picture, model):
    width, height = Image.open(io.BytesIO(picture)).size
    boxes = [[0, 0, 0, 0], [-0.5, -0.5, width - 0.5, height - 0.5]]
    found = savedmodel.run(model / "1", [picture] * 2, boxes)
    np.testing.assert_allclose(found["landmarks"][0], found["landmarks"][1], atol=1e-3)


def test_a_shifted_picture_shifts_the_answer(picture, model):
    """Original pixels in, original pixels out: padding a picture moves everything by the padding."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    padded = Image.new("RGB", (image.width + 70, image.height + 50))
    padded.paste(image, (70, 50))
    files = []
    for img in (image, padded):
        out = io.BytesIO()
        img.save(out, "png")
        files.append(out.getvalue())
    box = np.array([60.0, 60, 130, 130])
    found = savedmodel.run(model / "1", files, [box, box + np.array([70, 50, 70, 50])])
    np.testing.assert_allclose(
        found["landmarks"][1] - found["landmarks"][0], [[70, 50]] * 98, atol=0.05
    )
    np.testing.assert_allclose(found["covariance"][1], found["covariance"][0], rtol=1e-2)


def test_bad_rows_do_not_fail_their_neighbours(picture, model):
    files = [picture, b"", b"text", picture[: len(picture) // 2], picture, picture]
    boxes = np.zeros((6, 4))
    boxes[4] = [10, 10, 5, 20]
    boxes[5] = [np.nan, 0, 1, 1]
    found = savedmodel.run(model / "1", files, boxes)
    np.testing.assert_array_equal(found["valid"], [True, False, False, False, False, False])
    assert np.isfinite(found["landmarks"]).all() and np.abs(found["landmarks"][1:]).max() == 0
    alone = savedmodel.run(model / "1", [picture], np.zeros((1, 4)))
    np.testing.assert_allclose(found["landmarks"][0], alone["landmarks"][0], atol=1e-3)


def test_more_rows_than_a_server_has_memory_for_are_refused(model):
    count = export.MAX_ROWS + 1
    with pytest.raises(ValueError, match=f"at most {export.MAX_ROWS} images in a request"):
        savedmodel.run(model / "1", [b""] * count, np.zeros((count, 4)))


def test_only_stock_float32_ops_without_xla(model):
    saved = saved_model_pb2.SavedModel.FromString((model / "1/saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    assert not {n.op for n in nodes} & {"PyFunc", "EagerPyFunc", "PyFuncStateless", "XlaLaunch"}
    assert not any(f.attr["_XlaMustCompile"].b for f in graph.library.function)
    for signature in export.SIGNATURES:
        outputs = saved.meta_graphs[0].signature_def[signature].outputs
        assert {name: tf.dtypes.as_dtype(o.dtype).name for name, o in outputs.items()} == {
            "landmarks": "float32",
            "covariance": "float32",
            "valid": "bool",
        }
        assert [d.size for d in outputs["covariance"].tensor_shape.dim] == [-1, 98, 2, 2]


def test_a_directory_without_a_model_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"holds no exported model; make one with .*tfhuber.export"
    ):
        savedmodel.find_version(tmp_path)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"junk")
    with pytest.raises(ValueError):
        savedmodel.run(tmp_path / "1", [b""], [[0] * 4])
    with pytest.raises(ValueError, match="export the model again"):
        savedmodel.read_facts(tmp_path / "1")
    (tmp_path / "1" / "assets.extra").mkdir()
    (tmp_path / "1" / "assets.extra" / "landmarks.json").write_text(json.dumps({"names": 3}))
    with pytest.raises(ValueError, match="export the model again"):
        savedmodel.read_facts(tmp_path / "1")
