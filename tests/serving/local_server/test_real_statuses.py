"""The local server gives each request that it serves the status that TensorFlow Serving gives it."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_server import local_server, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_requests import TYPES, OddRequest, ask, name_of, odd_requests, save_types

from serving.local_server.versions import ModelVersions

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("TFHUBER_TFSERVING", ROOT / "../shared/tfserving")).resolve() / "run"


@contextlib.contextmanager
def tensorflow_serving(base_path: Path, log: Path):
    """Runs TensorFlow Serving's REST half; yields its port."""
    with socket.create_server(("localhost", 0)) as listener:
        port = listener.getsockname()[1]
    monitoring = ROOT / "serving" / "monitoring.config"
    flags = [f"--rest_api_port={port}", "--model_name=wflw", f"--model_base_path={base_path}"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(BINARY), *flags, f"--monitoring_config_file={monitoring}"],
            env={**os.environ, "PYTHON": sys.executable},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 120
        while True:  # it takes no connection before the model is loaded
            with contextlib.suppress(OSError):
                assert ask(port, OddRequest("GET", "/v1/models/wflw/metadata")) == 200
                break
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    """Where TensorFlow Serving and the local server serve the same model."""
    if not BINARY.is_file():
        pytest.skip(f"no TensorFlow Serving at {BINARY} (set TFHUBER_TFSERVING to its folder)")
    folder = tmp_path_factory.mktemp("types")
    save_types(folder / "wflw" / "1")
    versions = ModelVersions("wflw", folder / "wflw")
    versions.poll()
    server = local_server(versions)
    with tensorflow_serving(folder / "wflw", folder / "log") as real, running(server) as http:
        yield real, http.base_url.port


@pytest.mark.slow
def test_the_statuses_are_tensorflow_servings(ports):
    requests = odd_requests()
    assert len(requests) > 2000
    different = [
        f"{wanted}, not {got}: {name_of(request)}"
        for request in requests
        if (wanted := ask(ports[0], request)) != (got := ask(ports[1], request))
    ]
    assert different == []


# --- requests that nobody thought of

SIGNATURES = (*TYPES, "bool", "string", "bytes", "serving_default", "open", "image", "two", "x", "")
numbers = st.integers() | st.integers(-300, 300) | st.integers(-(2**65), 2**65) | st.floats()
leaves = st.none() | st.booleans() | numbers | st.text(max_size=4)
leaves |= st.fixed_dictionaries({"b64": st.text("AQg=+/-_ .\n", max_size=6)})
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["b64", "x", "a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=8,
)
equal = st.integers(0, 3).flatmap(lambda n: st.lists(numbers | leaves, min_size=n, max_size=n))
columns = st.fixed_dictionaries({}, optional={name: values | equal for name in "xabc"})
documents = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": st.sampled_from(SIGNATURES) | leaves,
        "instances": values | st.lists(equal, max_size=3) | st.lists(columns, max_size=3),
        "inputs": values | equal | columns,
        "x": values,
    },
)
texts = documents.map(json.dumps)
# One character is lost, doubled or another.
broken = st.builds(
    lambda text, at, new: (at := at % max(len(text), 1), text[:at] + new + text[at + 1 :])[1],
    texts,
    st.integers(0, 200),
    st.sampled_from([*'{}[]",:-.e0 \\\x00', "", "Inf", "NaN", "\\u", "//"]),
)
bodies = texts | broken
parts = st.sampled_from(
    [
        "v1",
        "V1",
        "models",
        "wflw",
        "x",
        "versions",
        "labels",
        "metadata",
        "1",
        "2",
        "001",
        "predict",
        ".",
        "w%66lw",
        "%2f",
        "-1",
        "é",
        "a=b",
    ]
) | st.sampled_from(["", "9" * 20])
paths = st.builds(
    lambda start, segments, signs: (
        start + "".join(map("".join, zip(signs, segments, strict=False)))
    ),
    st.sampled_from(["/v1/models/wflw", "/v1/models", "/v1", "/v2", "/v1/models/wflw/versions/1"]),
    st.lists(parts, max_size=4),
    st.lists(st.sampled_from("//:?"), min_size=4, max_size=4),
)
methods = st.sampled_from(["GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
odd = bodies.map(lambda text: OddRequest(body=text.encode())) | st.builds(
    OddRequest, methods, paths, st.just(b'{"instances": [[1, 2]]}'), st.just(())
)


@pytest.mark.slow
@settings(max_examples=3000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=odd)
def test_the_statuses_of_any_request(ports, request):
    assert ask(ports[1], request) == ask(ports[0], request)
