"""The options of the client that choose a pose tool's file for its answers, and the writer they choose."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from serving.client.pose_files import CocoResults, DlcCsv, DlcH5, Movement, SleapFile, Trust
from serving.client.writers import JsonLines, Writer
from tfhuber.console.cli import result_path
from tfhuber.console.files import is_stream, read_json
from tfhuber.saved_model.metadata import ModelMetadata

__all__ = ["add_result_options", "result_files", "result_writer"]

# The format of a file without --format, by the end of its name.
_SUFFIXES = {
    ".csv": "dlc",
    ".h5": "dlc-h5",
    ".json": "coco",
    ".jsonl": "jsonl",
    ".nc": "movement",
    ".slp": "sleap",
}


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """Add `--results`, `--format` and what they need to a command line."""
    group = parser.add_argument_group("files of pose tools (docs/animals.md)")
    group.add_argument("--results", type=result_path, metavar="FILE", help="a file in --format")
    group.add_argument(
        "--format",
        choices=tuple(_SUFFIXES.values()),
        help="of --results: DeepLabCut's CSV or H5, COCO's results, JSON lines as --jsonl, movement's "
        "netCDF, or SLEAP's .slp (by the end of the file's name)",
    )
    group.add_argument(
        "--likelihood",
        choices=("distance", "inverse-variance"),
        default="distance",
        help="what a point's likelihood is: the probability that its error is under "
        "--likelihood-distance, or 1 / variance in square pixels, as EKS takes it (default: distance)",
    )
    group.add_argument(
        "--likelihood-distance",
        type=float,
        default=5.0,
        metavar="PIXELS",
        help="the error that is meant, in the picture's pixels (default: %(default)g)",
    )
    group.add_argument("--scorer", help="what the files call the model (default: its --model)")
    group.add_argument(
        "--coco-images",
        type=Path,
        metavar="FILE",
        help="COCO's annotations whose image ids the results have, by file name (default: frame numbers, "
        "or those of the pictures from 1)",
    )


def result_files(arguments: argparse.Namespace) -> list[Path]:
    """Return the files that `--results` writes; none without it.

    Raises:
      ValueError: if the options do not fit each other.
    """
    path = arguments.results
    if path is None:
        for name in ("format", "scorer", "coco_images"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} needs --results FILE")
        return []
    if not 0 < arguments.likelihood_distance < float("inf"):
        raise ValueError(
            f"--likelihood-distance must be positive, got {arguments.likelihood_distance:g}"
        )
    kind = _format(arguments)
    if is_stream(path) and kind not in ("coco", "jsonl"):
        raise ValueError(f"--results {path} is a stream, which cannot hold the format {kind}")
    if arguments.coco_images and kind != "coco":
        raise ValueError(f"--coco-images belongs to --format coco, not {kind}")
    return [path, DlcCsv.beside_of(path)] if kind == "dlc" else [path]


def result_writer(arguments: argparse.Namespace, metadata: ModelMetadata) -> Writer:
    """Return the writer of `--results`."""
    trust = Trust(metadata, arguments.likelihood, arguments.likelihood_distance)
    path, scorer = arguments.results, arguments.scorer or arguments.model
    kind = _format(arguments)
    if kind == "jsonl":
        return JsonLines(path)
    if kind == "coco":
        ids = None if arguments.coco_images is None else _image_ids(arguments.coco_images)
        return CocoResults(path, trust, scorer, ids)
    files: dict[str, Callable[[Path, Trust, str], Writer]] = {
        "dlc": DlcCsv,
        "dlc-h5": DlcH5,
        "movement": Movement,
        "sleap": SleapFile,
    }
    return files[kind](path, trust, scorer)


def _format(arguments: argparse.Namespace) -> str:
    kind = arguments.format or _SUFFIXES.get(arguments.results.suffix.lower())
    if kind is None:
        raise ValueError(
            f"--results {arguments.results}: give its --format, or a name that ends in one of "
            f"{', '.join(_SUFFIXES)}"
        )
    return kind


def _image_ids(path: Path) -> dict[str, int]:
    """Return the ids of a COCO file's images by file name."""
    try:
        return {image["file_name"]: image["id"] for image in read_json(path)["images"]}
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{path} has no COCO images with a file_name and an id") from None
