"""The local server's command: a process that serves directories of versions, and what it refuses."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from fake_server import COUNT, b64, jpeg, row, save_toy, wait_for

from serving.local_server import __main__ as local_server

ROOT = Path(__file__).resolve().parents[3]
PORTS = ("rest_api_port", "port")


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
            ({"signature_name": "half", "instances": [1.0]}, "tensor type: float16"),
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


def save_endless(directory):
    """Writes a SavedModel whose answer never comes."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def endless(x):
        return {"y": tf.while_loop(lambda y: y[0] < 1, lambda y: (tf.abs(y) * 0.5,), (x,))[0]}

    tf.saved_model.save(tf.Module(), str(directory), signatures=endless)


def test_a_stop_waits_for_nothing_that_has_no_end(tmp_path):
    """Over both APIs, with no limit of time: one computes, two wait for their turn."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    save_endless(tmp_path / "toy" / "1")
    port = free_port()
    flags = [
        "--model_name=wflw",
        f"--model_base_path={tmp_path / 'toy'}",
        "--rest_api_timeout_in_ms=0",
        "--rest_api_num_threads=1",
        "--rest_api_port=0",
        f"--port={port}",
    ]
    with command(*flags) as (process, lines), ThreadPoolExecutor(2) as pool:
        served = "version 1 of wflw serves at "
        (ready,) = wait_for(lambda: [line for line in lines if line.startswith(served)])
        predict = ready.removeprefix(served).strip()

        def metrics():
            url = predict.partition("/v1/")[0]
            return httpx.get(f"{url}/monitoring/prometheus/metrics").text

        request = predict_pb2.PredictRequest()
        request.model_spec.name = "wflw"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([0.0]))
        with grpc.insecure_channel(f"localhost:{port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            call = stub.Predict.future(request)
            posts = [
                pool.submit(httpx.post, predict, json={"instances": [0.0]}, timeout=120)
                for _ in range(2)
            ]
            wait_for(lambda: "requests_waiting 2.0" in metrics())
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
            assert call.exception(timeout=20) is not None
            assert all(isinstance(post.exception(), httpx.TransportError) for post in posts)
    assert not any("Traceback" in line for line in lines), lines


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
    free = free_port()
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        for flags, message in [
            (["--model_base_path=nowhere"], "--model_base_path nowhere is no directory"),
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
                [f"--model_base_path={tmp_path}", "--rest_api_port=0", "--port=99999"],
                "--port must be at most 65535, got 99999",
            ),
            (
                [f"--model_base_path={tmp_path}", "--rest_api_port=0", f"--port={port}"],
                f"localhost:{port} is taken; choose another with --port",
            ),
            (
                [f"--model_base_path={tmp_path}", *(f"--{name}={free}" for name in PORTS)],
                f"localhost:{free} is taken; choose another with --port",
            ),
            (
                [f"--model_base_path={tmp_path}", "--model_name=a/b"],
                "--model_name 'a/b' must",
            ),
            ([f"--model_base_path={tmp_path}", "--model_name="], "--model_name '' must be"),
            (
                [f"--model_base_path={tmp_path}", "--rest_api_host=2001:db8::1"],
                "[2001:db8::1]:8501 cannot be listened at",
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
        [],
        # What this server had once.
        ["--model_base_path=.", "--model_config_file=models.config"],
        ["--model_base_path=.", "--model_config_file_poll_wait_seconds=1"],
        ["--model_base_path=.", "--allow_version_labels_for_unavailable_models"],
        ["--model_base_path=.", "--monitoring_config_file=monitoring.config"],
        ["--model_base_path=.", "--log_format=json"],
    ],
)
def test_wrong_flags_end_with_the_usage(flags):
    run = run_command(*flags)
    assert run.returncode == 2
    assert "error: " in run.stderr.splitlines()[-1] and "Traceback" not in run.stderr


def test_help_does_not_wait_for_tensorflow():
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from serving.local_server.__main__ import main\n"
        "try:\n    main()\n"
        "finally:\n    assert 'tensorflow' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and "--model_base_path" in run.stdout, run.stderr


def test_an_ipv6_address_can_be_listened_at():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with local_server._listen("::1", 0, "--rest_api_port") as listener:
        port = listener.getsockname()[1]
        assert local_server._at("::1", port) == f"[::1]:{port}"
        socket.create_connection(("::1", port), timeout=20).close()
