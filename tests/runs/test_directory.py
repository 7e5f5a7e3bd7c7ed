"""What is wrong in a run's directory is mended, or named in one line before anything is trained."""

import functools
import json

import numpy as np
import pytest

from tfhuber.data import dataset
from tfhuber.landmarks import known_sets
from tfhuber.runs.directory import claim, fit_whitening


@pytest.fixture
def run(tiny_config, tmp_path):
    """A run that has just begun."""
    claim(tmp_path / "run", tiny_config, known_sets.WFLW)
    return tmp_path / "run"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"config": 1}', '{"config": {}}']
)
def test_a_damaged_run_json_is_named(run, tiny_config, content):
    (run / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run.json is damaged \(.*; put a copy of it back"):
        claim(run, tiny_config, known_sets.WFLW)


def test_a_start_that_was_cut_off_is_no_other_run(run, tiny_config):
    (run / "run.json").rename(run / "run.json.tmp")
    claim(run, tiny_config, known_sets.WFLW)
    assert [path.name for path in run.iterdir()] == ["run.json"]


def test_another_data_set_in_the_same_place_is_warned_of(run, tiny_config, caplog):
    claim(run, tiny_config, known_sets.WFLW)
    assert not caplog.records
    values = json.loads((run / "run.json").read_text())
    values["provenance"]["data"]["sha256"] = "0" * 64
    (run / "run.json").write_text(json.dumps(values))
    claim(run, tiny_config, known_sets.WFLW)
    assert "has changed since" in caplog.text


def test_a_damaged_whitening_is_computed_again(run, tiny_config, caplog, monkeypatch):
    few = functools.partial(dataset.augmented_labels, minimum=100)
    monkeypatch.setattr(dataset, "augmented_labels", few)
    split = dataset.open_split(tiny_config.data.directory, "train")
    path = run / "whitening.json"
    fit_whitening(run, tiny_config, split)
    whole = path.read_text()
    values = json.loads(whole)
    values["factor"][5][1][0] = np.nan
    for content in ("", whole[: len(whole) // 2], json.dumps(values)):
        caplog.clear()
        path.write_text(content)
        fit_whitening(run, tiny_config, split)
        assert path.read_text() == whole and "computing it again" in caplog.text


def test_a_full_disk_names_the_file(tiny_config, tmp_path, full_disk):
    with full_disk(64), pytest.raises(OSError, match=r"run/run.json'"):
        claim(tmp_path / "run", tiny_config, known_sets.WFLW)
    assert not any((tmp_path / "run").iterdir())
