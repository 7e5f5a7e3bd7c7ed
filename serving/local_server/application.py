"""The local server as an ASGI application: the REST API, the metrics and the demo page."""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.errors import RequestError
from serving.local_server.metrics import Metrics
from serving.local_server.model_config import METRICS_PATH
from serving.local_server.page import PageFile, read_page
from serving.local_server.request_log import log_request
from serving.local_server.rest import Call, RestApi
from serving.local_server.service import Service

if TYPE_CHECKING:  # TensorFlow is imported when there is something to serve
    from serving.local_server.versions import ModelVersions

__all__ = ["Application", "create_app"]

logger = logging.getLogger(__name__)

# How many bodies of the largest size allowed may be in memory at the same time.
_LARGEST_REQUESTS = 4
_BODY_SECONDS = 60
_RETRY_SECONDS = 1

_CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST, GET",
    "access-control-allow-headers": "Content-Type",
}


class Application:
    """The ASGI application, which answers every path, and logs and counts every request.

    Args:
      service: the models.
      api: answers below `/v1/`.
      metrics_path: where the metrics are; None for nowhere.
      cors: whether pages from elsewhere may use the REST API.
      page: the demo page's files by path.
    """

    def __init__(
        self,
        service: Service,
        api: RestApi,
        *,
        metrics_path: str | None,
        cors: bool,
        page: Mapping[str, PageFile],
    ):
        self._service = service
        self._api = api
        self._metrics_path = metrics_path
        self._cors = cors
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = Request(scope, receive)
        call = Call.of(request)
        is_api = call.target[:4].lower() == "/v1/"
        failure = None
        try:
            response = await (self._answer_api(request, call) if is_api else self._show(call))
        except RequestError as error:
            failure = error
        except ClientDisconnect:
            failure = RequestError("The client left before its request was whole", status=499)
        except asyncio.CancelledError:  # the server stops, and waits no longer
            failure = RequestError("The server is shutting down; try again later", status=503)
        except Exception:
            logger.exception("a request failed")
            failure = RequestError("Internal error; the server's log says more", status=500)
        computed = time.perf_counter() - started
        if failure:
            response = _error(failure)
        if is_api:
            code = failure.code if failure else "OK"
            self._service.count(call.model, code, call.api, "REST", computed)
            if self._cors:
                response.headers.update(_CORS)
        response.headers["x-request-id"] = call.id
        with suppress(asyncio.CancelledError):  # uvicorn then hangs up
            await response(scope, receive, send)
        log_request(
            call,
            status=response.status_code,
            sent=len(response.body),
            seconds=time.perf_counter() - started,
            error=failure.message if failure else None,
        )

    async def _answer_api(self, request: Request, call: Call) -> Response:
        if self._cors and call.method == "OPTIONS":
            return Response()
        return Response(await self._api.answer(request, call), media_type="application/json")

    async def _show(self, call: Call) -> Response:
        """Answer with the metrics or a file of the demo page."""
        path = call.target.partition("?")[0]
        if path != self._metrics_path and path not in self._page:
            raise RequestError("Not Found", status=404)
        if call.method not in ("GET", "HEAD"):
            raise RequestError("Method Not Allowed", status=405)
        if path == self._metrics_path:
            return Response(self._service.metrics.page(), media_type="text/plain; version=0.0.4")
        file = self._page[path]
        headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
        return Response(file.content, headers=headers, media_type=file.media_type)


def create_app(
    models: Mapping[str, "ModelVersions"],
    *,
    poll_seconds: float = 1.0,
    reload: Callable[[], bool] | None = None,
    reload_seconds: float = 0.0,
    threads: int = 4,
    max_waiting: int = 128,
    timeout_ms: int = 30_000,
    max_request_bytes: int = 64 * 2**20,
    body_seconds: float = _BODY_SECONDS,
    metrics: Metrics | None = None,
    metrics_path: str | None = METRICS_PATH,
    cors: bool = False,
    url: str = "",
) -> Starlette:
    """Return the server as an ASGI application that polls its models while it runs.

    Its `state.service` is the `Service` behind it.

    Args:
      models: what each model's name serves, with the interface of `ModelVersions`; `poll` of each is
        called in a thread, again and again.
      poll_seconds: the pause between two looks at the models' directories; 0 for one look, and one
        more whenever the configuration has changed.
      reload: looks at the configuration again, and returns whether `models` has changed.
      reload_seconds: the pause between two such looks; 0 for none.
      threads, max_waiting, timeout_ms: as for `Service`.
      max_request_bytes, body_seconds: as for `RestApi`.
      metrics: what the models count in; new ones by default.
      metrics_path, cors: as for `Application`.
      url: where the server listens, for the line printed when a version starts serving.
    """
    bounds = {"threads": threads, "max_waiting": max_waiting, "timeout_ms": timeout_ms}
    service = Service(models, metrics=metrics or Metrics(), **bounds)
    api = RestApi(
        service,
        max_request_bytes=max_request_bytes,
        max_held_bytes=_LARGEST_REQUESTS * max_request_bytes,
        body_seconds=body_seconds,
    )
    page = read_page(Path(__file__).parents[1] / "demo")
    application = Application(service, api, metrics_path=metrics_path, cors=cors, page=page)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(_follow(models, poll_seconds, reload, reload_seconds, url))
        yield
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    app = Starlette(lifespan=lifespan)
    app.router.redirect_slashes = False
    app.router.default = application  # no route matches every path that a client may send
    app.state.service = service
    return app


async def _follow(
    models: Mapping[str, "ModelVersions"],
    poll_seconds: float,
    reload: Callable[[], bool] | None,
    reload_seconds: float,
    url: str,
) -> None:
    """Poll the models for ever, and print which version serves when that changes."""
    serving: dict[str, int | None] = {}
    # A thread of its own, which the server need not wait for when it stops.
    thread = ThreadPoolExecutor(1, thread_name_prefix="follow")
    poll_at = 0.0
    reload_at = time.monotonic() + reload_seconds if reload and reload_seconds else math.inf
    while True:
        if reload and time.monotonic() >= reload_at:
            if await _attempt(thread, reload, "reading the configuration"):
                poll_at = 0.0
            reload_at = time.monotonic() + reload_seconds
        if time.monotonic() >= poll_at:
            for name, model in list(models.items()):
                await _attempt(thread, model.poll, f"looking for versions of {name}")
                if model.serving not in (None, serving.get(name)):
                    path = f"{url}/v1/models/{name}"
                    print(f"version {model.serving} of {name} serves at {path}:predict", flush=True)
                serving[name] = model.serving
            poll_at = time.monotonic() + (poll_seconds or math.inf)
        await asyncio.sleep(min(poll_at, reload_at) - time.monotonic())


async def _attempt(
    thread: ThreadPoolExecutor, function: Callable[[], bool | None], what: str
) -> bool | None:
    """Return what a function returns; log what it raises, for it must not be the last look."""
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, function)
    except Exception:
        logger.exception("%s failed", what)
        return None


def _error(error: RequestError) -> Response:
    headers = {}
    if error.status == 503:
        headers["retry-after"] = str(_RETRY_SECONDS)
    if error.status == 405:
        headers["allow"] = "GET, HEAD"
    if error.status == 408:  # the rest of the body is not waited for
        headers["connection"] = "close"
    body = json.dumps({"error": error.message})
    return Response(body, error.status, headers=headers, media_type="application/json")
