"""Warm-up requests come back as they were written, as TensorFlow reads them; damage is named."""

import struct

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.apis import prediction_log_pb2

from tfhuber.saved_model import warmup

EXAMPLES = {
    "image_bytes": np.array([b"one", b"\0two\xff", b"", b"4", b"5"], object),
    "box": np.arange(20, dtype=np.float32).reshape(5, 4),
    "image": np.arange(5 * 8 * 8 * 3).reshape(5, 8, 8, 3).astype(np.uint8),
}


@pytest.fixture
def model(tmp_path):
    warmup.write(tmp_path, warmup.make(EXAMPLES))
    return tmp_path


def test_every_signature_alone_and_in_a_batch():
    made = warmup.make(EXAMPLES)
    rows = [(signature, len(next(iter(inputs.values())))) for signature, inputs in made]
    predicting = ["serving_default", "tta", "tensor"]
    assert rows == [(s, n) for n in (1, 4) for s in predicting] + [("metadata", 1)]
    one = {name: value[:1] for name, value in EXAMPLES.items()}
    assert [s for s, _ in warmup.make(one)] == [*predicting, "metadata"]


def test_they_come_back_as_they_were_written(model):
    made = warmup.make(EXAMPLES)
    for (signature, inputs), (found, values) in zip(made, warmup.requests(model), strict=True):
        assert signature == found and sorted(inputs) == sorted(values)
        for name, value in inputs.items():
            assert values[name].dtype == value.dtype
            np.testing.assert_array_equal(values[name], value)


def test_tensorflow_reads_them(model):
    records = list(tf.data.TFRecordDataset(str(model / warmup.FILE)).as_numpy_iterator())
    assert len(records) == 7
    log = prediction_log_pb2.PredictionLog.FromString(records[0])
    request = log.predict_log.request
    assert request.model_spec.signature_name == "serving_default"
    assert request.inputs["image_bytes"].string_val == [b"one"]
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["box"]), EXAMPLES["box"][:1])


def test_a_model_without_them_has_none(tmp_path):
    assert list(warmup.requests(tmp_path)) == []


def test_more_than_a_server_replays_are_refused(tmp_path):
    query = ("metadata", {"query": np.array([b""], object)})
    warmup.write(tmp_path, [query] * warmup.MAX_RECORDS)
    assert sum(1 for _ in warmup.requests(tmp_path)) == warmup.MAX_RECORDS
    with pytest.raises(ValueError, match="1000 at most, got 1001"):
        warmup.write(tmp_path, [query] * (warmup.MAX_RECORDS + 1))
    path = tmp_path / warmup.FILE
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ValueError, match="more than 1000 records"):
        list(warmup.requests(tmp_path))


def _masked_crc(data):
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _write_log(directory, log, claimed=None):
    """One record with right checksums."""
    record = log.SerializeToString()
    length = struct.pack("<Q", len(record) if claimed is None else claimed)
    path = directory / warmup.FILE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(length + _masked_crc(length) + record + _masked_crc(record))


def _log(**tensor):
    log = prediction_log_pb2.PredictionLog()
    proto = log.predict_log.request.inputs["x"]
    proto.dtype = tensor.pop("dtype", tf.float32.as_datatype_enum)
    for size in tensor.pop("shape", ()):
        proto.tensor_shape.dim.add(size=size)
    for name, value in tensor.items():
        getattr(proto, name).extend(value)
    return log


def test_no_name_is_the_default_signature(tmp_path):
    _write_log(tmp_path, _log(shape=[2], float_val=[1.0, 2.0]))
    assert [signature for signature, _ in warmup.requests(tmp_path)] == ["serving_default"]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (prediction_log_pb2.PredictionLog(), "must be a predict_log, got None"),
        (_log(shape=[2**40], float_val=[1.0]), "input 'x' cannot be read"),
        (_log(shape=[2**31, 2**31, 2**31], float_val=[1.0]), "input 'x' cannot be read"),
        (_log(shape=[-1], float_val=[1.0]), "input 'x' cannot be read"),
        (_log(shape=[3, 2], float_val=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), "input 'x' cannot"),
        (_log(shape=[2], dtype=0, float_val=[1.0]), "input 'x' cannot be read"),
        (_log(shape=[2], dtype=10_000, float_val=[1.0]), "input 'x' cannot be read"),
    ],
    ids=range(7),
)
def test_requests_that_are_none_or_claim_too_much(tmp_path, log, message):
    _write_log(tmp_path, log)
    with pytest.raises(ValueError, match=f"record 1: .*{message}"):
        list(warmup.requests(tmp_path))


def test_a_length_beyond_all_memory_is_not_obeyed(tmp_path):
    _write_log(tmp_path, _log(shape=[1], float_val=[1.0]), claimed=2**60)
    with pytest.raises(ValueError, match=r"record 1 claims 1,152,921,504,606,846,976 bytes"):
        list(warmup.requests(tmp_path))


@given(data=st.data())
def test_damage_is_named(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("model")
    warmup.write(directory, warmup.make(EXAMPLES))
    path = directory / warmup.FILE
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(1, len(content) - 1)) :]
        if not _at_a_boundary(len(content), path.read_bytes()):
            path.write_bytes(content)
            with pytest.raises(ValueError, match="damaged"):
                list(warmup.requests(directory))
        return
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        list(warmup.requests(directory))


def _at_a_boundary(length: int, content: bytes) -> bool:
    start = 0
    while start < length:
        start += struct.unpack("<Q", content[start : start + 8])[0] + 16
    return start == length
