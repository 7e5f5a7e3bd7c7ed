"""The local server over a model without TensorFlow: TensorFlow Serving's paths, answers and errors."""

import gzip
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
from fake_server import (
    FakeModel,
    FakeVersions,
    HeldModel,
    b64,
    local_server,
    row,
    running,
    wait_for,
)

from serving.local_server import page

ROOT = Path(__file__).resolve().parents[3]
PREDICT = "/v1/models/wflw:predict"


@pytest.fixture(scope="module")
def http():
    with running(local_server(FakeVersions(), max_request_bytes=100_000)) as client:
        yield client


def test_predict_by_rows_and_by_columns(http):
    rows = http.post(PREDICT, json={"instances": [row(), row(image=b"")]})
    assert rows.status_code == 200 and rows.headers["content-type"] == "application/json"
    first, second = rows.json()["predictions"]
    assert first["landmarks"][1] == [2.0, 3.0] and first["valid"] is True
    assert second["valid"] is False

    columns = {"image_bytes": [b64(b"x"), b64(b"")], "box": [[1, 2, 30, 40]] * 2}
    outputs = http.post(PREDICT, json={"inputs": columns}).json()["outputs"]
    assert outputs["landmarks"] == [first["landmarks"], second["landmarks"]]
    assert outputs["covariance"][0][0] == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    "path",
    [
        PREDICT,
        "/v1/models/wflw/versions/3:predict",
        "/v1/models/w%66lw/VERSIONS/003:predict",
        "/V1/MODELS/wflw:predict",
    ],
)
def test_ways_to_the_same_version(http, path):
    assert http.post(path, json={"instances": [row()]}).status_code == 200


def test_the_content_type_does_not_matter(http):
    body = json.dumps({"instances": [row()]})
    answer = http.post(PREDICT, content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 200


def test_status(http):
    expected = {
        "model_version_status": [
            {
                "version": "3",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    assert http.get("/v1/models/wflw").json() == expected
    assert http.get("/v1/models/wflw/versions/3").json() == expected
    # As TensorFlow Serving: whatever the label, and METADATA is not metadata.
    assert http.get("/v1/models/wflw/labels/stable").json() == expected
    assert http.get("/v1/models/wflw/METADATA").json() == expected


def test_metadata(http):
    answer = http.get("/v1/models/wflw/metadata").json()
    assert answer["model_spec"] == {"name": "wflw", "signature_name": "", "version": "3"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"
    assert http.get("/v1/models/wflw/versions/3/metadata").json() == answer


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/models", 400, "Malformed request: GET /v1/models"),
        ("GET", "/v1/models/x", 404, "Could not find any versions of model x"),
        ("GET", "/v1/models/wflw/versions/9", 404, "Could not find version 9 of model wflw"),
        ("GET", "/v1/models/x/metadata", 404, "Servable not found for request: Latest(x)"),
        (
            "GET",
            "/v1/models/wflw/versions/9/metadata",
            404,
            "Servable not found for request: Specific(wflw, 9)",
        ),
        ("POST", "/v1/models/x:predict", 404, "Servable not found for request: Latest(x)"),
        (
            "POST",
            "/v1/models/wflw/versions/9:predict",
            404,
            "Servable not found for request: Specific(wflw, 9)",
        ),
        *(
            ("POST", f"/v1/models/wflw/versions/{n}:predict", 400, f"convert version: {n} ")
            for n in (2**63, "9" * 5000)
        ),
        *(
            (method, path, 400, f"Unrecognized servable version label: {label}")
            for method, path, label in [
                ("POST", "/v1/models/wflw/labels/newest:predict", "newest"),
                ("GET", "/v1/models/wflw/labels/newest/metadata", "newest"),
                ("POST", "/v1/models/x/labels/stable:predict", "stable"),
            ]
        ),
        ("GET", "/v1/models/wflw?verbose=1", 404, "any versions of model wflw?verbose=1"),
        ("POST", "/v1/models/wflw:classify", 501, "classify is not implemented"),
        ("POST", "/v1/models/wflw:regress", 501, "regress is not implemented"),
        *(
            (method, path, 400, f"Malformed request: {method} {path}")
            for method, path in [
                ("GET", PREDICT),
                ("PUT", PREDICT),
                ("DELETE", "/v1/models/wflw"),
                ("OPTIONS", PREDICT),
                ("POST", "/v1/models/wflw"),
                ("POST", "/v1/models/wflw/metadata"),
                ("POST", "/v1/models/wflw:explain"),
                ("POST", PREDICT + "/"),
                ("POST", PREDICT + "?verbose=1"),
                ("GET", "/v1/models/wflw/"),
                ("POST", "/v1/models/wflw:PREDICT"),
                ("GET", "/v1/models/wflw/versions/one"),
                ("GET", "/v1/models/wflw/version/3"),
                ("GET", "/v1/"),
                ("GET", "/v1/foo"),
            ]
        ),
    ],
)
def test_errors_of_paths_and_methods(http, method, path, status, message):
    body = {"content": json.dumps({"instances": [row()]})} if method == "POST" else {}
    answer = http.request(method, path, **body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v2/models/wflw",
        "/healthz",
        "/a%0Ab",
        "/../serving/local_server.py",
        "/%2e%2e/local_server.py",
        "/demo/index.html",
    ],
)
def test_elsewhere_is_nothing(http, path):
    answer = http.get(path)
    assert answer.status_code == 404 and answer.json() == {"error": "Not Found"}


def test_the_demo_page_is_at_the_root(http):
    """Whatever files the page has, each with its type; nothing but reading."""
    directory = ROOT / "serving" / "demo"
    assert (directory / "index.html").is_file()
    page = http.get("/?model=wflw")
    assert page.content == (directory / "index.html").read_bytes()
    types = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
    for file in directory.glob("*"):
        answer = http.get(f"/{file.name}")
        assert answer.content == file.read_bytes()
        assert answer.headers["content-type"].startswith(types.get(file.suffix, "image/"))
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert http.head("/").headers["content-length"] == str(len(page.content))
    assert http.post("/", content=b"x").status_code == 404


def test_a_page_is_what_its_directory_held_and_no_more(tmp_path):
    (tmp_path / "secret.txt").write_text("no page's")
    (tmp_path / ".hidden.html").touch()
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "link.html").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.js").touch()
    assert set(page.read_page(tmp_path)) == {"/", "/index.html", "/parts/a.js"}
    assert page.read_page(tmp_path / "nowhere") == {}


def test_pages_from_elsewhere_may_ask_if_they_are_let(http):
    assert "access-control-allow-origin" not in http.get("/v1/models/wflw").headers
    with running(local_server(FakeVersions(), cors=True)) as open_http:
        preflight = open_http.options(PREDICT)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-headers"] == "Content-Type"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        for answer in (open_http.get("/v1/models/wflw"), open_http.get("/v1/models/x")):
            assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "FOO"])
def test_methods_that_tensorflow_serving_does_not_know(http, method):
    answer = http.request(method, "/v1/models/wflw")
    assert answer.status_code == 501 and set(answer.json()) == {"error"}


def test_a_compressed_body(http):
    body = json.dumps({"instances": [row()]}).encode()

    def status(content):
        headers = {"content-encoding": "gzip"}
        return http.post(PREDICT, content=content, headers=headers).status_code

    packed = gzip.compress(body)
    assert status(packed) == 200
    assert status(body) == status(packed[:-9]) == 400
    assert status(gzip.compress(b" " * 100_001)) == 413


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{", "JSON Parse error: "),
        (b'{"signature_name": 1, "instances": [1]}', "must be a string value"),
        (b'{"signature_name": "x", "instances": [1]}', 'signature name: "x" not found'),
        (b'{"instances": []}', "No values in 'instances' array"),
        (
            b'{"instances": [{"image_bytes": {"b64": "_-_-"}, "box": [0, 0, 1, 1]}]}',
            "base64",
        ),
        (
            b'{"instances": [{"image_bytes": {"b64": ""}, "box": [0, 0, 1]}]}',
            "no boxes",
        ),
    ],
)
def test_bad_bodies(http, body, message):
    answer = http.post(PREDICT, content=body)
    assert answer.status_code == 400 and message in answer.json()["error"]


def test_bad_json_is_found_before_an_unknown_model(http):
    answer = http.post("/v1/models/x:predict", content=b"{")
    assert answer.status_code == 400 and "JSON Parse error" in answer.json()["error"]


def test_a_body_over_the_limit_is_refused_whether_announced_or_streamed(http):
    body = json.dumps({"instances": [row(image=b"x" * 75_000)]}).encode()
    assert len(body) > 100_000
    for content in (body, iter([body[:60_000], body[60_000:]])):
        answer = http.post(PREDICT, content=content)
        assert answer.status_code == 413
        assert answer.json()["error"] == "The request's body is larger than 100000 bytes"
    assert http.post(PREDICT, content=body[:100_000]).status_code == 400  # read, and no JSON


def test_an_announced_body_that_never_comes_leaves_the_server_well(http):
    with socket.create_connection((http.base_url.host, http.base_url.port)) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{"
        connection.sendall(head.encode())
    assert http.post(PREDICT, json={"instances": [row()]}).status_code == 200


def test_a_failure_of_the_server_is_a_500_and_tells_nothing(caplog):
    model = FakeModel()
    model.error = RuntimeError("an internal secret")
    with running(local_server(FakeVersions(model=model))) as http:
        answer = http.post(PREDICT, json={"instances": [row()]})
    assert answer.status_code == 500 and "secret" not in answer.text
    assert "an internal secret" in caplog.text


def test_status_answers_while_all_threads_compute():
    """Of 6 requests 2 are computed and 4 wait, and nobody gets an answer, but for the status."""
    model = HeldModel()
    server = local_server(FakeVersions(model=model), threads=2)
    with running(server) as http, ThreadPoolExecutor(6) as pool:
        url = f"{http.base_url}{PREDICT}"
        ask = partial(httpx.post, url, json={"instances": [row()]}, timeout=30)
        posts = [pool.submit(ask) for _ in range(6)]
        wait_for(lambda: b"requests_waiting 4.0" in server.service.metrics.page())
        assert http.get("/v1/models/wflw").status_code == 200
        assert model.held == 2 and not any(post.done() for post in posts)
        model.go.set()
        assert [post.result().status_code for post in posts] == [200] * 6
