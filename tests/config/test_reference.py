"""`python -m tfhuber.config`: every key is documented, and a file's differences are the true ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from tfhuber.config import reference, schema
from tfhuber.console.cli import run_main

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.json"))
SECTIONS = {name: f.annotation for name, f in schema.Config.model_fields.items()}
SECTIONS = {
    name: s for name, s in SECTIONS.items() if isinstance(s, type) and issubclass(s, BaseModel)
}
KEYS = {
    f"{name}.{key}": field for name, s in SECTIONS.items() for key, field in s.model_fields.items()
}


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command and return its lines."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["config", *map(str, arguments)])
        assert reference.main() == 0
        return capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_described_in_a_sentence(key):
    description = KEYS[key].description
    assert description and len(description) > 10 and description.endswith(".")


def test_there_are_sections_and_each_says_what_it_is():
    assert {"data", "model", "augmentation", "train"} <= set(SECTIONS)
    assert all(section.__doc__ for section in SECTIONS.values())


def test_the_reference_has_every_key_once_with_its_description(monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "90")
    lines = command()
    assert max(map(len, lines)) <= 90
    starts = [line.split()[0] for line in lines if line[:2] == "  " and line[2:3].strip()]
    assert starts == ["about", *KEYS]
    text = " ".join(" ".join(lines).split())
    assert all(" ".join(field.description.split()) in text for field in KEYS.values())


@pytest.mark.parametrize(
    ("key", "facts"),
    [
        ("data.directory", "text; required"),
        ("data.wrong_labels", "number >= 0, <= 1; default 0.0"),
        ("augmentation.perspective", "number >= 0, < 1; default 0.3"),
        ("augmentation.equal_spacing", "true | false; default true"),
        ("model.pretrained", "text or null; default null"),
        ("model.pooling", '"convolution" | "average" | "spatial_softmax"; default "convolution"'),
        ("model.image_size", "whole number >= 32, <= 1024, in steps of 32; default 224"),
        ("train.epochs", "whole number >= 1; default 50"),
        ("train.learning_rate", "list of [number, number > 0]; default [[0, 0.001], "),
    ],
)
def test_what_is_allowed_and_what_is_the_default(key, facts):
    (line,) = [x for x in reference.reference(200).splitlines() if x.split()[:1] == [key]]
    assert line.split(maxsplit=1)[1].startswith(facts)


def test_a_file_shows_what_differs_from_the_defaults(tmp_path, command):
    path = tmp_path / "c.json"
    values = {
        "about": "ignored",
        "data": {"directory": "d", "train_split": "train"},
        "train": {"epochs": 3, "learning_rate": [[0, 0.5]]},
    }
    path.write_text(json.dumps(values))
    rate = "default [[0, 0.001], [25, 0.001], [40, 0.0001], [50, 1e-05]]"
    assert [" ".join(line.split()) for line in command(path)] == [
        'data.directory "d" required',
        "train.epochs 3 default 50",
        f"train.learning_rate [[0.0, 0.5]] {rate}",
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads_and_is_what_it_shows(path, command):
    """The defaults with the values that are shown make the configuration again."""
    loaded = schema.load(path)
    values = {"about": loaded.about}
    for line in command(path):
        key, rest = line.split(maxsplit=1)
        section, name = key.split(".")
        values.setdefault(section, {})[name] = json.JSONDecoder().raw_decode(rest)[0]
    assert schema.parse(values) == loaded


def test_flatten_keeps_empty_sections():
    assert reference.flatten({"a": {"b": {"c": 1}, "d": [2]}, "e": {}}) == {
        "a.b.c": 1,
        "a.d": [2],
        "e": {},
    }


def test_a_wrong_file_is_one_line(tmp_path, monkeypatch, capsys):
    path = tmp_path / "c.json"
    path.write_text('{"data": {"directory": "d"}, "train": {"epoch": 3}}')
    monkeypatch.setattr(sys, "argv", ["config", str(path)])
    with pytest.raises(SystemExit) as stop:
        run_main(reference.main)
    captured = capsys.readouterr()
    assert stop.value.code == 2 and captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and "did you mean 'epochs'" in line


def test_the_configurations_module_is_the_command():
    command = [sys.executable, "-m", "tfhuber.config"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "train.epochs" in done.stdout and done.stderr == ""
