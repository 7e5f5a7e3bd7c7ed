"""The gRPC API, asked through the generated stubs: the numbers and errors of the REST API."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from fake_server import (
    FakeModel,
    FakeVersions,
    HeldModel,
    local_server,
    row,
    running,
    save_toy,
    wait_for,
)
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.local_server import grpc as grpc_api
from serving.local_server.saved_model import SavedModel

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def service():
    return local_server(FakeVersions()).service


@contextlib.contextmanager
def connected(service):
    with (
        grpc_api.serving(service, "localhost:0", max_request_bytes=MEGABYTE) as port,
        grpc.insecure_channel(f"localhost:{port}") as channel,
    ):
        yield channel


@contextlib.contextmanager
def asking(service):
    with connected(service) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def channel(service):
    with connected(service) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def request(images=(b"x",), boxes=((1, 2, 30, 40),), **spec):
    message = predict_pb2.PredictRequest()
    message.model_spec.name = spec.get("name", "wflw")
    message.model_spec.signature_name = spec.get("signature", "")
    if "version" in spec:
        message.model_spec.version.value = spec["version"]
    if "label" in spec:
        message.model_spec.version_label = spec["label"]
    message.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(list(images)))
    message.inputs["box"].CopyFrom(tf.make_tensor_proto(boxes, tf.float32))
    return message


@pytest.mark.parametrize("which", [{}, {"version": 3}])
def test_predict(stub, which):
    response = stub.Predict(request([b"x", b""], [[1, 2, 30, 40]] * 2, **which), timeout=10)
    assert response.model_spec.name == "wflw" and response.model_spec.version.value == 3
    assert response.model_spec.signature_name == "serving_default"
    outputs = {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}
    assert set(outputs) == {"landmarks", "covariance", "valid"}
    expected = FakeModel().run(
        "",
        {"box": np.float32([[1, 2, 30, 40]] * 2), "image_bytes": np.array([b"x", b""], object)},
        timeout_ms=0,
    )
    for name, array in expected.items():
        np.testing.assert_array_equal(outputs[name], array, strict=True)


def test_outputs_can_be_chosen(stub):
    message = request()
    message.output_filter.append("valid")
    assert set(stub.Predict(message, timeout=10).outputs) == {"valid"}
    message.output_filter.append("z")
    with pytest.raises(grpc.RpcError, match="output tensor alias not found in signature: z"):
        stub.Predict(message, timeout=10)


def changed(name, proto):
    message = request()
    message.inputs[name].CopyFrom(proto)
    return message


def tensor(values, dtype):
    return tf.make_tensor_proto(values, dtype)


def bomb():
    """A value that is to be repeated sixteen thousand million times."""
    proto = tensor([[0.0] * 4], tf.float32)
    proto.tensor_shape.dim[0].size = 2**32
    return proto


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (request(name="x"), "NOT_FOUND", "Servable not found for request: Latest(x)"),
        (request(version=9), "NOT_FOUND", "Specific(wflw, 9)"),
        (request(label="x"), "INVALID_ARGUMENT", "Unrecognized servable version label: x"),
        (request(signature="x"), "INVALID_ARGUMENT", 'name: "x" not found in signature def'),
        (changed("z", tensor(1, tf.float32)), "INVALID_ARGUMENT", "Sent extra: {z}"),
        (changed("box", tensor([[1.0] * 4], tf.float64)), "INVALID_ARGUMENT", "expects float32"),
        (changed("box", tensor([1.0] * 4, tf.float32)), "INVALID_ARGUMENT", "no boxes"),
        (changed("box", bomb()), "INVALID_ARGUMENT", "is not possible here"),
        (changed("box", predict_pb2.PredictRequest().inputs["x"]), "INVALID_ARGUMENT", "box"),
        (request([b"x" * MEGABYTE]), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_errors(stub, message, code, words):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(message, timeout=10)
    assert caught.value.code().name == code and words in caught.value.details()


class AnyModel(FakeModel):
    """Takes x of the type that a signature's name is."""

    def input_types(self, signature):
        return {"x": signature}


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("uint8", {"int_val": [300]}),
        ("uint8", {"int_val": [-1]}),
        ("float16", {"half_val": [99999999]}),
        ("variant", {}),
    ],
)
def test_values_beyond_their_type_are_refused(dtype, values):
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = "wflw", dtype
    message.inputs["x"].dtype = tf.as_dtype(dtype).as_datatype_enum
    message.inputs["x"].tensor_shape.dim.add(size=1)
    for name, value in values.items():
        getattr(message.inputs["x"], name).extend(value)
    service = local_server(FakeVersions(model=AnyModel())).service
    with asking(service) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.Predict(message, timeout=10)
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert f'Input "x" of type {dtype} cannot be parsed' in caught.value.details()


def test_neither_client_nor_server_need_a_deadline(tmp_path):
    save_toy(tmp_path / "1")
    versions = FakeVersions(model=SavedModel(tmp_path / "1"))
    service = local_server(versions, timeout_ms=0).service
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = "wflw", "double"
    message.inputs["x"].CopyFrom(tensor([[1, 2, 3]], tf.float32))
    with asking(service) as stub:
        assert tf.make_ndarray(stub.Predict(message).outputs["y"]).tolist() == [[2, 4, 6]]


def test_rest_and_grpc_share_one_bound():
    """1 computes and 2 wait, over whichever API they came; a fourth is refused at once by both."""
    model = HeldModel()
    server = local_server(FakeVersions(model=model), threads=1, max_waiting=2)
    body = {"instances": [row()]}
    with (
        running(server) as http,
        asking(server.service) as stub,
        ThreadPoolExecutor(2) as pool,
    ):
        url = f"{http.base_url}/v1/models/wflw:predict"
        posts = [pool.submit(httpx.post, url, json=body, timeout=30) for _ in range(2)]
        wait_for(lambda: b"requests_waiting 1.0" in server.service.metrics.page())
        waits = stub.Predict.future(request(), timeout=30)
        wait_for(lambda: b"requests_waiting 2.0" in server.service.metrics.page())
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request(), timeout=10)
        assert caught.value.code().name == "UNAVAILABLE"
        assert "1 requests are being computed and 2 wait" in caught.value.details()
        assert http.post("/v1/models/wflw:predict", json=body).status_code == 503
        assert model.held == 1 and not waits.done()
        model.go.set()
        assert [post.result().status_code for post in posts] == [200, 200]
        assert waits.result().outputs["valid"].bool_val == [True]
        assert http.post("/v1/models/wflw:predict", json=body).status_code == 200
        assert stub.Predict(request(), timeout=10).outputs["valid"].bool_val == [True]


def test_a_failure_of_the_server_tells_nothing(caplog):
    model = FakeModel()
    model.error = RuntimeError("an internal secret")
    service = local_server(FakeVersions(model=model)).service
    with asking(service) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request(), timeout=10)
    assert caught.value.code().name == "INTERNAL" and "secret" not in caught.value.details()
    assert "an internal secret" in caplog.text


def test_calls_are_counted_beside_the_rest_apis(stub, service):
    def count():
        page = service.metrics.page().decode()
        label = 'request_latency_count{API="predict",entrypoint="GRPC",model_name="wflw"} '
        return float(page.partition(label)[2].partition("\n")[0] or 0)

    before = count()
    stub.Predict(request(), timeout=10)
    assert count() == before + 1


def test_a_port_that_is_taken_gets_one_line(service):
    with (
        grpc_api.serving(service, "localhost:0", max_request_bytes=MEGABYTE) as port,
        pytest.raises(ValueError, match="cannot be listened at; choose another --port"),
        grpc_api.serving(service, f"localhost:{port}", max_request_bytes=MEGABYTE),
    ):
        pass
