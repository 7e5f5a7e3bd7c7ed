"""Check whether training can work here: `python -m tfhuber.doctor`.

Says which versions are installed, what TensorFlow sees and whether it computes rightly on each device, with
XLA and in mixed precision too, and what to install otherwise. Its exit code is 1 if something that should
work does not; a GPU that isn't there is no fault.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tfhuber.console.cli import run_main
from tfhuber.console.cpus import uses_onednn
from tfhuber.console.files import reason
from tfhuber.console.lazy import lazy_module
from tfhuber.console.table import aligned
from tfhuber.doctor.probes import IMPORT, OK, PROBLEM
from tfhuber.runs.provenance import installed_version

if TYPE_CHECKING:
    from packaging import requirements, specifiers
else:  # a broken installation is a row of the table
    requirements = lazy_module("packaging.requirements")
    specifiers = lazy_module("packaging.specifiers")

__all__ = ["Row", "diagnose", "main", "verdict"]

NOT_THERE = "not there"
_WITHOUT_GPUS = f"{IMPORT} without GPUs"
PACKAGES = (
    "tensorflow",
    "keras",
    "keras-hub",
    "tensorflow-probability",
    "numpy",
)

_ROOT = Path(__file__).resolve().parents[2]
_DEV, _PROC, _SYS, _CGROUP = (Path(p) for p in ("/dev", "/proc", "/sys", "/sys/fs/cgroup"))

# CUDA 12 runs on any driver from this one on.
_OLDEST_DRIVER = "525.60"
_INSTALL = "pip install -e . -c constraints.txt"
_INSTALL_GPU = "pip install -e '.[gpu]' -c constraints.txt"
# A first kernel may be compiled for minutes where TensorFlow brings none for the GPU.
_PATIENCE = 600
_LEAST_GIB = {"memory": 2, "disk": 5}


Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One line of the table: the check, its state ("ok", "problem" or "not there"), and what was found."""

    check: str
    state: str
    detail: str


def diagnose(say: Say = lambda check: None) -> list[Row]:
    """Check everything; a failure of one thing is a row and no more.

    Args:
      say: is called with the name of each check before it.
    """
    rows = [_row(say, "Python", _python)]
    rows += [_row(say, package, _package, package) for package in PACKAGES]
    rows += [_row(say, "memory", _memory), _row(say, "disk", _disk), _row(say, "oneDNN", _onednn)]
    found, log = _probe_tensorflow(say)
    seen = any(row.check.startswith("GPU:") for row in found)
    return [*rows, _row(say, "NVIDIA GPU", _nvidia, seen, log), *found]


def verdict(rows: list[Row]) -> str:
    """Return the diagnosis in one line."""
    problems = [row for row in rows if row.state == PROBLEM]
    working = [r.check for r in rows if r.check.startswith(("CPU:", "GPU:")) and r.state == OK]
    for needed in ("convolution", "loss"):
        fine = {row.check for row in rows if row.state == OK}
        working = [device for device in working if f"{needed} on {device}" in fine]
    gpus = [device for device in working if device.startswith("GPU")]
    if not working:
        return f"training cannot work here: {problems[0].check}: {problems[0].detail}"
    where = f"on {len(gpus)} GPU{'s' * (len(gpus) > 1)}" if gpus else "on the CPU; there is no GPU"
    if not problems:
        return f"training can work, {where}"
    where = where if gpus else "on the CPU alone"
    names = ", ".join(row.check for row in problems)
    return f"training can work, {where}, but not all is well: {names}"


def _row(say: Say, check: str, probe: Callable, *arguments: object) -> Row:
    """Return the row of a probe, which returns a state and a detail or raises."""
    say(check)
    try:
        return Row(check, *probe(*arguments))
    except Exception as error:  # whatever a broken installation raises
        return Row(check, PROBLEM, f"{type(error).__name__}: {reason(error)}")


def _python() -> tuple[str, str]:
    version, (wanted, _) = platform.python_version(), _declared()
    if not specifiers.SpecifierSet(wanted).contains(version, prereleases=True):
        return PROBLEM, f"{version}, but tfhuber needs {wanted}"
    return OK, version


def _package(name: str) -> tuple[str, str]:
    """Return the version of a package, beside what is declared and what was tested."""
    version = installed_version(name)
    if version is None:
        return PROBLEM, f"not installed: {_INSTALL}"
    declared = map(requirements.Requirement, _declared()[1])
    wanted = next(r.specifier for r in declared if r.name == name and not r.marker)
    if not wanted.contains(version, prereleases=True):
        return PROBLEM, f"{version}, but tfhuber needs {wanted}: {_INSTALL}"
    constraints = _ROOT / "constraints.txt"
    pins = constraints.read_text(encoding="utf-8") if constraints.is_file() else ""
    tested = re.search(rf"^{re.escape(name)}==(\S+)", pins, re.MULTILINE)
    if tested is None:
        return OK, version
    if tested[1] == version:
        return OK, f"{version}, as tested"
    return OK, f"{version}; {tested[1]} is what was tested"


def _declared() -> tuple[str, list[str]]:
    """Return which Python and which packages the checkout needs, or tfhuber as it was installed."""
    file = _ROOT / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        return project["requires-python"], project["dependencies"]
    return metadata.metadata("tfhuber")["Requires-Python"], metadata.requires("tfhuber") or []


def _memory() -> tuple[str, str]:
    """Return what memory is available, or what a container leaves of it."""
    meminfo = (_PROC / "meminfo").read_text()
    kib = re.findall(r"^MemAvailable:\s+(\d+)", meminfo, re.MULTILINE)
    limits = [int(kib[0]) * 1024]
    try:
        most, used = ((_CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        limits.append(int(most) - int(used))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        pass
    return _enough("memory", min(limits))


def _onednn() -> tuple[str, str]:
    variable = f"TF_ENABLE_ONEDNN_OPTS={os.environ.get('TF_ENABLE_ONEDNN_OPTS')}"
    if uses_onednn():
        return OK, f"on ({variable})"
    return NOT_THERE, f"off ({variable}); with 1, most CPUs train two to five times faster"


def _disk() -> tuple[str, str]:
    return _enough("disk", shutil.disk_usage(".").free)


def _enough(name: str, free: int) -> tuple[str, str]:
    gib, least = free / 2**30, _LEAST_GIB[name]
    if gib < least:
        return PROBLEM, f"{gib:.1f} GiB free; training needs {least} at the least"
    return OK, f"{gib:.1f} GiB free"


def _nvidia(seen: bool, log: str) -> tuple[str, str]:
    """Return the NVIDIA driver, and if there is one but TensorFlow sees no GPU, why.

    Args:
      seen: whether it sees one.
      log: what it printed when it looked.
    """
    driver = _driver_version()
    if seen:
        memory = (_smi("memory.used,memory.total") or "unknown").replace(", ", " of ")
        return OK, f"driver {driver or 'unknown'}, memory in use {memory}"
    nodes = sorted(p.name for pattern in ("nvidia[0-9c]*", "dxg") for p in _DEV.glob(pattern))
    if nodes or driver or shutil.which("nvidia-smi"):
        found = ", ".join([*nodes, f"driver {driver}" if driver else "no driver that works"])
        return PROBLEM, f"TensorFlow sees no GPU, but there is {found}: {_advice(driver, log)}"
    if _on_the_bus():
        return PROBLEM, f"a card without a driver: install NVIDIA's, {_OLDEST_DRIVER} or newer"
    return NOT_THERE, "no card and no driver; training takes the CPU"


def _advice(driver: str | None, log: str) -> str:
    """Return what to do where there is an NVIDIA driver and TensorFlow sees no GPU."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and not re.match(r"\d|GPU-|MIG-", hidden):
        return f"CUDA_VISIBLE_DEVICES={hidden!r} hides it; unset that"
    if driver is None:
        mend = f"install one, {_OLDEST_DRIVER} or newer, or start the container with --gpus all"
        return f"{mend}; then {_INSTALL_GPU}"
    if _numbers(driver) < _numbers(_OLDEST_DRIVER):
        return f"the driver is too old: install {_OLDEST_DRIVER} or newer; then {_INSTALL_GPU}"
    if installed_version("nvidia-cudnn-cu12") is None:
        return f"the CUDA libraries are missing: {_INSTALL_GPU}"
    said = [line for line in log.splitlines() if re.search(r"cuda|gpu|dlopen", line, re.IGNORECASE)]
    return f"{_without_prefix(said[-1]) if said else 'it does not say why'}; try {_INSTALL_GPU}"


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _without_prefix(line: str) -> str:
    """Return a line of TensorFlow's log without its time and place."""
    return re.sub(r"^.*?\d\] ", "", line).strip()


def _driver_version() -> str | None:
    """Return the loaded kernel driver's version."""
    try:
        text = (_PROC / "driver/nvidia/version").read_text()
    except OSError:
        return _smi("driver_version")
    found = re.search(r"Kernel Module.*?(\d+\.\d+(\.\d+)?)", text)
    return found[1] if found else None


def _smi(query: str) -> str | None:
    """Return what nvidia-smi says of the first GPU."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), None)


def _on_the_bus() -> bool:
    """Return whether a display controller of NVIDIA's is on the PCI bus."""
    for device in (_SYS / "bus/pci/devices").glob("*"):
        vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        if vendor == "0x10de" and kind.startswith("0x03"):
            return True
    return False


def _probe_tensorflow(say: Say) -> tuple[list[Row], str]:
    """Return the rows of `tfhuber.doctor.probes`, and what TensorFlow printed.

    What a probe's process died of is a row as well, and the probes after it are made in another.
    If TensorFlow doesn't start, it is tried once more without GPUs.
    """
    rows: list[Row] = []
    log, hide = "", False
    while True:
        done = [row.check for row in rows]
        found, trouble, printed = _child(say, done, hide)
        rows += [row for row in found if row.check not in done]
        log += printed
        if trouble is not None:
            rows.append(trouble)
        if trouble is None or (hide and trouble.check == _WITHOUT_GPUS):
            return rows, log
        hide = hide or trouble.check == IMPORT


def _child(say: Say, done: list[str], hide: bool) -> tuple[list[Row], Row | None, str]:
    """Run one process of probes; return its rows, the row of what it died of, and what it printed."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    if hide:
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    names = {IMPORT: _WITHOUT_GPUS} if hide else {}
    rows, current, finished = [], IMPORT, False
    command = [sys.executable, "-m", "tfhuber.doctor.probes", *done]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment) as child,
    ):
        timer = threading.Timer(_PATIENCE, child.kill)
        timer.start()
        try:
            for line in child.stdout or ():
                said = json.loads(line)
                finished = "finished" in said
                if "starts" in said:
                    current = said["starts"]
                    say(current)
                elif not finished:
                    check = names.get(said["check"], said["check"])
                    rows.append(Row(check, said["state"], said["detail"]))
            code = child.wait()
        finally:
            timer.cancel()
            child.kill()
        log.seek(0)
        printed = log.read().decode(errors="replace")
    if finished:
        return rows, None, printed
    check = names.get(current, current)
    return rows, Row(check, PROBLEM, _death(code, printed)), printed


def _death(code: int, printed: str) -> str:
    """Return what a process died of, by its exit status and the last line that it printed."""
    lines = [line for line in printed.splitlines() if line.strip()]
    last = _without_prefix(lines[-1]) if lines else "it printed nothing"
    if code >= 0:
        return last
    if code == -signal.SIGKILL:
        return f"killed: out of memory, or no answer in {_PATIENCE} s; last it printed: {last}"
    return f"crashed with {signal.Signals(-code).name}; last it printed: {last}"


def _table(rows: list[Row], width: int) -> str:
    """Return the rows as text of about `width` columns."""
    left = max(len(row.check) for row in rows) + max(len(row.state) for row in rows) + 4
    texts = [(row.check, row.state, row.detail) for row in rows]
    return aligned(texts, last_width=max(width - left, 30))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.doctor", description=__doc__)
    parser.parse_args()
    terminal = sys.stderr.isatty()

    def say(check: str) -> None:
        text = f"checking {check}"
        print(f"\r{text:<50}" if terminal else f"{text}\n", end="", file=sys.stderr, flush=True)

    rows = diagnose(say)
    if terminal:
        print(f"\r{'':<50}\r", end="", file=sys.stderr, flush=True)
    print(_table(rows, shutil.get_terminal_size().columns))
    print(f"\n{verdict(rows)}")
    return int(any(row.state == PROBLEM for row in rows))


if __name__ == "__main__":
    run_main(main)
