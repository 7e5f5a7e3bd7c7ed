"""Small data sets with photographs, sound and damaged, and the command that converts them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from layouts import face, write_wflw
from PIL import Image

from pipelines.make_tfrecords import main
from tfhuber import records

ROOT = Path(__file__).resolve().parent.parent
BAD_BOXES = {
    "non_finite_box": (40, 30, "inf", 150),
    "absurd_box": (40, 30, 1e7, 150),
    "empty_box": (140, 30, 40, 150),
    "box_outside_image": (900, 30, 990, 150),
}


def photograph(path, seed=0, size=(200, 180)):
    """Writes a smooth picture of random colours."""
    colours = np.random.default_rng(seed).integers(0, 255, (9, 10, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC).save(path)


def faces(directory, train=6, test=3):
    """A small data set in WFLW's layout; two faces on each image but perhaps the last."""
    lists = [
        [face(f"0--Parade/{split}_{i // 2}.jpg", seed=i) for i in range(count)]
        for split, count in (("train", train), ("test", test))
    ]
    write_wflw(directory, *lists)
    for lines in lists:
        for name in {line[-1] for line in lines}:
            photograph(directory / "WFLW_images" / name, seed=len(name))
    return directory


def damaged_faces(directory):
    """A WFLW layout with a good face before and after each kind of damage; returns the reasons."""
    good = face("good.jpg")
    box = {name: face("good.jpg", box=values) for name, values in BAD_BOXES.items()}
    damage = [
        (good[:150], "wrong_field_count"),
        (["x", *good[1:]], "not_a_number"),
        (["nan", *good[1:]], "non_finite_landmark"),
        (["1e12", *good[1:]], "absurd_landmark"),
        (["0"] * 196 + good[196:], "degenerate_landmarks"),
        *((fields, name) for name, fields in box.items()),
        ([*good[:200], "7", *good[201:]], "bad_attribute"),
        (face("absent.jpg"), "missing_image"),
        (face("../secret.jpg"), "path_outside_source"),
        (face("/etc/passwd"), "path_outside_source"),
        (face("link.jpg"), "path_outside_source"),
        (face("truncated.jpg"), "undecodable_image"),
        (face("truncated.png"), "undecodable_image"),
        (face("empty.jpg"), "undecodable_image"),
        (face("text.jpg"), "undecodable_image"),
        (face("deep.png"), "unsupported_pixels"),
        (face("folder.jpg"), "missing_image"),
    ]
    lines = [good]
    for fields, _ in damage:
        lines += [fields, good]
    write_wflw(directory, lines, [good])
    images = directory / "WFLW_images"
    for path in (images / "good.jpg", images / "whole.png", directory / "secret.jpg"):
        photograph(path)
    for whole, cut in (("good.jpg", "truncated.jpg"), ("whole.png", "truncated.png")):
        data = (images / whole).read_bytes()
        (images / cut).write_bytes(data[: len(data) * 2 // 3])
    (images / "empty.jpg").touch()
    (images / "text.jpg").write_text("not an image")
    (images / "folder.jpg").mkdir()
    (images / "link.jpg").symlink_to(directory / "secret.jpg")
    Image.new("I;16", (200, 180)).save(images / "deep.png")
    return [reason for _, reason in damage]


def arguments(source, output, *options, dataset="wflw"):
    paths = ["--source", str(source), "--output", str(output)]
    return ["--dataset", dataset, *paths, "--size", "32", *options]


def convert(source, output, *options, dataset="wflw"):
    """Runs the command in this process; returns the manifest and the rejects."""
    main(arguments(source, output, *options, dataset=dataset))
    lines = (output / "rejects.jsonl").read_text().splitlines()
    return records.read_manifest(output), [json.loads(line) for line in lines]


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def start(*arguments, **options):
    command = [sys.executable, "-m", "pipelines.make_tfrecords", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes, **options)


def run(*arguments, **options):
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err
