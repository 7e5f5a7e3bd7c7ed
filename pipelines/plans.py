"""Plans of shards on disk: which entries go into which file, so that no process holds them all."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, TypeVar

from pipelines.output import Work
from pipelines.readers.annotation import Entry
from pipelines.readers.base import Reader
from pipelines.storage import create, open_file

__all__ = [
    "SPLITS",
    "ShardPlan",
    "first_photograph",
    "hashed",
    "hold_out",
    "listed",
    "read_plan",
    "some_photographs",
    "write_plans",
]

SPLITS = ("train", "valid", "calibration", "test")

_Entry = TypeVar("_Entry")


class _InSplit(Protocol):
    """A dataclass whose fields JSON can hold."""

    @property
    def split(self) -> str: ...


@dataclass(frozen=True)
class ShardPlan:
    """One shard before it is written.

    Attributes:
      name: of the shard's file.
      split: of all its entries.
      path: the plan's file, with an entry a line.
      entries: how many these are.
    """

    name: str
    split: str
    path: str
    entries: int


def hold_out(
    entries: Iterable[Entry],
    reader: Reader,
    is_held_out: Callable[[str], bool],
    split: str = "valid",
) -> Iterator[Entry]:
    """Yield the entries, those of some training photographs moved to that split."""
    for entry in entries:
        if entry.split == "train" and entry.image and is_held_out(reader.photograph(entry.image)):
            entry = replace(entry, split=split)
        yield entry


def hashed(fraction: float, purpose: str = "") -> Callable[[str], bool]:
    """Return a test that is true of that fraction of all names, whatever else is in the data set.

    For each purpose it is another fraction of them, chosen without regard to the others.
    """

    return lambda photograph: _number(purpose + photograph) < fraction * 2**64


def first_photograph(entries: Iterable[Entry], reader: Reader) -> str | None:
    """Return the training photograph that the smallest fraction holds out; None if there is but one."""
    first, several = None, False
    for entry in entries:
        if entry.split == "train" and entry.image:
            photograph = reader.photograph(entry.image)
            several |= first not in (None, photograph)
            first = photograph if first is None else min(first, photograph, key=_number)
    return first if several else None


def some_photographs(
    entries: Iterable[Entry], reader: Reader, fraction: float
) -> Callable[[str], bool]:
    """Return a test that is true of whole videos, or such, with about that fraction of training entries.

    They are taken in the order of `hashed`, and left out where too many would be held out with them. The
    smallest is held out if none else is, and never all are.
    """
    counts: Counter[str] = Counter()
    for entry in entries:
        if entry.split == "train" and entry.image:
            counts[reader.photograph(entry.image)] += 1
    chosen, missing = [], fraction * counts.total()
    for photograph in sorted(counts, key=_number):
        if counts[photograph] / 2 <= missing:
            chosen.append(photograph)
            missing -= counts[photograph]
    if not chosen:
        chosen = sorted(counts, key=lambda name: (counts[name], _number(name)))[:1]
    return frozenset(chosen[: len(counts) - 1]).__contains__


def _number(photograph: str) -> int:
    """Return a number below 2^64 that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(photograph.encode()).digest()[:8])


def listed(path: str, reader: Reader) -> Callable[[str], bool]:
    """Return a test that is true of the photographs of the images that a file names, one a line."""
    with open_file(path) as file:
        lines = file.read().decode("utf-8-sig", errors="replace").splitlines()
    return {reader.photograph(line.strip()) for line in lines}.__contains__


def write_plans(
    entries: Iterable[_InSplit],
    shard_examples: int,
    work: Work,
    splits: Sequence[str] = SPLITS,
    suffix: str = "tfrecord",
) -> list[ShardPlan]:
    """Write plans of at most that many entries; each split keeps its order.

    Args:
      entries: of any splits, in any order.
      shard_examples: how many a shard holds, but for the last one of a split.
      work: gets the files, in its folder `plans`.
      splits: all that there may be, in the order of the plans.
      suffix: of the shards' names.
    """
    pending: dict[str, list[Any]] = {split: [] for split in splits}
    written: dict[str, list[tuple[str, int]]] = {split: [] for split in splits}

    def flush(split: str) -> None:
        path = work.path("plans", f"{split}-{len(written[split]):05d}.jsonl")
        with create(path) as file:
            for entry in pending[split]:
                file.write(json.dumps(asdict(entry)).encode() + b"\n")
        written[split].append((path, len(pending[split])))
        pending[split].clear()

    for entry in entries:
        pending[entry.split].append(entry)
        if len(pending[entry.split]) == shard_examples:
            flush(entry.split)
    for split in splits:
        if pending[split]:
            flush(split)
    return [
        ShardPlan(f"{split}-{index:05d}-of-{len(files):05d}.{suffix}", split, path, count)
        for split, files in written.items()
        for index, (path, count) in enumerate(files)
    ]


def read_plan(path: str, kind: Callable[..., _Entry]) -> Iterator[_Entry]:
    """Yield the entries of a plan, which are of this kind."""
    with open_file(path) as file:
        for line in file:
            yield kind(**json.loads(line))
