"""The page about one's own data is true: its example runs, and no key, option or reason is left out."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from reader_outcomes import Annotation, read_all

from pipelines.notes import MEANINGS
from pipelines.options import COCO_OPTIONS
from pipelines.readers.coco import Coco
from pipelines.storage import Source
from tfhuber.data import records
from tfhuber.landmarks import known_sets

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/bring_your_own_data.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def rows(title):
    """The first column of a section's table, as the codes that it names."""
    section = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    cells = re.findall(r"^\| (`.*?) \|", section[1], re.MULTILINE)
    return [code for cell in cells for code in re.findall(r"`(.*?)`", cell)]


def shell(block, directory):
    """Runs a block of commands as someone in the project's directory would, but in another one."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        ["bash", "-euc", block], cwd=directory, env=environment, text=True, capture_output=True
    )


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A directory in which the example has been converted and verified, and what that printed."""
    directory = tmp_path_factory.mktemp("example")
    (script,) = blocks("python")
    (directory / "wrenches.py").write_text(script, encoding="utf-8")
    (directory / "configs").symlink_to(ROOT / "configs")
    done = shell(blocks("bash")[0], directory)
    assert done.returncode == 0, done.stderr
    return directory, done.stdout


def test_the_example_is_converted_and_verified(example):
    directory, printed = example
    assert printed.splitlines()[-1] == "data/wrenches: everything is as the manifest says"
    manifest = records.read_manifest(directory / "data/wrenches")
    described = json.loads((directory / "wrenches/landmarks.json").read_text())
    assert known_sets.parse(manifest["landmark_set"]) == known_sets.parse(described)
    assert described == json.loads(blocks("json")[0])
    counts = {name: split["examples"] for name, split in manifest["splits"].items()}
    assert counts == {"train": 24, "test": 6}
    source = directory / "wrenches"
    items = read_all(Coco.from_options(Source(str(source))), source)
    hidden = [item.image for item in items if not item.weights[0]]
    assert hidden == [f"{number}.jpg" for number in range(0, 30, 6)]


@pytest.mark.slow
def test_the_example_trains(example):
    directory, _ = example
    done = shell(blocks("bash")[1], directory)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^nme +\d", done.stdout, re.MULTILINE)


def test_the_two_json_blocks_are_a_data_set(tmp_path):
    described, annotations = blocks("json")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "landmarks.json").write_text(described)
    (tmp_path / "annotations/train.json").write_text(annotations)
    (item,) = read_all(Coco.from_options(Source(str(tmp_path))), tmp_path)
    assert isinstance(item, Annotation) and list(item.weights) == [1, 1, 1, 0]


def test_every_key_of_a_landmark_set_is_explained():
    assert rows("landmarks.json") == list(known_sets.describe(known_sets.WFLW))


def test_every_option_is_explained():
    found = {re.match(r"--([\w-]+)", code)[1] for code in rows("The directory")}
    assert found == {name.replace("_", "-") for name in COCO_OPTIONS}


def test_every_reason_is_explained():
    """The reasons in the code that reads annotations and images, and no others."""
    names = (
        "crops",
        "label_frame",
        "readers/annotation",
        "readers/coco",
        "readers/coco_categories",
        "readers/coco_database",
        "source_image",
        "storage",
    )
    code = "".join((ROOT / f"pipelines/{name}.py").read_text() for name in names)
    literal = re.findall(
        r'Unusable\(\s*f?"([a-z_{}]+)"|(?:return|fault =|fault":) \["([a-z_]+)"', code
    )
    given = {(a or b).replace("{kind}", "image") for a, b in literal}
    given -= {"non_finite_landmark", "absurd_landmark", "non_finite_box"}  # Of other formats only.
    assert set(rows("What is left out, and why")) == given


def test_every_note_is_explained():
    assert [code for code in MEANINGS if f"`{code}`" not in PAGE] == []
