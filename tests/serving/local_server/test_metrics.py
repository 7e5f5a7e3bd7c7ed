"""The local server's metrics and its log."""

import io
import json
import logging
import re

import pytest
from fake_server import FakeModel, FakeVersions, running, save_toy

from serving.local_server import request_log
from serving.local_server.application import create_app
from serving.local_server.metrics import Metrics

PATH = "/monitoring/prometheus/metrics"
PREDICT = "/v1/models/wflw:predict"
ROW = {"image_bytes": {"b64": "eHg="}, "box": [0, 0, 1, 1]}


def values(text) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_requests_are_counted_and_timed_by_tensorflow_servings_names():
    with running(create_app({"wflw": FakeVersions()})) as http:
        for _ in range(3):
            assert http.post(PREDICT, json={"instances": [ROW]}).status_code == 200
        http.post(PREDICT, json={"instances": []})
        for model in range(20):
            http.post(f"/v1/models/guess{model}:predict", json={"instances": [ROW]})
        http.get("/elsewhere")
        answer = http.get(f"{PATH}?name[]=x")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE :tensorflow:serving:request_count counter" in answer.text
    found = values(answer.text)
    counts = {name: value for name, value in found.items() if "request_count" in name}
    prefix = ":tensorflow:serving:request_count"
    assert counts == {
        f'{prefix}{{model_name="wflw",status="OK"}}': 3,
        f'{prefix}{{model_name="wflw",status="INVALID_ARGUMENT"}}': 1,
        f'{prefix}{{model_name="",status="NOT_FOUND"}}': 20,
    }
    labels = '{API="predict",entrypoint="REST",model_name="wflw"}'
    latency = found[f":tensorflow:serving:request_latency_sum{labels}"]
    assert found[f":tensorflow:serving:request_latency_count{labels}"] == 3
    labels = '{API="Predict",model_name="wflw",runtime="TF1"}'
    assert found[f":tensorflow:serving:runtime_latency_count{labels}"] == 3
    assert 0 < found[f":tensorflow:serving:runtime_latency_sum{labels}"] < latency < 3e6
    bounds = re.findall(r'request_latency_bucket\{.*le="(.*?)"', answer.text)
    assert bounds[:2] == ["10.0", "18.0"] and bounds[-1] == "+Inf" and len(bounds) == 34
    assert found["local_server_requests_running"] == found["local_server_requests_waiting"] == 0
    assert found["process_resident_memory_bytes"] > 1e6
    assert not [name for name in found if "_created" in name]
    assert [name for name in found if "_total" in name] == ["process_cpu_seconds_total"]


@pytest.mark.parametrize("path", [None, "/metrics"])
def test_metrics_are_where_they_are_wanted(path):
    with running(create_app({"wflw": FakeVersions()}, metrics_path=path)) as http:
        assert http.get(PATH).status_code == 404
        if path is not None:
            assert "tensorflow:serving" in http.get(path).text
            assert http.post(path).status_code == 405


def test_loads_and_warm_ups_are_counted(tmp_path, monkeypatch):
    import numpy as np

    from serving.local_server import versions as runner

    save_toy(tmp_path / "1")
    (tmp_path / "2").mkdir()
    request = ("double", {"x": np.ones([1, 3], np.float32)})
    monkeypatch.setattr(runner.warmup, "requests", lambda directory: iter([request] * 2))
    metrics = Metrics()
    versions = runner.ModelVersions("toy", tmp_path, metrics=metrics)
    versions.poll()  # 2 cannot be loaded
    (tmp_path / "2").rmdir()
    versions.poll()
    found = values(metrics.page().decode())
    prefix = ":tensorflow:cc:saved_model:load"
    good, bad = (f'model_path="{tmp_path / number}"' for number in "12")
    assert found[f'{prefix}_attempt_count{{{good},status="success"}}'] == 1
    assert found[f'{prefix}_attempt_count{{{bad},status="fail"}}'] == 1
    warm_ups = f':tensorflow:serving:model_warmup_latency_count{{{good},status="OK"}}'
    assert found[warm_ups] == 1
    assert 0 < found[warm_ups.replace("_count{", "_sum{")] < found[f"{prefix}_latency{{{good}}}"]


# --- the log


@pytest.fixture
def log():
    """What `request_log.configure` would write to stderr, for a style; undone afterwards."""
    handlers, root = [], logging.getLogger()

    def start(style):
        handlers.append(logging.StreamHandler(io.StringIO()))
        handlers[0].setFormatter(request_log.formatter(style))
        root.addHandler(handlers[0])
        return lambda: handlers[0].stream.getvalue().splitlines()

    logging.getLogger("serving").setLevel(logging.INFO)
    yield start
    logging.getLogger("serving").setLevel(logging.NOTSET)
    for handler in handlers:
        root.removeHandler(handler)


def test_every_request_is_a_json_object_on_a_line(log):
    lines = log("json")
    with running(create_app({"wflw": FakeVersions()})) as http:
        body = json.dumps({"instances": [ROW, ROW]})
        answer = http.post(PREDICT, content=body, headers={"x-request-id": "abc"})
        http.get("/v1/models/" + "x" * 1000)
    first, second = map(json.loads, lines())
    assert first.pop("time").endswith("+00:00") and first.pop("milliseconds") > 0
    assert first == {
        "level": "info",
        "id": "abc",
        "method": "POST",
        "path": PREDICT,
        "status": 200,
        "received_bytes": len(body),
        "sent_bytes": len(answer.content),
        "model": "wflw",
        "version": 3,
        "rows": 2,
    }
    assert second["status"] == 404 and second["error"].startswith("Could not find any versions")
    assert len(second["path"]) < 210 and len(second["model"]) < 210 and len(second["error"]) < 210


def test_the_servers_failures_are_errors_with_their_traceback(log):
    lines = log("json")
    model = FakeModel()
    model.error = RuntimeError("an internal secret")
    with running(create_app({"wflw": FakeVersions(model=model)})) as http:
        http.post(PREDICT, json={"instances": [ROW]})
    first, second = map(json.loads, lines())
    assert first["level"] == "error" and "an internal secret" in first["traceback"]
    assert second["level"] == "error" and second["status"] == 500
    assert "secret" not in second["error"]


def test_the_text_log_is_a_line_a_request_whatever_the_client_sends(log):
    lines = log("text")
    with running(create_app({"wflw": FakeVersions()})) as http:
        http.get("/v1/models/wflw")
        http.post(PREDICT, json={"signature_name": "\n\x1b[31mERROR: fire", "instances": [1]})
    first, second = lines()
    assert re.fullmatch(r"INFO: GET /v1/models/wflw: 200 in [\d.]+ ms", first)
    assert "\x1b" not in second and r"\n\x1b[31mERROR: fire" in second
