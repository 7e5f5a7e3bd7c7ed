"""The client's retries, versions, requests and metadata, against servers that answer by a script."""

import asyncio
import json
import time

import httpx
import numpy as np
import pytest
from fake_server import COUNT, FakeVersions, local_server, running
from scripted_server import METADATA, FullModel, good_rows, record_pauses, scripted
from starlette.responses import JSONResponse, StreamingResponse

from serving.client import Client, ServerError
from tfhuber.distributions.radial import Huber
from tfhuber.landmarks.known_sets import WFLW


def failure(status, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"error": f"says {status}"}, status, headers)


@pytest.fixture
def pauses(monkeypatch):
    return record_pauses(monkeypatch)


# --- retries


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_passes_is_asked_for_again(status, pauses):
    with scripted(failure(status), failure(status)) as (url, script), Client(url) as client:
        assert client.predict([b"x"])["valid"].all()
    assert len(script.bodies) == 3 and script.bodies[0] == script.bodies[2]
    # 0.2 seconds, then twice that, each shortened by up to a half.
    assert len(pauses) == 2 and 0.1 <= pauses[0] <= 0.2 <= pauses[1] <= 0.4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 500, 501])
def test_what_does_not_pass_is_final(status, pauses):
    with (
        scripted(failure(status)) as (url, script),
        Client(url) as client,
        pytest.raises(ServerError, match=f"answered {status}: says {status}") as caught,
    ):
        client.predict([b"x"])
    assert caught.value.status == status
    assert len(script.bodies) == 1 and not pauses


@pytest.mark.parametrize("retries", [0, 4])
def test_retries_are_bounded_in_number(retries, pauses):
    with (
        scripted(*[failure(503)] * 9) as (url, script),
        Client(url, retries=retries) as client,
        pytest.raises(ServerError, match="503"),
    ):
        client.predict([b"x"])
    assert len(script.bodies) == 1 + retries == 1 + len(pauses)


def test_retries_are_bounded_in_time():
    started = time.monotonic()
    with (
        scripted(*[failure(503)] * 99) as (url, script),
        Client(url, retries=99, patience=1.5) as client,
        pytest.raises(ServerError),
    ):
        client.predict([b"x"])
    assert time.monotonic() - started < 10
    assert 2 <= len(script.bodies) <= 5  # pauses of 0.1-0.2, 0.2-0.4, 0.4-0.8, 0.8-1.6


def test_the_server_says_how_long_to_wait(pauses):
    with scripted(failure(429, retry_after="7")) as (url, _), Client(url) as client:
        client.predict([b"x"])
    assert pauses == [7]


def test_a_date_to_wait_for(pauses):
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 20))
    with scripted(failure(503, retry_after=later)) as (url, _), Client(url) as client:
        client.predict([b"x"])
    assert len(pauses) == 1 and 15 <= pauses[0] <= 20


def test_longer_than_patience_is_not_waited_for(pauses):
    with (
        scripted(failure(503, retry_after="31")) as (url, script),
        Client(url) as client,
        pytest.raises(ServerError),
    ):
        client.predict([b"x"])
    assert len(script.bodies) == 1 and not pauses


@pytest.mark.parametrize("nonsense", ["soon", "-5", "1e9", "", "inf", "²"])
def test_nonsense_is_not_waited_for(nonsense, pauses):
    answer = failure(503)
    answer.raw_headers.append((b"retry-after", nonsense.encode("latin-1")))
    with scripted(answer) as (url, _), Client(url) as client:
        client.predict([b"x"])
    assert len(pauses) == 1 and pauses[0] <= 0.2


def test_a_connection_that_breaks_is_made_again(pauses, monkeypatch):
    attempts, stream = [], httpx.Client.stream

    def flaky(self, *arguments, **options):
        attempts.append(1)
        if len(attempts) < 3:
            raise httpx.RemoteProtocolError("the server hung up")
        return stream(self, *arguments, **options)

    monkeypatch.setattr(httpx.Client, "stream", flaky)
    with scripted() as (url, _), Client(url) as client:
        assert client.predict([b"x"])["valid"].all()
    assert len(attempts) == 3 and len(pauses) == 2


def test_a_time_out_is_final(pauses):
    model = FullModel()
    model.delay = 1.0
    with running(local_server(FakeVersions(model=model))) as http:
        client = Client(str(http.base_url), timeout=0.2)
        with client, pytest.raises(TimeoutError):
            client.predict([b"x"])
    assert not pauses


def test_an_answer_in_many_small_pieces_has_no_longer_time():
    async def dripping():
        for _ in range(600):
            yield b" "
            await asyncio.sleep(0.05)

    with scripted(StreamingResponse(dripping())) as (url, _), Client(url, timeout=0.5) as client:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=r"in time: only a part within 0\.5 seconds"):
            client.predict([b"x"])
        assert time.monotonic() - started < 10


def test_a_closed_client_waits_no_more():
    with scripted(failure(503)) as (url, _):
        client = Client(url, retries=99, patience=1e9)
        client._closed.set()
        started = time.monotonic()
        with pytest.raises(ServerError):
            client.predict([b"x"])
        assert time.monotonic() - started < 5  # 99 pauses would take for ever
        client.close()


# --- which model


@pytest.mark.parametrize(
    ("which", "path"),
    [
        ({}, "/v1/models/my model:predict"),
        ({"version": 7}, "/v1/models/my model/versions/7:predict"),
        ({"label": "a/b"}, "/v1/models/my model/labels/a%2Fb:predict"),
    ],
)
def test_versions_and_labels_are_in_the_path(which, path):
    with scripted() as (url, script), Client(url, "my model", **which) as client:
        target = str(client._target)
        client.predict([b"x"])
    assert target.endswith(path.replace(" ", "%20"))
    assert script.paths == [path.replace("%2F", "/")]


def test_the_local_server_knows_the_version_and_no_label():
    with running(local_server(FakeVersions())) as http:
        url = str(http.base_url)
        with Client(url, version=3) as client:
            assert client.landmark_count() == COUNT
        for which, message in (({"version": 4}, "404"), ({"label": "stable"}, "version label")):
            with Client(url, **which) as client, pytest.raises(ServerError, match=message):
                client.predict([b"x"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"version": 1, "label": "stable"}, "a version or a label"),
        ({"version": -1}, "version must be at least 0, got -1"),
        ({"timeout": 0}, "timeout must be above 0 and at most 86400"),
        ({"timeout": float("nan")}, "timeout must be above 0"),
        ({"timeout": 1e12}, "timeout must be above 0"),
        ({"retries": -1}, "retries and patience must be at least 0"),
        ({"patience": float("nan")}, "retries and patience must be at least 0"),
        ({"model": ""}, "model must be the name"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Client(**arguments)


# --- requests


def test_many_images_become_several_requests():
    with scripted() as (url, script), Client(url) as client:
        found = client.predict([b"x"] * 600, np.arange(2400).reshape(600, 4))
    sizes = [len(body["instances"]) for body in script.bodies]
    assert sizes == [256, 256, 88] and len(found["landmarks"]) == 600
    boxes = [row["box"] for body in script.bodies for row in body["instances"]]
    np.testing.assert_array_equal(boxes, np.arange(2400).reshape(600, 4))


def test_large_images_become_several_requests():
    large = bytes(12 * 2**20)
    with scripted() as (url, script), Client(url) as client:
        client.predict([large, large, large, b"x"])
    assert [len(body["instances"]) for body in script.bodies] == [2, 2]


def test_a_model_that_changes_between_requests_is_an_error():
    # The second request answers without precision factors.
    other = [row | {"precision_factor": row["covariance"]} for row in good_rows(256)]
    with (
        scripted(JSONResponse({"predictions": other})) as (url, _),
        Client(url) as client,
        pytest.raises(ServerError, match="but not with landmarks"),
    ):
        client.predict([b"x"] * 257)


def test_no_image_is_refused():
    with Client() as client, pytest.raises(ValueError, match="images must hold at least one"):
        client.predict([])


def test_the_precision_factor_comes_where_the_model_has_it():
    with (
        running(local_server(FakeVersions(model=FullModel()))) as http,
        Client(str(http.base_url)) as client,
    ):
        found = client.predict([b"x", b"invalid"])
    assert found["precision_factor"].dtype == np.float32
    np.testing.assert_array_equal(found["precision_factor"][1, 97], [[1.5, 0.25], [0.25, 1]])
    assert found["valid"].tolist() == [True, False]
    with scripted() as (url, _), Client(url) as client:
        assert "precision_factor" not in client.predict([b"x"])


# --- metadata


def test_a_model_describes_itself():
    with (
        running(local_server(FakeVersions(model=FullModel()))) as http,
        Client(str(http.base_url)) as client,
    ):
        assert client.metadata() == METADATA


def test_a_model_of_before_states_no_kappa():
    """It is computed, so that A, and with it the density, comes back from the covariance."""
    values = {name: value for name, value in METADATA.items() if name != "kappa"}
    answer = JSONResponse({"predictions": [json.dumps(values | {"delta": 0.5})]})
    with scripted(answer) as (url, _), Client(url) as client:
        assert client.metadata()["kappa"] == pytest.approx(Huber(0.5).kappa(2), rel=1e-12)


def test_a_model_that_does_not_is_known_by_its_number_of_landmarks():
    with (
        running(local_server(FakeVersions())) as http,
        Client(str(http.base_url)) as client,
    ):
        metadata = client.metadata()
    assert metadata["landmark_set"]["names"] == list(WFLW.names)
    assert metadata["landmark_set"]["edges"] == [list(edge) for edge in WFLW.edges]
    assert (metadata["family"], metadata["delta"]) == ("huber", 1.0)
    assert metadata["kappa"] == pytest.approx(Huber(1.0).kappa(2), rel=1e-12)


def test_landmarks_that_nobody_knows_have_numbers():
    answers = [failure(400), JSONResponse({"predictions": good_rows(1)})]
    with scripted(*answers) as (url, _), Client(url) as client:
        landmark_set = client.metadata()["landmark_set"]
    assert landmark_set == {"name": None, "names": ["0", "1", "2"], "edges": []}


@pytest.mark.parametrize(
    "change",
    [
        {"landmark_set": None},
        {"landmark_set": {"names": [1, 2], "edges": []}},
        {"landmark_set": {"names": ["a"], "edges": [[0, 1]]}},
        {"landmark_set": {"names": ["a"], "edges": [[0]]}},
        {"family": "cauchy"},
        {"delta": 0},
        {"delta": "1"},
        {"kappa": 0},
    ],
)
def test_metadata_that_make_no_sense_are_an_error(change):

    answer = JSONResponse({"predictions": [json.dumps(METADATA | change)]})
    with (
        scripted(answer) as (url, _),
        Client(url) as client,
        pytest.raises(ServerError, match="describes itself wrongly"),
    ):
        client.metadata()


def test_an_unknown_model_has_no_metadata():
    with (
        running(local_server(FakeVersions())) as http,
        Client(str(http.base_url), "pose") as client,
        pytest.raises(ServerError, match="404"),
    ):
        client.metadata()
