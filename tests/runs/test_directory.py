"""What is wrong in a run's directory is mended, or named in one line before anything is trained."""

import functools
import json

import numpy as np
import pytest

from tfhuber.data import dataset
from tfhuber.landmarks import known_sets
from tfhuber.runs.directory import create_or_check, fit_whitening, locked_run
from tfhuber.training.trainer import recipe_of


@pytest.fixture
def run(tiny_config, tmp_path):
    """Return a run that has just begun."""
    with locked_run(tmp_path / "run"):
        create_or_check(tmp_path / "run", tiny_config, known_sets.WFLW)
    return tmp_path / "run"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"config": 1}', '{"config": {}}']
)
def test_a_damaged_run_json_is_named(run, tiny_config, content):
    (run / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run.json is damaged \(.*; put a copy of it back"):
        create_or_check(run, tiny_config, known_sets.WFLW)


def test_a_start_that_was_cut_off_is_no_other_run(run, tiny_config):
    (run / "run.json").rename(run / "run.json.tmp")
    (run / ".lock").touch()
    with locked_run(run):
        create_or_check(run, tiny_config, known_sets.WFLW)
    assert [path.name for path in run.iterdir()] == ["run.json"]


def test_a_directory_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is no training run"), locked_run(tmp_path):
        pytest.fail("it was let in")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_another_data_set_in_the_same_place_is_warned_of(run, tiny_config, caplog):
    create_or_check(run, tiny_config, known_sets.WFLW)
    assert not caplog.records
    values = json.loads((run / "run.json").read_text())
    values["provenance"]["data"]["sha256"] = "0" * 64
    (run / "run.json").write_text(json.dumps(values))
    create_or_check(run, tiny_config, known_sets.WFLW)
    assert "has changed since" in caplog.text


def test_a_damaged_whitening_is_computed_again(run, tiny_config, caplog, monkeypatch):
    few = functools.partial(dataset.augmented_labels, minimum=100)
    monkeypatch.setattr(dataset, "augmented_labels", few)
    split = dataset.open_split(tiny_config.data.directory, "train")
    path = run / "whitening.json"
    fit_whitening(run, split, recipe_of(tiny_config), tiny_config.model)
    whole = path.read_text()
    values = json.loads(whole)
    values["factor"][5][1][0] = np.nan
    for content in ("", whole[: len(whole) // 2], json.dumps(values)):
        caplog.clear()
        path.write_text(content)
        fit_whitening(run, split, recipe_of(tiny_config), tiny_config.model)
        assert path.read_text() == whole and "computing it again" in caplog.text


def test_a_full_disk_names_the_file(tiny_config, tmp_path, full_disk):
    run = tmp_path / "run"
    with full_disk(64), pytest.raises(OSError, match=r"run/run.json'"), locked_run(run):
        create_or_check(run, tiny_config, known_sets.WFLW)
    assert not any(run.iterdir())
