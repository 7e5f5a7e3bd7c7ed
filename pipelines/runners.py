"""Beam's runners: the one in this process, with workers beside it on request, or any other."""

import argparse
import builtins
import ctypes
import logging
import os
import queue
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import apache_beam as beam
import grpc
from apache_beam.io.filesystem import BeamIOError
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.worker import sdk_worker
from apache_beam.transforms.environments import SubprocessSDKEnvironment

__all__ = ["LOCAL", "make_pipeline", "run_job"]

# Not `DirectRunner`: that one may download another runner, and run it, before it starts.
LOCAL = FnApiRunner.__name__

# What other runners say of the job is shown. That a step failed is not: it is raised, in one line,
# and workers of this process, which a job service may use, would log it as well.
_LOG_LEVELS = {
    "": logging.CRITICAL,
    "apache_beam": logging.WARNING,
    "apache_beam.runners.common": logging.CRITICAL,
    "apache_beam.runners.dataflow": logging.INFO,
    "apache_beam.runners.portability": logging.INFO,
    "apache_beam.runners.worker": logging.CRITICAL,
}

# Beam's default, 300 seconds, would end the wait for a job that takes longer. It is a year.
_JOB_SERVER_TIMEOUT = "--job_server_timeout=31536000"
_SECONDS_TO_CONNECT = 5

# The end of a Python traceback, such as `RuntimeError: OSError: disk full [while running 'Step']`.
_PYTHON_ERROR = re.compile(
    r"^(?:RuntimeError: )?(?:\w+\.)*(\w+(?:Error|Exception)): (.*?)(?: \[while running .*)?$",
    re.MULTILINE,
)

# Threads that fail when a worker has gone, of which the job's own failure tells.
_BEAMS_THREADS = ("beam_control_read", "read_grpc_client_inputs")

# How runners say that they have failed.
_FAILURES = ("RuntimeError", "NotImplementedError", "DataflowRuntimeException")


def make_pipeline(runner: str, options: list[str], processes: int = 1) -> beam.Pipeline:
    """A pipeline for a runner by name, with Beam's own command-line options.

    Args:
      runner: `LOCAL`, or any that Beam knows.
      options: such as `--direct_running_mode=multi_processing` or `--project=NAME`.
      processes: how many workers the local runner has; 1 means none beside this process.

    Raises:
      ValueError: if the runner cannot be used, or Beam doesn't know an option of the local one.
      OSError: if there is no job service where there should be one.
    """
    if runner == LOCAL:
        _check(options)
        # Beam logs each failure, with its traceback, before it is raised.
        logging.getLogger().setLevel(logging.CRITICAL)
        return beam.Pipeline(*_local(options, processes))
    if "dask" in runner.lower():
        raise ValueError(f"--runner {runner} is not supported: it loses rejects without a word")
    if processes != 1:
        raise ValueError(f"--processes belongs to --runner {LOCAL}; {runner} has its own options")
    logging.basicConfig()
    for name, level in _LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    sdk_worker.print = lambda *_, **__: None  # It prints failures besides.
    try:
        pipeline = beam.Pipeline(runner, PipelineOptions([_JOB_SERVER_TIMEOUT, *options]))
    except (ImportError, TypeError, AttributeError) as error:  # No runner, or something else.
        raise ValueError(f"--runner {runner}: {error}") from error
    _await_job_service(pipeline.options.view_as(PortableOptions).job_endpoint)
    return pipeline


def _local(options: list[str], processes: int) -> tuple[FnApiRunner, PipelineOptions]:
    if processes == 1:
        return FnApiRunner(), PipelineOptions(options)
    # `exec`: no shell stays between the worker and this process, with which it ends.
    command = f"exec {shlex.quote(sys.executable)} -m pipelines.worker {os.getpid()}"
    workers = SubprocessSDKEnvironment.from_command_string(command)
    count = f"--direct_num_workers={processes}"
    return FnApiRunner(default_environment=workers), PipelineOptions([*options, count])


def _check(options: list[str]) -> None:
    """Beam drops what it doesn't know, and a misspelt option of ours would go the same way.

    Other runners are spared, as theirs may be known to nobody but their job service.
    """
    parser = argparse.ArgumentParser(
        allow_abbrev=False, add_help=False, exit_on_error=False, conflict_handler="resolve"
    )
    for group in PipelineOptions.__subclasses__():
        group._add_argparse_args(parser)
    try:
        unknown = parser.parse_known_args(options)[1]
    except argparse.ArgumentError as error:
        raise ValueError(f"{error} (an option of Beam)") from error
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no option of this command, nor of Beam; see --help")


def _await_job_service(endpoint: str | None) -> None:
    if endpoint and endpoint != "embed":
        with grpc.insecure_channel(endpoint) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=_SECONDS_TO_CONNECT)
            except grpc.FutureTimeoutError:
                raise OSError(f"--job_endpoint {endpoint}: no job service answers") from None


def run_job(pipeline: beam.Pipeline, watch: Callable[[], None]) -> None:
    """Runs a pipeline to its end, and calls `watch` twice a second meanwhile.

    Args:
      pipeline: from `make_pipeline`, with the job in it.
      watch: such as the update of a progress bar.

    Raises:
      OSError: if a worker met one, if a local worker process died, or if the runner has failed.
    """
    try:
        if isinstance(pipeline.runner, FnApiRunner):
            try:
                _watched(pipeline.run, watch, _interrupt)
            except BaseException:
                _end_workers()
                raise
        else:
            # In this thread, as runners that start a job service handle signals.
            result = pipeline.run()
            _watched(result.wait_until_finish, watch, lambda _: result.cancel())
    except Exception as error:
        if readable := _readable(error):
            raise readable from error
        raise


def _watched(
    job: Callable[[], object],
    watch: Callable[[], None],
    stop: Callable[[threading.Thread], None],
) -> None:
    """Calls `job` in a thread: in this one, Beam would take an interrupt for a failure of the job."""
    outcomes = queue.SimpleQueue()

    def work():
        try:
            job()
            outcomes.put(None)
        except BaseException as error:
            outcomes.put(error)

    def on_failed_thread(failure):
        name = failure.thread.name if failure.thread else ""
        if name == "run_worker":  # Beam would wait for it without end.
            outcomes.put(ChildProcessError(f"a worker process died: {failure.exc_value}"))
        elif name not in _BEAMS_THREADS:
            excepthook(failure)

    excepthook, threading.excepthook = threading.excepthook, on_failed_thread
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            try:
                error = outcomes.get(timeout=0.5)
                break
            except queue.Empty:
                watch()
    except KeyboardInterrupt as interrupt:
        try:
            stop(thread)
        except Exception as error:
            interrupt.add_note(f"the job could not be stopped and may go on: {error}")
        thread.join(timeout=3)  # Beam has its say before the command's last word.
        raise
    if error:
        raise error
    threading.excepthook = excepthook  # After a failure, Beam's threads go on failing for a while.


def _interrupt(thread: threading.Thread) -> None:
    """Beam has no way to stop a local job, and one that is met by the interpreter's end may abort it."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt)
    )


def _end_workers() -> None:
    """Kills this process's workers, which else would go on writing for a moment after it has failed."""
    for path in Path("/proc/self/task").glob("*/children"):
        for worker in map(int, path.read_text().split()):
            with suppress(OSError):
                if b"pipelines.worker" in Path(f"/proc/{worker}/cmdline").read_bytes():
                    os.kill(worker, signal.SIGKILL)
                    _await_end(worker)


def _await_end(process: int, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def _readable(error: Exception) -> OSError | None:
    """The `OSError` that a failed job comes down to, if it does; what a worker raised comes as text."""
    if isinstance(error, grpc.RpcError):
        return OSError(f"the job service has failed: {error.code().name}: {error.details()}")
    text, name = str(error), type(error).__name__
    if isinstance(error, OSError):
        return OSError(text.partition(" [while running")[0])
    kind, message = (_PYTHON_ERROR.findall(text) or [("", "")])[-1]
    if kind == BeamIOError.__name__ or issubclass(getattr(builtins, kind, Exception), OSError):
        return OSError(message)
    if "[while running" in text or name not in _FAILURES:  # A defect of ours.
        return None
    return OSError(f"the runner has failed: {f'{kind}: {message}' if kind else text}")
