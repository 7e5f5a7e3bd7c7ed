"""The environment: what is declared, what is pinned, and how the Makefile makes it."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from pinned_packages import pinned_version, pins

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    Requirement(line)
    for line in [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
]


# --- pyproject.toml and constraints.txt


@pytest.mark.parametrize(
    ("python", "allowed"),
    [("3.10.14", False), ("3.11.0", True), ("3.12.9", True), ("3.13.0", True), ("3.14.0", False)],
)
def test_python_range(python, allowed):
    assert SpecifierSet(PROJECT["requires-python"]).contains(python) is allowed


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_dependency_has_an_exact_pin_within_its_range(requirement):
    pin = pins().get(canonicalize_name(requirement.name))
    assert pin is not None, f"constraints.txt has no line for {requirement.name}"
    assert requirement.specifier.contains(pinned_version(pin))


def test_every_line_of_the_constraints_is_an_exact_pin():
    assert len([pinned_version(pin) for pin in pins().values()]) > 80


@pytest.mark.parametrize("name", ["tensorflow-cpu", "tensorflow-addons"])
def test_packages_that_must_stay_out(name):
    assert name not in pins()
    assert name not in {canonicalize_name(requirement.name) for requirement in REQUIREMENTS}


def test_what_is_installed_is_what_is_pinned():
    if not (ROOT / ".venv" / "installed").exists():
        pytest.skip("this environment was not made by `make environment`")
    # Not all of sys.path, to which setuptools adds copies of its own.
    site_packages = distributions(path=[sysconfig.get_path("purelib")])
    installed = {canonicalize_name(d.name): d.version for d in site_packages}
    pinned = {name: pinned_version(pin) for name, pin in pins().items() if name in installed}
    assert {name: installed[name] for name in pinned} == pinned


def test_the_whole_set_works_in_one_process(tmp_path):
    """TensorFlow, Beam and TensorFlow Probability agree on protobuf, NumPy and Keras."""
    script = """
import apache_beam, google_crc32c, keras, keras_hub, tensorflow as tf, tensorflow_probability as tfp
assert google_crc32c.implementation == "c", "Beam would checksum TFRecords in pure Python"
assert keras.backend.backend() == "tensorflow"
assert abs(float(tfp.distributions.Normal(0.0, 1.0).log_prob(0.0)) + 0.9189385) < 1e-6
with tf.summary.create_file_writer("logs").as_default():
    tf.summary.scalar("loss", 1.0, step=0)
assert tf.train.Example.FromString(tf.train.Example().SerializeToString()) == tf.train.Example()
"""
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# --- the Makefile


@pytest.fixture
def checkout(tmp_path):
    """Make a copy of what the Makefile reads, without an environment, in a folder with a space."""
    root = tmp_path / "a folder"
    (root / "tools").mkdir(parents=True)
    for name in ("Makefile", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    shutil.copy(ROOT / "tools" / "check_python.py", root / "tools")
    return root


def make(root, *arguments, path=None):
    """Run make in `root`, as from a terminal and not as part of the make that runs the tests."""
    environment = {"PATH": path or "/usr/bin:/bin", "LC_ALL": "C"}
    command = [shutil.which("make"), *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def python_that(path, prelude):
    """Make an executable that runs a script as Python does, after `prelude` has changed the facts."""
    runner = f"import runpy, sys; {prelude}; runpy.run_path(sys.argv[1], run_name='__main__')"
    return executable(path, f'#!/bin/sh\nexec "{sys.executable}" -c "{runner}" "$@"\n')


OLD = "sys.version_info = (3, 9, 2, 'final', 0)"
NEW = "sys.version_info = (3, 14, 0, 'final', 0)"
WITHOUT_VENV = "sys.modules['ensurepip'] = None"


def test_make_alone_prints_the_targets():
    run = make(ROOT)
    assert run.returncode == 0
    targets = re.findall(r"^  make ([a-z-]+)", run.stdout, re.MULTILINE)
    assert targets == ["help", "demo", "test", "test-slow", "lint", "docs", "environment", "clean"]


@pytest.mark.parametrize("target", ["demo", "test", "test-slow", "lint", "docs", "environment"])
def test_an_unsupported_python_gets_one_line(checkout, tmp_path, target):
    old = python_that(tmp_path / "python3", OLD)
    run = make(checkout, target, f"PYTHON={old}")
    assert run.returncode != 0 and run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert "Python 3.11, 3.12 or 3.13 is needed" in line and "is Python 3.9" in line
    assert "apt install python3.12 python3.12-venv" in line
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_gets_one_line(checkout, tmp_path):
    run = make(checkout, "test", f"PYTHON={python_that(tmp_path / 'python3', WITHOUT_VENV)}")
    assert run.returncode != 0
    (line,) = run.stderr.splitlines()
    minor = sys.version_info.minor
    assert (
        f"no module ensurepip: install it (Debian, Ubuntu: apt install python3.{minor}-venv)"
        in line
    )


def test_no_python_at_all_gets_one_line(checkout, tmp_path):
    run = make(checkout, "test", f"PYTHON={tmp_path / 'absent'}")
    assert run.returncode != 0
    (line,) = run.stderr.splitlines()
    assert "absent" in line and "apt install python3 python3-venv" in line


@pytest.mark.parametrize(
    ("commands", "chosen"),
    [
        ({"python3": "sys.flags", "python3.12": "sys.flags"}, "python3"),
        ({"python3": NEW, "python3.13": "sys.flags", "python3.12": "sys.flags"}, "python3.13"),
        ({"python3": NEW, "python3.12": "sys.flags", "python3.11": "sys.flags"}, "python3.12"),
        ({"python3": WITHOUT_VENV, "python3.12": None, "python3.11": "sys.flags"}, "python3.11"),
        ({"python3": NEW, "python3.12": None}, "python3"),
    ],
)
def test_the_first_python_that_serves_is_chosen(checkout, tmp_path, commands, chosen):
    """None stands for a command that is on the PATH and does not run, as pyenv's may be."""
    folder = tmp_path / "bin"
    for name, prelude in commands.items():
        if prelude is None:
            executable(folder / name, "#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
        else:
            python_that(folder / name, prelude)
    with (checkout / "Makefile").open("a") as makefile:
        makefile.write("\nchosen:\n\t$(info $(PYTHON))\n")
    run = make(checkout, "chosen", path=f"{folder}")
    assert run.stdout.splitlines()[0] == chosen, run.stderr


def stub_python(path, pip="exit 0"):
    """Make a Python whose `-m venv` makes a stub and whose pip is a shell command."""
    return executable(
        path,
        f"""#!/bin/sh
case "$*" in
  tools/check_python.py) echo ok ;;
  "-m venv .venv") mkdir -p .venv/bin && cp -p "$0" .venv/bin/python ;;
  "-m pip install"*) echo "$*" >>pip.log; {pip} ;;
  *) echo "unexpected: $*" >&2; exit 1 ;;
esac
""",
    )


def installations(root):
    return len((root / "pip.log").read_text().splitlines())


def test_the_environment_is_made_once_and_renewed_when_its_declaration_changes(checkout, tmp_path):
    python = f"PYTHON={stub_python(tmp_path / 'python3')}"
    first = make(checkout, "-j4", "environment", python)
    assert first.returncode == 0, first.stderr
    assert "a few minutes" in first.stdout
    assert installations(checkout) == 1
    assert "-e .[test,docs,pretrained] -c constraints.txt" in (checkout / "pip.log").read_text()

    make(checkout, "environment", python)
    assert installations(checkout) == 1

    marker = checkout / ".venv" / "installed"
    mtime = marker.stat().st_mtime
    (checkout / "constraints.txt").touch()
    subprocess.run(["touch", "-d", "2020-01-02", marker], check=True)
    make(checkout, "environment", python)
    assert installations(checkout) == 2 and marker.stat().st_mtime >= mtime


def test_an_interrupted_installation_starts_afresh(checkout, tmp_path):
    failing = stub_python(tmp_path / "failing" / "python3", pip="touch .venv/half; exit 1")
    assert make(checkout, "environment", f"PYTHON={failing}").returncode != 0
    assert (checkout / ".venv" / "half").exists()
    assert (
        make(checkout, "environment", f"PYTHON={stub_python(tmp_path / 'python3')}").returncode == 0
    )
    assert not (checkout / ".venv" / "half").exists()
    assert (checkout / ".venv" / "installed").exists()
