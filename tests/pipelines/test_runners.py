"""Running the job, here or through a job service, and what becomes of a run that is stopped or fails."""

import contextlib
import inspect
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.worker import data_plane, sdk_worker
from conversion import arguments, contents, convert, damaged_faces, faces, run, start

from pipelines import shards
from pipelines.make_tfrecords import main
from pipelines.runners import LOCAL, make_pipeline, run_job

WAYS = ("one process", "two processes", "job service")


@pytest.fixture(params=WAYS)
def way(request) -> list[str]:
    """The options of each way to run the job."""
    if request.param == "job service":
        return request.getfixturevalue("job_service")
    return {"one process": [], "two processes": ["--processes", "2"]}[request.param]


def await_shard(directory, process):
    """Returns when the run is in the midst of writing."""
    deadline = time.monotonic() + 120
    while not list(directory.glob("books/train-00003-*.tfrecord")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def last_line(err):
    assert "Traceback" not in err
    return err.splitlines()[-1]


# --- the same bytes everywhere


def test_every_way_writes_the_same_bytes(tmp_path, way):
    damaged_faces(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "here", "--shard-examples", "20")
    command = arguments(tmp_path / "source", tmp_path / "there", "--shard-examples", "20")
    code, out, err = run(*command, *way)
    assert code == 0, err
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    assert "is ready" in out and "apache_beam.runners.worker" not in err
    assert ("Job state changed to DONE" in err) == ("PortableRunner" in way)


@pytest.mark.slow
def test_beams_own_processes_write_the_same_bytes(tmp_path):
    damaged_faces(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "here")
    options = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    code, _, err = run(*arguments(tmp_path / "source", tmp_path / "there", *options))
    assert code == 0, err
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


# --- stopped


def workers_of(process):
    """The ids of a process's children that are workers, as far as they have come so far."""
    found = []
    for path in Path(f"/proc/{process.pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                if b"pipelines.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return found


@pytest.mark.parametrize("delay", [0, 0.4])
def test_workers_end_with_a_launcher_that_was_killed(tmp_path, delay):
    """Whether they are still starting or at work; Beam alone would leave them waiting for ever."""
    source = faces(tmp_path / "source", train=400)
    process = start(*arguments(source, tmp_path / "out", "--processes", "2"))
    while len(workers := workers_of(process)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


KILLS = [pytest.param(way, signal.SIGKILL, marks=pytest.mark.slow) for way in WAYS[1:]]
INTERRUPTS = [pytest.param(way, signal.SIGINT, marks=pytest.mark.slow) for way in WAYS[:2]]
QUICK = [(WAYS[0], signal.SIGKILL), (WAYS[2], signal.SIGINT)]


@pytest.mark.parametrize(("way", "blow"), [*QUICK, *KILLS, *INTERRUPTS], indirect=["way"])
def test_a_run_that_was_stopped_is_repaired_by_the_same_command(tmp_path, way, blow):
    source, output = faces(tmp_path / "source", train=400), tmp_path / "out"
    command = arguments(source, output, "--shard-examples", "10", *way)
    process = start(*command)
    await_shard(tmp_path / ".out.partial", process)
    os.kill(process.pid, blow)
    _, err = process.communicate(timeout=240)
    assert not output.exists()
    if blow == signal.SIGINT:
        assert process.returncode == 130
        assert re.fullmatch("interrupted; .* keeps what is done; .*", last_line(err))
    # A shard is finished when both its summary and its rejects are there.
    work = tmp_path / ".out.partial"
    books, rejects = (
        {path.stem for path in (work / name).iterdir()} for name in ("books", "rejects")
    )
    paths = [path for path in (work / "data").iterdir() if path.stem in books & rejects]
    before = {path.name: path.stat().st_mtime_ns for path in paths}
    assert before
    code, _, err = run(*command)
    assert code == 0, err
    convert(source, tmp_path / "undisturbed", "--shard-examples", "10")
    assert contents(output) == contents(tmp_path / "undisturbed")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out", "undisturbed"}
    # What had been finished was not made again.
    assert {name: (output / name).stat().st_mtime_ns for name in before} == before


# --- failed


def test_a_full_disk_is_one_error(tmp_path, way):
    """A shard has more than a plan, which has 20 KB."""
    source = faces(tmp_path / "source", train=100)

    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    command = arguments(source, tmp_path / "out", "--shard-examples", "10", "--size", "180", *way)
    code, _, err = run(*command, preexec_fn=limit_files)
    assert code == 2
    assert re.fullmatch(r"error: \[Errno 27\] File too large.*", last_line(err))
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


@pytest.mark.slow
def test_a_worker_that_dies_is_one_error(tmp_path):
    source = faces(tmp_path / "source", train=400)
    command = arguments(source, tmp_path / "out", "--shard-examples", "10", "--processes", "2")
    process = start(*command)
    await_shard(tmp_path / ".out.partial", process)
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    workers = [int(child) for task in tasks for child in task.read_text().split()]
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 2
    assert last_line(err).startswith("error: a worker process died")
    assert not (tmp_path / "out").exists()


DEFECT = """
import sys
from pipelines import make_tfrecords, shards
from tfhuber.console.cli import run_main

def defect(*arguments, **options):
    raise KeyError("our own")

shards.store_crop = defect
run_main(make_tfrecords.main)
"""


@pytest.mark.parametrize("way", [WAYS[0], WAYS[2]], indirect=True)
def test_a_defect_keeps_its_traceback(tmp_path, way):
    command = arguments(faces(tmp_path / "source"), tmp_path / "out", *way)
    result = subprocess.run(
        [sys.executable, "-c", DEFECT, *command], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "our own" in result.stderr.split("Traceback")[-1]


@pytest.mark.parametrize(
    ("fault", "stop"), [(None, None), (OSError("disk full"), None), (None, KeyboardInterrupt())]
)
def test_the_hook_for_failed_threads_is_put_back_however_a_job_ends(fault, stop):
    """Until now it stayed Beam's after a failure, and swallowed those of other threads from then on."""

    def step(_):
        time.sleep(0.6 if stop else 0)
        if fault:
            raise fault

    def watch():
        if stop:
            raise stop

    hook = threading.excepthook
    pipeline = make_pipeline(LOCAL, [])
    _ = pipeline | beam.Create([1]) | beam.Map(step)
    with pytest.raises(type(fault or stop)) if fault or stop else contextlib.nullcontext():
        run_job(pipeline, watch, lambda: None)
    assert threading.excepthook is hook


def test_an_interrupted_job_of_this_process_stops_at_its_next_image(tmp_path, monkeypatch):
    cropped = []

    def store_crop(*arguments, **options):
        cropped.append(arguments)
        if len(cropped) == 3:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.05)
        return undisturbed(*arguments, **options)

    undisturbed = shards.store_crop
    source = faces(tmp_path / "source", train=100)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shards, "store_crop", store_crop)
        main(arguments(source, tmp_path / "out"))
    at_the_end = len(cropped)
    time.sleep(0.2)
    assert len(cropped) == at_the_end < 50
    assert convert(source, tmp_path / "out")[0]["splits"]["train"]["examples"] == 100


@pytest.mark.parametrize(
    ("module", "text", "use"),
    [
        (worker_handlers, "name='run_worker'", "this thread tells that a worker has died"),
        (worker_handlers, "name='beam_control_read'", "what this thread prints is dropped"),
        (data_plane, "name='read_grpc_client_inputs'", "what this thread prints is dropped"),
        (sdk_worker, "print(traceback_string", "this print is replaced, as it hides the one line"),
        (pipeline_options, "def _add_argparse_args(cls", "this tells which options Beam has"),
    ],
)
def test_beam_has_what_runners_use_of_it_beside_its_api(module, text, use):
    """Another Beam than `pyproject.toml` allows needs another `pipelines/runners.py` where this fails."""
    assert text in inspect.getsource(module), f"{module.__name__} has no {text!r} any more: {use}"


# --- job services


def test_a_job_service_that_is_not_there_is_one_line_soon(tmp_path):
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        endpoint = f"localhost:{unused.getsockname()[1]}"
        elsewhere = ["--runner", "PortableRunner", "--job_endpoint", endpoint]
        command = arguments(faces(tmp_path / "source"), tmp_path / "out", *elsewhere)
        began = time.monotonic()
        code, _, err = run(*command)
    assert (code, err) == (2, f"error: --job_endpoint {endpoint}: no job service answers\n")
    assert time.monotonic() - began < 15
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_job_may_take_longer_than_any_answer(job_service):
    """Beam's limit of 300 seconds for an answer also ends the wait for a job's end."""
    options = make_pipeline(job_service[1], job_service[2:]).options.view_as(PortableOptions)
    assert options.job_server_timeout > 7 * 24 * 3600
    chosen = make_pipeline(job_service[1], [*job_service[2:], "--job_server_timeout=60"]).options
    assert chosen.view_as(PortableOptions).job_server_timeout == 60


JOB_SERVER = """#!/bin/sh
while [ "$1" != --job-port ]; do shift; done
exec "{python}" -m apache_beam.runners.portability.local_job_service_main --port "$2"
"""


def test_runners_that_start_a_job_service_get_to_it(tmp_path):
    """Flink's, but Java is a script that starts Beam's local service: all that is tested is our side."""
    (tmp_path / "java").write_text(JOB_SERVER.format(python=sys.executable))
    (tmp_path / "java").chmod(0o755)
    (tmp_path / "flink.jar").touch()
    options = [
        *("--runner", "FlinkRunner", "--environment_type=LOOPBACK"),
        f"--flink_job_server_jar={tmp_path}/flink.jar",
        f"--job_server_java_launcher={tmp_path}/java",
    ]
    command = arguments(faces(tmp_path / "source"), tmp_path / "out", *options)
    code, _, err = run(*command)
    assert code == 0, err
    convert(tmp_path / "source", tmp_path / "here")
    assert contents(tmp_path / "out") == contents(tmp_path / "here")


@pytest.mark.parametrize(
    ("runner", "options", "message"),
    [
        ("apache_beam.runners.dask.dask_runner.DaskRunner", [], "is not supported: it loses"),
        ("PortableRunner", ["--processes", "2"], "--processes belongs to --runner FnApiRunner"),
        ("PortableRunner", [], "You must specify a --job_endpoint"),
        ("NoRunner", [], "Unexpected pipeline runner: NoRunner"),
        ("DataflowRunner", [], "Missing required option: project"),
    ],
)
def test_runners_that_cannot_be_used_are_one_line(tmp_path, runner, options, message):
    source = faces(tmp_path / "source")
    code, _, err = run(*arguments(source, tmp_path / "out", "--runner", runner, *options))
    assert code == 2
    assert last_line(err).startswith("error: ") and message in last_line(err)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}
