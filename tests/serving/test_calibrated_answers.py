"""Whoever is asked of a calibrated model gives evaluation's numbers: SavedModel, servers, LiteRT."""

import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from calibrations import ABSTENTION, calibrate
from fake_server import local_server, running
from PIL import Image
from real_server import tf_serving
from scipy import linalg

from serving.client import Client
from serving.local_server.versions import ModelVersions
from tfhuber.calibration.model import calibration_of
from tfhuber.data import dataset
from tfhuber.runs.load import load_run, read_config
from tfhuber.saved_model import litert, litert_export, session
from tfhuber.saved_model.answer import load_distribution
from tfhuber.saved_model.export import export

pytestmark = pytest.mark.slow

WAYS = {"serving_default": "none", "tta": "ml"}


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    directory = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(tiny_run, directory)
    # Half of the landmarks are reliable, and half of the faces known.
    crops, predictor = _crops(directory), load_run(directory)
    size = -np.mean(predictor.predict(tf.constant(crops, tf.float32)).log_det, axis=1)
    bounds = {"largest_size": float(np.median(size)), "tolerance": 0.1, "least_probability": 0.45}
    joint = {"factor": [[0.5]] * 196, "gain": 1.0}
    calibrate(directory, abstention=ABSTENTION | bounds, joint=joint)
    return directory


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export(run, tmp_path_factory.mktemp("models") / "wflw")


def _crops(run):
    """The network crops of the test split in whole grey levels, which PNG files can hold."""
    predictor = load_run(run)
    split = dataset.open_split(read_config(run).data.directory, "test")
    batch = next(iter(dataset.evaluation_batches(split, predictor.options.image_size, 12)))
    return np.round(batch["image"].numpy()).astype(np.uint8)


@pytest.fixture(scope="module")
def request_(run):
    """Return PNG files of the crops, and boxes that the network sees the whole of each for."""
    crops = _crops(run)
    files = []
    for crop in crops:
        file = io.BytesIO()
        Image.fromarray(crop).save(file, "PNG")
        files.append(file.getvalue())
    # Of faces half the side of what is seen is half the diagonal of the box.
    middle, half = (crops.shape[1] - 1) / 2, crops.shape[1] / 8**0.5
    box = [middle - half, middle - half, middle + half, middle + half]
    return crops, files, np.tile(np.float32(box), (len(files), 1))


def expected(run, crops, tta):
    """What evaluation says of the crops: fused as the calibration has it, and corrected."""
    predictor = load_run(run)
    calibration = calibration_of(run, predictor)
    fitted = calibration.signatures[tta]
    correlated = predictor.correlated(calibration.correlations)
    made = fitted.apply(correlated.compiled(tta)(tf.constant(crops, tf.float32)))
    flags = fitted.abstention.flags(made, fitted.energy, predictor.options.image_size)
    numbers = {
        "landmarks": made.loc,
        "covariance": made.covariance(fitted.energy),
        "precision_factor": made.precision_factor,
        **flags,
    }
    return {name: value.numpy() for name, value in numbers.items()}, made, fitted


def check(found, wanted):
    assert set(found) - {"valid"} <= set(wanted) and found["valid"].all()
    for name, value in found.items():
        if name in ("reliable", "in_distribution"):
            assert value.dtype == bool and np.mean(value != wanted[name]) < 0.01, name
        elif name != "valid":
            largest = np.abs(wanted[name]).max(axis=tuple(range(2, value.ndim)), keepdims=True)
            assert np.all(np.abs(value - wanted[name]) <= 1e-4 * largest), name


@pytest.mark.parametrize("name", WAYS)
def test_the_saved_model(run, exported, request_, name):
    crops, files, boxes = request_
    wanted, made, fitted = expected(run, crops, WAYS[name])
    found = session.run(exported, files, boxes, name)
    assert set(found) == {*wanted, "valid"}
    check(found, wanted)
    assert 0.05 < found["reliable"].mean() < 0.9
    metadata = session.answers(exported, [("metadata", {"query": np.array([b""], object)})])
    text = metadata[0]["json"][0]
    again = load_distribution(found, json.loads(text), name)
    points = np.asarray(made.loc) + np.random.default_rng(1).normal(0, 3, made.loc.shape)
    log_prob = made.distribution(fitted.energy).log_prob(tf.constant(points, tf.float32))
    np.testing.assert_allclose(again.log_prob(points), log_prob, rtol=1e-4, atol=1e-3)
    joint = again.joint_covariance()
    np.testing.assert_allclose(joint[0, :2, :2], found["covariance"][0, 0], rtol=1e-3)
    roots = linalg.sqrtm(found["covariance"][0, 0]), linalg.sqrtm(found["covariance"][0, 1])
    between = roots[0] @ np.full((2, 2), 0.25) @ roots[1]
    np.testing.assert_allclose(joint[0, :2, 2:4], between, rtol=1e-3)


def test_the_tensor_signature_and_litert(run, exported, request_, tmp_path):
    crops, _, _ = request_
    wanted, _, _ = expected(run, crops, "none")
    (found,) = session.answers(exported, [("tensor", {"image": crops})])
    assert {"reliable", "in_distribution"} < set(found)
    check(found, wanted)
    pytest.importorskip("ai_edge_litert")
    file = litert_export.export(run, tmp_path / "model.tflite").path
    found = litert.Runner(file.read_bytes()).many(crops)
    check(found, wanted)


@pytest.mark.parametrize("which", ["local", "real"])
def test_the_client_of_a_server(run, exported, request_, tmp_path, which):
    crops, files, boxes = request_

    def ask(url):
        with Client(url, "wflw") as client:
            for name, tta in WAYS.items():
                found = client.predict(files, boxes, name)
                wanted, _, _ = expected(run, crops, tta)
                assert set(found) == {*wanted, "valid"}
                check(found, wanted)

    if which == "local":
        model = ModelVersions("wflw", exported.parent)
        model.poll()
        with running(local_server(model)) as http:
            ask(str(http.base_url).rstrip("/"))
    else:
        flags = ["--model_name=wflw", f"--model_base_path={exported.parent}"]
        with tf_serving(tmp_path, *flags) as server:
            ask(server.url)
