"""What a run is known by is true, is bounded in time, and names nobody."""

import getpass
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import time

import pytest

import tfhuber
from tfhuber.console.cpus import available_cpus
from tfhuber.data import records
from tfhuber.landmarks import known_sets
from tfhuber.runs import provenance

ROOT = os.path.dirname(os.path.dirname(tfhuber.__file__))


@pytest.fixture
def data(tmp_path):
    """Return a converted data set, as far as its manifest tells."""
    values = {
        "landmark_set": known_sets.describe(known_sets.WFLW),
        "splits": {"train": {"examples": 0, "shards": []}},
    }
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / records.MANIFEST).write_text(records.manifest_text(values))
    return directory


def _git(folder, *arguments):
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path):
    """Return a repository with one commit of one file; the file's path."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "module.py").write_text("a = 1\n")
    _git(folder, "init", "-q")
    _git(folder, "add", "module.py")
    _git(folder, "commit", "-q", "-m", "First")
    return folder / "module.py"


def test_the_description_is_complete_and_json(data):
    described = provenance.describe(data)
    assert json.loads(json.dumps(described)) == described
    assert set(described) == {"versions", "commit", "host", "data"}
    versions = described["versions"]
    assert versions["python"] == platform.python_version()
    assert versions["tfhuber"] == tfhuber.__version__
    for package in ("tensorflow", "keras", "keras-hub", "tensorflow-probability", "numpy"):
        assert versions[package] == importlib.metadata.version(package)
    assert described["host"]["cpus"] == available_cpus()
    assert described["host"]["devices"][0]
    assert described["host"]["onednn"] is (os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1")


def test_the_data_set_is_known_by_its_manifest(data):
    manifest = json.loads((data / records.MANIFEST).read_text())
    expected = {"landmark_set": "wflw", "sha256": manifest["sha256"]}
    assert len(manifest["sha256"]) == 64
    assert provenance.describe(data)["data"] == expected


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no manifest\.json"):
        provenance.describe(tmp_path)


def test_neither_machine_nor_user_nor_environment_is_named(data, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "a-secret-in-the-environment")
    text = json.dumps(provenance.describe(data))
    names = [socket.gethostname(), os.path.expanduser("~") + "/", str(data), "a-secret-in"]
    if getpass.getuser() not in ("root", "user"):  # which may be part of another word
        names.append(getpass.getuser())
    assert not [name for name in names if name in text]


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package",))
    assert provenance._versions()["no-such-package"] is None


def test_the_commit_and_whether_files_differ_from_it(repository):
    sha = _git(repository.parent, "rev-parse", "HEAD").strip()
    assert provenance._commit(repository) == {"sha": sha, "modified": False}
    (repository.parent / "notes.txt").write_text("not under version control\n")
    assert provenance._commit(repository)["modified"] is False
    repository.write_text("a = 2\n")
    assert provenance._commit(repository) == {"sha": sha, "modified": True}


def test_a_hooks_environment_leads_nowhere_else(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert provenance._commit(repository)["modified"] is False


def test_looking_leaves_the_repository_alone(repository):
    index = repository.parent / ".git" / "index"
    before = index.read_bytes()
    os.utime(repository, (0, 0))  # makes `git status` want to refresh its index
    assert provenance._commit(repository)["modified"] is False
    assert index.read_bytes() == before


UNKNOWN = {"sha": None, "modified": None}


def test_a_file_in_someone_elses_repository_has_no_commit(repository):
    installed = repository.parent / "site-packages.py"
    installed.write_text("")
    assert provenance._commit(installed) == UNKNOWN


def test_outside_a_repository_there_is_no_commit(tmp_path):
    assert provenance._commit(tmp_path / "module.py") == UNKNOWN


def test_a_folder_that_is_gone_has_no_commit(tmp_path):
    assert provenance._commit(tmp_path / "gone" / "module.py") == UNKNOWN


def test_without_git_there_is_no_commit(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance._commit(repository) == UNKNOWN


def test_git_that_hangs_is_given_up(repository, tmp_path, monkeypatch):
    git = tmp_path / "git"
    git.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(provenance, "_GIT_SECONDS", 0.2)
    start = time.monotonic()
    assert provenance._commit(repository) == UNKNOWN
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"processor\t: 0\nmodel name\t: Fast CPU 3000\nmodel name\t: other\n", "Fast CPU 3000"),
        (b"processor: 0\n", platform.machine()),
        (None, platform.machine()),
    ],
    ids=["x86", "arm", "not Linux"],
)
def test_the_processor_is_named(tmp_path, content, name):
    if content is not None:
        (tmp_path / "cpuinfo").write_bytes(content)
    assert provenance._processor(tmp_path / "cpuinfo") == name
