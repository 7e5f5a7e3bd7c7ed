"""Reading all of a manifest: what `make_tfrecords` wrote, and nothing else."""

import json

import pytest

from pipelines.manifest import read_manifest
from tfhuber.data import records
from tfhuber.landmarks.known_sets import MPII, describe

STORED = {"bytes": 0, "crc32c": "00000000"}


def manifest():
    """A small one with all keys."""
    split = {
        "rejects": 2,
        "rejects_by_reason": {"unlabelled": 2},
        "notes": {},
        "examples": 0,
        "landmarks": {},
        "attributes": {},
        "image_sizes": {},
        "shards": [{"name": "train-00000-of-00001.tfrecord", "examples": 0, **STORED}],
    }
    return {
        "landmark_set": describe(MPII),
        "splits": {"train": split},
        "rejects": {"name": "rejects.jsonl", **STORED},
        "sources": {"list.txt": {"sha256": "0" * 64}},
        "parameters": {
            "dataset": "mpii",
            "split": "official",
            "rule": "longest",
            "size": 256,
            "margin": 2,
            "quality": 95,
            "shard_examples": 256,
        },
        "versions": {"tfhuber": "0.1.0"},
    }


def write(directory, values):
    (directory / records.MANIFEST).write_text(records.manifest_text(values))


def fault(directory):
    with pytest.raises(ValueError) as error:
        read_manifest(str(directory))
    return str(error.value).removeprefix(f"{directory / records.MANIFEST}: ")


def test_what_was_written_is_read(tmp_path):
    write(tmp_path, manifest())
    found = read_manifest(str(tmp_path))
    assert found.model_dump() == manifest()


def test_training_reads_it_too(tmp_path):
    write(tmp_path, manifest())
    assert records.read_manifest(tmp_path)["splits"]["train"]["rejects"] == 2


def pop(key):
    return lambda m: m.pop(key)


@pytest.mark.parametrize(
    "change, message",
    [
        *((pop(key), f"{key}: Field required") for key in manifest()),
        (lambda m: m["splits"].clear(), "splits: "),
        (lambda m: m["splits"].update(test=[]), "splits.test: "),
        (lambda m: m["splits"]["train"].pop("landmarks"), "splits.train.landmarks: Field required"),
        (lambda m: m["splits"]["train"].update(examples=-1), "splits.train.examples: "),
        (lambda m: m["splits"]["train"].update(examples=True), "splits.train.examples: "),
        (
            lambda m: m["splits"]["train"]["shards"][0].update(bytes=0.5),
            "splits.train.shards.0.bytes",
        ),
        (
            lambda m: m["splits"]["train"]["shards"][0].update(name="../a"),
            "splits.train.shards.0.name",
        ),
        (
            lambda m: m["splits"]["train"]["shards"][0].update(crc32c="0"),
            "splits.train.shards.0.crc32c",
        ),
        (lambda m: m["rejects"].update(name="a/b"), "rejects.name: "),
        (lambda m: m["parameters"].update(size="32"), "parameters.size: "),
        (lambda m: m["parameters"].update(margin=0.5), "parameters.margin: "),
        (lambda m: m["sources"].update({"list.txt": 5}), "sources.list.txt: "),
    ],
)
def test_a_manifest_that_is_not_whole(tmp_path, change, message):
    values = manifest()
    change(values)
    write(tmp_path, values)
    assert fault(tmp_path).startswith(message)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"format": 1}', "it has format 1; this version reads 2"),
        ('{"splits": {}}', "it is not a manifest of this project: it names no format"),
        ("[]", "it is not a manifest of this project"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "maximum recursion depth"),
        ("\xff", "'utf-8' codec can't decode"),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path, text, message):
    (tmp_path / records.MANIFEST).write_text(text, encoding="latin-1")
    assert fault(tmp_path).startswith(message)


def test_the_same_values_in_another_writing(tmp_path):
    write(tmp_path, manifest())
    values = json.loads((tmp_path / records.MANIFEST).read_text())
    (tmp_path / records.MANIFEST).write_text(json.dumps(values))
    assert fault(tmp_path) == "it was changed after it was written"


def test_no_manifest(tmp_path):
    for directory in (tmp_path, tmp_path / "absent"):
        assert fault(directory).startswith(f"{directory} holds no manifest.json")
