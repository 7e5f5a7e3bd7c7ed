"""Proxies of the environment: never on the way to this machine; elsewhere, an error names them."""

import http.server
import threading

import numpy as np
import pytest
from scripted_server import noise

from serving.client import Client, ServerError
from serving.client.grpc import GrpcClient
from serving.client.proxies import grpc_proxy, http_proxy, mention

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "grpc_proxy", "no_grpc_proxy")
BAD = ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "socks4://127.0.0.1:9", "proxy.example:3128"]
# A name that RFC 2606 keeps free.
FAR = "model.invalid"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def forbidding():
    """A proxy that forbids everything; its URL, and what it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            self.send_error(403, "Forbidden by policy")

        do_CONNECT = do_POST

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://user:secret@127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize("variable", ["http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", BAD)
def test_none_is_asked_for_a_server_on_this_machine(url, tmp_path, monkeypatch, variable, proxy):
    monkeypatch.setenv(variable, proxy)
    picture = noise(tmp_path / "a.png").read_bytes()
    with Client(url, retries=0) as client:
        assert np.isfinite(client.predict([picture])["landmarks"]).all()


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "a.localhost", "127.1.2.3", "::1", "[::1]", "::ffff:127.0.0.1"],
)
def test_what_this_machine_is_called(monkeypatch, host):
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert http_proxy("http", host) is None and grpc_proxy(host) is None


@pytest.mark.parametrize("host", ["localhost.example.com", "128.0.0.1", "10.0.0.1", "a127.0.0.1"])
def test_what_is_not_this_machine(monkeypatch, host):
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert http_proxy("http", host) == grpc_proxy(host) == "http://proxy.example:3128"


def test_which_variable_counts(monkeypatch):
    monkeypatch.setenv("all_proxy", "all.example:1")
    assert http_proxy("https", FAR) == "http://all.example:1" and grpc_proxy(FAR) is None
    monkeypatch.setenv("https_proxy", "http://https.example:2")
    assert http_proxy("https", FAR) == grpc_proxy(FAR) == "http://https.example:2"
    assert http_proxy("http", FAR) == "http://all.example:1"
    monkeypatch.setenv("grpc_proxy", "http://grpc.example:3")
    assert grpc_proxy(FAR) == "http://grpc.example:3"
    monkeypatch.setenv("no_proxy", "example.com, .invalid")
    assert http_proxy("https", FAR, 8501) is None and grpc_proxy(FAR) is None


def test_a_password_is_not_shown():
    for proxy in ("http://user:p@ss@proxy.example:1", "user:secret@proxy.example:1"):
        text = mention(proxy, FAR)
        assert "proxy.example:1 of" in text and "user" not in text and "ss@" not in text


def test_an_answer_of_the_proxy_names_it(monkeypatch, forbidding):
    proxy, asked = forbidding
    monkeypatch.setenv("http_proxy", proxy)
    with (
        Client(f"http://{FAR}:8501", retries=0) as client,
        pytest.raises(
            ServerError, match=r"answered 403: Forbidden by policy; asked .* http://127"
        ) as error,
    ):
        client.predict([b"x"])
    assert f"no_proxy={FAR} would avoid" in str(error.value) and "secret" not in str(error.value)
    assert (
        asked and set(asked) == {asked[0]} and asked[0].startswith(f"http://{FAR}:8501/v1/models/")
    )


def test_a_proxy_that_nobody_runs_is_named(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with (
        Client(f"http://{FAR}:8501", retries=0) as client,
        pytest.raises(
            ConnectionError, match=r"no answer from .* through the proxy http://127\.0\.0\.1:9"
        ),
    ):
        client.predict([b"x"])


@pytest.mark.parametrize("proxy", BAD[1:3])
def test_a_proxy_that_cannot_be_used_is_one_line(monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ValueError, match=f"cannot be asked: .* through the proxy {proxy}") as error:
        Client(f"http://{FAR}:8501")
    assert "\n" not in str(error.value)
    monkeypatch.setenv("NO_PROXY", FAR)
    Client(f"http://{FAR}:8501").close()


def test_over_grpc_the_proxy_is_named(monkeypatch, forbidding):
    proxy, asked = forbidding
    monkeypatch.setenv("http_proxy", proxy)
    with (
        GrpcClient(f"{FAR}:8500", retries=0, timeout=5) as client,
        pytest.raises(
            (ConnectionError, TimeoutError), match="through the proxy http://127"
        ) as error,
    ):
        client.predict([b"x"])
    assert f"{FAR}:8500" in asked and "secret" not in str(error.value)
