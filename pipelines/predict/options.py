"""The arguments of the prediction job: their parser, and their checks."""

import argparse
import os

from pipelines.job_arguments import check_range, job_parser
from pipelines.plans import SPLITS
from pipelines.predict.answers import FORMATS
from pipelines.storage import is_local

__all__ = ["parse_arguments"]


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the command's arguments, checked, and those that are left for Beam.

    Raises:
      ValueError: if a value is out of range, or places get into each other's way.
    """
    args, beam_options = _parser().parse_known_args(argv)
    # A shard's numbers are held until it is written, and the model takes no larger batch.
    for name, most in (("shard_examples", 10_000), ("batch", 256), ("processes", 1024)):
        check_range(args, name, 1, most)
    for name in ("model", "source", "output", "images", "boxes"):
        if getattr(args, name) == "":
            raise ValueError(f"--{name} must not be empty")
        if getattr(args, name) and is_local(getattr(args, name)):
            setattr(args, name, os.path.expanduser(getattr(args, name)))
    if is_local(args.output):
        args.output = os.path.realpath(args.output)
    for name in ("source", "model", "boxes"):
        path = getattr(args, name)
        if path and f"{_real(path)}/".startswith(f"{args.output.rstrip('/')}/"):
            raise ValueError(f"--output {args.output} must not be the --{name}, nor hold it")
    return args, beam_options


def _real(path: str) -> str:
    return os.path.realpath(path) if is_local(path) else path


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(
        "python -m pipelines.predict",
        "Predicts landmarks on any number of pictures, as a Beam job.",
        item="pictures",
        result="predictions",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="an exported model, as tfhuber.export writes")
    add(
        "--source",
        required=True,
        metavar="PATH",
        help="a folder, with all folders in it; a list of names, one a line, or with boxes in a .csv or "
        ".jsonl; a converted data set or one of its TFRecord files; or one picture",
    )
    add("--format", choices=sorted(FORMATS), default="jsonl", help="of the answers (jsonl)")
    add(
        "--signature",
        choices=("serving_default", "tta"),
        default="serving_default",
        help="tta: fuse with the prediction for the mirror image (serving_default)",
    )
    add("--batch", type=int, default=32, metavar="N", help="pictures the model sees together (32)")
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--boxes",
        metavar="FILE",
        help="a box for each picture: lines of NAME,X0,Y0,X1,Y1, or, in a .jsonl, of "
        '{"source": NAME, "box": [...]}',
    )
    pictures.add_argument(
        "--box", metavar="X0,Y0,X1,Y1", help="the box of all others (default: the whole picture)"
    )
    pictures.add_argument(
        "--images", metavar="DIR", help="where a list's names begin (the list's own folder)"
    )
    pictures.add_argument("--split", choices=SPLITS, help="of a data set (all)")
    return parser
