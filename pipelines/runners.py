"""Beam's runners: the one in this process, with workers beside it on request, or any other."""

import argparse
import builtins
import contextlib
import logging
import queue
import re
import shlex
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing

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
# How long a job, and then Beam's threads, may take to end when the job has failed or is interrupted.
_SECONDS_TO_END = 3

# The end of a Python traceback, such as `RuntimeError: OSError: disk full [while running 'Step']`.
_PYTHON_ERROR = re.compile(
    r"^(?:RuntimeError: )?(?:\w+\.)*(\w+(?:Error|Exception)): (.*?)(?: \[while running .*)?$",
    re.MULTILINE,
)

# Beam's threads that fail when a worker has gone: the one that waits for a worker's process, which is how
# its death is learned of, as Beam itself would wait without end; and two that read from the worker.
_WAITS_FOR_WORKER = "run_worker"
_BEAM_THREADS = (_WAITS_FOR_WORKER, "beam_control_read", "read_grpc_client_inputs")

# How runners say that they have failed.
_FAILURES = ("RuntimeError", "NotImplementedError", "DataflowRuntimeException")


class _LocalRunner(FnApiRunner):
    """Beam's runner in this process, with worker processes that live no longer than a socket of it.

    Beam has no way to end workers. Each of ours keeps a connection to the socket, which `close` closes, and
    so does the end of this process, even by `kill -9`.
    """

    def __init__(self, processes: int):
        self._closer: weakref.finalize | None = None
        if processes == 1:
            super().__init__()
            return
        listener = socket.create_server(("127.0.0.1", 0), backlog=processes)
        self._closer = weakref.finalize(self, listener.close)
        # `exec`: no shell stays between the worker and this process.
        worker = f"{shlex.quote(sys.executable)} -m pipelines.worker {listener.getsockname()[1]}"
        environment = SubprocessSDKEnvironment.from_command_string(f"exec {worker}")
        super().__init__(default_environment=environment)

    def close(self) -> None:
        """End the workers, which else would go on writing for a moment after the job has failed."""
        if self._closer:
            self._closer()


def make_pipeline(runner: str, options: list[str], processes: int = 1) -> beam.Pipeline:
    """Return a pipeline for a runner by name, with Beam's own command-line options.

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
        workers = [] if processes == 1 else [f"--direct_num_workers={processes}"]
        return beam.Pipeline(_LocalRunner(processes), PipelineOptions([*options, *workers]))
    if "dask" in runner.lower():
        raise ValueError(f"--runner {runner} is not supported: it loses rejects without a word")
    if processes != 1:
        raise ValueError(f"--processes belongs to --runner {LOCAL}; {runner} has its own options")
    logging.basicConfig()
    for name, level in _LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    # Workers in this process print each failure's traceback to stderr, and no option turns that off.
    sdk_worker.print = lambda *_, **__: None
    try:
        pipeline = beam.Pipeline(runner, PipelineOptions([_JOB_SERVER_TIMEOUT, *options]))
    except (ImportError, TypeError, AttributeError) as error:  # No runner, or something else.
        raise ValueError(f"--runner {runner}: {error}") from error
    _await_job_service(pipeline.options.view_as(PortableOptions).job_endpoint)
    return pipeline


def _check(options: list[str]) -> None:
    """Raise `ValueError` for an option that Beam does not know, which it would drop without an error.

    It may be a misspelt one of ours. Other runners are spared, as only their job service may know theirs.
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


def run_job(
    pipeline: beam.Pipeline, watch: Callable[[], object], interrupt: Callable[[], object]
) -> None:
    """Run a pipeline to its end, and call `watch` twice a second meanwhile.

    Args:
      pipeline: from `make_pipeline`, with the job in it.
      watch: such as the update of a progress bar.
      interrupt: makes the steps that run in this process fail soon; called on a KeyboardInterrupt with
        the local runner, as Beam has no way to stop its job.

    Raises:
      OSError: if a worker met one, if a local worker process died, or if the runner has failed.
    """
    runner = pipeline.runner
    try:
        with _thread_failures() as outcomes:
            if isinstance(runner, _LocalRunner):

                def stop() -> None:
                    interrupt()
                    runner.close()

                with closing(runner):
                    _run_watched(pipeline.run, watch, stop, outcomes)
            else:
                # In this thread, as runners that start a job service handle signals.
                result = pipeline.run()
                _run_watched(result.wait_until_finish, watch, result.cancel, outcomes)
    except Exception as error:
        if readable := _readable(error):
            raise readable from error
        raise


def _run_watched(
    job: Callable[[], object],
    watch: Callable[[], object],
    stop: Callable[[], object],
    outcomes: queue.SimpleQueue[BaseException | None],
) -> None:
    """Call `job` in a thread: in this one, Beam would take an interrupt for a failure of the job."""

    def work() -> None:
        try:
            job()
            outcomes.put(None)
        except BaseException as error:
            outcomes.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        # Not `Thread.join`: when that is interrupted, the thread counts as ended.
        while True:
            try:
                outcome = outcomes.get(timeout=0.5)
                break
            except queue.Empty:
                watch()
    except KeyboardInterrupt as interrupt:
        try:
            stop()
        except Exception as error:
            interrupt.add_note(f"the job could not be stopped and may go on: {error}")
        with contextlib.suppress(queue.Empty):  # Beam has its say before the command's last word.
            outcomes.get(timeout=_SECONDS_TO_END)
        raise
    if outcome:
        raise outcome


@contextlib.contextmanager
def _thread_failures() -> Iterator[queue.SimpleQueue[BaseException | None]]:
    """Yield a queue that gets the deaths of local workers; what Beam's threads print of them is dropped.

    After a failure these threads go on failing for a moment, for which the end of the block waits.
    """
    outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def on_failed_thread(failure: threading.ExceptHookArgs) -> None:
        name = failure.thread.name if failure.thread else ""
        if name == _WAITS_FOR_WORKER:
            outcomes.put(ChildProcessError(f"a worker process died: {failure.exc_value}"))
        elif name not in _BEAM_THREADS:
            excepthook(failure)

    before = set(threading.enumerate())
    excepthook, threading.excepthook = threading.excepthook, on_failed_thread
    try:
        yield outcomes
    except BaseException:
        deadline = time.monotonic() + _SECONDS_TO_END
        for thread in set(threading.enumerate()) - before:
            if thread.name in _BEAM_THREADS:
                thread.join(timeout=max(0.0, deadline - time.monotonic()))
        raise
    finally:
        threading.excepthook = excepthook


def _readable(error: Exception) -> OSError | None:
    """Return the `OSError` that a failed job comes down to, if any; what a worker raised comes as text."""
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
