"""`run.json` keeps a run's time and results, whatever ends the process."""

import json
from types import SimpleNamespace

import pytest

from tfhuber.data import records
from tfhuber.landmarks import known_sets
from tfhuber.runs import directory, results
from tfhuber.runs.directory import RunFile


def _metrics(nme):
    return {
        "split": "test",
        "nme": nme,
        "subsets": {"blur": {"nme": 2 * nme}},
        "sharpness": {"percent": {"median_deviation": 1.5, "mean_deviation": 2.0}, "pixels": {}},
        "calibration": {"slope": 0.9, "rank_correlation": None, "bins": {"count": [3]}},
    }


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"config": {"train": {"epochs": 3}}}))
    return tmp_path


@pytest.fixture
def clock(monkeypatch):
    """Return a function that lets so many seconds pass."""
    now = [1000.0]
    # This module's clock only: other threads of the process have a right to the real one.
    monkeypatch.setattr(directory, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def wait(seconds):
        now[0] += seconds

    return wait


def _read(run):
    return json.loads((run / "run.json").read_text())


def test_time_adds_up_over_kills(run, clock):
    file = RunFile(run, batch_size=32)
    clock(100)
    file.save(50)
    with file.evaluating(50):
        clock(30)
    file.save(50, _metrics(5.0), True)
    clock(1000)  # lost: no checkpoint came after it
    file = RunFile(run, batch_size=32)
    clock(60)
    file.save(80)
    assert _read(run)["training"] == {
        "seconds": 190.0,
        "evaluation_seconds": 30.0,
        "images_per_second": 80 * 32 / 160,
        "steps": 80,
    }


def test_an_evaluation_that_is_made_again_counts_once(run, clock):
    for _ in range(3):
        file = RunFile(run, batch_size=32)
        clock(0 if _read(run).get("training") else 100)
        with file.evaluating(50):
            clock(30)
        file.save(50, _metrics(5.0), True)
        assert _read(run)["training"]["seconds"] == 130.0
        assert _read(run)["training"]["evaluation_seconds"] == 30.0


def test_the_latest_and_the_best_results_are_kept(run, clock):
    file = RunFile(run, batch_size=32)
    for step, nme, best in ((50, 5.0, True), (100, 6.0, False)):
        clock(10)
        file.save(step, _metrics(nme), best)
    file = RunFile(run, batch_size=32)
    clock(10)
    file.save(150, _metrics(7.0), False)
    file.save(160)
    values = _read(run)
    assert values["results"]["best"] == {
        "step": 50,
        "split": "test",
        "nme": 5.0,
        "sharpness": {"percent": {"median_deviation": 1.5}},
        "calibration": {"slope": 0.9, "rank_correlation": None},
    }
    assert values["results"]["latest"]["step"] == 150 and values["results"]["latest"]["nme"] == 7.0
    assert values["training"]["steps"] == 160
    assert values["config"] == {"train": {"epochs": 3}}


def test_a_run_is_finished_once_that_is_noted(run, clock, tmp_path):
    file = RunFile(run, batch_size=32)
    clock(10)
    file.save(50, _metrics(5.0), True)
    assert results.read_end(run) is None
    data = tmp_path / "data"
    data.mkdir()
    manifest = {
        "landmark_set": known_sets.describe(known_sets.WFLW),
        "splits": {"test": {"examples": 0, "shards": []}},
    }
    (data / records.MANIFEST).write_text(records.manifest_text(manifest))
    file.finish(50, data)
    checksum = records.read_manifest(data)["sha256"]
    assert results.read_end(run) == results.End(50, None, checksum) and len(checksum) == 64
    file.save(50)
    assert _read(run)["finished"] == {"step": 50, "data_sha256": checksum}


@pytest.mark.parametrize(
    "damage", [{"training": 3}, {"training": {"seconds": "long"}}, {"results": [1]}], ids=str
)
def test_what_cannot_be_understood_is_refused(run, damage):
    (run / "run.json").write_text(json.dumps({"config": {}, **damage}))
    with pytest.raises(ValueError, match=r"run\.json is damaged \(.*\); delete "):
        RunFile(run, batch_size=32)
