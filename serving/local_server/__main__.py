"""A local stand-in for TensorFlow Serving, for development and tests.

    python -m serving.local_server --model_name=wflw --model_base_path=DIR --rest_api_port=8501

Flags have the names of tensorflow_model_server's; paths, statuses and answers are those of its REST
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
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from serving.local_server.http_server import Server
from serving.local_server.metrics import Metrics
from serving.local_server.service import Service
from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.cpus import available_cpus
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    from serving.local_server import grpc as grpc_api
    from serving.local_server import versions
    from serving.local_server.versions import ModelVersions
else:  # they import TensorFlow
    grpc_api = lazy_module("serving.local_server.grpc")
    versions = lazy_module("serving.local_server.versions")

__all__ = ["main"]

logger = logging.getLogger(__name__)


def main() -> None:
    """Run the command until a signal ends it."""
    args = _parse_arguments()
    _check_model(args.model_name, args.model_base_path)
    listener = _listen(args.rest_api_host, args.rest_api_port, "--rest_api_port")
    if args.port:  # fail now, with one line, if it is taken
        _listen(args.rest_api_host, args.port, "--port").close()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)

    import_tensorflow()
    metrics = Metrics()
    model = versions.ModelVersions(
        args.model_name, args.model_base_path, warm_up=args.enable_model_warmup, metrics=metrics
    )
    service = Service(
        model,
        threads=args.rest_api_num_threads,
        max_waiting=args.max_waiting_requests,
        timeout_ms=args.rest_api_timeout_in_ms,
        metrics=metrics,
    )
    server = Server(
        service,
        listener,
        max_request_bytes=args.max_request_bytes,
        cors=args.rest_api_enable_cors_support,
    )
    print(
        "This is a stand-in for TensorFlow Serving, for development and tests only; "
        "docs/serving.md has the command for production.",
        flush=True,
    )
    url = f"http://{_at(args.rest_api_host, listener.getsockname()[1])}"
    follower = (model, args.file_system_poll_wait_seconds, url)
    threading.Thread(target=_follow, args=follower, daemon=True).start()
    _serve(server, args)


def _follow(model: "ModelVersions", pause: float, url: str) -> None:
    """Look for versions for ever, or once without a pause, and print which one serves from now on."""
    serving = None
    while True:
        try:
            model.poll()
        except Exception:  # it must not be the last look
            logger.exception("looking for versions of %s failed", model.name)
        if model.serving not in (None, serving):
            path = f"{url}/v1/models/{model.name}"
            print(f"version {model.serving} of {model.name} serves at {path}:predict", flush=True)
        serving = model.serving
        if not pause:
            return
        time.sleep(pause)


def _serve(server: Server, args: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        stack.callback(server.drain)
        if args.port:
            # The address, not the name, of which gRPC would be content with any one address.
            address = _at(server.socket.getsockname()[0], args.port)
            limit = args.max_request_bytes
            stack.enter_context(grpc_api.serving(server.service, address, max_request_bytes=limit))
            print(f"gRPC at {_at(args.rest_api_host, args.port)}", flush=True)
        stack.callback(server.server_close)  # first of all, take no more connections
        server.serve_forever()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.local_server",
        description="A stand-in for TensorFlow Serving, for development and tests.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    # tensorflow_model_server takes --flag and --flag=false.
    flag: dict[str, Any] = {"type": _boolean, "nargs": "?", "const": True, "metavar": "BOOL"}
    add = parser.add_argument_group("what is served").add_argument
    add("--model_name", default="default", help="name in the URL")
    add("--model_base_path", type=Path, required=True, help="directory of numbered versions")
    seconds = "pause between two looks for new versions; 0 looks once"
    add("--file_system_poll_wait_seconds", type=_non_negative, default=1, help=seconds)
    warm_up = "replay a version's warm-up requests before it serves"
    add("--enable_model_warmup", **flag, default=True, help=warm_up)

    add = parser.add_argument_group("where").add_argument
    port = "port; 0 takes a free one and prints it"
    add("--rest_api_port", type=_non_negative, default=8501, help=port)
    host = "address to listen at; 0.0.0.0 lets other machines in"
    add("--rest_api_host", default="localhost", help=host)
    add("--port", type=_non_negative, default=0, help="port of the gRPC API; 0 for none")
    pages = "let pages from elsewhere use the REST API"
    add("--rest_api_enable_cors_support", **flag, default=False, help=pages)

    add = parser.add_argument_group("bounds").add_argument
    threads = "requests computed at the same time: four for each CPU"
    add("--rest_api_num_threads", type=_positive, default=4 * available_cpus(), help=threads)
    waiting = "requests that wait for that; more get a 503 at once"
    add("--max_waiting_requests", type=_non_negative, default=128, help=waiting)
    patience = "how long a model may take for a request; 0 for no limit"
    add("--rest_api_timeout_in_ms", type=_non_negative, default=30_000, help=patience)
    size = "largest request body; larger ones get a 413"
    add("--max_request_bytes", type=_positive, default=64 * 2**20, help=size)
    return parser.parse_args()


def _non_negative(text: str, least: int = 0) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)


def _positive(text: str) -> int:
    return _non_negative(text, least=1)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _check_model(name: str, path: Path) -> None:
    if not name or any(character in name for character in "/:"):
        raise ValueError(f"--model_name {name!r} must be there, and have no / and no : in it")
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
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = f"cannot be listened at: {error.strerror or error}"
        if error.errno == errno.EADDRINUSE:
            reason = f"is taken; choose another with {flag}"
        raise ValueError(f"{_at(host, port)} {reason}") from None


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
