"""Damage to a converted data set, and forgeries of it whose sizes and checksums fit."""

import json

import google_crc32c
import pytest

from pipelines.verify import verify
from tfhuber.data import records
from tfhuber.data.tfrecord import frame, read_records


def fault(directory, processes=1):
    """What is said of a damaged data set, without the directory's name."""
    with pytest.raises(ValueError) as error:
        verify(str(directory), processes)
    return str(error.value).replace(f"{directory}/", "")


def edit_manifest(directory, change):
    values = json.loads((directory / records.MANIFEST).read_text())
    change(values)
    (directory / records.MANIFEST).write_text(records.manifest_text(values))


def read_shard(directory, name):
    with (directory / name).open("rb") as file:
        return list(read_records(file))


def replace_file(directory, name, content):
    """Puts other content in a file's place, and its size and checksum in the manifest."""
    (directory / name).write_bytes(content)

    def change(manifest):
        shards = (shard for split in manifest["splits"].values() for shard in split["shards"])
        stored = next(each for each in (*shards, manifest["rejects"]) if each["name"] == name)
        stored["bytes"] = len(content)
        stored["crc32c"] = f"{google_crc32c.value(content):08x}"

    edit_manifest(directory, change)


def forge(directory, name, number, **changes):
    """Changes features of an example, and everything that would give it away before it is decoded."""
    contents = read_shard(directory, name)
    example = records.decode(contents[number - 1])
    example = example | {"id": example["id"].decode()} | changes
    contents[number - 1] = records.encode(**example)
    replace_file(directory, name, b"".join(map(frame, contents)))


def flip(directory, name, position, mask=1):
    content = bytearray((directory / name).read_bytes())
    content[position] ^= mask
    (directory / name).write_bytes(content)


def second_record(directory, name):
    """Where the second record of a shard starts, and how long it is."""
    first, second = read_shard(directory, name)[:2]
    return len(frame(first)), len(second)


def values_of(directory, name, number):
    return records.decode(read_shard(directory, name)[number - 1])


def edit_lines(directory, name, change):
    """Changes the list of a file's lines, and what would give it away."""
    lines = (directory / name).read_bytes().splitlines(keepends=True)
    replace_file(directory, name, b"".join(change(lines)))
