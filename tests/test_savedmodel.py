"""The facts beside an exported model."""

import pytest

from tfhuber import savedmodel
from tfhuber.files import read_json, write_json
from tfhuber.savedmodel import Facts

FILE = "assets.extra/landmarks.json"


def test_facts_come_back_as_they_were_written(tmp_path):
    facts = Facts(["a", "b"], [(0, 1)], 1.5, "charbonnier")
    savedmodel.write_facts(tmp_path, facts)
    assert savedmodel.read_facts(tmp_path) == facts


def test_models_without_a_family_are_hubers(tmp_path):
    savedmodel.write_facts(tmp_path, Facts(["a"], [], 0.5))
    values = read_json(tmp_path / FILE)
    assert values.pop("family") == "huber"
    write_json(tmp_path / FILE, values)
    assert savedmodel.read_facts(tmp_path) == Facts(["a"], [], 0.5, "huber")


@pytest.mark.parametrize("family", ["cauchy", None, 3])
def test_an_unknown_family_is_refused(tmp_path, family):
    savedmodel.write_facts(tmp_path, Facts(["a"], [], 0.5))
    write_json(tmp_path / FILE, read_json(tmp_path / FILE) | {"family": family})
    with pytest.raises(ValueError, match=f"unknown family, {family!r}.*export the model again"):
        savedmodel.read_facts(tmp_path)
