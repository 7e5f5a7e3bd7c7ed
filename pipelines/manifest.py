"""A data set's whole manifest, on any of Beam's file systems.

Training needs less of it, and reads that without Beam: `tfhuber.data.records.read_manifest`.
"""

import json
from typing import Annotated

from apache_beam.io.filesystems import FileSystems
from pydantic import BaseModel, Field, ValidationError

from pipelines.storage import exists, open_file
from tfhuber.data import records

__all__ = ["Manifest", "Shard", "Split", "StoredFile", "read_manifest"]

_Count = Annotated[int, Field(ge=0)]


class StoredFile(BaseModel):
    """A file of the data set."""

    name: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    bytes: _Count
    crc32c: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]


class Shard(StoredFile):
    """One of a split's TFRecord files."""

    examples: _Count


class Split(BaseModel):
    """What was counted of a split; see `Statistics.summary` and `pipelines.notes`."""

    rejects: _Count
    rejects_by_reason: dict[str, _Count]
    notes: dict[str, _Count] = {}
    examples: _Count
    landmarks: dict[str, dict]
    attributes: dict[str, _Count]
    image_sizes: dict[str, _Count]
    shards: list[Shard]


class _Parameters(BaseModel):
    dataset: str
    split: str
    rule: str
    size: Annotated[int, Field(ge=1)]
    margin: Annotated[float, Field(ge=1)]
    quality: Annotated[int, Field(ge=1, le=100)]
    shard_examples: Annotated[int, Field(ge=1)]


class Manifest(BaseModel):
    """`manifest.json`, as `make_tfrecords` writes it."""

    landmark_set: dict
    splits: Annotated[dict[str, Split], Field(min_length=1)]
    rejects: StoredFile
    sources: dict[str, dict[str, str]]
    parameters: _Parameters
    versions: dict[str, str]


def read_manifest(directory: str) -> Manifest:
    """Return the manifest of a converted data set.

    Raises:
      ValueError: if there is none, or not one that `make_tfrecords` wrote, to the last byte.
      OSError: if it cannot be read.
    """
    path = FileSystems.join(directory, records.MANIFEST)
    if not exists(path):
        raise ValueError(f"{directory} holds no {records.MANIFEST}, so it is no finished data set")
    with open_file(path) as file:
        text = file.read()
    try:
        values = json.loads(text)
        if not isinstance(values, dict) or "format" not in values:
            raise ValueError("it is not a manifest of this project: it names no format")
        if values["format"] != records.FORMAT:
            raise ValueError(
                f"it has format {values['format']!r}; this version reads {records.FORMAT}: convert "
                "the data set again"
            )
        manifest = Manifest.model_validate(values, strict=True)
        if records.manifest_text(values).encode() != text:
            raise ValueError("it was changed after it was written")
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{path}: {where}: {fault['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    return manifest
