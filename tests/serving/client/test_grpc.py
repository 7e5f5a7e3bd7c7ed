"""The client over gRPC: the same answers and errors as over REST."""

import contextlib
import sys
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from fake_server import COUNT, FakeVersions, local_server, running, save_toy
from scripted_server import METADATA, FullModel, noise, read_lines, record_pauses, run_client
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.client import Client, ServerError
from serving.client.batches import predict_in_batches
from serving.client.boxes import Boxes
from serving.client.grpc import GrpcClient
from serving.client.sources import ImageFiles
from serving.local_server import grpc as grpc_api
from serving.local_server.versions import ModelVersions

LIMIT = 16 * 2**20


@contextlib.contextmanager
def both(versions):
    """A server for REST and gRPC; its URL, and its host and port for gRPC."""
    server = local_server(versions)
    service = grpc_api.serving(server.service, "localhost:0", max_request_bytes=LIMIT)
    with running(server) as http, service as port:
        yield str(http.base_url), f"localhost:{port}"


@pytest.fixture(scope="module")
def full():
    with both(FakeVersions(model=FullModel())) as where:
        yield where


@pytest.fixture
def pauses(monkeypatch):
    return record_pauses(monkeypatch)


@contextlib.contextmanager
def scripted(*codes):
    """A gRPC server that fails with these codes first; its host and port, and its requests."""
    requests, codes = [], list(codes)

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            requests.append(request)
            if codes:
                context.abort(codes.pop(0), "as the script says")
            count = request.inputs["box"].tensor_shape.dim[0].size
            outputs = {
                "landmarks": tf.zeros([count, 3, 2]),
                "covariance": tf.eye(2, batch_shape=[count, 3]),
                "valid": tf.fill([count], True),
            }
            response = predict_pb2.PredictResponse()
            for name, value in outputs.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
            return response

    server = grpc.server(futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield f"localhost:{port}", requests
    finally:
        server.stop(None).wait()


def test_the_same_answers_as_over_rest(full):
    url, target = full
    boxes = np.array([[1.5, 2, 30, 40], [0, 0, 0, 0], [0.1, -7.7, 1e3, 77.7]])
    with Client(url) as rest, GrpcClient(target) as client:
        expected = rest.predict([b"one", b"invalid", b"three"], boxes)
        found = client.predict([b"one", b"invalid", b"three"], boxes)
        assert client.metadata() == rest.metadata() == METADATA
    assert expected.keys() == found.keys() and "precision_factor" in found
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_a_savedmodel_answers_the_same_over_both(tmp_path):
    save_toy(tmp_path / "toy" / "1", shift=0.5)
    versions = ModelVersions("wflw", tmp_path / "toy")
    versions.poll()
    images = [noise(tmp_path / f"{i}.jpg", (100 + i, 80), i).read_bytes() for i in range(3)]
    boxes = [[0, 0, 0, 0], [3.25, 4, 77.7, 60], [-5, -5, 500, 500]]
    with both(versions) as (url, target), Client(url) as rest, GrpcClient(target) as client:
        expected, found = rest.predict(images, boxes), client.predict(images, boxes)
    assert found["valid"].all() and found["landmarks"].shape == (3, COUNT, 2)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_pictures_in_batches_over_grpc(full, tmp_path):
    paths = {f"{i:02}.jpg": noise(tmp_path / f"{i:02}.jpg", seed=i) for i in range(12)}
    boxes = Boxes(None, {name: np.array([i, i, 90, 90.0]) for i, name in enumerate(paths)})
    with GrpcClient(full[1]) as client:
        answers = list(predict_in_batches(client, ImageFiles(paths, boxes), batch=5, parallel=3))
    assert [answer.landmarks[0, 0] for answer in answers] == list(range(12))


def test_versions_and_labels(full):
    with GrpcClient(full[1], version=3) as client:
        assert client.landmark_count() == COUNT
    message = "Unrecognized servable version label: stable"
    with GrpcClient(full[1], label="stable") as client, pytest.raises(ServerError, match=message):
        client.landmark_count()
    message = "answered NOT_FOUND: Servable not found"
    with (
        GrpcClient(full[1], version=9) as client,
        pytest.raises(ServerError, match=message) as caught,
    ):
        client.predict([b"x"])
    assert caught.value.status == 404


def test_a_model_without_metadata():
    with both(FakeVersions()) as (_, target), GrpcClient(target) as client:
        assert len(client.metadata()["landmark_set"]["edges"]) > 80


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_what_passes_is_asked_for_again(code, pauses):
    code = grpc.StatusCode[code]
    with scripted(code, code) as (target, requests), GrpcClient(target) as client:
        assert client.predict([b"x"])["valid"].all()
    assert len(requests) == 3 and len(pauses) == 2


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("INVALID_ARGUMENT", 400),
        ("FAILED_PRECONDITION", 400),
        ("UNAUTHENTICATED", 401),
        ("NOT_FOUND", 404),
        ("INTERNAL", 500),
        ("UNKNOWN", 500),
        ("UNIMPLEMENTED", 501),
    ],
)
def test_what_does_not_pass_is_final(code, status, pauses):
    with (
        scripted(grpc.StatusCode[code]) as (target, requests),
        GrpcClient(target) as client,
        pytest.raises(ServerError, match=f"{code}: as the script says") as caught,
    ):
        client.predict([b"x"])
    assert caught.value.status == status and len(requests) == 1 and not pauses


def test_no_answer_in_time(pauses):
    model = FullModel()
    model.delay = 1.0
    with (
        both(FakeVersions(model=model)) as (_, target),
        GrpcClient(target, timeout=0.2) as client,
        pytest.raises(TimeoutError, match="no answer from localhost"),
    ):
        client.predict([b"x"])
    assert not pauses


def test_nobody_there(pauses):
    with scripted() as (target, _):
        pass
    with GrpcClient(target) as client, pytest.raises(ConnectionError, match="no server at local"):
        client.predict([b"x"])
    assert len(pauses) == 3


@pytest.mark.parametrize("target", ["localhost", "http://localhost:8500", ":8500", "x:port", ""])
def test_what_is_no_host_and_port_is_refused(target):
    with pytest.raises(ValueError, match="is no host and port"):
        GrpcClient(target)


def test_the_command_over_grpc(full, tmp_path, monkeypatch, capsys):
    path, lines = noise(tmp_path / "a.jpg"), tmp_path / "x.jsonl"
    arguments = [path, "--grpc", full[1], "--box=10,0,90,80", "--jsonl", lines]
    assert run_client(monkeypatch, *arguments) == 0
    (line,) = read_lines(lines)
    assert line["landmarks"][:2] == [[10, 0], [11, 1]]
    assert capsys.readouterr().out.startswith("1 of 1 images")
    assert "serving.client.grpc" in sys.modules


def test_no_proxy_is_asked_for_a_server_on_this_machine(full, monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with GrpcClient(full[1], retries=0) as client:
        found = client.predict([noise(tmp_path / "a.png").read_bytes()])
    assert np.isfinite(found["landmarks"]).all()
