"""Which pictures to predict on: a folder's, a list's, or the records of a converted data set."""

import codecs
import os
from collections.abc import Iterator
from dataclasses import dataclass

from apache_beam.io.filesystems import FileSystems

from pipelines.manifest import read_manifest
from pipelines.plans import SPLITS
from pipelines.storage import exists, is_folder, is_local, names, open_file
from tfhuber.data import records
from tfhuber.data.tfrecord import read_records
from tfhuber.geometry.boxes import Boxes, read_box_lines

__all__ = ["PICTURES", "Request", "find_requests"]

_IMAGES = (".jpeg", ".jpg", ".png")
_RECORDS = ".tfrecord"
_LISTS_WITH_BOXES = (".csv", ".jsonl")

# The split of requests that are of no data set's.
PICTURES = "pictures"


@dataclass(frozen=True)
class Request:
    """A picture to predict on, as it is listed; nothing of it has been read.

    Attributes:
      source: its name in the answers; a record brings its own.
      path: the file.
      record: its number in a TFRecord file, counted from 1; 0 if the file is the picture.
      box: x0, y0, x1, y1 in its pixels; None for all of it, or for the record's own.
      fault: why there can be no prediction; "" if there may be one.
      split: of the data set; `PICTURES` of anything else.
    """

    source: str
    path: str
    record: int = 0
    box: list[float] | None = None
    fault: str = ""
    split: str = PICTURES


def find_requests(
    source: str, boxes: Boxes | None, images: str | None, split: str | None
) -> Iterator[Request]:
    """Return the pictures of a source, in its order and without holding them all.

    Args:
      source: a folder, whose pictures and those of all folders in it are meant; a converted data set; a
        TFRecord file of one; a picture; or a list of names, one a line. In a list whose own name ends in
        `.csv` or `.jsonl` each has a box, as `read_box_lines` takes them.
      boxes: which box belongs to which picture; None where none were given.
      images: the folder in which a list's names begin; None for that of the list.
      split: which one of a data set; None for all.

    Raises:
      ValueError: there is no such source, or it does not go with the other arguments.
      OSError: it cannot be read.
    """
    has_files = is_folder(source)
    if not has_files and not exists(source):
        raise ValueError(f"{source}: there is no such file or folder")
    is_data_set = has_files and _holds_data_set(source)
    has_records = is_data_set or source.lower().endswith(_RECORDS)
    is_list = not (has_files or has_records or source.lower().endswith(_IMAGES))
    if images and not is_list:
        raise ValueError(f"--images belongs to a list of names, which {source} is not")
    if split and not is_data_set:
        raise ValueError(f"--split belongs to a converted data set, which {source} is not")
    if boxes and (has_records or (is_list and source.lower().endswith(_LISTS_WITH_BOXES))):
        raise ValueError(f"--box and --boxes do not go with {source}, which has boxes of its own")
    boxes = boxes or Boxes()
    if is_data_set:
        return _of_data_set(source, split)
    if has_records:
        return _of_record_file(source)
    if has_files:
        return _of_folder(source, boxes)
    return _of_list(source, boxes, images) if is_list else iter([_request(source, source, boxes)])


def _request(name: str, path: str, boxes: Boxes) -> Request:
    path = _absolute(path)
    try:
        box = boxes.find(name, os.path.basename(path))
    except ValueError as error:
        return Request(name, path, fault=str(error))
    return Request(name, path, box=None if box is None else box.tolist())


def _absolute(path: str) -> str:
    """Return what a path means to a worker, who may be in another folder."""
    return os.path.abspath(path) if is_local(path) else path


def _holds_data_set(folder: str) -> bool:
    return exists(FileSystems.join(folder, records.MANIFEST)) and any(
        name.endswith(_RECORDS) for name in names(folder)
    )


def _of_data_set(folder: str, wanted: str | None) -> Iterator[Request]:
    splits = read_manifest(folder).splits
    if wanted and not (wanted in splits and splits[wanted].examples):
        filled = ", ".join(name for name, split in splits.items() if split.examples)
        raise ValueError(f"{folder} has no examples in split {wanted!r}; there are {filled}")
    for split in [name for name in SPLITS if name in splits and name == (wanted or name)]:
        for shard in splits[split].shards:
            path = _absolute(FileSystems.join(folder, shard.name))
            if not exists(path):
                raise ValueError(f"{path} is missing; convert the data set again")
            for number in range(1, shard.examples + 1):
                yield Request("", path, number, split=split)


def _of_record_file(path: str) -> Iterator[Request]:
    with open_file(path) as file:
        try:
            for number, _ in enumerate(read_records(file), start=1):
                yield Request("", _absolute(path), number)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _of_folder(folder: str, boxes: Boxes) -> Iterator[Request]:
    found = _walk(folder) if is_local(folder) else sorted(names(folder, deep=True), key=_parts)
    for name in found:
        is_hidden = any(part.startswith(".") for part in _parts(name))
        if name.lower().endswith(_IMAGES) and not is_hidden:
            yield _request(name, FileSystems.join(folder, name), boxes)


def _parts(name: str) -> list[str]:
    return name.split("/")


def _walk(folder: str, start: str = "") -> Iterator[str]:
    """Yield the paths of all files below a folder, by the names of their parts; one folder is held."""
    with os.scandir(os.path.join(folder, start)) as found:
        inside = sorted((each.name, each.is_dir(follow_symlinks=False)) for each in found)
    for name, leads_on in inside:
        if leads_on:
            yield from _walk(folder, f"{start}{name}/")
        else:
            yield start + name


def _of_list(path: str, boxes: Boxes, images: str | None) -> Iterator[Request]:
    folder = images or FileSystems.split(path)[0]

    def place(name: str) -> str:
        return name if not is_local(name) else FileSystems.join(folder, name)

    with open_file(path) as file:
        if path.lower().endswith(_LISTS_WITH_BOXES):
            for _, name, box in read_box_lines(file, path):
                yield Request(name, _absolute(place(name)), box=box.tolist())
            return
        for number, line in enumerate(file):
            text = line.removeprefix(codecs.BOM_UTF8 if number == 0 else b"")
            if name := text.decode(errors="surrogateescape").strip():
                yield _request(name, place(name), boxes)
