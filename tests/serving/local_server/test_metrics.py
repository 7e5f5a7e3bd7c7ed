"""The local server's metrics."""

import re

from fake_server import FakeVersions, local_server, running, save_toy

from serving.local_server.metrics import Metrics

PATH = "/monitoring/prometheus/metrics"
PREDICT = "/v1/models/wflw:predict"
ROW = {"image_bytes": {"b64": "eHg="}, "box": [0, 0, 1, 1]}


def values(text) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_requests_are_counted_and_timed_by_tensorflow_servings_names():
    with running(local_server(FakeVersions())) as http:
        for _ in range(3):
            assert http.post(PREDICT, json={"instances": [ROW]}).status_code == 200
        http.post(PREDICT, json={"instances": []})
        for model in range(20):
            http.post(f"/v1/models/guess{model}:predict", json={"instances": [ROW]})
        http.get("/elsewhere")
        answer = http.get(PATH)
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
