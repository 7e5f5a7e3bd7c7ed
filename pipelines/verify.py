"""Verification of a converted data set: every file is read again and compared with the manifest.

    python -m pipelines.verify DIR

Compared are the names of the files; each shard's size, checksum and examples; all that an example
holds, with its image decoded; that no two of a split have the same id; what was counted; and the rejects.
"""

import argparse
import hashlib
import io
import json
import math
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import fields
from functools import partial
from typing import Any, BinaryIO, TypeVar

import google_crc32c
import numpy as np
from apache_beam.io.filesystems import FileSystems
from tabulate import tabulate

from pipelines.check_example import check_example
from pipelines.contact_sheet import CONTACT_SHEET
from pipelines.manifest import Manifest, Shard, StoredFile, read_manifest
from pipelines.readers.annotation import Reject
from pipelines.statistics import Statistics
from pipelines.storage import names, open_file
from tfhuber.console.cli import progress, run_main
from tfhuber.data import records
from tfhuber.data.tfrecord import read_records
from tfhuber.landmarks import known_sets
from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = ["main", "verify"]

# Moments are sums in a fixed order, but square roots differ between processors by a rounding.
_TOLERANCE = 1e-9
_LONGEST_LINE = 1 << 20
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_REJECT = sorted(field.name for field in fields(Reject))


def verify(directory: str, processes: int = 1) -> dict[str, dict[str, int]]:
    """Read all of a data set; memory is bounded by a record and 8 bytes for each example.

    Args:
      directory: on any of Beam's file systems.
      processes: how many read shards at a time; the first fault is the same for any number.

    Returns:
      split -> `examples`, `rejects`, `shards` and `bytes`.

    Raises:
      ValueError: naming the first file that is not as the manifest says, the record in it, counted
        from 1, and the fault.
      OSError: if a file cannot be read.

    Example:
      >>> verify("data/wflw")["test"]["examples"]
      2500
    """
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    path = FileSystems.join(directory, records.MANIFEST)
    manifest = read_manifest(directory)
    landmark_set = known_sets.parse(manifest.landmark_set, f"{path}: landmark_set")
    if manifest.parameters.rule != landmark_set.square:
        raise ValueError(f"{path}: parameters.rule is not the landmark set's square")
    _check_names(directory, manifest)

    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    read_shard = partial(_read_shard, directory, landmark_set)
    hashes = [np.empty(0, np.uint64)]
    with (
        closing(_map(read_shard, shards, processes)) as results,
        progress(total=sum(s.examples for s in shards), desc="verify", unit=" examples") as bar,
    ):
        for name, split in manifest.splits.items():
            statistics = Statistics(landmark_set)
            for shard in split.shards:
                counted, ids = next(results)
                statistics.merge(counted)
                hashes.append(ids)
                bar.update(shard.examples)
            said = split.model_dump()
            for key, found in statistics.summary().items():
                _compare(f"{path}: splits.{name}.{key}", said[key], found, "records")
    _check_ids(directory, shards, np.concatenate(hashes))
    _check_rejects(directory, path, manifest)
    return {
        name: {
            "examples": split.examples,
            "rejects": split.rejects,
            "shards": len(split.shards),
            "bytes": sum(shard.bytes for shard in split.shards),
        }
        for name, split in manifest.splits.items()
    }


def _check_names(directory: str, manifest: Manifest) -> None:
    shards = [shard.name for split in manifest.splits.values() for shard in split.shards]
    wanted = [records.MANIFEST, *shards, manifest.rejects.name]
    found = set(names(directory))
    for name in wanted:
        if name not in found:
            raise ValueError(f"{FileSystems.join(directory, name)} is missing")
    for name, split in manifest.splits.items():
        for shard in split.shards:
            if not shard.name.startswith(f"{name}-"):
                path = FileSystems.join(directory, records.MANIFEST)
                raise ValueError(f"{path}: split {name!r} has the shard {shard.name}")
    for name in sorted(found - {*wanted, CONTACT_SHEET}):
        raise ValueError(f"{FileSystems.join(directory, name)} is not in the manifest")


class _Counted:
    """A file that counts the bytes which are read, and takes their checksum."""

    def __init__(self, file: BinaryIO):
        self._file, self._bytes, self._checksum = file, 0, google_crc32c.Checksum()

    def read(self, size: int) -> bytes:
        return self._count(self._file.read(size))

    def readline(self, size: int) -> bytes:
        return self._count(self._file.readline(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation("what is passed over cannot be counted")

    def compare(self, stored: StoredFile) -> None:
        if self._bytes != stored.bytes:
            raise ValueError(f"it has {self._bytes} bytes, the manifest says {stored.bytes}")
        if (crc := self._checksum.digest().hex()) != stored.crc32c:
            raise ValueError(f"its CRC32C is {crc}, the manifest says {stored.crc32c}")

    def _count(self, data: bytes) -> bytes:
        self._bytes += len(data)
        self._checksum.update(data)
        return data


@contextmanager
def _opened(directory: str, stored: StoredFile) -> Iterator[_Counted]:
    """Yield the file, to be read to its end, and compare it there; faults get its name."""
    path = FileSystems.join(directory, stored.name)
    try:
        with open_file(path) as file:
            counted = _Counted(file)
            yield counted
        counted.compare(stored)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_shard(directory: str, landmark_set: LandmarkSet, shard: Shard) -> tuple[dict, np.ndarray]:
    """Return what `Statistics` counts in a shard, and the hashes [examples] of its ids."""
    statistics, hashes = Statistics(landmark_set), []
    with _opened(directory, shard) as file:
        for number, record in enumerate(read_records(file), start=1):
            try:
                example = records.decode(record)
                check_example(example, landmark_set)
            except ValueError as error:
                raise ValueError(f"record {number}: {error}") from None
            statistics.add(example)
            hashes.append(_hash(shard, example["id"]))
        if len(hashes) != shard.examples:
            raise ValueError(f"it has {len(hashes)} examples, the manifest says {shard.examples}")
    return statistics.to_json(), np.array(hashes, np.uint64)


def _compare(where: str, said: Any, found: Any, source: str) -> None:
    """Raise `ValueError` naming the first value of the manifest that differs from its `source`."""
    if isinstance(said, list) and isinstance(found, list):
        said, found = dict(enumerate(said)), dict(enumerate(found))
    if isinstance(said, dict) and isinstance(found, dict):
        for key in said | found:
            _compare(f"{where}.{key}", said.get(key), found.get(key), source)
    elif not _same(said, found):
        raise ValueError(f"{where} is {said!r}, by the {source} it is {found!r}")


def _same(said: Any, found: Any) -> bool:
    if isinstance(said, float) and isinstance(found, float):
        return math.isclose(said, found, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return type(said) is type(found) and said == found


def _hash(shard: Shard, id: bytes) -> int:
    """Return a hash of the id and the split; the same list position may be in two splits' lists."""
    split = shard.name.partition("-")[0].encode()
    return int.from_bytes(hashlib.blake2b(id, digest_size=8, key=split).digest())


def _check_ids(directory: str, shards: Iterable[Shard], hashes: np.ndarray) -> None:
    """Raise `ValueError` if two of a split have the same id; `hashes` [examples] is sorted for it."""
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not suspects:
        return
    places: dict[tuple[int, bytes], str] = {}
    for shard in shards:  # Two ids may have one hash.
        with _opened(directory, shard) as file:
            for number, record in enumerate(read_records(file), start=1):
                id = records.decode(record)["id"]
                if (key := _hash(shard, id)) in suspects:
                    if (key, id) in places:
                        place = places[key, id]
                        raise ValueError(f"record {number} has the id {id!r} of {place}")
                    places[key, id] = f"record {number} of {shard.name}"


def _check_rejects(directory: str, path: str, manifest: Manifest) -> None:
    counts: dict[str, Counter[str]] = {split: Counter() for split in manifest.splits}
    with _opened(directory, manifest.rejects) as file:
        for number, line in enumerate(iter(partial(file.readline, _LONGEST_LINE), b""), start=1):
            reject = _parse_reject(line)
            if reject is None or reject["split"] not in counts:
                raise ValueError(f"line {number} is no reject of these splits")
            counts[reject["split"]][reject["reason"]] += 1
    for name, split in manifest.splits.items():
        found = {"rejects": counts[name].total(), "rejects_by_reason": dict(counts[name])}
        for key in found:
            said = getattr(split, key)
            _compare(f"{path}: splits.{name}.{key}", said, found[key], manifest.rejects.name)


def _parse_reject(line: bytes) -> dict[str, str] | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_reject = isinstance(values, dict) and sorted(values) == _REJECT
    return values if is_reject and all(isinstance(v, str) for v in values.values()) else None


def _map(
    function: Callable[[_Item], _Result], items: Iterable[_Item], processes: int
) -> Generator[_Result, None, None]:
    """Yield the function's results in the items' order; when closed, leave no process behind."""
    if processes == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    # An interrupt from the keyboard reaches this process too, which then ends the others.
    silent = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(processes, context, signal.signal, silent)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)


def main(argv: list[str] | None = None) -> None:
    """Run the command; `argv` defaults to the process's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.verify",
        description="Read a converted data set again and compare it with its manifest.",
    )
    parser.add_argument("directory", metavar="DIR", help="what make_tfrecords wrote")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="readers (1)")
    args = parser.parse_args(argv)
    splits = verify(args.directory, args.processes)
    rows = [{"split": name, **counts} for name, counts in splits.items()]
    print(tabulate(rows, headers="keys", tablefmt="plain", intfmt=","))
    print(f"{args.directory}: everything is as the manifest says")


if __name__ == "__main__":
    run_main(main)
