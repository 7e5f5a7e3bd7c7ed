"""The doctor sees what is there, names what is broken, and survives what it looks at."""

import json
import resource
import shlex
import subprocess
import sys
import time

import pytest

from tfhuber.doctor import __main__ as doctor
from tfhuber.doctor import probes
from tfhuber.doctor.__main__ import NOT_THERE, OK, PROBLEM, Row

ON_THE_CPU = [
    Row("CPU:0", OK, ""),
    Row("convolution on CPU:0", OK, ""),
    Row("loss on CPU:0", OK, ""),
]
ON_A_GPU = [Row(row.check.replace("CPU", "GPU"), OK, "") for row in ON_THE_CPU]


@pytest.mark.slow
def test_this_machine_can_train():
    """All of it, as a user starts it; its time is the processor's, as the machine may be busy."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "tfhuber.doctor"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=doctor._ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30
    assert done.returncode == 0, done.stdout
    *table, blank, line = done.stdout.splitlines()
    states = {name.strip(): rest for name, _, rest in (row.partition("  ") for row in table)}
    assert blank == "" and line.startswith("training can work, on ")
    for check in ("Python", "TensorFlow", "checksums", "XLA on CPU:0", "determinism on CPU:0"):
        assert states[check].split()[0] == "ok"
    assert "speed relative to float32: matrix product" in " ".join(done.stdout.split())
    progress = done.stderr.splitlines()
    assert "checking XLA on CPU:0" in progress and "checking disk" in progress


# --- the probes themselves, against what they must notice


@pytest.mark.parametrize("probe", ["_convolution", "_loss", "_xla"])
@pytest.mark.parametrize(("factor", "message"), [(1.01, "1.0e-02 off"), (float("nan"), "nan off")])
def test_a_device_that_computes_wrongly_is_noticed(monkeypatch, probe, factor, message):
    """The last result alone is wrong, and in float32 alone."""
    for name in ("_convolution_gradients", "_loss_gradients"):
        monkeypatch.setattr(probes, name, _wrong(getattr(probes, name), factor))
    with pytest.raises(ArithmeticError, match=message):
        getattr(probes, probe)("CPU:0")


def _wrong(function, factor):
    def wrong(*inputs):
        *results, last = function(*inputs)
        return *results, last * (factor if last.dtype == "float32" else 1)

    return wrong


def test_the_slow_checksums_are_noticed(monkeypatch):
    monkeypatch.setattr("google_crc32c.implementation", "python")
    with pytest.raises(ImportError, match=r"pip install --force-reinstall google-crc32c"):
        probes._checksums()


# --- processes that end before they should; a script stands in for Python


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Make the probes' process a shell script, which gets the names that are to be skipped."""

    def make(script: str):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\nshift 2\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return make


def _say(**values) -> str:
    return f"echo {shlex.quote(json.dumps(values))}"


STARTS = [_say(starts="TensorFlow"), _say(check="TensorFlow", state=OK, detail="2.21")]
FINISHED = _say(finished=True)


def test_a_probe_that_crashes_is_one_row_and_the_others_go_on(stand_in):
    xla = "XLA on GPU:0"
    crash = [_say(starts=xla), "echo 'F0000 00:00:17.2 9 x.cc:3] no ptxas' >&2", "kill -SEGV $$"]
    rest = [_say(starts="last"), _say(check="last", state=OK, detail="fine"), FINISHED]
    once = f'case "$*" in *"{xla}"*) ;; *) {"; ".join(crash)} ;; esac'
    stand_in("\n".join([*STARTS, once, *rest]))
    said = []
    rows, log = doctor._probe_tensorflow(said.append)
    assert rows == [
        Row("TensorFlow", OK, "2.21"),
        Row(xla, PROBLEM, "crashed with SIGSEGV; last it printed: no ptxas"),
        Row("last", OK, "fine"),
    ]
    assert "no ptxas" in log
    assert said == ["TensorFlow", xla, "TensorFlow", "last"]


def test_a_driver_that_kills_tensorflow_leaves_the_cpu(stand_in):
    crash = "[ -n \"$CUDA_VISIBLE_DEVICES\" ] || { echo 'libcuda is broken' >&2; kill -ABRT $$; }"
    stand_in("\n".join([STARTS[0], crash, STARTS[1], FINISHED]))
    rows, _ = doctor._probe_tensorflow(lambda check: None)
    assert rows == [
        Row("TensorFlow", PROBLEM, "crashed with SIGABRT; last it printed: libcuda is broken"),
        Row("TensorFlow without GPUs", OK, "2.21"),
    ]


def test_a_tensorflow_that_cannot_be_imported_is_named(stand_in):
    stand_in(f"{STARTS[0]}\necho 'ImportError: libtensorflow_cc.so.2' >&2\nexit 1")
    rows, _ = doctor._probe_tensorflow(lambda check: None)
    assert {row.state for row in rows} == {PROBLEM}
    assert [row.detail for row in rows] == ["ImportError: libtensorflow_cc.so.2"] * 2
    assert doctor.verdict(rows).startswith("training cannot work here: TensorFlow: ImportError")


def test_a_probe_that_hangs_is_given_up(stand_in, monkeypatch):
    monkeypatch.setattr(doctor, "_PATIENCE", 0.5)
    skip = f'case "$*" in *slow*) {FINISHED}; exit ;; esac'
    stand_in("\n".join([*STARTS, skip, _say(starts="slow"), "exec sleep 60"]))
    start = time.monotonic()
    rows, _ = doctor._probe_tensorflow(lambda check: None)
    assert rows[-1].check == "slow" and "no answer in 0.5 s" in rows[-1].detail
    assert time.monotonic() - start < 20


# --- versions, memory, disk


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return a checkout of another version than what is installed."""
    dependencies = '["tensorflow>=2.0", "keras>=99", "numpy>=1", "no-such-package>=1"]'
    project = f'[project]\nrequires-python = ">=3.99"\ndependencies = {dependencies}\n'
    (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / "constraints.txt").write_text("tensorflow==2.0.1\nnumpy==1.2\n")
    monkeypatch.setattr(doctor, "_ROOT", tmp_path)
    return tmp_path


def test_versions_are_held_against_what_is_needed_and_what_was_tested(checkout):
    assert doctor._python()[0] == PROBLEM and "needs >=3.99" in doctor._python()[1]
    state, detail = doctor._package("tensorflow")
    assert state == OK and detail.endswith("; 2.0.1 is what was tested")
    state, detail = doctor._package("keras")
    assert state == PROBLEM and "needs >=99: pip install -e . -c constraints.txt" in detail
    state, detail = doctor._package("no-such-package")
    assert state == PROBLEM and detail.startswith("not installed: pip install")


def test_without_constraints_a_version_is_what_it_is(checkout):
    (checkout / "constraints.txt").unlink()
    assert doctor._package("numpy") == (OK, doctor.installed_version("numpy"))


@pytest.mark.parametrize(
    ("available", "limit", "expected"),
    [
        (8 * 2**20, None, (OK, "8.0 GiB free")),
        (8 * 2**20, "max", (OK, "8.0 GiB free")),
        (8 * 2**20, str(4 * 2**30), (OK, "3.0 GiB free")),
        (8 * 2**20, str(2 * 2**30), (PROBLEM, "1.0 GiB free; training needs 2 at the least")),
        (2**19, None, (PROBLEM, "0.5 GiB free; training needs 2 at the least")),
    ],
)
def test_memory_is_what_the_machine_and_the_container_leave(
    tmp_path, monkeypatch, available, limit, expected
):
    (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:  {available} kB\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit + "\n")
        (tmp_path / "memory.current").write_text(f"{2**30}\n")
    monkeypatch.setattr(doctor, "_PROC", tmp_path)
    monkeypatch.setattr(doctor, "_CGROUP", tmp_path)
    assert doctor._memory() == expected


def test_a_failing_check_is_a_row(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_PROC", tmp_path)
    row = doctor._row(lambda check: None, "memory", doctor._memory)
    assert row.state == PROBLEM and row.detail.startswith("FileNotFoundError: ")
    assert "\n" not in row.detail


# --- GPUs that TensorFlow doesn't see


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make /dev, /proc and /sys of a machine, and what nvidia-smi says there."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("_DEV", "_PROC", "_SYS"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setattr(doctor, name, folder)

    def make(nodes=(), driver=None, smi=None, card=None, libraries=False):
        for node in nodes:
            (tmp_path / "_DEV" / node).touch()
        if driver is not None:
            path = tmp_path / "_PROC" / "driver/nvidia/version"
            path.parent.mkdir(parents=True)
            path.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Thu\n")
        if smi is not None:
            (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{smi}\n")
            (tmp_path / "nvidia-smi").chmod(0o755)
        if card is not None:
            path = tmp_path / "_SYS" / "bus/pci/devices/0000:01:00.0"
            path.mkdir(parents=True)
            (path / "vendor").write_text(card[0])
            (path / "class").write_text(card[1])
        version = "9.28" if libraries else None
        monkeypatch.setattr(doctor, "installed_version", lambda package: version)

    return make


GPU = "pip install -e '.[gpu]' -c constraints.txt"


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        ({}, NOT_THERE, ["no card and no driver"]),
        ({"card": ("0x10de", "0x030200")}, PROBLEM, ["a card without a driver", "525.60 or newer"]),
        ({"card": ("0x10de", "0x040300")}, NOT_THERE, ["no card"]),
        ({"card": ("0x1002", "0x030000")}, NOT_THERE, ["no card"]),
        ({"nodes": ["nvidiactl"]}, PROBLEM, ["there is nvidiactl", "--gpus all", GPU]),
        ({"smi": "exit 9"}, PROBLEM, ["no driver that works", "install one, 525.60 or newer", GPU]),
        (
            {"nodes": ["nvidia0", "nvidiactl"], "driver": "575.57.08"},
            PROBLEM,
            ["nvidia0, nvidiactl, driver 575.57.08: the CUDA libraries are missing", GPU],
        ),
        ({"nodes": ["dxg"], "smi": "echo 576.1"}, PROBLEM, ["dxg, driver 576.1: the CUDA lib"]),
        (
            {"nodes": ["nvidia0"], "driver": "470.223.02", "libraries": True},
            PROBLEM,
            ["the driver is too old: install 525.60 or newer"],
        ),
        (
            {"nodes": ["nvidia0"], "driver": "525.105.17", "libraries": True},
            PROBLEM,
            ["525.105.17: Cannot dlopen some GPU libraries; try", GPU],
        ),
    ],
    ids=range(10),
)
def test_why_tensorflow_sees_no_gpu(machine, facts, state, words):
    machine(**facts)
    log = (
        "I0000 starting\nW0000 00:00:17.5 9 gpu_device.cc:2342] Cannot dlopen some GPU libraries\nx"
    )
    found, detail = doctor._nvidia(False, log)
    assert found == state, detail
    assert all(word in detail for word in words), detail


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_the_environment_hides(machine, monkeypatch, hidden):
    machine(nodes=["nvidia0"], driver="575.57.08", libraries=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    state, detail = doctor._nvidia(False, "")
    assert state == PROBLEM and f"CUDA_VISIBLE_DEVICES={hidden!r} hides it" in detail


def test_a_gpu_that_is_seen(machine):
    machine(nodes=["nvidia0"], driver="575.57.08", smi="echo 4 MiB, 81559 MiB; echo other")
    expected = (OK, "driver 575.57.08, memory in use 4 MiB of 81559 MiB")
    assert doctor._nvidia(True, "") == expected


# --- the verdict, and the exit code


BAD_XLA = Row("XLA on GPU:0", PROBLEM, "no ptxas")
UNSEEN = Row("NVIDIA GPU", PROBLEM, "TensorFlow sees no GPU")


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (ON_THE_CPU, "training can work, on the CPU; there is no GPU"),
        ([*ON_THE_CPU, *ON_A_GPU], "training can work, on 1 GPU"),
        (
            [*ON_THE_CPU, UNSEEN],
            "training can work, on the CPU alone, but not all is well: NVIDIA GPU",
        ),
        (
            [*ON_THE_CPU, *ON_A_GPU, BAD_XLA],
            "training can work, on 1 GPU, but not all is well: XLA on GPU:0",
        ),
        (
            [*ON_THE_CPU, *ON_A_GPU[:2], Row("loss on GPU:0", PROBLEM, "wrong")],
            "training can work, on the CPU alone, but not all is well: loss on GPU:0",
        ),
        ([Row("TensorFlow", PROBLEM, "is gone")], "training cannot work here: TensorFlow: is gone"),
    ],
    ids=range(6),
)
def test_the_verdict(rows, line):
    assert doctor.verdict(rows) == line


@pytest.mark.parametrize(("extra", "code"), [([], 0), ([BAD_XLA], 1)])
def test_the_table_and_the_exit_code(monkeypatch, capsys, extra, code):
    rows = [*ON_THE_CPU, Row("NVIDIA GPU", NOT_THERE, "word " * 40), *extra]
    monkeypatch.setattr(doctor, "diagnose", lambda say: rows)
    monkeypatch.setattr(sys, "argv", ["doctor"])
    monkeypatch.setenv("COLUMNS", "80")
    assert doctor.main() == code
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == doctor.verdict(rows) and lines[-2] == ""
    assert " ".join(lines).count("word") == 40
