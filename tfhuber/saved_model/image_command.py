"""What the two commands that predict on one image share: its box, where results go, and writing them."""

import argparse
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tfhuber.console.cli import result_path, summary_stream
from tfhuber.console.files import place_aside, write_json
from tfhuber.console.lazy import lazy_module
from tfhuber.drawing import style
from tfhuber.drawing.ellipses import standard_deviation
from tfhuber.geometry.boxes import is_outside, parse_box
from tfhuber.saved_model.image_files import read_image
from tfhuber.saved_model.metadata import FLAGS, ModelMetadata

if TYPE_CHECKING:
    from tfhuber.drawing import overlay
else:  # it imports Matplotlib
    overlay = lazy_module("tfhuber.drawing.overlay")

__all__ = [
    "add_options",
    "check_outputs",
    "is_outside",
    "parse_box",
    "read_arguments",
    "refuse_overwriting",
    "write_result",
]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--box`, `--output` and `--json` to a command line."""
    parser.add_argument(
        "--box",
        metavar="X0,Y0,X1,Y1",
        help="where the face or person is, in pixels (default: the whole image); "
        "write --box=-5,... if it begins with a minus",
    )
    parser.add_argument(
        "--output", type=Path, help="the picture to write, with landmarks and 90%% ellipses"
    )
    parser.add_argument(
        "--json",
        type=result_path,
        metavar="FILE",
        help="a file for landmarks, covariance and names, in pixels (- for the standard output)",
    )


def read_arguments(
    parser: argparse.ArgumentParser,
) -> tuple[argparse.Namespace, bytes, Image.Image, np.ndarray | None]:
    """Add the image, its box and where the result goes to a command line, and read all of them.

    Returns:
      The arguments; the image's file; the image; the box [4] in its pixels, None for all of it.

    Raises:
      ValueError: as `read_image`, `parse_box` and `check_outputs`.
      OSError: the image cannot be read.
    """
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a JPEG or PNG file")
    add_options(parser)
    arguments = parser.parse_args()
    if not (arguments.output or arguments.json):
        parser.error("nothing to write: give --output, --json or both")
    image_bytes, image = read_image(arguments.image)
    check_outputs(arguments, [arguments.image])
    box = None if arguments.box is None else parse_box(arguments.box, image.size)
    return arguments, image_bytes, image, box


def check_outputs(arguments: argparse.Namespace, read: Iterable[Path]) -> None:
    """Refuse `--output` and `--json` that cannot be written or would replace what is read.

    Raises:
      ValueError: saying which of them.
    """
    if arguments.output and arguments.output.suffix.lower() not in style.SUFFIXES:
        raise ValueError(f"{arguments.output} must end in .png, .jpg or .jpeg")
    refuse_overwriting([arguments.output, arguments.json], read)


def refuse_overwriting(written: Iterable[Path | None], read: Iterable[Path | None]) -> None:
    """Refuse results that would replace what is read, or each other; devices may be both.

    Raises:
      ValueError: naming the file.
    """
    taken = {_real(path): "is read" for path in read if path}
    for result in filter(None, written):
        for path in {_real(result), _real(place_aside(result))}:
            if path in taken and (path.is_file() or not path.exists()):
                reason = f"it {taken[path]} too"
                raise ValueError(
                    f"{path} would be written over, {reason}; choose another place for the results"
                )
            taken[path] = "is another result's place"


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def write_result(
    arguments: argparse.Namespace,
    image: Image.Image,
    found: Mapping[str, np.ndarray],
    box: np.ndarray | None,
    metadata: ModelMetadata,
) -> None:
    """Write what `--output` and `--json` ask for, and print a line that sums it up.

    Args:
      arguments: as `read_arguments` gave them.
      image: the photograph.
      found: a row of the model's answer, in its pixels: `landmarks` [K, 2], `covariance` [K, 2, 2] and,
        if the model has them, `reliable` [K] and `in_distribution`.
      box: [4] in its pixels, or None.
      metadata: the model's.
    """
    landmarks, covariance = found["landmarks"], found["covariance"]
    flags = {name: found[name] for name in FLAGS if name in found}
    if arguments.json:
        values = {
            "names": metadata.names,
            "landmarks": np.asarray(landmarks, float).tolist(),
            "covariance": np.asarray(covariance, float).tolist(),
            **{name: np.asarray(flag).tolist() for name, flag in flags.items()},
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.json, values)
    if arguments.output:
        picture = overlay.draw_overlay(
            image,
            landmarks,
            covariance,
            edges=metadata.edges,
            family=metadata.family,
            delta=metadata.delta,
            box=box,
        )
        overlay.save_image(picture, arguments.output)
    deviation = np.median(standard_deviation(covariance))
    written = [path for path in (arguments.output, arguments.json) if path]
    said = f"{len(landmarks)} landmarks, median {metadata.deviation} {deviation:.2f} pixels"
    if "reliable" in flags:
        said += f", {np.count_nonzero(flags['reliable'])} of them reliable"
    out = summary_stream(written)
    print(f"{said}; wrote {' and '.join(map(str, written))}", file=out)
    if not np.all(flags.get("in_distribution", True)):
        print("note: this is like nothing that the model knows; is it what --box says?", file=out)
