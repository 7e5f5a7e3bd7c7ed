"""uvicorn, set up to withstand clients that are slow or many."""

import asyncio
import socket
from contextlib import ExitStack
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Server", "configure"]

_HEAD_SECONDS = 10
# For bodies that the application does not read; for the others it has a shorter limit itself.
_BODY_SECONDS = 65
_RECEIVING = {h11.IDLE: _HEAD_SECONDS, h11.SEND_BODY: _BODY_SECONDS}
_IDLE_SECONDS = 60
_SHUTDOWN_SECONDS = 10
_MAX_CONNECTIONS = 1000


def configure(app: ASGIApp) -> uvicorn.Config:
    """Return the configuration with which an ASGI application is served."""
    return uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http=ImpatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


class Server(uvicorn.Server):
    """uvicorn's server, which stops others in other threads together with itself.

    Args:
      config: as `configure` returns it.
      others: closed as soon as this server takes no more connections, while requests finish.
    """

    def __init__(self, config: uvicorn.Config, others: ExitStack):
        super().__init__(config)
        self._others = others

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.gather(super().shutdown(sockets), asyncio.to_thread(self._others.close))


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on a client which takes too long to send a request's head or body.

    `H11Protocol` and what is used of it here (`conn`, `loop`, `transport`) are uvicorn's own, not public.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._receiving: object = None  # a state of h11's
        self._clock: asyncio.TimerHandle | None = None
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Start a clock for what the client sends now, unless it is running already."""
        state = self.conn.their_state
        if state is self._receiving:
            return
        self._receiving = state
        self._stop_clock()
        if state in _RECEIVING:
            self._clock = self.loop.call_later(_RECEIVING[state], self.transport.abort)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
