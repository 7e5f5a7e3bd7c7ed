"""What an exported model says of itself is true of its run, and of its distributions."""

import dataclasses
import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate

from tfhuber.console.files import read_json
from tfhuber.data import dataset
from tfhuber.evaluation.predictions import collect
from tfhuber.runs.load import load_run
from tfhuber.saved_model import description, metadata, session


def test_the_metadata_is_beside_the_model_and_in_its_signature(tiny_run, exported):
    queries = {"query": np.array([b"", b"names?"], object)}
    answer = session.answers(exported / "1", [("metadata", queries)])[0]["json"]
    described = json.loads((exported / "1" / metadata.METADATA).read_text())
    assert [json.loads(row) for row in answer] == [described] * 2
    predictor = load_run(tiny_run)
    run = json.loads((tiny_run / "run.json").read_text())
    assert described["format"] == 1 and described["family"] == "huber"
    assert described["image_size"] == 32 and described["square"] == "diagonal"
    assert described["kappa"] == float(predictor.energy.kappa(2))
    assert metadata.ModelMetadata.read(exported / "1").kappa == described["kappa"]
    assert described["landmark_set"] == {
        "name": "wflw",
        "names": list(predictor.landmark_set.names),
        "edges": [list(edge) for edge in predictor.landmark_set.edges],
        "mirror": list(predictor.landmark_set.mirror),
    }
    training = described["training"]
    assert training["step"] == run["training"]["steps"] and training["run"] == "tiny"
    assert training["data_manifest"] == run["provenance"]["data"]["sha256"]
    assert training["versions"] == run["provenance"]["versions"]
    assert described["metrics"]["nme"] == run["results"]["latest"]["nme"]


def test_the_step_is_that_of_the_checkpoint_that_was_read(tiny_run, tmp_path):
    """A damaged newest one is skipped: the model is the one before, and its metadata says so."""
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    (newest,) = (copy / "latest").glob("ckpt-10.index")
    newest.write_bytes(b"junk")
    predictor = load_run(copy)
    described = description.describe(predictor, copy, "latest", np.ones((2, 98)))
    assert predictor.step == described["training"]["step"] == 5
    assert described["metrics"] is None and load_run(tiny_run).step == 10


def test_metrics_of_another_step_and_numbers_that_json_lacks_are_left_out(tiny_run, tmp_path):
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    values = json.loads((copy / "run.json").read_text())
    values["results"]["latest"]["nme"] = float("nan")
    (copy / "run.json").write_text(json.dumps(values))
    predictor, deviations = load_run(copy), np.ones((2, 98))
    described = description.describe(predictor, copy, "latest", deviations)
    assert described["metrics"]["nme"] is None and description.text(described)
    values["results"]["latest"]["step"] -= 1
    (copy / "run.json").write_text(json.dumps(values))
    assert description.describe(predictor, copy, "latest", deviations)["metrics"] is None


ENERGIES = {
    "huber": lambda r, delta: r * r / 2 if r <= delta else delta * (r - delta / 2),
    "gauss": lambda r, _: r * r / 2,
    "laplace": lambda r, _: r,
    "charbonnier": lambda r, _: np.sqrt(r * r + 1) - 1,
}


@pytest.mark.parametrize(
    ("family", "delta"),
    [
        ("huber", 0.3),
        ("huber", 1.0),
        ("huber", 4.0),
        ("gauss", 1),
        ("laplace", 1),
        ("charbonnier", 1),
    ],
)
def test_ellipses_hold_what_their_levels_say(tiny_run, family, delta):
    """The integral of r exp(-rho(r)) up to each radius, by quadrature."""
    predictor = load_run(tiny_run)
    options = predictor.options.model_copy(update={"family": family, "delta": delta})
    predictor = dataclasses.replace(predictor, options=options)
    ellipses = description.describe(predictor, tiny_run, "best", np.ones((1, 98)))["ellipses"]
    assert np.all(np.diff(ellipses["radii"]) > 0) and len(ellipses["levels"]) == 101

    def density(radius):
        return radius * np.exp(-ENERGIES[family](radius, delta))

    def mass(end):
        knees = [knee for knee in (delta, 5.0, 30.0) if knee < end]
        ends = [0.0, *sorted(knees), end]
        return sum(integrate.quad(density, a, b)[0] for a, b in pairwise(ends))

    total = mass(400.0)
    for level, radius in list(zip(ellipses["levels"], ellipses["radii"], strict=True))[::10]:
        assert mass(radius) / total == pytest.approx(level, abs=1e-6)


def test_the_uncertainty_reference_is_what_evaluation_finds(tiny_run, tiny_config, exported):
    reference = read_json(exported / "1" / metadata.METADATA)["uncertainty"]
    split = dataset.open_split(tiny_config.data.directory, "test")
    predictions = collect(load_run(tiny_run), split)
    rows = dataset.evaluation_batches(split, 32, 8).unbatch()
    box = np.stack([example["box"] for example in rows])
    size = np.sqrt((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]))
    variance = np.trace(predictions.covariance, axis1=2, axis2=3) / 2
    expected = np.quantile(np.sqrt(variance) / size[:, None], reference["levels"])
    assert reference["examples"] == split.examples == len(box)
    np.testing.assert_allclose(reference["values"], expected, rtol=0.05)
