"""Whoever asks gets the same landmarks for the same picture: curl, the clients, and the page."""

import base64
import json
import shutil
import subprocess

import numpy as np
import pytest
from demo_browser import Visit, chromium
from fake_server import local_server, running

from serving.client import Client
from serving.client.grpc import GrpcClient
from serving.local_server import grpc as grpc_api
from serving.local_server.versions import ModelVersions
from tfhuber.saved_model import session, versions

BOX = [49.0, 60.0, 191.0, 217.0]


@pytest.fixture(scope="module")
def server(exported):
    """The URL of the local server with an exported model, and its port for gRPC."""
    model = ModelVersions("wflw", exported)
    model.poll()
    local = local_server(model)
    listening = grpc_api.serving(local.service, "localhost:0", max_request_bytes=2**24)
    with running(local) as http, listening as port:
        yield str(http.base_url).rstrip("/"), port


@pytest.fixture(scope="module")
def expected(exported, picture):
    """What the exported model answers in a session of its own, row 0: the box, row 1: the whole."""
    boxes = np.array([BOX, [0, 0, 0, 0]], np.float32)
    return session.run(versions.find_version(exported), [picture, picture], boxes)


def check(found: dict, expected: dict) -> None:
    assert set(found) == {"landmarks", "covariance", "precision_factor", "valid"}
    for name, value in expected.items():
        there, here = np.asarray(found[name], np.float64), value.astype(np.float64)
        assert there.shape == here.shape
        # Of a matrix, an element that is small beside the others has their rounding.
        scale = np.abs(here).max(axis=(-2, -1), keepdims=True) if here.ndim == 4 else np.abs(here)
        assert np.all(np.abs(there - here) <= 1e-5 * scale + 1e-4), name


def test_the_clients(server, expected, picture):
    url, port = server
    with Client(url, "wflw") as rest, GrpcClient(f"localhost:{port}", "wflw") as grpc:
        for client in (rest, grpc):
            check(client.predict([picture, picture], [BOX, [0, 0, 0, 0]]), expected)
        assert rest.metadata() == grpc.metadata()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(server, expected, picture, tmp_path):
    url, _ = server
    encoded = {"b64": base64.b64encode(picture).decode()}
    rows = [{"image_bytes": encoded, "box": box} for box in (BOX, [0, 0, 0, 0])]
    (tmp_path / "body").write_text(json.dumps({"instances": rows}))
    command = ["curl", "-sf", "--data-binary", f"@{tmp_path}/body", f"{url}/v1/models/wflw:predict"]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    first, second = answer["predictions"]
    check({name: np.array([first[name], second[name]]) for name in first}, expected)


def test_the_page(server, expected, picture):
    url, _ = server
    with chromium() as browser:
        visit = Visit(browser.new_context(), url)
        visit.choose(picture)
        found = visit.download()["outputs"]
        check(found, {name: value[1:] for name, value in expected.items()})
        np.testing.assert_allclose(visit.circles(), expected["landmarks"][1], atol=1e-3)
        for name, value in zip(("x0", "y0", "x1", "y1"), BOX, strict=True):
            visit.page.fill(f"#{name}", str(value))
        visit.page.wait_for_function("() => outcome.textContent.includes('49, 60, 191, 217')")
        check(visit.download()["outputs"], {name: value[:1] for name, value in expected.items()})
        assert visit.complaints == []
