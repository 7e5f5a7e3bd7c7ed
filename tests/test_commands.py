"""Nonsense at the command line is one line that names what is wrong, and leaves what is there alone."""

import importlib
import io
import json
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from tfhuber import config, files, landmarks, records
from tfhuber.cli import run_main
from tfhuber.whitening import Whitening

K, EXAMPLES = landmarks.WFLW.count, 12


@pytest.fixture
def refused(monkeypatch, capsys):
    """Runs a command that must fail in one line, which it returns."""

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
    }
    return records.encode(**{**values, **changes})


@pytest.fixture
def data(tmp_path):
    """Makes a converted data set: of these examples, or with this shard or manifest put in place."""
    import tensorflow as tf

    def make(examples=None, *, shard: bytes | None = None, change=lambda manifest: manifest):
        directory = tmp_path / "data"
        directory.mkdir()
        path = directory / "train.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in examples or map(_example, range(EXAMPLES)):
                writer.write(example)
        if shard is not None:
            path.write_bytes(shard)
        books = {"examples": EXAMPLES, "shards": [path.name]}
        manifest = {"format": 1, "landmark_set": "wflw", "splits": {"train": books, "test": books}}
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
    """A directory that looks like a training run, but for its checkpoints."""
    directory = tmp_path / "run"
    (directory / "latest").mkdir(parents=True)
    values = config.parse(_values()).model_dump(mode="json")
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
        (b'{"data": {"directory": "x"}, "model": {"delta": 1e-30}}', "model.delta: .* 1e-06"),
        (json.dumps({f"k{i}": 0 for i in range(1000)}).encode(), "and 993 more"),
        (json.dumps(_values("")).encode(), r"\. holds no manifest.json"),
        (json.dumps(_values("a\0b\ud800")).encode(), "holds no manifest.json"),
    ],
    ids=range(11),
)
def test_train_refuses_a_configuration(refused, tmp_path, config_path, content, message):
    config_path.write_bytes(content)
    line = refused("tfhuber.train", "--config", config_path, "--run", tmp_path / "run")
    assert pytest.importorskip("re").search(message, line), line
    assert not (tmp_path / "run").exists()
