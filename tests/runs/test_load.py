"""A run's configuration is read back without its model."""

import json

import pytest

from tfhuber.runs.load import load_run, read_config


def test_the_configuration_is_what_the_run_was_started_with(tiny_run, tiny_config):
    assert read_config(tiny_run) == tiny_config
    predictor = load_run(tiny_run)
    assert predictor.options == tiny_config.model
    assert predictor.batch_size == tiny_config.train.batch_size


@pytest.mark.parametrize("content", [{}, [], {"config": {"train": {"epochs": -1}}}])
def test_what_is_no_run_is_refused_by_its_name(tmp_path, content):
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"run\.json"):
        read_config(tmp_path)
