"""Cross-fitting from end to end: folds are trained, audit their own data, and calibrate a run."""

import json
import shutil

import numpy as np
import pytest

from tfhuber import calibrate, crossfit
from tfhuber.audit import __main__ as audit
from tfhuber.calibration.model import load_calibration
from tfhuber.data import records
from tfhuber.evaluation.predictions import collect
from tfhuber.runs.folds import HELD, read_folds

pytestmark = pytest.mark.slow


def call(monkeypatch, command, *arguments):
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    return command.main()


@pytest.fixture(scope="module")
def plan(tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("crossfit")
    config = folder / "tiny.json"
    config.write_text(tiny_config.model_dump_json(exclude_defaults=True))
    return [
        "--config",
        config,
        "--output",
        folder / "folds",
        "--folds",
        "2",
    ], folder / "folds"


def test_folds_audit_and_calibrate(plan, tiny_run, tmp_path, monkeypatch, capsys):
    arguments, output = plan
    assert call(monkeypatch, crossfit, *arguments) == 0
    said = capsys.readouterr().out
    assert "fold 1 of 2" in said and "fold 2 of 2" in said and "folds.json" in said
    divided = read_folds(output)
    weights = divided.directories[0] / "run" / "metrics.json"
    before = weights.stat().st_mtime_ns
    assert call(monkeypatch, crossfit, *arguments) == 0  # nothing is trained again
    assert weights.stat().st_mtime_ns == before
    capsys.readouterr()

    # Each fold's predictions come in the place of the example that they are of.
    _, split, found = audit.run_audit.cross_fitted(divided)
    assert len(found.id) == split.examples
    own = audit.load.load_run(divided.directories[1] / "run")
    part = collect(own, audit.dataset.open_split(divided.directories[1] / "data", HELD))
    place = [list(found.id).index(id) for id in part.id]
    np.testing.assert_array_equal(found.landmarks[place], part.landmarks)
    np.testing.assert_array_equal(found.truth[place], part.truth)

    assert call(monkeypatch, audit, "--folds", output) == 0
    said = capsys.readouterr().out
    assert f"of {split.examples} annotations in doubt" in said
    assert (output / "audit" / "suspects.csv").is_file() and "trained on" not in said

    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    assert call(monkeypatch, calibrate, "--run", run, "--folds", output) == 0
    made = load_calibration(run)
    assert made.source.split == "train in 2 folds" and made.source.examples == split.examples
    assert f"{made.source.photographs} photographs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--folds", "3"], "other folds"),
        (["--folds", "1"], "at least 2"),
        (["--by", "folder"], "other by"),
        (["--set", "train.epochs=5"], "other config"),
    ],
)
def test_other_folds_in_the_same_place_are_refused(plan, tiny_config, monkeypatch, change, message):
    arguments, output = plan
    sha256 = records.read_manifest(tiny_config.data.directory)["sha256"]
    parsed = crossfit.schema.load(arguments[1])
    settings = parsed.model_dump(mode="json", exclude={"data": {"directory"}})
    begun = {"sha256": sha256, "split": "train", "folds": 2, "by": "photograph"}
    crossfit._keep_to(output / "plan.json", begun | {"config": settings})
    before = json.loads((output / "plan.json").read_text())
    with pytest.raises(ValueError, match=message):
        call(monkeypatch, crossfit, *arguments, *change)
    assert json.loads((output / "plan.json").read_text()) == before


def test_folds_of_another_training_do_not_calibrate(plan, tiny_run, tmp_path, monkeypatch):
    """Of other settings, their errors say nothing of the run's; of other data neither."""
    _, output = plan
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    about = json.loads((run / "run.json").read_text())
    for section, change, message in (
        ("train", {"epochs": 9}, r"other settings than the run \(train\)"),
        ("data", {"train_split": "test"}, "they must be the same"),
    ):
        config = {**about["config"], section: {**about["config"][section], **change}}
        (run / "run.json").write_text(json.dumps({**about, "config": config}))
        with pytest.raises(ValueError, match=message):
            call(monkeypatch, calibrate, "--run", run, "--folds", output)
    assert not (run / "calibration.json").exists()


def test_folds_that_are_not_there_are_said_to_be(tmp_path, tiny_run, monkeypatch):
    with pytest.raises(ValueError, match=r"no folds\.json"):
        call(monkeypatch, audit, "--folds", tmp_path)
    with pytest.raises(ValueError, match="leave out --data"):
        call(monkeypatch, calibrate, "--run", tiny_run, "--folds", tmp_path, "--data", tmp_path)
