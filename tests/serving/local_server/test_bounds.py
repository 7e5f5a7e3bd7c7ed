"""What a client may cost the local server: time, memory, turns; and how the server stops."""

import asyncio
import contextlib
import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import h11
import httpx
import pytest
import uvicorn
from fake_server import FakeModel, FakeVersions, HeldModel, running, wait_for

from serving.local_server import http_server
from serving.local_server.application import create_app

PREDICT = "/v1/models/wflw:predict"
BODY = json.dumps({"instances": [{"image_bytes": {"b64": "eHg="}, "box": [0, 0, 1, 1]}]}).encode()


def slow_models(seconds):
    model = FakeModel()
    model.delay = seconds
    return {"wflw": FakeVersions(model=model)}


def connect(http) -> socket.socket:
    return socket.create_connection((http.base_url.host, http.base_url.port), timeout=5)


def head(size) -> bytes:
    return f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()


def test_beyond_those_that_compute_and_wait_the_rest_are_refused_at_once():
    """1 computes, 2 wait; of 7 requests together, 4 get a 503 while nobody gets an answer."""
    model = HeldModel()
    app = create_app({"wflw": FakeVersions(model=model)}, threads=1, max_waiting=2)
    with running(app) as http, ThreadPoolExecutor(7) as pool:
        url = f"{http.base_url}{PREDICT}"
        posts = [pool.submit(httpx.post, url, content=BODY, timeout=30) for _ in range(7)]
        refused = [post.result() for post in itertools.islice(as_completed(posts), 4)]
        model.go.set()
        assert [post.result().status_code for post in posts].count(200) == 3
        for answer in refused:
            assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
            assert "1 requests are being computed and 2 wait" in answer.json()["error"]
        assert http.post(PREDICT, content=BODY).status_code == 200
        metrics = http.get("/monitoring/prometheus/metrics").text
        assert 'request_count{model_name="wflw",status="UNAVAILABLE"} 4.0' in metrics


def test_bodies_that_fill_the_memory_are_refused():
    """Bodies of 1,000 bytes at most, so 4,000 together; four clients hold 990 each."""
    with running(create_app({"wflw": FakeVersions()}, max_request_bytes=1000)) as http:
        holders = [connect(http) for _ in range(4)]
        for holder in holders:
            holder.sendall(head(1000) + b" " * 990)
        held = "local_server_body_bytes 3960.0"
        wait_for(lambda: held in http.get("/monitoring/prometheus/metrics").text)
        answer = http.post(PREDICT, content=b" " * 100 + BODY)
        assert answer.status_code == 503 and "retry-after" in answer.headers
        for holder in holders:
            holder.close()
        none = "local_server_body_bytes 0.0"
        wait_for(lambda: none in http.get("/monitoring/prometheus/metrics").text)
        assert http.post(PREDICT, content=b" " * 100 + BODY).status_code == 200


def test_a_body_that_does_not_come_gets_a_408():
    with running(create_app({"wflw": FakeVersions()}, body_seconds=0.2)) as http:
        with connect(http) as client:
            client.sendall(head(1000) + b"{")
            with client.makefile("rb") as answer:
                lines = answer.read().splitlines()  # to the end of the connection
            assert lines[0].startswith(b"HTTP/1.1 408") and b"within 0.2 seconds" in lines[-1]
        assert http.post(PREDICT, content=BODY).status_code == 200


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"POST /v1/mod",
        f"GET /v1/models/wflw HTTP/1.1\r\nHost: x\r\n\r\nGET {PREDICT}".encode(),
        head(10_000_000) + b"x",  # too large to be read, and the client goes on to send it
    ],
    ids=["nothing", "half a line", "half a second request", "an unwanted body"],
)
def test_a_client_that_sends_a_byte_now_and_then_is_hung_up_on(monkeypatch, start):
    monkeypatch.setitem(http_server._RECEIVING, h11.IDLE, 0.3)
    monkeypatch.setitem(http_server._RECEIVING, h11.SEND_BODY, 0.3)
    app = create_app({"wflw": FakeVersions()}, max_request_bytes=1000)
    with running(app) as http, connect(http) as client:
        client.sendall(start)
        began, hung_up = time.monotonic(), False
        while not hung_up and time.monotonic() < began + 3:
            time.sleep(0.05)
            try:
                client.sendall(b"x")
                client.settimeout(0.01)
                hung_up = client.recv(10_000) == b""
            except TimeoutError:
                pass
            except OSError:
                hung_up = True
        assert hung_up and time.monotonic() < began + 2
        assert http.get("/v1/models/wflw").status_code == 200


def test_a_request_that_takes_its_time_to_compute_is_not_hung_up_on(monkeypatch):
    monkeypatch.setitem(http_server._RECEIVING, h11.IDLE, 0.5)
    monkeypatch.setitem(http_server._RECEIVING, h11.SEND_BODY, 0.5)
    with running(create_app(slow_models(1.2))) as http:
        for _ in range(2):  # the second on the connection of the first
            assert http.post(PREDICT, content=BODY).status_code == 200
            time.sleep(0.8)


def test_uvicorn_has_what_is_used_of_its_own_names():
    """`http_server` builds on names that uvicorn does not promise to keep."""
    config = http_server.configure(create_app({"wflw": FakeVersions()}))
    config.load()
    loop = asyncio.new_event_loop()
    protocol = config.http_protocol_class(
        config=config, server_state=uvicorn.server.ServerState(), app_state={}, _loop=loop
    )
    loop.close()
    wanted = ("conn", "loop", "transport", "connection_made", "data_received", "connection_lost")
    missing = [f"H11Protocol.{name}" for name in wanted if not hasattr(protocol, name)]
    missing += [] if hasattr(uvicorn.Server, "shutdown") else ["Server.shutdown"]
    assert not missing, f"uvicorn {uvicorn.__version__} lacks {', '.join(missing)}"
    assert protocol.conn.their_state is h11.IDLE, "uvicorn no longer speaks through h11"


def started(app, others=None):
    """Starts a server; returns it with its thread and URL."""
    others = others or contextlib.ExitStack()
    server = http_server.Server(http_server.configure(app), others)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    return server, thread, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


def test_a_stop_lets_requests_finish_and_takes_no_new_ones():
    model = HeldModel()
    app = create_app({"wflw": FakeVersions(model=model)})
    server, thread, url = started(app)
    with ThreadPoolExecutor(1) as pool:
        post = pool.submit(httpx.post, url + PREDICT, content=BODY, timeout=30)
        metrics = app.state.service.metrics
        wait_for(lambda: b"requests_running 1.0" in metrics.page())
        server.should_exit = True
        with pytest.raises(httpx.TransportError):
            while True:
                httpx.get(f"{url}/v1/models/wflw")
        assert not post.done()
        model.go.set()
        assert post.result().status_code == 200
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_a_stop_cuts_off_what_does_not_finish_or_begin(monkeypatch, caplog):
    """One is computed, one waits; both are told, and nothing looks like a defect."""
    monkeypatch.setattr(http_server, "_SHUTDOWN_SECONDS", 0.3)
    model = HeldModel()
    app = create_app({"wflw": FakeVersions(model=model)}, threads=1)
    server, thread, url = started(app)
    with ThreadPoolExecutor(2) as pool:
        posts = [pool.submit(httpx.post, url + PREDICT, content=BODY, timeout=30) for _ in range(2)]
        wait_for(lambda: b"requests_waiting 1.0" in app.state.service.metrics.page())
        server.should_exit = True
        for answer in [post.result() for post in posts]:
            assert answer.status_code == 503 and "shutting down" in answer.json()["error"]
    thread.join(timeout=10)
    assert not thread.is_alive() and not model.go.is_set()
    model.go.set()
    assert not any(record.exc_info for record in caplog.records)


def test_others_stop_while_requests_finish():
    model = HeldModel()
    app = create_app({"wflw": FakeVersions(model=model)})
    with contextlib.ExitStack() as others:
        others.callback(model.go.set)
        server, thread, url = started(app, others)
        with ThreadPoolExecutor(1) as pool:
            post = pool.submit(httpx.post, url + PREDICT, content=BODY, timeout=30)
            wait_for(lambda: model.held)
            server.should_exit = True
            assert post.result().status_code == 200
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_a_stop_does_not_wait_for_a_version_that_loads():
    looking, go = threading.Event(), threading.Event()

    class Loading(FakeVersions):
        def poll(self):
            looking.set()
            go.wait(60)

    server, thread, _ = started(create_app({"wflw": Loading()}))
    wait_for(looking.is_set)
    server.should_exit = True
    thread.join(timeout=30)
    go.set()
    assert not thread.is_alive()


def test_an_answer_that_nobody_takes_ends_with_the_server():
    app = create_app({"wflw": FakeVersions()})
    scope = {"type": "http", "method": "GET", "path": "/v1/models/wflw", "headers": []}
    scope |= {"raw_path": b"/v1/models/wflw", "query_string": b""}

    async def ask():
        sending = asyncio.Event()

        async def send(_):
            sending.set()
            await asyncio.Event().wait()

        answering = asyncio.create_task(app.router.default(scope, None, send))
        await sending.wait()
        answering.cancel()
        await answering  # would raise CancelledError, of which uvicorn logs a traceback

    asyncio.run(asyncio.wait_for(ask(), 30))
