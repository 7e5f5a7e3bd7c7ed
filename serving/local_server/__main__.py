"""A local stand-in for TensorFlow Serving, for development and tests.

    python -m serving.local_server --model_name=wflw --model_base_path=DIR --rest_api_port=8501

Flags have the names of tensorflow_model_server's; paths, answers and errors are those of its REST
API (and, with --port, its gRPC API) for status, metadata and predict. The demo page is at `/`, metrics
are at `/monitoring/prometheus/metrics`. `docs/serving.md` has the command that starts TensorFlow
Serving itself on the same directory, and says what this server leaves out.
"""

import argparse
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.applications import Starlette

from serving.local_server import http_server, request_log
from serving.local_server.application import create_app
from serving.local_server.metrics import Metrics
from serving.local_server.model_config import (
    METRICS_PATH,
    ModelConfig,
    check_name,
    read_metrics_path,
    read_models,
)
from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.cpus import available_cpus
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    from serving.local_server import grpc as grpc_api
    from serving.local_server import served_models
else:  # they import TensorFlow
    grpc_api = lazy_module("serving.local_server.grpc")
    served_models = lazy_module("serving.local_server.served_models")

__all__ = ["main"]


def main() -> None:
    """Run the command until a signal ends it."""
    args = _parse_arguments()
    configs, reread = _configuration(args)
    metrics_path: str | None = METRICS_PATH
    if args.monitoring_config_file is not None:
        metrics_path = read_metrics_path(args.monitoring_config_file)
    listener = _listen(args.rest_api_host, args.rest_api_port, "--rest_api_port")
    if args.port:  # fail now, with one line, if it is taken
        _listen(args.rest_api_host, args.port, "--port").close()
    url = f"http://{_at(args.rest_api_host, listener.getsockname()[1])}"
    # uvicorn finishes what is running, and then raises the signal again, for this handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    request_log.configure(args.log_format)

    import_tensorflow()
    metrics = Metrics()
    models = served_models.ServedModels(
        configs,
        reread=reread,
        labels_may_wait=args.allow_version_labels_for_unavailable_models,
        warm_up=args.enable_model_warmup,
        metrics=metrics,
    )
    app = create_app(
        models,
        poll_seconds=args.file_system_poll_wait_seconds,
        reload=models.reload,
        reload_seconds=args.model_config_file_poll_wait_seconds,
        threads=args.rest_api_num_threads,
        max_waiting=args.max_waiting_requests,
        timeout_ms=args.rest_api_timeout_in_ms,
        max_request_bytes=args.max_request_bytes,
        metrics=metrics,
        metrics_path=metrics_path,
        cors=args.rest_api_enable_cors_support,
        url=url,
    )
    print(
        "This is a stand-in for TensorFlow Serving, for development and tests only; "
        "docs/serving.md has the command for production.",
        flush=True,
    )
    _serve(app, args, listener)


def _serve(app: Starlette, args: argparse.Namespace, listener: socket.socket) -> None:
    with contextlib.ExitStack() as stack:
        if args.port:
            # The address, not the name, of which gRPC would be content with any one address.
            address = _at(listener.getsockname()[0], args.port)
            stack.enter_context(
                grpc_api.serving(
                    app.state.service, address, max_request_bytes=args.max_request_bytes
                )
            )
            print(f"gRPC at {_at(args.rest_api_host, args.port)}", flush=True)
        http_server.Server(http_server.configure(app), stack).run(sockets=[listener])


def _configuration(
    args: argparse.Namespace,
) -> tuple[list[ModelConfig], Callable[[], Iterable[ModelConfig]] | None]:
    """Return what to serve, and what tells later whether that has changed."""
    if args.model_config_file is None:
        if args.model_base_path is None:
            raise ValueError("say what to serve: --model_base_path DIR or --model_config_file FILE")
        _check_base_path(args.model_base_path)
        try:
            check_name(args.model_name)
        except ValueError as error:
            raise ValueError(f"--model_name: {error}") from None
        return [ModelConfig(args.model_name, args.model_base_path)], None
    path = args.model_config_file
    return read_models(path), lambda: read_models(path)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.local_server",
        description="A stand-in for TensorFlow Serving, for development and tests.",
        allow_abbrev=False,
    )
    _add_model_options(parser)
    _add_address_options(parser)
    _add_bound_options(parser)
    watching = parser.add_argument_group("what can be seen")
    watching.add_argument(
        "--monitoring_config_file",
        type=Path,
        help=f"MonitoringConfig in text format: where metrics are (default: {METRICS_PATH})",
    )
    watching.add_argument(
        "--log_format",
        choices=request_log.FORMATS,
        default="text",
        help="what is written to stderr for every request (default: %(default)s)",
    )
    return parser.parse_args()


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is served")
    what.add_argument(
        "--model_name", default="default", help="name in the URL (default: %(default)s)"
    )
    what.add_argument(
        "--model_base_path",
        type=Path,
        help="directory whose numbered subdirectories are the model's versions",
    )
    what.add_argument(
        "--model_config_file",
        type=Path,
        help="ModelServerConfig in text format instead: several models, versions, labels",
    )
    what.add_argument(
        "--model_config_file_poll_wait_seconds",
        type=_non_negative,
        default=0,
        help="pause between two looks at that file; 0 reads it once (default: %(default)s)",
    )
    what.add_argument(
        "--allow_version_labels_for_unavailable_models",
        **_FLAG,
        default=False,
        help="let a new label name a version that is not loaded yet, as all are at the start",
    )
    what.add_argument(
        "--file_system_poll_wait_seconds",
        type=_non_negative,
        default=1,
        help="pause between two looks for new versions; 0 looks once (default: %(default)s)",
    )
    what.add_argument(
        "--enable_model_warmup",
        **_FLAG,
        default=True,
        help="replay a version's warm-up requests before it serves (default: true)",
    )


def _add_address_options(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("where")
    where.add_argument(
        "--rest_api_port",
        type=_non_negative,
        default=8501,
        help="port; 0 takes a free one and prints it (default: %(default)s)",
    )
    where.add_argument(
        "--rest_api_host",
        default="localhost",
        help="address to listen at; 0.0.0.0 lets other machines in (default: %(default)s)",
    )
    where.add_argument(
        "--port",
        type=_non_negative,
        default=0,
        help="port of the gRPC API; 0 for none (default: %(default)s)",
    )
    where.add_argument(
        "--rest_api_enable_cors_support",
        **_FLAG,
        default=False,
        help="let pages from elsewhere use the REST API",
    )


def _add_bound_options(parser: argparse.ArgumentParser) -> None:
    bounds = parser.add_argument_group("bounds")
    bounds.add_argument(
        "--rest_api_num_threads",
        type=_positive,
        default=4 * available_cpus(),
        help="requests computed at the same time (default: four for each CPU, %(default)s)",
    )
    bounds.add_argument(
        "--max_waiting_requests",
        type=_non_negative,
        default=128,
        help="requests that wait for that; more get a 503 at once (default: %(default)s)",
    )
    bounds.add_argument(
        "--rest_api_timeout_in_ms",
        type=_non_negative,
        default=30_000,
        help="how long a model may take for a request; 0 for no limit (default: %(default)s)",
    )
    bounds.add_argument(
        "--max_request_bytes",
        type=_positive,
        default=64 * 2**20,
        help="largest request body; larger ones get a 413 (default: %(default)s)",
    )


def _non_negative(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _positive(text: str) -> int:
    number = _non_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


# tensorflow_model_server takes --flag and --flag=false.
_FLAG: dict[str, Any] = {"type": _boolean, "nargs": "?", "const": True, "metavar": "BOOL"}


def _check_base_path(path: Path) -> None:
    if not path.is_dir():
        raise ValueError(
            f"--model_base_path {path} is no directory; "
            "`python -m tfhuber.export --run DIR --output DIR` makes one"
        )
    if (path / "saved_model.pb").exists():
        raise ValueError(
            f"--model_base_path {path} is a single version; give the directory above it, "
            "in which each version is a numbered directory"
        )


def _listen(host: str, port: int, flag: str) -> socket.socket:
    if port > 65535:
        raise ValueError(f"{flag} must be at most 65535, got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"is taken; choose another with {flag}"
        else:
            reason = f"cannot be listened at: {error.strerror or error}"
        raise ValueError(f"{_at(host, port)} {reason}") from None
    # Connections inherit it. Without it, a body waits 40 ms for the client to acknowledge the head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _run() -> NoReturn:
    """Run the command, at whose end no thread that still computes or loads is waited for."""
    try:
        run_main(main)
    except SystemExit as end:
        logging.shutdown()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else 0 if end.code is None else 1)


if __name__ == "__main__":
    _run()
