"""The local server: TensorFlow Serving's paths, answers and errors, and the command itself."""

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from serving_toys import COUNT, FakeModel, FakeVersions, running, save_toy

from serving import page
from serving.local_server import create_app

ROOT = Path(__file__).resolve().parent.parent
PREDICT = "/v1/models/wflw:predict"


def jpeg(width=60, height=40) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


def b64(data: bytes) -> dict:
    return {"b64": base64.b64encode(data).decode()}


def row(box=(1, 2, 30, 40), image=b"x") -> dict:
    return {"image_bytes": b64(image), "box": list(box)}


# --- the REST API, over a model without TensorFlow


@pytest.fixture(scope="module")
def http():
    with running(create_app({"wflw": FakeVersions()}, max_request_bytes=100_000)) as client:
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
        "/v1/models/wflw/labels/stable:predict",
        "/v1/models/w%66lw/labels/%73table:predict",
        "/V1/MODELS/wflw:PREDICT",
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
    assert http.get("/v1/models/wflw/labels/stable").json() == expected


def test_metadata(http):
    answer = http.get("/v1/models/wflw/metadata").json()
    assert answer["model_spec"] == {"name": "wflw", "signature_name": "", "version": "3"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"
    assert http.get("/v1/models/wflw/versions/3/metadata").json() == answer
    assert http.get("/v1/models/wflw/labels/stable/metadata").json() == answer


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/models", 400, "Missing model name in request."),
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
                ("GET", "/v1/models/wflw/labels/newest", "newest"),
                ("POST", "/v1/models/x/labels/stable:predict", "stable"),
            ]
        ),
        (
            "POST",
            "/v1/models/wflw/labels/gone:predict",
            404,
            "Servable not found for request: Specific(wflw, 2)",
        ),
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
                ("GET", "/v1/models/wflw?verbose=1"),
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
    refused = http.post("/", content=b"x")
    assert refused.status_code == 405 and refused.headers["allow"] == "GET, HEAD"


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
    with running(create_app({"wflw": FakeVersions()}, cors=True)) as open_http:
        preflight = open_http.options(PREDICT)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-headers"] == "Content-Type"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        for answer in (open_http.get("/v1/models/wflw"), open_http.get("/v1/models/x")):
            assert answer.headers["access-control-allow-origin"] == "*"


def test_a_request_has_an_id(http):
    given = http.get("/v1/models/x", headers={"x-request-id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    ids = {
        http.get("/v1/models/wflw", headers={"x-request-id": bad}).headers["x-request-id"]
        for bad in ("", "two words", "x" * 65)
    }
    assert len(ids) == 3 and all(len(id_) == 16 for id_ in ids)


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
            "shape [?,4] but got [1,3]",
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
    with running(create_app({"wflw": FakeVersions(model=model)})) as http:
        answer = http.post(PREDICT, json={"instances": [row()]})
    assert answer.status_code == 500 and "secret" not in answer.text
    assert "an internal secret" in caplog.text


def test_status_answers_while_all_threads_compute():
    """2 threads, 6 requests of 0.3 s: three rounds, and status never waits for one."""
    model = FakeModel()
    model.delay = 0.3
    with running(create_app({"wflw": FakeVersions(model=model)}, threads=2)) as http:
        url = str(http.base_url)
        start = time.perf_counter()
        with ThreadPoolExecutor(6) as pool:
            posts = [
                pool.submit(httpx.post, url + PREDICT, json={"instances": [row()]}, timeout=30)
                for _ in range(6)
            ]
            time.sleep(0.1)
            asked = time.perf_counter()
            assert http.get("/v1/models/wflw").status_code == 200
            assert time.perf_counter() - asked < 0.25
            assert [post.result().status_code for post in posts] == [200] * 6
        assert time.perf_counter() - start > 0.85


# --- the command


@contextlib.contextmanager
def command(*flags):
    """Runs the command; yields the process, its lines of output and its URL once it is known."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.local_server", *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reader.start()
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def test_a_directory_is_served_version_after_version(tmp_path):
    """The whole way in a process of its own: first version, numbers, a new version, the end."""
    save_toy(tmp_path / "toy" / "1")
    save_toy(tmp_path / "incoming", shift=5.0)
    base = f"--model_base_path={tmp_path / 'toy'}"
    with command("--model_name", "wflw", base, "--rest_api_port=0") as (process, lines):
        served = "version 1 of wflw serves at "
        (ready,) = wait_for(lambda: [line for line in lines if line.startswith(served)])
        assert any("stand-in for TensorFlow Serving, for development" in line for line in lines)
        predict = ready.removeprefix(served).strip()
        model = predict.removesuffix(":predict")

        one = httpx.post(predict, json={"instances": [row((0, 0, 0, 0), jpeg(60, 40)), row()]})
        whole, junk = one.json()["predictions"]
        assert whole["valid"] is True and junk["valid"] is False
        np.testing.assert_allclose(np.mean(whole["landmarks"], 0), [30, 20], atol=1e-4)
        np.testing.assert_allclose(whole["covariance"][7], [[0.36, 0], [0, 0.16]], atol=1e-6)
        assert len(whole["landmarks"]) == COUNT

        strict = {"signature_name": "strict", "instances": [b64(jpeg(60, 40))]}
        (prediction,) = httpx.post(predict, json=strict).json()["predictions"]
        assert prediction == {"size": [40, 60, 3], "copy_bytes": b64(jpeg(60, 40))}
        for body, message in [
            ({"signature_name": "strict", "instances": ["junk"]}, "Invalid JPEG data, size 4"),
            ({"signature_name": "half", "instances": [1.0]}, "tensor type: half"),
            ({"signature_name": "total", "instances": [1.0]}, "y has no shape information"),
        ]:
            answer = httpx.post(predict, json=body)
            assert answer.status_code == 400 and message in answer.json()["error"]
        answer = httpx.post(predict, json={"signature_name": "total", "inputs": [1.0, 2.5]})
        assert answer.json() == {"outputs": 3.5}

        described = httpx.get(f"{model}/metadata").json()
        assert described["model_spec"]["version"] == "1"
        signatures = described["metadata"]["signature_def"]["signature_def"]
        assert signatures["serving_default"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"

        shutil.move(tmp_path / "incoming", tmp_path / "toy" / "2")
        wait_for(lambda: httpx.get(f"{model}/metadata").json()["model_spec"]["version"] == "2")
        two = httpx.post(predict, json={"instances": [row((0, 0, 0, 0), jpeg(60, 40))]})
        moved = np.subtract(two.json()["predictions"][0]["landmarks"], whole["landmarks"])
        np.testing.assert_allclose(moved, np.tile([5.0, 0.0], (COUNT, 1)), atol=1e-4)
        old = httpx.post(f"{model}/versions/1:predict", json={"instances": [row()]})
        assert old.status_code == 404
        wait_for(
            lambda: (
                [version["state"] for version in httpx.get(model).json()["model_version_status"]]
                == ["AVAILABLE", "END"]
            )
        )

        # Without TCP_NODELAY every answer would take 40 ms.
        with httpx.Client() as http:
            assert min(http.get(model).elapsed.total_seconds() for _ in range(20)) < 0.03

        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert not any("Traceback" in line for line in lines), lines
    with pytest.raises(httpx.ConnectError):
        httpx.get(model)


def free_port():
    with socket.create_server(("localhost", 0)) as listener:
        return listener.getsockname()[1]


def test_a_configuration_file_with_labels_and_both_apis(tmp_path):
    """Two versions, by label, over REST and gRPC; then a canary becomes stable, and one goes."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    def configure(versions, **labels):
        listed = " ".join(f"versions: {version}" for version in versions)
        labelled = " ".join(
            f'version_labels {{ key: "{label}" value: {version} }}'
            for label, version in labels.items()
        )
        (tmp_path / "new.config").write_text(
            f'model_config_list {{ config {{ name: "wflw" base_path: "{tmp_path / "toy"}" '
            f'model_platform: "tensorflow" model_version_policy {{ specific {{ {listed} }} }} '
            f"{labelled} }} }}"
        )
        (tmp_path / "new.config").rename(tmp_path / "models.config")

    for version in (1, 2):
        save_toy(tmp_path / "toy" / str(version), shift=10.0 * version)
    (tmp_path / "monitoring.config").write_text('prometheus_config { enable: true path: "/m" }')
    configure([1, 2], stable=1, canary=2)
    port = free_port()
    flags = [
        f"--model_config_file={tmp_path / 'models.config'}",
        "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models",
        f"--monitoring_config_file={tmp_path / 'monitoring.config'}",
        "--log_format=json",
        "--rest_api_port=0",
        f"--port={port}",
    ]
    with command(*flags) as (process, lines):
        served = "version 2 of wflw serves at "
        (ready,) = wait_for(lambda: [line for line in lines if line.startswith(served)])
        model = ready.removeprefix(served).strip().removesuffix(":predict")

        def shift(label):
            body = {"instances": [row((0, 0, 40, 40))]}
            answer = httpx.post(f"{model}/labels/{label}:predict", json=body)
            return np.mean(answer.json()["predictions"][0]["landmarks"], 0)[0] - 20

        assert shift("stable") == pytest.approx(10) and shift("canary") == pytest.approx(20)

        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.version_label = "wflw", "canary"
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([b"x"]))
        request.inputs["box"].CopyFrom(tf.make_tensor_proto([[0.0, 0, 40, 40]]))
        with grpc.insecure_channel(f"localhost:{port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            response = stub.Predict(request, timeout=20)
        assert tf.make_ndarray(response.outputs["landmarks"]).mean(1)[0, 0] == pytest.approx(40)
        url = model.partition("/v1/")[0]
        assert 'entrypoint="GRPC",model_name="wflw"} 1.0' in httpx.get(f"{url}/m").text

        configure([1, 2], stable=2)
        wait_for(lambda: shift("stable") == pytest.approx(20))
        assert httpx.get(f"{model}/labels/canary").status_code == 400
        (tmp_path / "models.config").write_text("model_config_list {")
        wait_for(lambda: any("the configuration stays as it was" in line for line in lines))
        assert shift("stable") == pytest.approx(20)
        configure([2], stable=2)
        wait_for(lambda: httpx.get(f"{model}/versions/1/metadata").status_code == 404)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    assert {"info", "error"} == {entry["level"] for entry in logged}
    assert any(entry.get("version") == 2 and entry["status"] == 200 for entry in logged)


def run_command(*flags):
    return subprocess.run(
        [sys.executable, "-m", "serving.local_server", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_what_cannot_be_served_gets_one_line(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        for flags, message in [
            ([], "say what to serve: --model_base_path DIR or --model_config_file FILE"),
            (["--model_base_path=nowhere"], "--model_base_path nowhere is no directory"),
            (["--model_config_file=nowhere"], "No such file or directory: 'nowhere'"),
            (
                [f"--model_config_file={tmp_path / '1' / 'saved_model.pb'}"],
                "holds no model_config_list",
            ),
            ([f"--model_base_path={tmp_path / '1'}"], "is a single version; give the directory"),
            (
                [f"--model_base_path={tmp_path}", f"--rest_api_port={port}"],
                f"localhost:{port} is taken; choose another with --rest_api_port",
            ),
            (
                [f"--model_base_path={tmp_path}", "--rest_api_port=70000"],
                "--rest_api_port must be at most 65535, got 70000",
            ),
            (
                [f"--model_base_path={tmp_path}", "--rest_api_host=nowhere.invalid"],
                "nowhere.invalid:8501 cannot be listened at",
            ),
        ]:
            run = run_command(*flags)
            assert run.returncode == 2 and run.stdout == ""
            (line,) = run.stderr.splitlines()
            assert line.startswith("error: ") and message in line


@pytest.mark.parametrize(
    "flags",
    [
        ["--model_base_path=.", "--enable_model_warmup=maybe"],
        ["--model_base_path=.", "--rest_api_port=x"],
        ["--model_base_path=.", "--rest_api_num_threads=0"],
        ["--model_base_path=.", "--model_nam=x"],
    ],
)
def test_wrong_flags_end_with_the_usage(flags):
    run = run_command(*flags)
    assert run.returncode == 2
    assert "error: " in run.stderr.splitlines()[-1] and "Traceback" not in run.stderr


def test_help_does_not_wait_for_tensorflow():
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from serving import local_server\n"
        "try:\n    local_server.main()\n"
        "finally:\n    assert 'tensorflow' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and "--model_base_path" in run.stdout, run.stderr
