"""TFRecord files without TensorFlow: TensorFlow reads what is written, and no damage goes unseen."""

import io
import struct
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import tfhuber
from tfhuber.data.tfrecord import LARGEST_RECORD, _masked_crc, frame, read_records

RECORDS = [b"first", b"", bytes(range(256)) * 40]
FILE = b"".join(map(frame, RECORDS))
# The regions of a record of that many bytes, and what is said of each if it is damaged.
LENGTH, CONTENT = "the checksum of its length is wrong", "the checksum of its content is wrong"


def read(data):
    return list(read_records(io.BytesIO(data)))


@given(st.lists(st.binary(max_size=300), max_size=5))
@settings(max_examples=30)
def test_what_is_framed_is_read(contents):
    assert read(b"".join(map(frame, contents))) == contents


def test_tensorflow_reads_it(tmp_path):
    path = tmp_path / "ours.tfrecord"
    path.write_bytes(FILE)
    assert [r.numpy() for r in tf.data.TFRecordDataset(str(path))] == RECORDS


def test_tensorflow_writes_the_same(tmp_path):
    path = tmp_path / "theirs.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    assert path.read_bytes() == FILE


@pytest.mark.parametrize(
    "offset, fault",
    [*((i, LENGTH) for i in (0, 7, 8, 11)), *((i, CONTENT) for i in (12, 16, 17, 20))],
)
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_is_named(offset, fault, bit):
    data = bytearray(frame(b"zero") + frame(b"first"))
    data[len(frame(b"zero")) + offset] ^= 1 << bit
    records = read_records(io.BytesIO(bytes(data)))
    assert next(records) == b"zero"
    with pytest.raises(ValueError, match=f"^record 2: {fault}$"):
        next(records)


def test_every_cut_is_seen_except_between_records():
    data = frame(b"zero") + frame(b"first")
    for end in range(1, len(data)):
        if end == len(frame(b"zero")):
            assert read(data[:end]) == [b"zero"]
        else:
            number = 1 if end < len(frame(b"zero")) else 2
            with pytest.raises(ValueError, match=f"^record {number} is cut short$"):
                read(data[:end])


@pytest.mark.parametrize(
    "size, fault", [(LARGEST_RECORD + 1, "claims 268,435,457 bytes"), (10**6, "is cut short")]
)
def test_a_false_length_with_a_true_checksum(size, fault):
    length = struct.pack("<Q", size)
    with pytest.raises(ValueError, match=f"^record 1 {fault}$"):
        read(length + _masked_crc(length) + bytes(100))


@given(st.binary(max_size=200))
def test_noise_is_no_record(noise):
    try:
        found = read(noise)
    except ValueError:
        return
    assert b"".join(map(frame, found)) == noise


def test_the_format_is_written_down_once():
    """The constant that masks a checksum is in this module alone."""
    packages = (
        Path(tfhuber.__file__).parents[1] / name for name in ("tfhuber", "pipelines", "serving")
    )
    files = [path for package in packages for path in package.rglob("*.py")]
    found = [path.name for path in files if "A282EAD8" in path.read_text().upper()]
    assert len(files) > 100 and found == ["tfrecord.py"]


def test_records_that_are_not_wanted_are_passed_over_unread():
    content = bytearray(frame(b"one") + frame(b"two") + frame(b"three") + frame(b"four"))
    content[len(frame(b"one")) + 12] ^= 1  # In the second one's content, which nobody looks at.
    assert list(read_records(io.BytesIO(content), {1, 3})) == [b"one", b"three"]
    with pytest.raises(ValueError, match="record 2: the checksum of its content is wrong"):
        list(read_records(io.BytesIO(content), {2}))
