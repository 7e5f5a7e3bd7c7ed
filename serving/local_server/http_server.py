"""HTTP for the local server: a thread for each connection, and bounds on what a client may cost."""

import contextlib
import json
import logging
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from serving.errors import RequestError
from serving.local_server.page import read_page
from serving.local_server.rest import RestApi
from serving.local_server.service import Service

__all__ = ["METRICS_PATH", "Server"]

logger = logging.getLogger(__name__)

METRICS_PATH = "/monitoring/prometheus/metrics"

# How many bodies of the largest size allowed may be in memory at the same time.
_LARGEST_REQUESTS = 4
_MAX_CONNECTIONS = 1000
_SHUTDOWN_SECONDS = 10
_LINGER_SECONDS = 2
_URL = re.compile(
    r"(?i)([a-z][a-z0-9+.-]*:)?(//([^/?#@]*@)?[^/?#@:]*(:[0-9]*)?(?=[/?#]|$))?"
    r"(?P<target>(?!//|[a-z][a-z0-9+.-]*:/)([!#$&-;=?@a-z_~]|%[0-9a-f]{2})*)"
)
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


class Server(ThreadingMixIn, TCPServer):
    """The REST API, the metrics and the demo page on a socket.

    `serve_forever` answers until `shutdown` or an exception ends it; then `drain` lets requests finish.

    Args:
      service: the model.
      listener: a socket that listens already.
      max_request_bytes: the largest body that is read.
      silent_seconds: how long a client may send nothing before it is hung up on.
      cors: whether pages from elsewhere may use the REST API.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        service: Service,
        listener: socket.socket,
        *,
        max_request_bytes: int = 64 * 2**20,
        silent_seconds: float = 60,
        cors: bool = False,
    ):
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.service = service
        self.api = RestApi(service)
        self.page = read_page(Path(__file__).parents[1] / "demo")
        self.cors = cors
        self.max_request_bytes = max_request_bytes
        self.silent_seconds = silent_seconds
        self._connections = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._changed = threading.Condition()
        self._answering = 0
        self._held_bytes = 0
        what = "Bytes of request bodies in memory"
        service.metrics.watch("local_server_body_bytes", what, lambda: self._held_bytes)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request as one that `drain` waits for, as long as the context lasts."""
        with self._changed:
            self._answering += 1
        try:
            yield
        finally:
            with self._changed:
                self._answering -= 1
                self._changed.notify_all()

    def drain(self) -> None:
        """Take no more connections, and wait until requests are answered, ten seconds at most."""
        self.server_close()
        with self._changed:
            self._changed.wait_for(lambda: not self._answering, _SHUTDOWN_SECONDS)

    def hold(self, size: int) -> None:
        """Count bytes of a body as held until `release`.

        Raises:
          RequestError: all bodies together are too large.
        """
        message = (
            "The server is busy: the requests that it was sent fill its memory; try again later"
        )
        with self._changed:
            if self._held_bytes + size > _LARGEST_REQUESTS * self.max_request_bytes:
                raise RequestError(message, status=503)
            self._held_bytes += size

    def release(self, size: int) -> None:
        with self._changed:
            self._held_bytes -= size

    def verify_request(self, *_: Any) -> bool:
        """Return whether there is a thread for one more connection; it is hung up on otherwise."""
        return self._connections.acquire(blocking=False)

    def process_request_thread(self, *args: Any) -> None:
        try:
            super().process_request_thread(*args)
        finally:
            self._connections.release()

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a connection that breaks."""


class _Handler(BaseHTTPRequestHandler):
    """The requests of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.silent_seconds)

    def answer(self) -> None:
        """Read a request's body and answer it."""
        with self.server.answering():
            body, self._held = None, 0
            try:
                body = self._body()
                self._send(*self._found(body))
            except RequestError as error:
                self.close_connection |= body is None
                self._send_failure(error)
                if body is None:
                    self._linger()
            except OSError:  # the client has left, or is silent
                self.close_connection = True
            except Exception:
                logger.exception("a request failed")
                message = "Internal error; the server's log says more"
                self._send_failure(RequestError(message, status=500))
            finally:
                self.server.release(self._held)

    # What TensorFlow Serving's HTTP server knows; of other methods, http.server says 501.
    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = answer

    def _found(self, body: bytes) -> tuple[bytes, dict[str, str]]:
        """Return the content of an answer and its headers."""
        # As it came; http.server changes `//` at the start of `path`.
        match = _URL.fullmatch(self.requestline.split()[1])
        if match is None:
            raise RequestError("Malformed request: the address is no URL")
        target = match["target"]
        path, _, query = target.partition("?")
        if target[:4].lower() == "/v1/":
            if self.server.cors and self.command == "OPTIONS":
                return b"", _CORS
            content = self.server.api.answer(self.command, target, body)
            return content, {"Content-Type": "application/json", **self._cors()}
        if path == METRICS_PATH:
            if query:
                raise RequestError(f"Unexpected path: {target}. Should be {METRICS_PATH}")
            return self.server.service.metrics.page(), {"Content-Type": "text/plain; version=0.0.4"}
        if path not in self.server.page or self.command not in ("GET", "HEAD"):
            raise RequestError("Not Found", status=404)
        content, media_type = self.server.page[path]
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        return content, {"Content-Type": media_type, **headers}

    def _body(self) -> bytes:
        """Return the body, every byte of which counts as held from before it is read."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = self._chunks()
        else:
            length = self.headers.get("Content-Length", "0")
            if not (length.isascii() and length.isdecimal()) or len(length) > 18:
                raise RequestError("The length of the request's body is unknown")
            body = self._read(int(length))
        return self._gunzip(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _chunks(self) -> bytes:
        """Return a body whose length is not known before."""
        body = bytearray()
        while size := self._chunk_size():
            body += self._read(size, before=len(body))
            self.rfile.readline(3)
        while self.rfile.readline(1000).strip():
            pass  # what may follow the last part is ignored
        return bytes(body)

    def _chunk_size(self) -> int:
        digits = self.rfile.readline(1000).strip()
        if not 0 < len(digits) <= 15 or digits.strip(b"0123456789abcdefABCDEF"):
            raise RequestError("The request's body is not in chunks", status=413)
        return int(digits, 16)

    def _read(self, size: int, before: int = 0) -> bytes:
        self._hold(size, before)
        content = self.rfile.read(size)
        if len(content) < size:
            raise ConnectionError("the client has left")
        return content

    def _gunzip(self, body: bytes) -> bytes:
        """Return what a compressed body holds; nothing where it is damaged, as TensorFlow Serving does."""
        limit = self.server.max_request_bytes
        self._hold(limit)
        decoder = zlib.decompressobj(wbits=31)
        try:
            content = decoder.decompress(body, limit + 1)
        except zlib.error:
            return b""
        self._hold(0, before=len(content))
        return content if decoder.eof else b""

    def _hold(self, size: int, before: int = 0) -> None:
        """Count so many bytes as held, unless with those before them the body is too large."""
        limit = self.server.max_request_bytes
        if before + size > limit:
            raise RequestError(f"The request's body is larger than {limit} bytes", status=413)
        self.server.hold(size)
        self._held += size

    def _send(self, content: bytes, headers: Mapping[str, str], status: int = 200) -> None:
        """Send an answer in one piece."""
        reason, _ = self.responses.get(status, ("", ""))
        lines = [f"HTTP/1.1 {status} {reason}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Date: {self.date_time_string()}", f"Content-Length: {len(content)}"]
        lines += ["Connection: close"] if self.close_connection else []
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        self.wfile.write(head if self.command == "HEAD" else head + content)

    def _send_failure(self, error: RequestError) -> None:
        headers = {"Content-Type": "application/json", **self._cors()}
        if error.status == 503:
            headers["Retry-After"] = "1"
        self._send(json.dumps({"error": error.message}).encode(), headers, error.status)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no HTTP, which http.server finds by itself."""
        self.close_connection = True
        self._send_failure(RequestError(message or "Bad Request", code))

    def _linger(self) -> None:
        """Take what the client still sends for a while; it would not see the answer otherwise."""
        self.connection.shutdown(socket.SHUT_WR)
        last = time.monotonic() + _LINGER_SECONDS
        self.connection.settimeout(_LINGER_SECONDS)
        with contextlib.suppress(OSError):
            while time.monotonic() < last and self.connection.recv(2**20):
                pass

    def _cors(self) -> dict[str, str]:
        return _CORS if self.server.cors else {}

    def log_message(self, *_: Any) -> None:
        """Log nothing, as TensorFlow Serving does."""
