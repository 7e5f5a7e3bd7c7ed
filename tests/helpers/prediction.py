"""Pictures, the command that predicts on them, and what it leaves."""

import functools
import json
import os
import signal
import time

import conversion
import numpy as np
from hostile_images import encoded, smooth

from pipelines.predict.__main__ import main
from tfhuber.data import records


def album(folder, count=10):
    """A folder of good pictures: JPEG and PNG, some of them in folders, each of another size."""
    for i in range(count):
        kind, suffix = ("PNG", "png") if i % 5 == 4 else ("JPEG", "JPG" if i % 5 == 3 else "jpg")
        path = folder / ("day" if i % 3 else "night/late") / f"{i:04d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(smooth((40 + i % 50, 60), seed=i), kind))
    return folder


def names_in(folder):
    """The names of its pictures in the order in which answers come."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in paths]


def arguments(model, source, output, *options):
    paths = ["--model", str(model), "--source", str(source), "--output", str(output)]
    return [*paths, *options]


def predict(model, source, output, *options):
    """Runs the command in this process; returns the answers, the rejects and the manifest."""
    main(arguments(model, source, output, *options))
    return answers(output), lines(output / "rejects.jsonl"), manifest(output)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def answers(output):
    shards = [
        shard["name"] for split in manifest(output)["splits"].values() for shard in split["shards"]
    ]
    return [answer for name in shards for answer in lines(output / name)]


def manifest(output):
    text = (output / records.MANIFEST).read_text()
    values = json.loads(text)
    assert records.manifest_text(values) == text  # The checksum at its end is right.
    return values


start = functools.partial(conversion.start, program=("-m", "pipelines.predict"))
run = functools.partial(conversion.run, program=("-m", "pipelines.predict"))


def kill_amid(process, work, shards):
    """Kills the process when so many shards are done and others are not."""
    deadline = time.monotonic() + 120
    while len(list(work.glob("books/*"))) < shards:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def close_to(answer, row):
    """Whether an answer's numbers are those of a row of a session's outputs, but for rounding."""
    names = ("landmarks", "covariance", "precision_factor")
    return all(np.allclose(answer[name], row[name], rtol=1e-4, atol=1e-4) for name in names)
