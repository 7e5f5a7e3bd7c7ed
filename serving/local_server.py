"""A local stand-in for TensorFlow Serving's REST API, for development and tests.

    python -m serving.local_server --model_name=wflw --model_base_path=DIR --rest_api_port=8501

Flags have the names of tensorflow_model_server's; paths, answers and errors are those of its REST
API for status, metadata and predict. `serving/README.md` has the command that starts TensorFlow
Serving itself on the same directory, and says what this server leaves out.
"""

import argparse
import asyncio
import errno
import json
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from serving import codec
from serving.codec import RequestError
from tfhuber.cli import import_tensorflow, run_main

if TYPE_CHECKING:  # TensorFlow is imported when there is something to serve
    from serving.runner import ModelVersions, SavedModel

__all__ = ["RestApi", "create_app", "main"]

logger = logging.getLogger(__name__)

_VERSION = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(rf"(?i)/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>[a-z]+)")
_GET = re.compile(rf"(?i)/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<metadata>metadata))?")

_SHUTDOWN_SECONDS = 10


class RestApi:
    """The ASGI application behind every path under `/v1/`.

    Args:
      models: what each model's name serves; anything with the interface of `ModelVersions`.
      threads: how many requests are decoded and computed at the same time; others wait.
      timeout_ms: how long a model may take for one request; 0 for no limit.
      max_request_bytes: the largest body that is read.
    """

    def __init__(
        self,
        models: Mapping[str, "ModelVersions"],
        *,
        threads: int,
        timeout_ms: int,
        max_request_bytes: int,
    ):
        self._models = models
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self._timeout_ms = timeout_ms
        self._max_request_bytes = max_request_bytes

    async def __call__(self, scope, receive, send) -> None:
        try:
            answer = await self._answer(Request(scope, receive))
            response = Response(answer, media_type="application/json")
        except RequestError as error:
            response = _error(error.message, error.status)
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("a request failed")
            response = _error("Internal error; the server's log says more", 500)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> bytes:
        target = request.scope["raw_path"].decode("latin-1")
        if request.url.query:
            raise RequestError(f"Malformed request: {request.method} {target}?{request.url.query}")
        if request.method == "POST" and (match := _POST.fullmatch(target)):
            method = match["method"]
            if method == "predict":
                body = await self._read_body(request)
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, self._predict, match, body)
            if method in ("classify", "regress"):
                raise RequestError(f"{method} is not implemented by the local server", status=501)
        if request.method == "GET" and (match := _GET.fullmatch(target)):
            if match["name"] is None:
                raise RequestError("Missing model name in request.")
            return self._metadata(match) if match["metadata"] else self._status(match)
        raise RequestError(f"Malformed request: {request.method} {target}")

    async def _read_body(self, request: Request) -> bytes:
        limit = self._max_request_bytes
        too_large = RequestError(f"The request's body is larger than {limit} bytes", status=413)
        if int(request.headers.get("content-length", 0)) > limit:
            raise too_large
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_large
            chunks.append(chunk)
        return b"".join(chunks)

    def _predict(self, match: re.Match, body: bytes) -> bytes:
        document = codec.parse_body(body)
        signature = codec.signature_name(document)
        _, model = self._servable(match)
        inputs, rows = codec.decode_inputs(document, model.input_specs(signature))
        outputs = model.run(signature, inputs, timeout_ms=self._timeout_ms)
        return codec.encode_outputs(outputs, rows=rows)

    def _metadata(self, match: re.Match) -> bytes:
        number, model = self._servable(match)
        spec = {"name": unquote(match["name"]), "signature_name": "", "version": str(number)}
        signatures = {"signature_def": {"signature_def": model.describe_signatures()}}
        return json.dumps({"model_spec": spec, "metadata": signatures}, indent=1).encode()

    def _status(self, match: re.Match) -> bytes:
        name, version = _name_and_version(match)
        statuses = self._models[name].statuses() if name in self._models else []
        if version is not None:
            statuses = [status for status in statuses if status.version == version]
        if not statuses:
            which = "any versions" if version is None else f"version {version}"
            raise RequestError(f"Could not find {which} of model {name}", status=404)
        described = [
            {
                "version": str(status.version),
                "state": status.state,
                "status": {
                    "error_code": status.error_code,
                    "error_message": status.error_message,
                },
            }
            for status in statuses
        ]
        return json.dumps({"model_version_status": described}, indent=1).encode()

    def _servable(self, match: re.Match) -> tuple[int, "SavedModel"]:
        """Returns the version that a path asks for, loaded, and its number."""
        name, version = _name_and_version(match)
        found = self._models[name].get(version) if name in self._models else None
        if found is None:
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise RequestError(f"Servable not found for request: {asked}", status=404)
        return found


def create_app(
    models: Mapping[str, "ModelVersions"],
    *,
    poll_seconds: float = 1.0,
    threads: int = 4,
    timeout_ms: int = 30_000,
    max_request_bytes: int = 64 * 2**20,
    url: str = "",
) -> Starlette:
    """Returns the server as an ASGI application that polls its models while it runs.

    Args:
      models: as for `RestApi`; `poll` of each is called in a thread, again and again.
      poll_seconds: the pause between two looks at the models' directories.
      threads, timeout_ms, max_request_bytes: as for `RestApi`.
      url: where the server listens, for the line printed when a version starts serving.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(_follow(model, poll_seconds, url)) for model in models.values()
        ]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    api = RestApi(
        models, threads=threads, timeout_ms=timeout_ms, max_request_bytes=max_request_bytes
    )
    app = Starlette(routes=[Route("/v1/{rest:path}", api)], lifespan=lifespan)
    app.router.redirect_slashes = False
    return app


async def _follow(model: "ModelVersions", seconds: float, url: str) -> None:
    """Polls a model's directory for ever, and says which version serves when that changes."""
    serving = None
    while True:
        await asyncio.to_thread(model.poll)
        if model.serving != serving:
            serving = model.serving
            if serving is not None:
                path = f"{url}/v1/models/{model.name}"
                print(f"version {serving} of {model.name} serves at {path}:predict", flush=True)
        await asyncio.sleep(seconds)


def main() -> None:
    args = _parse_arguments()
    _check_base_path(args.model_base_path)
    listener = _listen(args.rest_api_host, args.rest_api_port)
    url = f"http://{args.rest_api_host}:{listener.getsockname()[1]}"
    logging.basicConfig(format="%(levelname)s: %(message)s")
    print(
        "This is a stand-in for TensorFlow Serving, for development and tests only; "
        "serving/README.md has the command for production.",
        flush=True,
    )

    import_tensorflow()
    from serving.runner import ModelVersions

    app = create_app(
        {args.model_name: ModelVersions(args.model_name, args.model_base_path)},
        poll_seconds=args.file_system_poll_wait_seconds,
        threads=args.rest_api_num_threads,
        timeout_ms=args.rest_api_timeout_in_ms,
        max_request_bytes=args.max_request_bytes,
        url=url,
    )
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.local_server",
        description="A stand-in for TensorFlow Serving's REST API, for development and tests.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model_name", default="default", help="name in the URL (default: %(default)s)"
    )
    parser.add_argument(
        "--model_base_path",
        type=Path,
        required=True,
        help="directory whose numbered subdirectories are the model's versions",
    )
    parser.add_argument(
        "--rest_api_port",
        type=_non_negative,
        default=8501,
        help="port; 0 takes a free one and prints it (default: %(default)s)",
    )
    parser.add_argument(
        "--rest_api_host",
        default="localhost",
        help="address to listen at; 0.0.0.0 lets other machines in (default: %(default)s)",
    )
    parser.add_argument(
        "--rest_api_num_threads",
        type=_positive,
        default=4 * (os.cpu_count() or 1),
        help="requests computed at the same time (default: four for each CPU, %(default)s)",
    )
    parser.add_argument(
        "--rest_api_timeout_in_ms",
        type=_non_negative,
        default=30_000,
        help="how long a model may take for a request; 0 for no limit (default: %(default)s)",
    )
    parser.add_argument(
        "--file_system_poll_wait_seconds",
        type=_positive,
        default=1,
        help="pause between two looks for new versions (default: %(default)s)",
    )
    parser.add_argument(
        "--max_request_bytes",
        type=_positive,
        default=64 * 2**20,
        help="largest request body; larger ones get a 413 (default: %(default)s)",
    )
    return parser.parse_args()


def _non_negative(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _positive(text: str) -> int:
    number = _non_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


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


def _listen(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "is taken; choose another with --rest_api_port"
        else:
            reason = f"cannot be listened at: {error.strerror or error}"
        raise ValueError(f"{host}:{port} {reason}") from None
    except OverflowError:
        raise ValueError(f"--rest_api_port must be at most 65535, got {port}") from None
    # Connections inherit it. Without, an answer waits 40 ms for the client to acknowledge its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _name_and_version(match: re.Match) -> tuple[str, int | None]:
    if match["label"] is not None:
        raise RequestError(f"Unrecognized servable version label: {unquote(match['label'])}")
    digits = match["version"]
    if digits is not None and (len(digits) > 19 or int(digits) >= 2**63):
        raise RequestError(f"Failed to convert version: {digits} to numeric.")
    return unquote(match["name"]), None if digits is None else int(digits)


def _error(message: str, status: int) -> Response:
    return Response(json.dumps({"error": message}), status, media_type="application/json")


if __name__ == "__main__":
    run_main(main)
