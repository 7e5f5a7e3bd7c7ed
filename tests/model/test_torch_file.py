"""A legacy PyTorch file gives its tensors' numbers; whatever else one may hold is refused, and not run."""

import hashlib
import os
import pickle
import sys
import types
from typing import NamedTuple

import numpy as np
import pytest

from tfhuber.model import torch_file


class Storage(NamedTuple):
    """What the pickle says of one; its numbers come later in the file."""

    key: str
    size: int
    kind: str = "FloatStorage"


class Call(NamedTuple):
    """A call that unpickling makes."""

    function: object
    arguments: tuple


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file as PyTorch did; returns its path and checksum."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in ("FloatStorage", "LongStorage", "HalfStorage"):
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise AssertionError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
    )
    utils._rebuild_tensor_v2, torch._utils = _rebuild_tensor_v2, utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, Storage):
                return ("storage", getattr(torch, obj.kind), obj.key, "cpu", obj.size, None)
            return None

        def reducer_override(self, obj):
            return tuple(obj) if isinstance(obj, Call) else NotImplemented

    def call(tensors, numbers, counts=None, version=1001):
        path = tmp_path / "weights.pth"
        state = {
            name: Call(_rebuild_tensor_v2, (*value, False, {}))
            if isinstance(value, tuple)
            else value
            for name, value in tensors.items()
        }
        facts = {"protocol_version": 1001, "little_endian": True}
        with path.open("wb") as file:
            for part in (0x1950A86A20F9469CFC6C, version, facts, state, list(numbers)):
                Pickler(file, 2).dump(part)
            for key, values in numbers.items():
                file.write((counts or {}).get(key, values.size).to_bytes(8, "little"))
                file.write(values.tobytes())
        return path, hashlib.sha256(path.read_bytes()).hexdigest()

    return call


FLOATS = np.arange(12, dtype="<f4") / 8


def test_tensors_are_views_of_storages_with_offset_and_strides(write):
    storage = Storage("a", 12)
    tensors = {
        "transposed": (storage, 0, (4, 3), (1, 4)),
        "inner": (storage, 5, (2, 2), (4, 1)),
        "scalar": (Storage("b", 2, "LongStorage"), 1, (), ()),
    }
    found = torch_file.read(*write(tensors, {"b": np.array([3, 2**40], "<i8"), "a": FLOATS}))
    np.testing.assert_array_equal(found["transposed"], FLOATS.reshape(3, 4).T)
    np.testing.assert_array_equal(found["inner"], [[5 / 8, 6 / 8], [9 / 8, 10 / 8]])
    assert found["scalar"].shape == () and found["scalar"] == 2**40
    assert found["transposed"].flags.c_contiguous


def test_one_altered_byte_is_refused_before_anything_is_read(write):
    path, sha256 = write({"x": (Storage("a", 12), 0, (12,), (1,))}, {"a": FLOATS})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"SHA-256 must be {sha256}, got"):
        torch_file.read(path, sha256)


@pytest.mark.parametrize(
    "view",
    [
        (0, (13,), (1,)),
        (10, (2, 2), (1, 1)),
        (-1, (2,), (1,)),
        (5, (3,), (-1,)),
        (0, (9, 9), (0, 0)),
    ],
    ids=str,
)
def test_no_tensor_reaches_beyond_its_storage(write, view):
    path, sha256 = write({"x": (Storage("a", 12), *view)}, {"a": FLOATS})
    with pytest.raises(ValueError, match="offset, shape and strides"):
        torch_file.read(path, sha256)


@pytest.mark.parametrize(("said", "counted"), [(2**40, 2**40), (12, 2**40), (2**40, 12), (12, 11)])
def test_no_storage_reaches_beyond_the_file(write, said, counted):
    tensors = {"x": (Storage("a", said), 0, (2,), (1,))}
    path, sha256 = write(tensors, {"a": FLOATS}, {"a": counted})
    with pytest.raises(ValueError, match=f"storage a should hold {said} numbers, got {counted}"):
        torch_file.read(path, sha256)


def test_nothing_that_the_file_names_is_called(write, tmp_path):
    for function, name in ((os.mkdir, "posix.mkdir"), (eval, "__builtin__.eval")):
        path, sha256 = write({"x": Call(function, (str(tmp_path / "made"),))}, {})
        with pytest.raises(ValueError, match=f"no legacy PyTorch file .*it names {name}"):
            torch_file.read(path, sha256)
    assert not (tmp_path / "made").exists()


def test_what_is_no_such_file(write, tmp_path):
    half = write({"x": (Storage("a", 1, "HalfStorage"), 0, (1,), (1,))}, {"a": FLOATS[:1]})
    with pytest.raises(ValueError, match=r"it names torch\.HalfStorage"):
        torch_file.read(*half)
    with pytest.raises(ValueError, match="its format is another"):
        torch_file.read(*write({}, {}, version=1002))
    with pytest.raises(ValueError, match="more than tensors"):
        torch_file.read(*write({"x": 3}, {}))
    with pytest.raises(ValueError, match="no legacy PyTorch file"):
        torch_file.read(*write({"x": (Storage("a", 1), 0, "ab", (1,))}, {"a": FLOATS[:1]}))
    whole = write({"x": (Storage("a", 12), 0, (12,), (1,))}, {"a": FLOATS})[0].read_bytes()
    for size in range(0, len(whole), 7):
        (tmp_path / "cut.pth").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="no legacy PyTorch file"):
            torch_file.read(tmp_path / "cut.pth", hashlib.sha256(whole[:size]).hexdigest())
