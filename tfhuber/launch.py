"""Several workers on this machine: `python -m tfhuber.launch --workers 2 -- tfhuber.train --config ...`.

Starts the module behind `--` in so many processes, each with the TF_CONFIG that lets it find the others, so
that its configuration should say `train.distribution=multi_worker`. When one of them fails, all are
stopped and started again, and go on from the last checkpoint. SIGTERM and interrupts are passed on, and
all end; so they do when one of them was asked to. With GPUs, worker i gets every GPU whose number is i
modulo the workers, of those in CUDA_VISIBLE_DEVICES.
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

from tfhuber.console.cli import run_main

__all__ = ["launch", "main", "worker_environments"]

# How long a worker that is asked to end may take, for a checkpoint, say.
_PATIENCE_SECONDS = 60.0
# A wrong command line or configuration: the same again would fail again.
_USAGE = 2
# Somebody asked a worker to end, and has their reason.
_ASKED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def worker_environments(count: int) -> list[dict[str, str]]:
    """What each of so many workers needs in its environment, with ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    environments = []
    for index in range(count):
        values = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environments.append({"TF_CONFIG": json.dumps(values)})
        if gpus := os.environ.get("CUDA_VISIBLE_DEVICES"):
            environments[-1]["CUDA_VISIBLE_DEVICES"] = ",".join(gpus.split(",")[index::count])
    return environments


def launch(command: list[str], workers: int, restarts: int) -> int:
    """Runs a command in so many workers until all succeed; the exit status, 0 then.

    Args:
      command: what each process runs.
      workers: how many processes.
      restarts: how often all are started again after one has failed.

    Returns:
      0, or the status of the first worker that failed for the last time.
    """
    stop = threading.Event()
    received = []

    def pass_on(number, _):
        received.append(number)
        stop.set()

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for left in range(restarts, -1, -1):
            status = _run_once(command, workers, stop, received)
            if stop.is_set() or status in (0, _USAGE, *_ASKED) or left == 0:
                break
            _say(f"a worker ended with status {status}; starting all again, {left - 1} more times")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + received[0] if received and status else status


def _run_once(command, workers, stop, received) -> int:
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that an interrupt at the terminal comes by way of us alone
        )
        for environment in worker_environments(workers)
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


def _status(processes) -> int:
    """0 while none has failed; that of one that was lost, rather than of one that ended for its loss."""
    failed = [abs(p.returncode) + 128 * (p.returncode < 0) for p in processes if p.poll()]
    return next((status for status in failed if status != _USAGE), failed[0] if failed else 0)


def _end(processes, received: list[int]) -> None:
    """Passes the signals on to those that still run, SIGTERM if there was none; kills who does not heed.

    A second interrupt is passed on as well, and ends them without further ado.
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


def _print_prefixed(stream, index: int) -> None:
    """Prints lines as `[0] ...`; of a progress bar, which rewrites its line, the last state."""
    with stream:
        for line in stream:
            _say(line.decode(errors="replace").rstrip().rpartition("\r")[2], index)


def _say(text: str, index: int | str = "launch") -> None:
    sys.stdout.write(f"[{index}] {text}\n")
    sys.stdout.flush()


def main() -> int:
    """The command line."""
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
