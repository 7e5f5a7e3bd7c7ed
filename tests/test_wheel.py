"""The wheel, in an environment of its own and far from the checkout, holds all that the commands need."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import tfhuber

ROOT = Path(__file__).resolve().parent.parent
BUILT_FROM = (
    *("tfhuber", "pipelines", "serving", "benchmarks", "configs"),
    *("setup.py", "pyproject.toml", "README.md", "LICENSE"),
)
DATA_FOLDERS = {
    "configs": "tfhuber/configs",
    "serving/demo": "serving/demo",
    "serving/kubernetes": "serving/kubernetes",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Make a virtual environment with the wheel; all other packages are those of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, because a build leaves files behind
    source.mkdir()
    for name in BUILT_FROM:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.name == f"tfhuber-{tfhuber.__version__}-py3-none-any.whl"
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin/python"
    install = ["install", "--no-deps", "--no-index", wheel]
    subprocess.run([*pip, "--python", python, *install], check=True)
    # A path in a .pth file brings packages, but not that folder's own .pth files, of which one
    # leads to the checkout.
    packages = sysconfig.get_path("purelib", vars={"base": str(environment)})
    (Path(packages) / "others.pth").write_text(sysconfig.get_path("purelib"))
    return environment


@pytest.fixture(scope="module")
def command(installed, tmp_path_factory):
    """Run a program of the environment in an empty folder; return what it printed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(program, *arguments):
        done = subprocess.run(
            [installed / "bin" / program, *map(str, arguments)],
            cwd=folder,
            env=kept,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.folder = folder
    return run


def test_the_packages_are_the_wheels(installed, command):
    script = "import tfhuber, pipelines, serving\nfor m in tfhuber, pipelines, serving: print(m.__file__)"
    files = command("python", "-c", script).splitlines()
    assert len(files) == 3 and all(Path(file).is_relative_to(installed) for file in files)
    assert command("tfhuber", "--version") == f"tfhuber {tfhuber.__version__}\n"


def test_every_data_file_is_there_byte_for_byte(installed):
    (packages,) = installed.glob("lib/python*/site-packages")
    for source, target in DATA_FOLDERS.items():
        wanted = [path for path in (ROOT / source).rglob("*") if path.is_file()]
        assert len(wanted) > 5
        for path in wanted:
            copy = packages / target / path.relative_to(ROOT / source)
            assert copy.read_bytes() == path.read_bytes()


def test_the_runs_of_a_table_are_planned(command):
    *_, total, hours = command("tfhuber", "reproduce", "table2", "--dry-run").splitlines()
    assert total.split()[:3] == ["60", "runs", "22,464,000"] and "at 20 TFLOP/s" in hours


def test_a_training_of_two_steps(command):
    command("tfhuber", "sample_data", "--dataset", "wflw", "--output", "s", "--train=8", "--test=4")
    convert = ["--dataset", "wflw", "--source", "s", "--output", "data", "--size", "48"]
    command("tfhuber", "make_tfrecords", *convert)
    small = ["train.epochs=1", "train.batch_size=4", "train.ema=0", "model.image_size=32"]
    changes = [argument for change in small for argument in ("--set", change)]
    out = command(
        *("tfhuber", "train", "--config", "configs/demo.json", "--data", "data", "--run", "run"),
        *changes,
    )
    assert out.startswith("run run: ")
    training = json.loads((command.folder / "run/run.json").read_text())["training"]
    assert training["steps"] == 2
