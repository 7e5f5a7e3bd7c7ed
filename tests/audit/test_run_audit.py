"""The command on a small run: its table, its pictures, and what it says."""

import csv

import numpy as np
from PIL import Image

from benchmarks.audit import damaged, rankings
from tfhuber.audit import __main__ as command
from tfhuber.audit.run_audit import suspects
from tfhuber.calibration.law import Law
from tfhuber.data.dataset import open_split
from tfhuber.evaluation.predictions import collect
from tfhuber.runs.load import load_run, read_config


def test_suspects_are_written(tiny_run, tmp_path, monkeypatch, capsys):
    output = tmp_path / "audit"
    monkeypatch.setattr(
        "sys.argv", ["audit", "--run", str(tiny_run), "--output", str(output), "--split", "train"]
    )
    assert command.main() == 0
    said = capsys.readouterr().out
    assert "annotations in doubt" in said and "the run was trained on this split" in said
    with (output / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and all(score > 0 for score in scores)
    for row in rows:
        if row["landmark"]:
            label, place = (
                [float(row[f"{of}_{axis}"]) for axis in "xy"] for of in ("label", "predicted")
            )
            assert abs(np.hypot(*np.subtract(label, place)) - float(row["distance"])) < 0.02
    assert bool(rows) == (output / "suspects.png").exists()


def test_damaged_annotations_come_first(tiny_run):
    """Its covariances made small, the small run's predictions stand for those of a good one."""
    predictor, config = load_run(tiny_run), read_config(tiny_run)
    found = collect(predictor, open_split(config.data.directory, config.data.train_split))
    rng, law = np.random.default_rng(0), Law("huber")
    mirror = np.array(predictor.landmark_set.mirror)
    found.truth[:] = found.landmarks + rng.normal(0, 1, found.truth.shape)
    found.predicted.precision_factor[:] = np.eye(2)
    found.predicted.log_det[:] = 0
    for kind in ("left-right", "shifted"):
        labels, wrong = damaged(found, kind, 4, mirror, rng)
        doubted = suspects(labels, law, mirror.tolist())
        whole = {suspect.index: suspect.kind for suspect in doubted if suspect.landmark is None}
        assert whole == dict.fromkeys(wrong.tolist(), kind)
        assert set(rankings(labels, law, mirror)["audit"][:4].tolist()) == set(wrong.tolist())


def test_a_sheet_is_a_picture(tiny_run, tmp_path, monkeypatch):
    output = tmp_path / "audit"
    monkeypatch.setattr("sys.argv", ["audit", "--run", str(tiny_run), "--output", str(output)])
    assert command.main() == 0
    if (output / "suspects.png").exists():
        assert Image.open(output / "suspects.png").width > 300
