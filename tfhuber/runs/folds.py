"""Cross-fitting: K runs of which each left out a part of a split, which it then predicts unseen.

A directory of folds holds `folds.json`, written when all is there, and for each fold a converted data set
with the splits `train` and `held`, and the run that was trained on the first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfhuber.console.files import read_json, write_json
from tfhuber.data import records
from tfhuber.data.photographs import photograph_name, shuffled
from tfhuber.data.tfrecord import frame, read_records

__all__ = ["FILE", "HELD", "Folds", "make_fold", "read_folds", "units"]

FILE, HELD = "folds.json", "held"


@dataclass(frozen=True)
class Folds:
    """The folds of a split.

    Attributes:
      data: the converted data set that was divided.
      split: which of its splits.
      sha256: the checksum of its manifest.
      directories: one a fold, with `data` and `run` in each.
    """

    data: Path
    split: str
    sha256: str | None
    directories: tuple[Path, ...]

    def write(self, directory: Path) -> None:
        """Write `folds.json`."""
        values = {"data": str(self.data), "split": self.split, "sha256": self.sha256}
        write_json(directory / FILE, values | {"folds": [each.name for each in self.directories]})


def read_folds(directory: str | Path) -> Folds:
    """Return the folds that a directory holds.

    Raises:
      ValueError: it holds none, or not all of them, or the data set has changed since; the message says
        what to do.
    """
    directory = Path(directory)
    path = directory / FILE
    if not path.is_file():
        raise ValueError(
            f"{directory} holds no {FILE}, so the folds are not there, or not all of them; the same "
            f"`python -m tfhuber.crossfit --output {directory} ...` makes them, or goes on"
        )
    try:
        values = read_json(path)
        names = tuple(directory / name for name in values["folds"])
        found = Folds(Path(values["data"]), values["split"], values["sha256"], names)
    except (KeyError, TypeError):
        raise ValueError(f"{path} is damaged; remove it, and cross-fit again") from None
    if records.read_manifest(found.data).get("sha256") != found.sha256:
        raise ValueError(
            f"{found.data} has changed since the folds in {directory} were made; cross-fit again, into "
            "another directory"
        )
    return found


def units(ids: list[str], by: str, count: int) -> dict[str, int]:
    """Return the fold, from 0 to `count` - 1, of each photograph or folder of photographs.

    Args:
      ids: of the examples.
      by: "photograph", or "folder", such as that of a video's frames.
      count: of folds.

    Raises:
      ValueError: there are fewer of them than folds.
    """
    names = {_unit(id, by) for id in ids}
    if len(names) < count:
        raise ValueError(
            f"there are {len(names)} {by}s, fewer than {count} folds"
            + ("; divide by photograph" if by == "folder" else "")
        )
    return {name: i % count for i, name in enumerate(shuffled(names))}


def _unit(id: str, by: str) -> str:
    name = photograph_name(id)
    return name.rpartition("/")[0] if by == "folder" else name


def make_fold(directory: Path, data: Path, split: str, number: int, count: int, by: str) -> None:
    """Write the converted data set of a fold, unless it is there: the split without a part, and that part.

    Raises:
      ValueError: the data set cannot be read, or has too few photographs.
      OSError: a file cannot be written.
    """
    if (directory / records.MANIFEST).is_file():
        return
    manifest = records.read_manifest(data)
    paths = records.shard_paths(data, manifest, split)
    fold = units([id for path in paths for id, _ in _read(path)], by, count)
    directory.mkdir(parents=True, exist_ok=True)
    splits: dict[str, dict[str, Any]] = {}
    for name in ("train", HELD):
        shard = f"{name}-00000-of-00001.tfrecord"
        written = 0
        with (directory / shard).open("wb") as file:
            for path in paths:
                for id, record in _read(path):
                    if (fold[_unit(id, by)] == number) == (name == HELD):
                        file.write(frame(record))
                        written += 1
        splits[name] = {"examples": written, "shards": [{"name": shard, "examples": written}]}
    made_from = {"sha256": manifest.get("sha256"), "split": split, "fold": number, "of": count}
    text = records.manifest_text(
        {
            "landmark_set": manifest["landmark_set"],
            "splits": splits,
            "made_from": made_from | {"by": by},
        }
    )
    (directory / records.MANIFEST).write_text(text, encoding="utf-8")


def _read(path: str) -> Iterator[tuple[str, bytes]]:
    """Yield the id and the bytes of each record of a file."""
    with Path(path).open("rb") as file:
        for record in read_records(file):
            yield records.decode(record)["id"].decode(), record
