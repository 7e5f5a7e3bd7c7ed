"""Weights from a file of PyTorch's legacy format, without PyTorch and without running what the file says.

The file is five pickles (a magic number, the format's version, facts of the machine that wrote it, the
tensors, the storages' names), then the storages: a count each, and that many numbers.
"""

import hashlib
import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

__all__ = ["read"]

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001

# What reading damaged pickles raises.
_FAULTS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
)


def read(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Return the tensors of a state dict by name, after the file's checksum has been compared.

    What the pickles may name is a closed list; no tensor reaches beyond its storage, and no storage
    beyond the file.

    Raises:
      ValueError: the checksum differs, or it is no such file.
      OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise ValueError(f"its SHA-256 must be {sha256}, got {found}")
        file.seek(0)
        try:
            return _tensors(file)
        except _FAULTS as error:
            raise ValueError(f"it is no legacy PyTorch file of tensors ({error})") from error


class _Storage(NamedTuple):
    dtype: np.dtype
    key: str
    size: int


class _Tensor(NamedTuple):
    """The arguments with which PyTorch makes a tensor: a view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool
    hooks: Mapping

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Return the tensor's numbers, contiguous."""
        if (
            len(self.shape) != len(self.strides)
            or min((self.offset, *self.shape, *self.strides)) < 0
        ):
            raise ValueError(f"a tensor has offset, shape and strides {self[1:4]}")
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in steps)
        if 0 in self.shape or last >= numbers.size or math.prod(self.shape) > numbers.size:
            raise ValueError(
                f"a tensor of offset, shape and strides {self[1:4]} exceeds its storage"
            )
        strides = [stride * numbers.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides)
        return np.ascontiguousarray(view).reshape(self.shape)  # the former makes rank 1 of rank 0


class _StateDict(dict):
    """Stands for OrderedDict; its attributes, the versions of layers, are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # What is returned is the pickle's to change: text, and functions that nobody else has.
        match f"{module}.{name}":
            case "collections.OrderedDict":
                return lambda: _StateDict()
            case "torch._utils._rebuild_tensor_v2":
                return lambda *arguments: _Tensor(*arguments)
            case "torch.FloatStorage":
                return "<f4"
            case "torch.LongStorage":
                return "<i8"
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, view = pid
        if kind != "storage" or dtype not in ("<f4", "<i8") or view is not None:
            raise pickle.UnpicklingError(f"it refers to {pid}")
        return _Storage(np.dtype(dtype), key, size)


def _tensors(file: BinaryIO) -> dict[str, np.ndarray]:
    magic, version, machine, state, keys = (_Unpickler(file).load() for _ in range(5))
    if (magic, version) != (_MAGIC, _VERSION) or machine["little_endian"] is not True:
        raise ValueError("its format is another")
    if not isinstance(state, dict) or not all(isinstance(t, _Tensor) for t in state.values()):
        raise ValueError("it holds more than tensors")
    storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
    numbers = {key: _numbers(file, storages[key]) for key in keys}
    return {name: tensor.of(numbers[tensor.storage.key]) for name, tensor in state.items()}


def _numbers(file: BinaryIO, storage: _Storage) -> np.ndarray:
    """Read a storage; ValueError, before memory is taken, if the file is too short for it."""
    count = int.from_bytes(file.read(8), "little")
    size = count * storage.dtype.itemsize
    if count != storage.size or size > os.fstat(file.fileno()).st_size - file.tell():
        raise ValueError(f"storage {storage.key} should hold {storage.size} numbers, got {count}")
    return np.frombuffer(file.read(size), storage.dtype)
