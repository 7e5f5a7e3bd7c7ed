"""The shipped configurations are found from any folder, in a source tree and in a wheel's layout."""

from pathlib import Path

import pytest

from tfhuber.config import schema, shipped

ROOT = Path(__file__).resolve().parents[2]


def test_a_shipped_configuration_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = schema.load("configs/wflw.json")
    assert found == schema.load(ROOT / "configs/wflw.json") and found.model.backbone == "resnet101"


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "configs/wflw.json"
    mine.parent.mkdir()
    mine.write_text('{"data": {"directory": "mine"}}')
    assert schema.load("configs/wflw.json").data.directory == "mine"


@pytest.mark.parametrize("path", ["wflw.json", "other/configs/wflw.json", "configs/none.json"])
def test_another_path_is_an_error_that_lists_what_is_shipped(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"{path}; .*configs/mpii\.json, .*configs/wflw\.json"):
        schema.load(path)


def test_a_wheel_has_them_inside_the_package(tmp_path, monkeypatch):
    (tmp_path / "tfhuber/configs").mkdir(parents=True)
    (tmp_path / "tfhuber/configs/only.json").write_text("{}")
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "tfhuber")
    assert shipped.shipped_configs() == ["configs/only.json"]
    assert shipped.config_path("configs/only.json") == tmp_path / "tfhuber/configs/only.json"
