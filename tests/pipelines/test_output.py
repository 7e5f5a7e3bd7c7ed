"""Output that appears whole or not at all, on the local disk and in an object store."""

import fcntl
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import toy_filesystem
from apache_beam.io.filesystems import FileSystems

from pipelines.output import written_aside
from pipelines.storage import create, exists, names, open_file

ROOT = Path(__file__).resolve().parents[2]
OLD = {"a": b"old a", "b": b"old b", "note.txt": b"somebody's", "marker": b"old"}
NEW = {"a": b"new a", "c": b"new c", "d": b"new d", "marker": b"new"}


@pytest.fixture(params=["local", "toy"])
def folder(request, tmp_path, monkeypatch) -> str:
    """Where a test writes: on the disk or in the toy object store."""
    if request.param == "local":
        return str(tmp_path)
    return request.getfixturevalue("bucket")


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> str:
    """A folder of the toy object store."""
    (tmp_path / "store").mkdir()
    monkeypatch.setenv(toy_filesystem.DIRECTORY, str(tmp_path / "store"))
    return "toy://bucket/sets"


@contextmanager
def aside(output, overwrite=False, keep="books"):
    with written_aside(output, "a set", ("marker", "*"), overwrite=overwrite, keep=keep) as work:
        yield work


def fill(work, files=NEW):
    """Leaves the files in the folder `data`, and one in `books`."""
    for name, content in files.items():
        put(work.path("data", name), content)
    put(work.path("books", "a"), b"1 example")


def put(path, content=b""):
    with create(path) as file:
        file.write(content)


def write(output, files=NEW, **options):
    with aside(output, **options) as work:
        fill(work, files)


def read(folder):
    """Content by name of the files in a folder."""
    found = {}
    for name in names(folder):
        with open_file(FileSystems.join(folder, name)) as file:
            found[name] = file.read()
    return found


def hidden(folder):
    """What lies beside the output, which ends with the work."""
    return [name for name in names(folder, deep=True) if name.startswith(".")]


class Killed(BaseException):
    """Nobody handles it but the one who waits for it, as nobody handles a kill."""


# --- what is there in the end


def test_a_set_appears_when_it_is_whole(folder):
    output = f"{folder}/set"
    with aside(output) as work:
        fill(work)
        assert read(output) == {}
    assert read(output) == NEW
    assert hidden(folder) == []


def test_a_set_is_replaced_on_request_only(folder):
    output = f"{folder}/set"
    write(output, OLD)
    with pytest.raises(ValueError, match="already holds a set; --overwrite replaces it"):
        write(output)
    assert read(output) == OLD and hidden(folder) == []
    write(output, overwrite=True)
    assert read(output) == NEW and hidden(folder) == []


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["thesis.txt", "chapters/one.txt"])
def test_what_is_no_set_is_never_replaced(folder, name, overwrite):
    if "/" in name and folder.startswith("/"):
        os.makedirs(f"{folder}/set/chapters")
    else:
        os.makedirs(f"{folder}/set") if folder.startswith("/") else None
    put(f"{folder}/set/{name}", b"precious")
    with pytest.raises(ValueError, match="does not hold a set; choose another --output"):
        write(f"{folder}/set", overwrite=overwrite)
    with open_file(f"{folder}/set/{name}") as file:
        assert file.read() == b"precious"
    assert hidden(folder) == []


def test_a_failure_keeps_what_is_worth_it(folder):
    output = f"{folder}/set"
    write(output, OLD)
    with pytest.raises(KeyError) as error, aside(output, overwrite=True) as work:
        fill(work)
        raise KeyError("a defect")
    assert error.value.__notes__ == [
        f"{folder}/.set.partial keeps what is done; the same command goes on from there"
    ]
    assert read(output) == OLD
    with aside(output, overwrite=True) as work:
        assert read(work.path("data")) == NEW and list(work.names("books")) == ["a"]
    assert read(output) == NEW and hidden(folder) == []


@pytest.mark.parametrize("keep", [None, "rejects"])
def test_a_failure_leaves_nothing_where_there_is_nothing_to_keep(folder, keep):
    with pytest.raises(KeyError) as error, aside(f"{folder}/set", keep=keep) as work:
        fill(work)
        raise KeyError("a defect")
    assert not hasattr(error.value, "__notes__")
    assert read(f"{folder}/set") == {} and hidden(folder) == []


def test_parts_of_the_work_can_be_cleared(folder):
    with aside(f"{folder}/set") as work:
        fill(work)
        put(work.path("books", "b"))
        work.clear("data", "a")
        work.clear("books")
        work.clear("absent")
        assert read(work.path("data")).keys() == NEW.keys() - {"a"}
        assert list(work.names("books")) == []


def test_files_of_before_are_told_from_new_ones(tmp_path):
    with aside(f"{tmp_path}/set") as work:
        fill(work)
        os.utime(work.path("data", "a"), (1, 1))
        assert set(work.names("data", since=2)) == NEW.keys() - {"a"}


# --- names of all kinds


@pytest.mark.parametrize(
    "name", ["deep/er/set", "with space/ünï 雪", "set/", "a/../set", "-set", "[1]*?"]
)
def test_a_path_may_be_any(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "absolute/a").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    for output in (name, f"{tmp_path}/absolute/{name}"):
        write(output)
        assert read(output) == NEW
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("name", ["set/", "with space/ünï 雪", "-set"])
def test_an_object_may_have_any_name(bucket, name):
    write(f"{bucket}/{name}")
    assert read(f"{bucket}/{name}") == NEW and hidden(bucket) == []


def test_an_empty_directory_may_be_there(tmp_path):
    (tmp_path / "set").mkdir()
    write(f"{tmp_path}/set")
    assert read(f"{tmp_path}/set") == NEW


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("/", "/ is a mount point; choose a directory below it"),
        ("/proc", "/proc is a mount point; choose a directory below it"),
        ("toy://bucket", "toy://bucket has no directory's name; choose a directory in it"),
        ("toy://bucket/", "has no directory's name"),
    ],
)
def test_what_cannot_be_replaced_as_a_whole_is_refused(output, message):
    with pytest.raises(ValueError, match=message):
        write(output, overwrite=True)


def test_a_file_or_a_link_to_nowhere_is_no_place(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(ValueError, match="does not hold a set; choose another --output"):
            write(f"{tmp_path}/{name}", overwrite=True)
    assert (tmp_path / "file").read_text() == "precious" and (tmp_path / "link").is_symlink()
    assert hidden(str(tmp_path)) == []


def test_a_parent_that_cannot_hold_it_is_an_os_error(tmp_path):
    (tmp_path / "file").touch()
    for output in (f"{tmp_path}/file/set", "/proc/set", "/proc/deep/set"):
        with pytest.raises(OSError, match=r"set\.partial|deep|file"):
            write(output)


# --- two at once


def test_the_second_of_two_is_turned_away(tmp_path):
    output = f"{tmp_path}/set"
    with aside(output) as work:
        fill(work)
        with pytest.raises(
            OSError, match=rf"\.set\.partial is in use: process {os.getpid()} on .+ is"
        ):
            write(output, OLD, overwrite=True)
    assert read(output) == NEW


def test_a_lock_on_a_directory_that_is_gone_is_none(tmp_path, monkeypatch):
    """The other process finishes between this one's opening the directory and locking it."""
    flock = fcntl.flock

    def late(*arguments):
        shutil.rmtree(tmp_path / ".set.partial")
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(OSError, match="is in use"):
        write(f"{tmp_path}/set")
    assert read(f"{tmp_path}/set") == {}


def test_a_set_that_was_finished_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    """It appears while the second process waits to be let in."""
    output, flock = f"{tmp_path}/set", fcntl.flock

    def late(*arguments):
        monkeypatch.undo()
        os.mkdir(output)
        put(f"{output}/marker", b"another's")
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(ValueError, match="already holds a set"):
        write(output)
    assert read(output) == {"marker": b"another's"}


# --- killed while the set is put in its place

KILLED_AT_A_RENAME = """
import os, sys
from pipelines.output import written_aside

output, survived = sys.argv[1], int(sys.argv[2])
rename = os.rename

def deadly(*paths):
    global survived
    if not survived:
        os._exit(9)
    survived -= 1
    rename(*paths)

with written_aside(output, "a set", ("marker", "*"), overwrite=True, keep="books") as work:
    for name in ("a", "c", "d", "marker"):
        with open(work.path("data", name), "w") as file:
            file.write("new" if name == "marker" else f"new {name}")
    os.rename = deadly
"""


@pytest.mark.parametrize("survived", [0, 1])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_between_two_renames_loses_nothing(tmp_path, survived, overwrite):
    output = f"{tmp_path}/set"
    write(output, OLD)
    command = [sys.executable, "-c", KILLED_AT_A_RENAME, output, str(survived)]
    assert subprocess.run(command, cwd=ROOT).returncode == 9
    # In between, the old set has been taken away and the new one is not there.
    assert read(output) == ({} if survived else OLD)
    if not overwrite:
        with pytest.raises(ValueError, match="already holds a set"):
            write(output)
        assert read(output) == OLD
        return
    with aside(output, overwrite=True) as work:
        assert read(output) == OLD
        assert read(work.path("data")) == NEW
    assert read(output) == NEW and hidden(str(tmp_path)) == []


def go_on(output):
    """What a run does that finds work begun, knowing from its own summaries what the files should be."""
    with aside(output, True) as work:
        data = read(work.path("data"))
        assert data.items() >= NEW.items() or (not data and read(output) == NEW)
        for name in data.keys() - NEW.keys():
            work.clear("data", name)
        if not data:
            fill(work)


def steps(monkeypatch, survived):
    """Kills whoever does one more thing to the object store than that."""
    left = [survived]

    def step():
        if not left[0]:
            raise Killed
        left[0] -= 1

    rename, delete = toy_filesystem.ToyFileSystem.rename, toy_filesystem.ToyFileSystem.delete

    def rename_one_by_one(self, sources, targets):
        for pair in zip(sources, targets, strict=True):
            step()
            rename(self, *([path] for path in pair))

    def delete_one_by_one(self, paths):
        for path in paths:
            step()
            delete(self, [path])

    monkeypatch.setattr(toy_filesystem.ToyFileSystem, "rename", rename_one_by_one)
    monkeypatch.setattr(toy_filesystem.ToyFileSystem, "delete", delete_one_by_one)


@pytest.mark.parametrize("again", [None, *range(6)])
@pytest.mark.parametrize("survived", range(8))
def test_files_that_were_moving_are_moved_in_the_end(bucket, monkeypatch, survived, again):
    """Old marker, two old files, four new ones: the eighth step is the work's removal."""
    output = f"{bucket}/set"
    write(output, OLD)
    with monkeypatch.context() as patch, pytest.raises(Killed), aside(output, True) as work:
        fill(work)
        steps(patch, survived)
    # A set is whole as long as it has its marker.
    found = read(output)
    assert found in (OLD, NEW) or "marker" not in found
    assert found.keys() | read(work.path("data")).keys() >= NEW.keys()
    if again is not None:  # And killed once more, while what was moved is moved back.
        with monkeypatch.context() as patch, suppress(Killed):
            steps(patch, again)
            with aside(output, True) as work:
                pass
    with aside(output, True) as work:
        data = read(work.path("data"))
        if not data:  # It was complete.
            assert read(output) == NEW
            fill(work)
        else:
            assert data.items() >= NEW.items()
            for name in data.keys() - NEW.keys():
                work.clear("data", name)
    assert read(output) == NEW and hidden(bucket) == []


def test_files_that_were_moving_are_nobody_elses(bucket, monkeypatch):
    """Without --overwrite, too, a run goes on that was killed when half of its files were there."""
    output = f"{bucket}/set"
    with monkeypatch.context() as patch, pytest.raises(Killed), aside(output) as work:
        fill(work)
        steps(patch, 2)
    assert len(read(output)) == 2 and not exists(f"{output}/marker")
    with aside(output) as work:
        assert read(work.path("data")) == NEW
    assert read(output) == NEW and hidden(bucket) == []
