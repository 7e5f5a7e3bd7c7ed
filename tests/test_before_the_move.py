"""A data set, a run and an export of before the move into packages work, and give the same numbers.

`before_the_move/README.md` says how they were made and what TFHUBER_EXACT=1 is for.
"""

import importlib
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import verify
from tfhuber.data.dataset import open_split
from tfhuber.evaluation.predictions import collect
from tfhuber.runs.load import load_run

FOLDER = Path(__file__).resolve().parent / "before_the_move"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
EXACT = os.environ.get("TFHUBER_EXACT") == "1"
BOX = "71,56,162,157"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """A folder with `dataset`, `run`, `export/1`, `config.json` and `picture.jpg`, as they were left."""
    folder = tmp_path_factory.mktemp("before")
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    for name in ("run", "export"):
        with tarfile.open(folder / f"{name}.tar.xz") as archive:
            archive.extractall(folder, filter="data")
    yield folder
    shutil.rmtree(folder)  # half a gigabyte


@pytest.fixture
def run(unpacked, tmp_path, monkeypatch) -> Path:
    """A copy of the run, to be changed, where the process is among the other files."""
    monkeypatch.chdir(unpacked)  # the run knows its data set by a relative path
    # Links are quick, and nothing writes into a file of a run: new ones take their places.
    return Path(shutil.copytree("run", tmp_path / "run", copy_function=os.link))


@pytest.fixture
def command(monkeypatch):
    """Does what `python -m MODULE ARGUMENTS` does, in this process."""

    def call(module: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        assert not importlib.import_module(module).main()

    return call


def _check(found, expected, name: str = "") -> None:
    """Everything that was there is as it was: numbers bit for bit if EXACT, else nearly."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            _check(found[key], value, f"{name}.{key}")
        return
    was = np.asarray(expected)
    found = np.asarray(found)
    found = found.reshape(was.shape) if found.size == was.size else found
    if EXACT and name.endswith((".loss", ".nll", ".nll_relative")):
        # Their log |A| is now carried along; then it was computed from A again.
        np.testing.assert_allclose(found, was, rtol=1e-6, atol=2e-5, err_msg=name)
    elif EXACT or was.dtype.kind != "f":
        np.testing.assert_array_equal(found, was.astype(found.dtype), name)
    else:
        # The least elements of a matrix are the differences of far larger numbers.
        tolerance = 1e-4 if name.endswith("landmarks") else 1e-5 * np.abs(was).max()
        np.testing.assert_allclose(found, was, rtol=0, atol=tolerance, err_msg=name)


def _requests() -> list[tuple[str, dict[str, np.ndarray]]]:
    """One request to each signature of the export that looks at a picture."""
    box = np.array([BOX.split(",")], np.float32)
    files = {"image_bytes": np.array([Path("picture.jpg").read_bytes()], object), "box": box}
    small = Image.open("picture.jpg").convert("RGB").resize((32, 32), Image.Resampling.BOX)
    tensor = {"image": np.asarray(small)[None]}
    return [("serving_default", files), ("tta", files), ("tensor", tensor)]


def _answers(directory: Path, requests) -> dict[str, dict[str, np.ndarray]]:
    """What a model answers, by signature, loaded as TensorFlow Serving does it."""
    found = {}
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(directory))
        for signature, values in requests:
            definition = meta.signature_def[signature]
            feeds = {definition.inputs[name].name: value for name, value in values.items()}
            outputs = {name: output.name for name, output in definition.outputs.items()}
            found[signature] = session.run(outputs, feeds)
    return found


def test_the_data_set_is_what_its_manifest_says():
    _check(verify.verify(str(FOLDER / "dataset")), EXPECTED["verify"])


@pytest.mark.parametrize("name", EXPECTED["evaluate"])
def test_evaluate(run, command, name):
    checkpoint, tta = name.split()
    command("tfhuber.evaluate", "--run", run, "--checkpoint", checkpoint, "--tta", tta)
    written = max(run.rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    _check(json.loads(written.read_text()), EXPECTED["evaluate"][name])


def test_predictions_of_examples(run):
    found = collect(load_run(run), open_split("dataset", "test"))
    count = len(EXPECTED["examples"]["landmarks"]) // found.landmarks[0].size
    first = {name: getattr(found, name)[:count] for name in EXPECTED["examples"]}
    _check(first, EXPECTED["examples"])


@pytest.mark.parametrize("option", EXPECTED["predict"])
def test_predict_with_the_export(run, command, tmp_path, option):
    arguments = ["picture.jpg", "--box", BOX, "--json", tmp_path / "found.json"]
    command("tfhuber.predict", "--model", "export", *arguments, *option.split())
    _check(json.loads((tmp_path / "found.json").read_text()), EXPECTED["predict"][option])


def test_the_export_answers(run):
    _check(_answers(Path("export/1"), _requests()), EXPECTED["signatures"])


@pytest.mark.slow
def test_another_export_of_the_run_answers_the_same(run, command, tmp_path):
    command("tfhuber.export", "--run", run, "--output", tmp_path / "model")
    requests = [*_requests(), ("metadata", {"query": np.array([b""], object)})]
    found = _answers(tmp_path / "model/1", requests)
    _check(found, EXPECTED["signatures"])
    says = json.loads(Path("export/1/assets.extra/model.json").read_text())
    del says["exported"]
    _check(json.loads(found["metadata"]["json"][0]), says)


def _train(command, run: Path) -> dict:
    command("tfhuber.train", "--config", "config.json", "--data", "dataset", "--run", run)
    return json.loads((run / "metrics.json").read_text())


def test_the_run_is_finished(run, command):
    before = {path.name: path.stat().st_ino for path in (run / "latest").glob("ckpt-*")}
    _check(_train(command, run), EXPECTED["train"])
    after = {path.name: path.stat().st_ino for path in (run / "latest").glob("ckpt-*")}
    assert after == before and "ckpt-4.index" in before
    assert json.loads((run / "run.json").read_text())["training"]["steps"] == 4


@pytest.mark.slow
def test_the_run_goes_on_from_its_first_epoch(run, command):
    """As if it had been killed then: with the optimiser's state and the weights' average."""
    for path in [*(run / "latest").glob("ckpt-4.*"), run / "metrics.json"]:
        path.unlink()
    values = json.loads((run / "run.json").read_text())
    values["training"]["steps"] = 2
    values["results"]["latest"] = values["results"]["best"]
    (run / "run.json").unlink()  # it is a link
    (run / "run.json").write_text(json.dumps(values))
    found, was = _train(command, run), EXPECTED["continued"]
    if EXACT:
        _check(found, was)
    # Adam's first steps are as large for a gradient that is all rounding; after one epoch it was 19.2.
    assert found["nme"] == pytest.approx(was["nme"], rel=1e-2)
    assert sorted(path.stem for path in (run / "latest").glob("*.index")) == ["ckpt-2", "ckpt-4"]
