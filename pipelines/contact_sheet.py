"""A contact sheet: random examples of a converted data set with their labels, for human eyes.

    python -m pipelines.contact_sheet DIR --output FILE.png

A tile shows a stored crop, the landmarks and their edges, the box, and the square that the network
sees. Landmarks that a mirror swaps have different colours, so that swapped labels catch the eye.
"""

import argparse
import io
import math
import random
from collections.abc import Iterator

import numpy as np
from apache_beam.io.filesystems import FileSystems
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from pipelines.manifest import read_manifest
from pipelines.storage import create, open_file
from tfhuber.console.cli import run_main
from tfhuber.data import records
from tfhuber.data.tfrecord import read_records
from tfhuber.geometry.box_square import region_around
from tfhuber.landmarks import known_sets
from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = ["CONTACT_SHEET", "main", "write_contact_sheet"]

CONTACT_SHEET = "contact_sheet.png"

TILE, GAP, TEXT, HEADER = 256, 12, 13, 40
LEFT, RIGHT, MIDDLE = "#22c3f7", "#ff7f3a", "#ffffff"
BOX, SQUARE = "#ffe04a", "#79f08f"
PAPER, PADDING, INK = "#20262e", "#343c47", "#c9d1da"
MOST = 400

# Lines are drawn larger and reduced, which smooths them.
_FINE = 4


def write_contact_sheet(
    directory: str,
    manifest: dict,
    path: str,
    *,
    split: str | None = None,
    count: int = 24,
    seed: int = 0,
) -> bool:
    """Write a PNG of random examples, the same for the same data set; return False if there are none.

    Args:
      directory: where the shards are.
      manifest: of the data set.
      path: of the picture. It and `directory` are on any of Beam's file systems.
      split: whose examples are shown; default: all splits'.
      count: how many are shown at most, 1 to 400.
      seed: chooses them.

    Raises:
      ValueError: if there is no such split, `count` is out of range, or a shard is damaged.
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"count must be from 1 to {MOST}, got {count}")
    splits = manifest["splits"]
    if split is not None and split not in splits:
        raise ValueError(f"split must be one of {', '.join(splits)}, got {split!r}")
    shards = [
        (name, shard)
        for name, values in splits.items()
        for shard in values["shards"]
        if split in (None, name)
    ]
    total = sum(shard["examples"] for _, shard in shards)
    if total == 0:
        return False
    landmark_set = known_sets.parse(manifest["landmark_set"])
    colours = _colours(landmark_set, manifest)
    chosen = sorted(random.Random(seed).sample(range(total), min(count, total)))
    tiles = [
        (_draw_tile(example, landmark_set, colours), f"{name}  {example['id'].decode()}")
        for name, example in _read(directory, shards, chosen)
    ]
    sheet = _arrange(tiles, f"{landmark_set.name}: {len(tiles)} of {total:,} examples")
    png = io.BytesIO()
    sheet.save(png, "PNG")
    with create(path) as file:
        file.write(png.getvalue())
    return True


def _read(
    directory: str, shards: list[tuple[str, dict]], chosen: list[int]
) -> Iterator[tuple[str, dict]]:
    """Yield split and content of the chosen examples, whose numbers go through all shards in order."""
    first = 0
    for split, shard in shards:
        last = first + shard["examples"]
        numbers = {index - first + 1 for index in chosen if first <= index < last}
        first = last
        if not numbers:
            continue
        path = FileSystems.join(directory, shard["name"])
        try:
            with open_file(path) as file:
                for record in read_records(file, numbers):
                    yield split, records.decode(record)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _colours(landmark_set: LandmarkSet, manifest: dict) -> list[str]:
    """Return each landmark's colour; the left one of a pair is so by name or, else, by mean position."""
    names, mirror = landmark_set.names, landmark_set.mirror
    largest = max(manifest["splits"].values(), key=lambda split: split["examples"])

    def leftness(k: int) -> tuple:
        return "left" not in names[k].lower(), largest["landmarks"][names[k]]["mean"][0], k

    return [
        MIDDLE if k == other else LEFT if leftness(k) < leftness(other) else RIGHT
        for k, other in enumerate(mirror)
    ]


def _draw_tile(example: dict, landmark_set: LandmarkSet, colours: list[str]) -> Image.Image:
    """Draw the stored crop as large as the tile allows, with the labels on it."""
    with Image.open(io.BytesIO(example["image"])) as image:
        crop = image.convert("RGB")
    size = np.maximum(np.round(np.array(crop.size) * (TILE / max(crop.size))), 1).astype(int)
    corner = (TILE - size) // 2
    tile = Image.new("RGB", (TILE, TILE), PADDING)
    tile.paste(crop.resize(size.tolist(), Image.Resampling.LANCZOS), corner.tolist())
    to_crop = np.linalg.inv(example["crop_to_original"].reshape(3, 3).astype(np.float64))

    def place(points: ArrayLike) -> list[tuple[float, float]]:
        """Return points [n, 2] of the original image in the pixels that are drawn on."""
        stored = np.asarray(points, np.float64) @ to_crop[:2, :2].T + to_crop[:2, 2]
        fine = _FINE * ((stored + 0.5) * (size / crop.size) + corner) - 0.5
        return [(x, y) for x, y in fine.tolist()]

    picture = tile.resize((TILE * _FINE, TILE * _FINE), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    x, y, half_width, half_height = region_around(example["box"], landmark_set.square)
    # In this order, as a box that is the square itself would hide it.
    for (x0, y0, x1, y1), colour in (
        (example["box"], BOX),
        ((x - half_width, y - half_height, x + half_width, y + half_height), SQUARE),
    ):
        frame = place([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
        pen.line(frame, colour, _FINE, "curve")

    points = place(example["landmarks"].reshape(-1, 2))
    labelled = np.flatnonzero(example["weights"] > 0).tolist()
    for a, b in landmark_set.edges:
        if a in labelled and b in labelled:
            colour = colours[a] if colours[a] == colours[b] else MIDDLE
            pen.line([points[a], points[b]], colour, _FINE)
    if labelled:
        extent = math.hypot(*np.ptp([points[k] for k in labelled], axis=0))
        radius = float(np.clip(extent / math.sqrt(len(points)) / 9, 1.2 * _FINE, 3 * _FINE))
    for k in labelled:
        pen.circle(points[k], radius, colours[k], PAPER, _FINE // 2)
    return picture.reduce(_FINE)


def _arrange(tiles: list[tuple[Image.Image, str]], title: str) -> Image.Image:
    """Return a sheet with a header, which says what the colours are, and captioned tiles in rows."""
    columns = math.ceil(math.sqrt(1.5 * len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    step_x, step_y = TILE + GAP, TILE + TEXT + GAP + 4
    sheet = Image.new("RGB", (GAP + columns * step_x, HEADER + rows * step_y), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    x = float(GAP)
    for text, colour in (
        (title, INK),
        ("left", LEFT),
        ("right", RIGHT),
        ("middle", MIDDLE),
        ("box", BOX),
        ("what the network sees", SQUARE),
    ):
        pen.text((x, HEADER // 2), text, colour, font, "lm")
        x += font.getlength(text) + 2 * GAP
    for index, (tile, caption) in enumerate(tiles):
        row, column = divmod(index, columns)
        left, top = GAP + column * step_x, HEADER + row * step_y
        sheet.paste(tile, (left, top))
        pen.text((left, top + TILE + 3), _shortened(caption, font), INK, font)
    return sheet


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return any text in ASCII, with as much of its middle left out as makes it fit a tile."""
    text = ascii(text)[1:-1]
    for keep in range(min(len(text), TILE), 0, -1):
        start, end = text[: keep // 2], text[len(text) - (keep - keep // 2) :]
        short = text if keep == len(text) else f"{start}...{end}"
        if font.getlength(short) <= TILE:
            return short
    return "..."


def main(argv: list[str] | None = None) -> None:
    """Run the command; `argv` defaults to the process's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.contact_sheet",
        description="Draw random examples of a converted data set with their labels.",
    )
    parser.add_argument("directory", metavar="DIR", help="what make_tfrecords wrote")
    parser.add_argument("--output", required=True, metavar="FILE", help="the picture, a PNG")
    parser.add_argument("--split", metavar="NAME", help="of this split only")
    parser.add_argument("--count", type=int, default=24, metavar="N", help="at most so many (24)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="chooses them (0)")
    args = parser.parse_args(argv)
    if not args.output.lower().endswith(".png"):
        raise ValueError(f"--output must end in .png, got {args.output!r}")
    manifest = read_manifest(args.directory).model_dump()
    chosen = {"split": args.split, "count": args.count, "seed": args.seed}
    if not write_contact_sheet(args.directory, manifest, args.output, **chosen):
        raise ValueError(f"{args.directory} has no examples to show")
    print(args.output)


if __name__ == "__main__":
    run_main(main)
