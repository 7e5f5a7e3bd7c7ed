"""Beam's runners: the one in this process, with workers beside it on request, or any other."""

import argparse
import ctypes
import logging
import queue
import shlex
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

T = TypeVar("T")

__all__ = ["LOCAL", "make_pipeline", "run_job"]

# Not `DirectRunner`: that one may download another runner, and run it, before it starts.
LOCAL = FnApiRunner.__name__


def make_pipeline(runner: str, options: list[str], processes: int = 1) -> beam.Pipeline:
    """A pipeline for a runner by name, with Beam's own command-line options.

    Args:
      runner: `LOCAL`, or any that Beam knows.
      options: such as `--direct_running_mode=multi_processing` or `--project=NAME`.
      processes: how many workers the local runner has; 1 means none beside this process.

    Raises:
      ValueError: if Beam doesn't know the runner, or not an option of the local one.
    """
    if runner == LOCAL:
        _check(options)
        # Beam logs each failure, with its traceback, before it is raised.
        logging.getLogger().setLevel(logging.CRITICAL)
        return beam.Pipeline(*_local(options, processes))
    logging.getLogger().setLevel(logging.INFO)
    try:
        return beam.Pipeline(runner, PipelineOptions(options))
    except ImportError as error:
        raise ValueError(f"--runner {runner}: {error}") from error


def _local(options: list[str], processes: int) -> tuple[FnApiRunner, PipelineOptions]:
    if processes == 1:
        return FnApiRunner(), PipelineOptions(options)
    command = f"{shlex.quote(sys.executable)} -m pipelines.worker"
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


def run_job(job: Callable[[], T], watch: Callable[[], None]) -> T:
    """Returns what `job` returns, and calls `watch` twice a second meanwhile.

    The job runs in a thread: in this one, Beam would take an interrupt for a failure of the job.

    Args:
      job: runs a pipeline to its end.
      watch: such as the update of a progress bar.

    Raises:
      ChildProcessError: if a local worker process dies, which Beam would wait for without end.
    """
    outcomes = queue.SimpleQueue()

    def work():
        try:
            outcomes.put((job(), None))
        except BaseException as error:
            outcomes.put((None, error))

    def on_failed_thread(failure):
        if failure.thread.name == "run_worker":
            died = ChildProcessError(f"a worker process died: {failure.exc_value}")
            outcomes.put((None, died))
        else:
            excepthook(failure)

    excepthook, threading.excepthook = threading.excepthook, on_failed_thread
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            try:
                result, error = outcomes.get(timeout=0.5)
                break
            except queue.Empty:
                watch()
    except KeyboardInterrupt:
        # Beam has no way to stop a local job, and a thread that the interpreter's end meets in
        # TensorFlow aborts the process; one that waits for other processes does no harm.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt)
        )
        thread.join(timeout=3)
        raise
    finally:
        threading.excepthook = excepthook
    if error:
        raise error
    return result
