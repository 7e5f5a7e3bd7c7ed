"""The command on a small run: its table, its pictures, and what it says."""

import csv

import numpy as np
import pytest

from benchmarks.audit import damaged, rankings
from tfhuber.audit import __main__ as command
from tfhuber.audit.run_audit import sheet, suspects, write_table
from tfhuber.calibration.law import Law
from tfhuber.data.dataset import open_split
from tfhuber.evaluation.predictions import collect
from tfhuber.runs.load import load_run, read_config


@pytest.fixture
def sound(tiny_run):
    """The tiny run's model and split, with labels as near to its predictions as a good model is to them."""
    predictor, config = load_run(tiny_run), read_config(tiny_run)
    split = open_split(config.data.directory, config.data.train_split)
    found = collect(predictor, split)
    found.truth[:] = found.landmarks + np.random.default_rng(0).normal(0, 1, found.truth.shape)
    found.predicted.precision_factor[:] = np.eye(2)
    found.predicted.log_det[:] = 0
    return predictor, split, found


def test_the_command_says_what_it_wrote(tiny_run, tmp_path, monkeypatch, capsys):
    output = tmp_path / "audit"
    arguments = ["--run", str(tiny_run), "--output", str(output), "--split", "train"]
    monkeypatch.setattr("sys.argv", ["audit", *arguments])
    assert command.main() == 0
    said = capsys.readouterr().out
    assert "annotations in doubt" in said and f"wrote {output / 'suspects.csv'}" in said
    assert "the run was trained on this split" in said
    assert (output / "suspects.csv").read_text().startswith("rank,example,kind,score,landmark")
    # Files of an earlier audit go, where nothing is in doubt any more.
    (output / "suspects.json").touch()
    (output / "CollectedData_audit.csv").touch()
    monkeypatch.setattr(command.run_audit, "suspects", lambda *_: [])
    assert command.main() == 0
    assert [path.name for path in output.iterdir()] == ["suspects.csv"]


@pytest.mark.parametrize("kind", ["left-right", "shifted"])
def test_damaged_annotations_come_first(sound, kind):
    predictor, _, found = sound
    law, mirror = Law("huber"), np.array(predictor.landmark_set.mirror)
    labels, wrong = damaged(found, kind, 4, mirror, np.random.default_rng(1))
    doubted = suspects(labels, law, mirror.tolist())
    whole = {suspect.index: suspect.kind for suspect in doubted if suspect.landmark is None}
    assert whole == dict.fromkeys(wrong.tolist(), kind)
    assert set(rankings(labels, law, mirror)["audit"][:4].tolist()) == set(wrong.tolist())


def test_the_table_and_the_sheet_show_the_label_that_was_moved(sound, tmp_path):
    predictor, split, found = sound
    found.truth[5, 7] += [30, 40]
    doubted = suspects(found, Law("huber"), predictor.landmark_set.mirror)
    first = doubted[0]
    assert (first.index, first.kind, first.landmark) == (5, "points", 7)
    names = predictor.landmark_set.names
    write_table(tmp_path / "suspects.csv", doubted, found, names)
    with (tmp_path / "suspects.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["rank"], row["landmark"], row["example"]) == ("1", names[7], found.id[5].decode())
    assert abs(float(row["distance"]) - 50) < 4
    assert sheet(doubted[:1], predictor, split, found).width > 300


def test_a_prediction_that_is_not_finite_is_an_error(sound):
    predictor, _, found = sound
    found.landmarks[3, 4] = np.inf
    with pytest.raises(ValueError, match=f"{found.id[3].decode()} is not finite"):
        suspects(found, Law("huber"), predictor.landmark_set.mirror)
