"""Small data sets with photographs, sound and damaged, and the command that converts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from hostile_images import hostile_images, smooth
from official_layouts import WFLW_LISTS, face, write_wflw
from PIL import Image

from pipelines.make_tfrecords import main
from tfhuber.data import records

ROOT = Path(__file__).resolve().parents[2]
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


def damage(directory):
    """Adds files to a source in WFLW's layout; a line of the list, and the reason to refuse it, each."""
    images = directory / "WFLW_images"
    good, image = face("good.jpg"), smooth()
    image.save(images / "good.jpg")
    image.save(directory / "secret.jpg")
    (directory / "outside").mkdir()
    image.save(directory / "outside/secret.jpg")
    hostile = hostile_images()
    for name, (content, _) in hostile.items():
        (images / name).write_bytes(content)
    (images / "folder.jpg").mkdir()
    (images / "link.jpg").symlink_to(directory / "secret.jpg")
    (images / "album").symlink_to(directory / "outside")
    (images / "loop.jpg").symlink_to(images / "loop.jpg")
    (images / "device.jpg").symlink_to("/dev/zero")
    os.mkfifo(images / "pipe.jpg")
    with open(images / "sparse.jpg", "wb") as file:
        file.truncate(1 << 40)
    paths = {
        "absent.jpg": "missing_image",
        "folder.jpg": "missing_image",
        "pipe.jpg": "missing_image",
        "loop.jpg": "missing_image",
        "nul\0.jpg": "missing_image",
        "x" * 5000: "missing_image",
        "../secret.jpg": "path_outside_source",
        "/etc/passwd": "path_outside_source",
        "link.jpg": "path_outside_source",
        "album/secret.jpg": "path_outside_source",
        "device.jpg": "path_outside_source",
        "sparse.jpg": "image_too_large",
    }
    boxes = {name: face("good.jpg", box=values) for name, values in BAD_BOXES.items()}
    return [
        (good[:150], "wrong_field_count"),
        (["x", *good[1:]], "not_a_number"),
        (["nan", *good[1:]], "non_finite_landmark"),
        (["1e12", *good[1:]], "absurd_landmark"),
        (["0"] * 196 + good[196:], "degenerate_landmarks"),
        ([*good[:200], "7", *good[201:]], "bad_attribute"),
        *((fields, name) for name, fields in boxes.items()),
        *((face(name), reason) for name, reason in paths.items()),
        *((face(name), reason) for name, (_, reason) in hostile.items()),
    ]


def damaged_faces(directory):
    """A WFLW layout with a good face before and after each kind of damage; returns the reasons."""
    good = face("good.jpg")
    write_wflw(directory)
    damaged = damage(directory)
    lines = [good, *(fields for bad, _ in damaged for fields in (bad, good))]
    for split, fields in (("train", lines), ("test", [good])):
        path = directory / WFLW_LISTS / f"list_98pt_rect_attr_{split}.txt"
        path.write_text("".join(" ".join(line) + "\n" for line in fields))
    return [reason for _, reason in damaged]


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


def start(*arguments, program=("-m", "pipelines.make_tfrecords"), **options):
    command = [sys.executable, *program, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes, **options)


def run(*arguments, **options):
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err
