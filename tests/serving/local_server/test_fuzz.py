"""Whatever a client sends, the local server answers in time, never with a 500, and lives on."""

import contextlib
import json
import socket

import pytest
from fake_server import FakeVersions, local_server, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PREDICT = "/v1/models/wflw:predict"
GOOD = {"instances": [{"image_bytes": {"b64": "eHg="}, "box": [0, 0, 1, 1]}]}


@pytest.fixture(scope="module")
def http():
    with running(local_server(FakeVersions(), max_request_bytes=10_000, cors=True)) as client:
        yield client
        assert client.post(PREDICT, json=GOOD).status_code == 200


def exchange(http, data: bytes, patience: float) -> bytes:
    """What the server answers to bytes of any kind, until one of the two hangs up.

    The client does when no answer has come for so many seconds: the server may want to hear more.
    """
    answer = b""
    with socket.create_connection((http.base_url.host, http.base_url.port)) as client:
        client.settimeout(patience)
        with contextlib.suppress(ConnectionError, TimeoutError):
            client.sendall(data)
            while part := client.recv(65536):
                answer += part
    return answer


def check(answer: bytes) -> None:
    """Every answer in it has a status between 200 and 499, or is a 501 or a 505."""
    if answer:
        assert answer.startswith(b"HTTP/1.1 ")
    for line in answer.split(b"\r\n"):
        if line.startswith(b"HTTP/1.1 "):
            status = int(line.split()[1])
            assert 200 <= status < 500 or status in (501, 505), answer[:2000]


# --- what is hardly HTTP

garbage = st.binary(max_size=300)
almost_http = st.lists(
    st.sampled_from(
        [
            b"GET ",
            b"POST ",
            b"OPTIONS ",
            b"HEAD ",
            PREDICT.encode(),
            b"/",
            b"*",
            b"http://[::1",
            b"?a=b",
            b"%ff%0a%00",
            b" HTTP/1.1\r\n",
            b" HTTP/1.0\r\n",
            b" HTTP/9.9\r\n",
            b"Host: x\r\n",
            b"Host: [::\r\n",
            b"Content-Length: 10\r\n",
            b"Content-Length: -1\r\n",
            b"Content-Length: 99999999999999999999\r\n",
            b"Content-Length: " + b"9" * 5000 + b"\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: upgrade\r\nUpgrade: websocket\r\n",
            b"Expect: 100-continue\r\n",
            b"X-Request-ID: \xff\xfe\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\n",
            b"{}",
            b"\x00\xff",
        ]
    ),
    max_size=12,
).map(b"".join)


def hardly_http(examples):
    @settings(max_examples=examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=garbage | almost_http)
    def fuzz(http, data):
        check(exchange(http, data, patience=0.02))

    return fuzz


test_what_is_hardly_http = hardly_http(150)
test_much_that_is_hardly_http = pytest.mark.slow(hardly_http(1500))


# --- what is HTTP

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["b64", "box", "image_bytes"]) | st.text(max_size=3),
            children,
            max_size=3,
        )
    ),
    max_leaves=8,
)
rows = st.fixed_dictionaries(
    {
        "image_bytes": json_values | st.just({"b64": "eHg="}),
        "box": json_values | st.lists(st.floats(), min_size=4, max_size=4),
    }
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": json_values | st.just("serving_default"),
        "instances": json_values | st.lists(rows, max_size=3),
        "inputs": json_values | rows,
        "else": json_values,
    },
)
bodies = st.binary(max_size=200) | documents.map(lambda document: json.dumps(document).encode())
segments = (
    st.sampled_from(
        [
            "v1",
            "V1",
            "models",
            "wflw",
            "x",
            "versions",
            "labels",
            "metadata",
            "stable",
            "gone",
            "3",
            "9",
            "9999999999999999999999",
        ]
    )
    | st.sampled_from(["", ".", "..", "%2e%2e", "%00", "index.html", "monitoring"])
    | st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#/"), max_size=5
    )
)
paths = st.builds(
    lambda parts, method, query: "/" + "/".join(parts) + method + query,
    st.lists(segments, max_size=7) | st.just(["v1", "models", "wflw"]),
    st.sampled_from(["", "", ":predict", ":classify", ":regress", ":explain", ":"]),
    st.sampled_from(["", "", "", "?", "?a=b"]),
) | st.just(PREDICT)
methods = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"])
headers = st.dictionaries(
    st.sampled_from(["Content-Type", "X-Request-ID", "Accept", "Origin", "Host", "Cookie"]),
    st.text(
        st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=9
    ),
    max_size=3,
)


def requests(examples):
    @settings(max_examples=examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(method=methods, path=paths, extra=headers, body=bodies)
    def fuzz(http, method, path, extra, body):
        lines = [f"{method} {path} HTTP/1.1", "Connection: close", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in ({"Host": "x"} | extra).items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        answer = exchange(http, head + body, patience=10)
        check(answer)
        assert answer.startswith(b"HTTP/1.1 ")
        if path.lower().startswith("/v1/") and method not in ("HEAD", "OPTIONS"):
            head, _, content = answer.partition(b"\r\n\r\n")
            failed = not head.startswith(b"HTTP/1.1 200")
            assert not failed or set(json.loads(content)) == {"error"}

    return fuzz


test_requests_of_all_kinds = requests(200)
test_many_requests_of_all_kinds = pytest.mark.slow(requests(3000))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents)
def test_documents_of_all_kinds(http, document):
    assert http.post(PREDICT, content=json.dumps(document)).status_code in (200, 400)
