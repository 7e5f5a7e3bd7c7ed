"""What a client may cost the local server: time, memory, turns; and how the server stops."""

import contextlib
import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import httpx
import pytest
from fake_server import FakeModel, FakeVersions, HeldModel, local_server, running, wait_for

from serving.errors import RequestError
from serving.local_server import http_server

PREDICT = "/v1/models/wflw:predict"
BODY = json.dumps({"instances": [{"image_bytes": {"b64": "eHg="}, "box": [0, 0, 1, 1]}]}).encode()


def connect(http) -> socket.socket:
    return socket.create_connection((http.base_url.host, http.base_url.port), timeout=5)


def head(size) -> bytes:
    return f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()


def test_beyond_those_that_compute_and_wait_the_rest_are_refused_at_once():
    """1 computes, 2 wait; of 7 requests together, 4 get a 503 while nobody gets an answer."""
    model = HeldModel()
    server = local_server(FakeVersions(model=model), threads=1, max_waiting=2)
    with running(server) as http, ThreadPoolExecutor(7) as pool:
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
    """Bodies of 1,000 bytes at most, so 4,000 together, which four clients announce."""
    with running(local_server(FakeVersions(), max_request_bytes=1000)) as http:
        holders = [connect(http) for _ in range(4)]
        for holder in holders:
            holder.sendall(head(1000) + b" " * 990)
        held = "local_server_body_bytes 4000.0"
        wait_for(lambda: held in http.get("/monitoring/prometheus/metrics").text)
        answer = http.post(PREDICT, content=b" " * 100 + BODY)
        assert answer.status_code == 503 and "retry-after" in answer.headers
        for holder in holders:
            holder.close()
        none = "local_server_body_bytes 0.0"
        wait_for(lambda: none in http.get("/monitoring/prometheus/metrics").text)
        assert http.post(PREDICT, content=b" " * 100 + BODY).status_code == 200


def test_a_client_that_falls_silent_is_hung_up_on():
    """At once, in the middle of a head, of a body, and after an answer."""
    with running(local_server(FakeVersions(), silent_seconds=0.2)) as http:
        whole = b"GET /v1/models/wflw HTTP/1.1\r\nHost: x\r\n\r\n"
        for start in (b"", b"POST /v1/mod", head(1000) + b"{", whole):
            with connect(http) as client:
                client.sendall(start)
                with client.makefile("rb") as answer:
                    content = answer.read()  # to the end of the connection
            assert content.startswith(b"HTTP/1.1 200" if start == whole else b"")
        assert http.post(PREDICT, content=BODY).status_code == 200


def test_a_request_that_takes_its_time_to_compute_is_not_hung_up_on():
    model = HeldModel()
    server = local_server(FakeVersions(model=model), silent_seconds=0.2)
    with running(server) as http, ThreadPoolExecutor(1) as pool:
        post = pool.submit(http.post, PREDICT, content=BODY)
        wait_for(lambda: model.held)
        time.sleep(0.5)
        model.go.set()
        assert post.result().status_code == 200


def test_a_refused_body_is_taken_until_the_client_has_its_answer():
    """Four megabytes, which no buffer between the two holds, announced and in chunks."""
    with running(local_server(FakeVersions(), max_request_bytes=1000)) as http:
        for content in (bytes(2**22), iter([bytes(2**21)] * 2)):
            answer = http.post(PREDICT, content=content)
            assert answer.status_code == 413 and answer.headers["connection"] == "close"


def test_a_body_in_many_small_parts_takes_no_more_memory():
    with running(local_server(FakeVersions(), max_request_bytes=10_000)) as http:
        parts = [bytes([byte]) for byte in b" " * 5000 + BODY]
        assert http.post(PREDICT, content=iter(parts)).status_code == 200
        held = "local_server_body_bytes 0.0"
        wait_for(lambda: held in http.get("/monitoring/prometheus/metrics").text)


def test_an_answer_has_whatever_status_an_error_has():
    """Of those that TensorFlow's codes stand for, HTTP has no word for 499."""
    model = FakeModel()
    model.error = RequestError("cancelled", status=499)
    with running(local_server(FakeVersions(model=model))) as http:
        assert http.post(PREDICT, content=BODY).status_code == 499


def test_more_connections_than_threads_are_hung_up_on(monkeypatch):
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 2)
    with running(local_server(FakeVersions())) as http:
        clients = [connect(http) for _ in range(2)]
        with pytest.raises(httpx.TransportError):
            http.get("/v1/models/wflw")
        for client in clients:
            client.close()
        wait_for(lambda: is_answered(http))


def is_answered(http) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return http.get("/v1/models/wflw").status_code == 200
    return False


def stopping(server):
    """Stops a server, as the command does, in a thread; returns that."""

    def stop():
        server.shutdown()
        server.drain()

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    return thread


def test_a_stop_lets_requests_finish_and_takes_no_new_ones():
    model = HeldModel()
    server = local_server(FakeVersions(model=model))
    with running(server) as http, ThreadPoolExecutor(1) as pool:
        post = pool.submit(http.post, PREDICT, content=BODY)
        wait_for(lambda: model.held)
        thread = stopping(server)
        with pytest.raises(httpx.TransportError):
            while True:
                httpx.get(f"{http.base_url}/v1/models/wflw")
        assert not post.done() and thread.is_alive()
        model.go.set()
        assert post.result().status_code == 200
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_a_stop_waits_no_longer_than_its_time(monkeypatch):
    monkeypatch.setattr(http_server, "_SHUTDOWN_SECONDS", 0.3)
    model = HeldModel()
    server = local_server(FakeVersions(model=model))
    with running(server) as http, ThreadPoolExecutor(1) as pool:
        post = pool.submit(http.post, PREDICT, content=BODY)
        wait_for(lambda: model.held)
        thread = stopping(server)
        thread.join(timeout=10)
        assert not thread.is_alive() and not post.done()
        model.go.set()
