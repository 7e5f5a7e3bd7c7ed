"""The reader of DeepLabCut's projects: `config.yaml`, `labeled-data/VIDEO/CollectedData_SCORER.csv`."""

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from pipelines.readers.pose_csv import PoseTable, read_pose_table
from pipelines.readers.poses import Animal, Frame, PoseReader
from pipelines.readers.skeleton import Skeleton
from pipelines.storage import Source

__all__ = ["Dlc"]

_CONFIG = "config.yaml"
_LABELS = "CollectedData"
_IMAGES = "labeled-data"
_LARGEST_CONFIG = 1 << 24
# The individual that has the points of no animal, such as a corner of the cage.
_NOBODY = "single"


@dataclass(frozen=True)
class Dlc(PoseReader):
    """The reader of a DeepLabCut project of one or several animals.

    A folder below `labeled-data` is a video. The points of no animal, `uniquebodyparts`, are left out where
    there are animals. Coordinates are taken as they are: DeepLabCut counts from a pixel's centre too.
    """

    images: str = _IMAGES

    @classmethod
    def usual_files(cls, source: Source) -> tuple[tuple[str, str], ...]:
        """Return the CSV of each video that is labelled."""
        if not source.has(_CONFIG):
            raise ValueError(
                f"{source.root} is no DeepLabCut project: {_CONFIG} is missing. Give the folder that holds "
                f"it and {_IMAGES}/; for a CSV without a project there is --dataset lightning_pose"
            )
        scorer = _text(_read_config(source).get("scorer"))
        files = []
        for video in sorted(source.names(_IMAGES)):
            folder = f"{_IMAGES}/{video}"
            names = [name for name in source.names(folder) if name.startswith(_LABELS)]
            if chosen := _chosen(names, scorer, source.path(folder)):
                files.append(("train", f"{folder}/{chosen}"))
        if not files:
            raise ValueError(f"{source.root} has no {_IMAGES}/VIDEO/{_LABELS}_SCORER.csv")
        return tuple(files)

    @classmethod
    def skeleton(cls, source: Source, annotations: tuple[tuple[str, str], ...]) -> Skeleton:
        """Return the configuration's skeleton, of the parts that animals have in the tables."""
        config = _read_config(source)
        scorer = _text(config.get("scorer"))
        tables = [read_pose_table(source, name, scorer) for _, name in annotations]
        known = _parts(tables)
        listed = [*_texts(config.get("multianimalbodyparts")), *_texts(config.get("bodyparts"))]
        parts = [part for part in dict.fromkeys(listed) if part in known]
        edges = [tuple(_texts(edge)) for edge in _list(config.get("skeleton"))]
        return Skeleton(
            _text(config.get("Task")) or posixpath.basename(source.root),
            tuple(dict.fromkeys([*parts, *known])),
            tuple((edge[0], edge[1]) for edge in edges if len(edge) == 2),
        )

    def frames(self, source: Source) -> Iterator[Frame]:
        """Yield as in `PoseReader`."""
        scorer = _text(_read_config(source).get("scorer"))
        for split, name in self.annotations:
            table = read_pose_table(source, name, scorer)
            wanted = _animals(table)
            folder = posixpath.dirname(name).removeprefix(f"{_IMAGES}/")
            for line, path, individuals in table.frames():
                animals = [Animal(each, individuals[each]) for each in wanted if individuals[each]]
                yield Frame(_image(path, folder), name, f"line {line}", animals, split)


def _chosen(names: list[str], scorer: str, folder: str) -> str | None:
    """Return which of a video's files has its labels; None if there is none."""
    tables = sorted(name for name in names if name.lower().endswith(".csv"))
    if not tables:
        if any(name.lower().endswith(".h5") for name in names):
            stem = f"{folder}/{sorted(names)[0].rpartition('.')[0]}"
            program = f"import pandas; pandas.read_hdf('{stem}.h5').to_csv('{stem}.csv')"
            raise ValueError(
                f"{stem}.h5 has no CSV beside it, which is what is read. Where DeepLabCut is installed, "
                f'write it with: python -c "{program}"'
            )
        return None
    own = f"{_LABELS}_{scorer}.csv"
    if len(tables) > 1 and own not in tables:
        raise ValueError(
            f"{folder} has labels of several scorers, {', '.join(tables)[:200]}, none of which is "
            f"{scorer!r}, the scorer of {_CONFIG}"
        )
    return own if own in tables else tables[0]


def _animals(table: PoseTable) -> list[str]:
    """Return the individuals whose points are landmarks: the animals, or what there is else."""
    return [name for name in table.individuals if name != _NOBODY] or list(table.individuals)


def _parts(tables: Iterable[PoseTable]) -> list[str]:
    return list(
        dict.fromkeys(
            part for table in tables for name in _animals(table) for part in table.parts(name)
        )
    )


def _image(path: str, folder: str) -> str:
    """Return a frame's path below `labeled-data`, which other machines have elsewhere."""
    parts = path.split("/")
    if _IMAGES in parts:
        last = len(parts) - 1 - parts[::-1].index(_IMAGES)
        return "/".join(parts[last + 1 :])
    return path if len(parts) > 1 else f"{folder}/{path}"


def _read_config(source: Source) -> dict[str, Any]:
    """Return the configuration, each of its values as the text that stands there."""
    path = source.path(_CONFIG)
    with source.open(_CONFIG) as file:
        data = file.read(_LARGEST_CONFIG + 1)
    try:
        if len(data) > _LARGEST_CONFIG:
            raise ValueError("too large")
        # No tag makes an object, and a bodypart that is called `no` or `1` stays a text.
        values = yaml.load(data.decode("utf-8-sig"), Loader=yaml.BaseLoader)
        if not isinstance(values, dict):
            raise ValueError("it is no mapping")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML that can be read: {error}") from None
    return values


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _texts(value: Any) -> list[str]:
    return [each for each in _list(value) if isinstance(each, str)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
