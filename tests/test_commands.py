"""Nonsense at the command line is one line that names what is wrong, and leaves what is there alone."""

import importlib
import io
import json
import re
import struct
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfhuber.config import schema
from tfhuber.console import files
from tfhuber.console.cli import run_main
from tfhuber.data import records
from tfhuber.landmarks import known_sets
from tfhuber.model.whitening import Whitening

K, EXAMPLES = known_sets.WFLW.count, 12


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run a command that must fail in one line, and return that line."""

    def run(module: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_main(importlib.import_module(module).main)
        captured = capsys.readouterr()
        assert stop.value.code == 2 and captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith("error: ") and len(line) < 2000
        return line

    return run


def _picture(kind: str = "jpeg") -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((80, 60)).save(out, kind)
    return out.getvalue()


def _example(i: int, **changes) -> bytes:
    points = np.random.default_rng(i).uniform(10, 50, (K, 2))
    values = {
        "id": str(i),
        "image": _picture(),
        "landmarks": points,
        "weights": np.ones(K),
        "box": [10, 10, 50, 50],
        "crop_to_original": np.eye(3),
        "normalizer": 20,
        "attributes": [0] * 6,
        "image_size": (80, 60),
        "people": 1,
    }
    return records.encode(**{**values, **changes})


@pytest.fixture
def data(tmp_path):
    """Make a converted data set: of these examples, or with this shard or manifest put in place."""

    def make(examples=None, *, shard: bytes | None = None, change=lambda manifest: manifest):
        directory = tmp_path / "data"
        directory.mkdir()
        path = directory / "train.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in examples or map(_example, range(EXAMPLES)):
                writer.write(example)
        if shard is not None:
            path.write_bytes(shard)
        books = {"examples": EXAMPLES, "shards": [{"name": path.name, "examples": EXAMPLES}]}
        landmark_set = known_sets.describe(known_sets.WFLW)
        values = {"landmark_set": landmark_set, "splits": {"train": books, "test": books}}
        manifest = json.loads(records.manifest_text(values))
        (directory / records.MANIFEST).write_text(json.dumps(change(manifest)))
        return directory

    return make


def _values(directory="nowhere") -> dict:
    return {
        "data": {"directory": str(directory)},
        "model": {"backbone": "resnet18", "image_size": 32},
        "train": {"epochs": 1, "batch_size": 4, "learning_rate": [[0, 1e-3]]},
    }


@pytest.fixture
def config_path(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(_values()))
    return path


@pytest.fixture
def run(tmp_path):
    """Make a directory that looks like a training run, but for its checkpoints."""
    directory = tmp_path / "run"
    (directory / "latest").mkdir(parents=True)
    values = schema.parse(_values()).model_dump(mode="json")
    files.write_json(directory / "run.json", {"config": values, "landmark_set": "wflw"})
    identities = np.tile(np.eye(2), (K, 1, 1))
    Whitening(np.zeros((K, 2)), identities).save(directory / "whitening.json")
    return directory


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON: Expecting value in line 1"),
        (bytes(range(256)), "'utf-8' codec can't decode byte 0x80"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"train": {"epochs": ' + b"9" * 5000 + b"}}", "Exceeds the limit"),
        (b'{"data": {"directory": "x"}, "train": {"epochs": 1e999}}', "train.epochs: .* finite"),
        (b'{"data": {"directory": "x"}, "train": {"epochs": 4000000000}}', "less than 2147483648"),
        (
            b'{"data": {"directory": "x"}, "model": {"delta": 1e-30}}',
            "model.delta: Input should be greater",
        ),
        (json.dumps({f"k{i}": 0 for i in range(1000)}).encode(), "and 993 more"),
        (json.dumps(_values("")).encode(), r"\. holds no manifest.json"),
        (json.dumps(_values("a\0b")).encode(), "holds no manifest.json"),
    ],
    ids=range(11),
)
def test_train_refuses_a_configuration(refused, tmp_path, config_path, content, message):
    config_path.write_bytes(content)
    line = refused("tfhuber.train", "--config", config_path, "--run", tmp_path / "run")
    assert re.search(message, line), line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("", "--set needs key.path=value"),
        ("train=3", "train: Input should be a valid dictionary"),
        ("train.epochs.x=3", "'epochs' is no section"),
        ("train.epochs=" + "9" * 5000, "train.epochs: "),
        ("train.epochs=" + "[" * 100_000, "train.epochs: Input should be a valid integer"),
    ],
    ids=range(5),
)
def test_train_refuses_an_override(refused, config_path, override, message):
    assert message in refused("tfhuber.train", "--config", config_path, "--set", override)


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/self/mem", "/", "/no/such/file"])
def test_train_refuses_what_is_no_configuration_file(refused, path):
    assert path in refused("tfhuber.train", "--config", path)


def _with(**changes):
    return lambda manifest: {**manifest, **changes}


def _shard(name):
    return {"name": name, "examples": EXAMPLES}


def _with_books(**changes):
    return lambda manifest: {
        **manifest,
        "splits": {name: {**books, **changes} for name, books in manifest["splits"].items()},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: [], "names no format"),
        (_with(splits=["train"]), "splits: Input should be a valid dictionary"),
        (_with(splits={"train": 3}), "splits.train: "),
        (_with(landmark_set=["wflw"]), "landmark_set: "),
        (_with(landmark_set="wflw"), "landmark_set: "),
        (_with(landmark_set={"name": "x"}), "manifest.json: landmarks is required"),
        (_with(format=1), "has format 1; this version reads 2: convert the data set again"),
        (_with_books(examples=None), "splits.train.examples: "),
        (_with_books(examples=-5), "splits.train.examples: "),
        (_with_books(examples=12.5), "splits.train.examples: "),
        (_with_books(examples=10**30), "splits.train.examples: "),
        (_with_books(shards="train.tfrecord"), "splits.train.shards: "),
        (_with_books(shards=[1]), "splits.train.shards.0: "),
        (_with_books(shards=[_shard("../data/train.tfrecord")]), "splits.train.shards.0.name: "),
        (_with_books(shards=[_shard("/dev/zero")]), "splits.train.shards.0.name: "),
        (_with_books(shards=[_shard("gone.tfrecord")]), "gone.tfrecord is missing"),
        (_with_books(shards=[]), "holds 0 examples, but its manifest says 12"),
        (_with_books(shards=[_shard("train.tfrecord")] * 2), "holds 24 examples, but .* says 12"),
        (_with_books(examples=13), "holds 12 examples, but its manifest says 13"),
        (_with_books(examples=5), "holds 12 examples, but its manifest says 5"),
    ],
    ids=range(20),
)
def test_train_refuses_a_manifest(refused, data, config_path, tmp_path, change, message):
    directory = data(change=change)
    arguments = ["--config", config_path, "--data", directory, "--run", tmp_path / "run"]
    assert re.search(message, refused("tfhuber.train", *arguments))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"hello world, this is no TFRecord file", "damaged after 0 examples .*corrupted record"),
        (b"", "holds 0 examples"),
        ({"box": [1, 2, 3]}, "damaged after 7 examples .*box"),
        ({"normalizer": np.nan}, "damaged after 7 examples .*normalizer is not finite"),
        ({"landmarks": np.full((K, 2), np.inf)}, "damaged after 7 .*landmarks is not finite"),
    ],
    ids=["text", "empty", "schema", "nan", "inf"],
)
def test_train_names_the_damaged_file(refused, data, config_path, tmp_path, damage, message):
    if isinstance(damage, bytes):
        directory = data(shard=damage)
    else:
        directory = data(
            [_example(i, **damage) if i == 7 else _example(i) for i in range(EXAMPLES)]
        )
    arguments = ["--config", config_path, "--data", directory, "--run", tmp_path / "run"]
    line = refused("tfhuber.train", *arguments)
    assert re.search(message, line) and str(directory) in line, line
    assert "function_node" not in line and line.endswith("convert the data set again")
    assert not (tmp_path / "run" / "whitening.json").exists()


def test_train_refuses_a_damaged_run(refused, data, config_path, run):
    arguments = ["--config", config_path, "--data", data(), "--run", run]
    assert "choose another --run" in refused("tfhuber.train", *arguments[:-1], config_path)
    config_path.write_text(json.dumps(_values(arguments[3])))
    (run / "run.json").write_text("[]")
    assert f"{run / 'run.json'} is damaged" in refused("tfhuber.train", *arguments)


@pytest.mark.parametrize("command", ["tfhuber.calibrate", "tfhuber.evaluate", "tfhuber.export"])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, "No such file .* tfhuber.train --config"),
        ("run.json", b"[" * 100_000, "nested too deeply"),
        ("run.json", b"[1]", "no training run that can be read"),
        ("run.json", b'{"config": {"data": 3}, "landmark_set": "wflw"}', "data: Input should be"),
        ("whitening.json", b"{}", "holds no whitening of 98 landmarks; delete it"),
        ("whitening.json", b'{"mean": [[0, 0]], "factor": [[[1, 0], [0, 1]]]}', "98 landmarks"),
        ("latest/ckpt-7.index", b"junk", r"ckpt-7 is damaged .*; delete .*latest"),
        ("latest/checkpoint", b"junk", "holds no checkpoint yet; train longer"),
    ],
    ids=range(8),
)
def test_a_damaged_run_is_refused(refused, run, tmp_path, command, name, content, message):
    (run / name).unlink(missing_ok=True)
    if content is not None:
        (run / name).write_bytes(content)
    output = ["--output", tmp_path / "model"] if command == "tfhuber.export" else []
    line = refused(command, "--run", run, *output)
    assert re.search(message, line) and str(run) in line, line
    assert not (tmp_path / "model").exists()


def _huge_png() -> bytes:
    """Return a PNG of a hundred bytes that claims 100,000 x 100,000 pixels."""

    def chunk(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    rest = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rest


@pytest.mark.parametrize("command", ["tfhuber.predict", "serving.client.__main__"])
@pytest.mark.parametrize(
    ("content", "box", "message"),
    [
        (b"", None, "is not an image that can be read"),
        (b"text", None, "is not an image that can be read"),
        (_picture()[:200], None, "is not an image that can be read"),
        (_huge_png(), None, "(10000000000 pixels) exceeds limit"),
        (_picture("gif"), None, "is a GIF file; the model reads JPEG and PNG"),
        (_picture(), "1,2,3", "--box must be four numbers"),
        (_picture(), "nan,0,9,9", "--box must be four numbers"),
        (_picture(), "9,9,1,1", "is empty: x0 < x1"),
        (_picture(), "80,0,99,9", "is outside the image, which has 80 x 60 pixels"),
    ],
    ids=range(9),
)
def test_a_picture_or_its_box_is_refused(refused, tmp_path, command, content, box, message):
    path = tmp_path / "picture"
    path.write_bytes(content)
    arguments = [path, "--model", "nowhere", "--output", tmp_path / "overlay.png"]
    line = refused(command, *arguments, *([] if box is None else [f"--box={box}"]))
    assert message in line and ("--box" in line or str(path) in line), line


@pytest.mark.parametrize("path", ["/dev/zero", "/", "/no/such/file"])
def test_what_is_no_picture_is_refused(refused, path):
    assert path in refused("tfhuber.predict", path, "--model", "nowhere", "--json", "out.json")


def _facts(edges):
    return {"landmark_set": {"names": ["a"], "edges": edges}, "family": "huber", "delta": 1}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (None, "holds no exported model; make one with"),
        ([1], r"model\.json cannot be read .*; export the model again"),
        (_facts(edges=[[0, 500]]), "edges join landmarks that have no"),
        (_facts(edges=[[0, 0]]), "model/1: "),
    ],
    ids=range(4),
)
def test_predict_refuses_a_model(refused, tmp_path, facts, message):
    (tmp_path / "picture").write_bytes(_picture())
    extra = tmp_path / "model" / "1" / "assets.extra"
    extra.mkdir(parents=True)
    if facts is not None:
        (extra.parent / "saved_model.pb").write_bytes(b"junk")
        (extra / "model.json").write_text(json.dumps(facts))
    arguments = [tmp_path / "picture", "--model", tmp_path / "model", "--json", tmp_path / "o.json"]
    assert re.search(message, refused("tfhuber.predict", *arguments))
    assert not (tmp_path / "o.json").exists()
