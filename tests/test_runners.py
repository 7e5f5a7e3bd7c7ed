"""Running the job: several processes, and what becomes of a run that is stopped or fails."""

import os
import re
import resource
import signal
import time
from pathlib import Path

import pytest
from conversion import arguments, contents, convert, damaged_faces, faces, run, start


def await_shard(directory, process):
    """Returns when the run is in the midst of writing."""
    deadline = time.monotonic() + 120
    while not list(directory.glob("books/train-00003-*.tfrecord")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_is_repaired_by_the_same_command(tmp_path, blow):
    source, output = faces(tmp_path / "source", train=400), tmp_path / "out"
    command = arguments(source, output, "--shard-examples", "10")
    process = start(*command)
    await_shard(tmp_path / ".out.partial", process)
    os.kill(process.pid, blow)
    _, err = process.communicate(timeout=240)
    assert not output.exists()
    if blow == signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in err
        assert err.splitlines()[-1].startswith("interrupted; ") and "keeps what is done" in err
    done = [path for path in (tmp_path / ".out.partial/data").iterdir()]
    before = {path: path.stat().st_mtime_ns for path in done}
    assert before
    code, _, err = run(*command)
    assert code == 0, err
    convert(source, tmp_path / "undisturbed", "--shard-examples", "10")
    assert contents(output) == contents(tmp_path / "undisturbed")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out", "undisturbed"}
    # What had been finished was not made again.
    assert all((output / path.name).stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_full_disk_is_one_error(tmp_path, processes):
    source = faces(tmp_path / "source", train=100)

    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    command = arguments(source, tmp_path / "out", "--processes", processes)
    code, _, err = run(*command, preexec_fn=limit_files)
    assert code == 2
    assert re.fullmatch(r"error: .*File too large.*", err.splitlines()[-1])
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


@pytest.mark.slow
def test_a_worker_that_dies_is_one_error(tmp_path):
    source = faces(tmp_path / "source", train=400)
    process = start(
        *arguments(source, tmp_path / "out", "--shard-examples", "10", "--processes", "2")
    )
    await_shard(tmp_path / ".out.partial", process)
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    workers = [int(child) for task in tasks for child in task.read_text().split()]
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 2
    assert err.splitlines()[-1].startswith("error: a worker process died")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "workers",
    [
        ["--processes", "2"],
        ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    ],
)
def test_several_processes_write_the_same_bytes(tmp_path, workers):
    damaged_faces(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "one", "--shard-examples", "3")
    command = arguments(tmp_path / "source", tmp_path / "two", "--shard-examples", "3")
    code, _, err = run(*command, *workers)
    assert code == 0, err
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    if workers[0] == "--processes":
        assert "INFO:apache_beam" not in err
