"""Start workers on this machine: `python -m tfhuber.launch --workers 2 -- tfhuber.train --config ...`.

Runs the module behind `--` in so many processes, each with the TF_CONFIG that lets it find the others, so
that its configuration should say `train.distribution=multi_worker`. When one of them fails, all are
stopped and started again, and go on from the last checkpoint. SIGTERM and interrupts are passed on, and
all end; so they do when one of them was asked to. Each worker gets GPUs of its own, as many as each other:
of N workers, worker i gets those numbered i, i + N, ... of this machine's or of CUDA_VISIBLE_DEVICES.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tfhuber.console.cli import run_main

__all__ = ["launch", "main", "visible_gpus", "worker_environments"]

# How long a worker that is asked to end may take, for a checkpoint, say.
_PATIENCE_SECONDS = 60.0
# A wrong command line or configuration: the same again would fail again.
_USAGE = 2
# Somebody asked a worker to end, and has their reason.
_ASKED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def worker_environments(count: int, gpus: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return what each of so many workers needs in its environment, with ports that are free now.

    Args:
      count: how many workers.
      gpus: what CUDA_VISIBLE_DEVICES may name; none leaves that variable as it is.

    Raises:
      ValueError: if there are GPUs, but fewer than workers.
    """
    if 0 < len(gpus) < count:
        raise ValueError(
            f"--workers {count} needs {count} GPUs, one each, but there are {len(gpus)} "
            f"({', '.join(gpus)}); start fewer workers, or set CUDA_VISIBLE_DEVICES=-1 to take the CPU"
        )
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    environments = []
    even = len(gpus) - len(gpus) % count  # TensorFlow wants as many devices in each worker
    for index in range(count):
        values = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environments.append({"TF_CONFIG": json.dumps(values)})
        if gpus:
            environments[-1]["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[:even][index::count])
    return environments


def visible_gpus(proc: Path = Path("/proc")) -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES names, or else the numbers of this machine's NVIDIA GPUs.

    TensorFlow is not asked: it would take the GPUs that the workers need.

    Args:
      proc: where the kernel's files are.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        # CUDA ignores a name that is none, and all after it.
        bad = next((i for i, name in enumerate(names) if name in ("", "-1", "none", "void")), None)
        return names[:bad]
    try:
        command = ["nvidia-smi", "-L"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        count = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    except (OSError, subprocess.SubprocessError):
        count = len(list(proc.glob("driver/nvidia/gpus/*")))
    return list(map(str, range(count)))


def launch(command: list[str], workers: int, restarts: int) -> int:
    """Run a command in so many workers until all succeed, and return the exit status.

    Args:
      command: what each process runs.
      workers: how many processes.
      restarts: how often all are started again after one has failed.

    Returns:
      0, or the status of the first worker that failed for the last time.

    Raises:
      ValueError: if there are GPUs, but fewer than workers.
    """
    stop = threading.Event()
    received: list[int] = []
    gpus = visible_gpus()
    if idle := len(gpus) % workers if len(gpus) > workers else 0:
        _say(f"GPUs that are left idle, as all workers need as many: {', '.join(gpus[-idle:])}")

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        stop.set()

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for left in range(restarts, -1, -1):
            environments = worker_environments(workers, gpus)
            status = _run_once(command, environments, stop, received)
            if stop.is_set() or status in (0, _USAGE, *_ASKED) or left == 0:
                break
            _say(f"a worker ended with status {status}; starting all again, {left - 1} more times")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + received[0] if received and status else status


def _run_once(
    command: list[str],
    environments: list[dict[str, str]],
    stop: threading.Event,
    received: list[int],
) -> int:
    """Run a command in a process for each environment, and return `_status` of all in the end."""
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that an interrupt at the terminal comes by way of us alone
        )
        for environment in environments
    ]
    printers = [
        threading.Thread(target=_print_prefixed, args=(process.stdout, index))
        for index, process in enumerate(processes)
    ]
    for printer in printers:
        printer.start()
    status = 0
    while status == 0 and not stop.is_set() and any(p.poll() is None for p in processes):
        stop.wait(0.1)
        status = _status(processes)
    _end(processes, received)
    for printer in printers:
        printer.join()
    return status or _status(processes)


def _status(processes: list[subprocess.Popen]) -> int:
    """Return 0 while none has failed, then the status of one that failed by itself.

    A worker that ended because another was lost has status 2, and does not count where another failed.
    """
    failed = [abs(p.returncode) + 128 * (p.returncode < 0) for p in processes if p.poll()]
    return next((status for status in failed if status != _USAGE), failed[0] if failed else 0)


def _end(processes: list[subprocess.Popen], received: list[int]) -> None:
    """Pass the signals, or SIGTERM, on to the processes that still run, and kill those that go on.

    A second interrupt is passed on as well, and ends them at once.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    sent = 0
    while running := [process for process in processes if process.poll() is None]:
        for number in (received or [signal.SIGTERM])[sent:]:
            sent += 1
            for process in running:
                process.send_signal(number)
        if time.monotonic() > deadline:
            for process in running:
                process.kill()
        time.sleep(0.02)


def _print_prefixed(stream: IO[bytes], index: int) -> None:
    """Print lines as `[0] ...`; of a progress bar, which rewrites its line, the last state."""
    with stream:
        for line in stream:
            _say(line.decode(errors="replace").rstrip().rpartition("\r")[2], index)


def _say(text: str, index: int | str = "launch") -> None:
    sys.stdout.write(f"[{index}] {text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.launch", description=__doc__)
    parser.add_argument("--workers", type=int, required=True, help="how many processes")
    parser.add_argument(
        "--restarts", type=int, default=3, help="how often to start again (default: %(default)s)"
    )
    parser.add_argument("module", help="what each runs, such as tfhuber.train")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    options = parser.parse_args()
    if options.workers < 1 or options.restarts < 0:
        raise ValueError(
            "--workers must be 1 or more and --restarts 0 or more, "
            f"got {options.workers} and {options.restarts}"
        )
    command = [sys.executable, "-m", options.module, *options.arguments]
    return launch(command, options.workers, options.restarts)


if __name__ == "__main__":
    run_main(main)
