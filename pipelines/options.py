"""The arguments of `make_tfrecords`: their parser, their checks, and the reader that they choose."""

import argparse
import hashlib
import os

from pipelines.job_arguments import check_range, job_parser
from pipelines.readers.base import Reader
from pipelines.readers.coco import Coco
from pipelines.readers.cvat import read_cvat
from pipelines.readers.dlc import Dlc
from pipelines.readers.label_studio import LabelStudio
from pipelines.readers.lightning_pose import LightningPose
from pipelines.readers.lp300w import Lp300w
from pipelines.readers.mpii import Mpii
from pipelines.readers.poses import PoseReader
from pipelines.readers.sleap import Sleap
from pipelines.readers.wflw import Wflw
from pipelines.storage import Source, digest, is_local

__all__ = ["COCO_OPTIONS", "DATASETS", "make_reader", "parameters_of", "parse_arguments"]

POSE_READERS: dict[str, type[PoseReader]] = {
    "dlc": Dlc,
    "labelstudio": LabelStudio,
    "lightning_pose": LightningPose,
    "sleap": Sleap,
}
DATASETS = ("300w_lp", "coco", "cvat", *POSE_READERS, "mpii", "wflw")

# Which data sets an option is for.
_COCO = ("coco", "cvat")
_POSES = tuple(POSE_READERS)
_OPTIONS: dict[str, tuple[str, ...]] = {
    "landmarks": (*_COCO, *_POSES),
    "annotations": (*_COCO, *(name for name in _POSES if name != "dlc")),
    "images": ("coco",),
    "category": _COCO,
    "apply_exif": _COCO,
    "box": _POSES,
    "split_by": _POSES,
}
COCO_OPTIONS = tuple(name for name, datasets in _OPTIONS.items() if "coco" in datasets)


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the command's arguments, checked, and those that are left for Beam.

    Raises:
      ValueError: if a value is out of range, or does not fit another one.
    """
    args, beam_options = _parser().parse_known_args(argv)
    for name, least, most in (
        ("size", 16, 4096),
        ("margin", 1, 100),
        ("quality", 1, 100),
        ("shard_examples", 1, 1_000_000),
        ("processes", 1, 1024),
        ("validation_fraction", 0, 1),
        ("calibration_fraction", 0, 0.9),
    ):
        check_range(args, name, least, most)
    for name in ("source", "output", "validation_images", "landmarks", "category"):
        if getattr(args, name) in ("", [""]):
            raise ValueError(f"--{name.replace('_', '-')} must not be empty")
    for name, datasets in _OPTIONS.items():
        if getattr(args, name) and args.dataset not in datasets:
            option = name.replace("_", "-")
            belongs = " or ".join(filter(None, [", ".join(datasets[:-1]), datasets[-1]]))
            raise ValueError(f"--{option} belongs to --dataset {belongs}, not {args.dataset}")
    _check_split(args)
    for name in ("source", "output"):
        path = getattr(args, name)
        if is_local(path):
            setattr(args, name, os.path.realpath(os.path.expanduser(path)))
    if f"{args.source}/".startswith(f"{args.output.rstrip('/')}/"):
        raise ValueError(f"--output {args.output} must not be the source, nor hold it")
    return args, beam_options


def make_reader(args: argparse.Namespace) -> Reader:
    """Return the reader of `args.dataset` with its options."""
    options = {
        name: getattr(args, name) for name, datasets in _OPTIONS.items() if args.dataset in datasets
    }
    if args.dataset in POSE_READERS:
        return POSE_READERS[args.dataset].from_options(Source(args.source), **options)
    if args.dataset == "cvat":
        return read_cvat(Source(args.source), **options)
    if args.dataset == "coco":
        return Coco.from_options(Source(args.source), **options)
    if args.dataset == "mpii":
        return Mpii(deploy=args.split == "deploy")
    return Wflw() if args.dataset == "wflw" else Lp300w()


def parameters_of(args: argparse.Namespace, reader: Reader) -> dict:
    """Return the options as the manifest keeps them: of a path only what its file held."""
    fraction = args.validation_fraction
    held_out = {"validation_fraction": reader.validation_fraction if fraction is None else fraction}
    if args.validation_images:
        held_out = {"validation_images_sha256": digest(args.validation_images, hashlib.sha256())}
    options = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name)}
    shards = {"shard_examples": args.shard_examples}
    if args.calibration_fraction:
        held_out["calibration_fraction"] = args.calibration_fraction
    return {"dataset": args.dataset, "split": args.split, **held_out, **options, **shards}


def _check_split(args: argparse.Namespace) -> None:
    if args.split in ("tompson", "deploy") and args.dataset != "mpii":
        raise ValueError(f"--split {args.split} belongs to --dataset mpii, not {args.dataset}")
    if args.split == "tompson" and not args.validation_images:
        raise ValueError(
            "--split tompson needs --validation-images FILE with the names of Tompson's validation "
            "images, one a line, such as valid_images.txt of "
            "https://github.com/princeton-vl/pose-hg-train, data/mpii/annot"
        )
    if args.split in ("official", "deploy"):
        if args.validation_images or args.validation_fraction:
            raise ValueError(f"--split {args.split} holds nothing out of the training images")
        args.validation_fraction = 0.0


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(
        "python -m pipelines.make_tfrecords",
        "Converts a data set in its official layout, COCO's or a pose project's, to TFRecords.",
        item="examples",
        result="a data set",
    )
    add = parser.add_argument
    add("--dataset", required=True, choices=DATASETS)
    add("--source", required=True, metavar="DIR", help="the data set, unpacked")
    add("--size", type=int, default=256, help="at most so many pixels for the box's square (256)")
    add("--margin", type=float, help="stored side over the square's (enough to augment)")
    add("--quality", type=int, default=95, help="of the stored JPEGs (95)")
    splits = parser.add_argument_group("splits")
    splits.add_argument(
        "--split",
        choices=("held-out", "official", "tompson", "deploy"),
        default="held-out",
        help="held-out: a part of the training photographs becomes split `valid`; official: as the "
        "data set has it; tompson (mpii): the images of --validation-images are held out; deploy "
        "(mpii): all labelled people train, and the official test people, without labels, are `test`",
    )
    held_out = splits.add_mutually_exclusive_group()
    held_out.add_argument(
        "--validation-fraction", type=float, metavar="F", help="part held out (wflw 0, others 0.1)"
    )
    splits.add_argument(
        "--split-by",
        choices=("video", "frame"),
        help="what is held out of a pose project: whole videos, or frames (video, where several are known)",
    )
    held_out.add_argument("--validation-images", metavar="FILE", help="or their names, one a line")
    splits.add_argument(
        "--calibration-fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="part of the training photographs that becomes split `calibration`, on which no run trains, "
        "for tfhuber.calibrate (0)",
    )
    _add_own_data(parser)
    return parser


def _add_own_data(parser: argparse.ArgumentParser) -> None:
    coco = parser.add_argument_group(
        "your own data (docs/bring_your_own_data.md, docs/animals.md)",
    )
    coco.add_argument(
        "--landmarks",
        metavar="NAME|FILE",
        help="landmark set (coco: landmarks.json; pose projects and cvat: their skeleton)",
    )
    coco.add_argument(
        "--box",
        choices=("points", "frame"),
        help="of a pose project: the labelled points' with a margin, unless the file has one (points), or "
        "the whole frame",
    )
    coco.add_argument(
        "--annotations",
        action="append",
        metavar="SPLIT=FILE",
        help="labels below the source (annotations/train.json, valid.json, test.json)",
    )
    coco.add_argument(
        "--images", action="append", metavar="[SPLIT=]FOLDER", help="where the images are (images)"
    )
    coco.add_argument(
        "--category",
        action="append",
        metavar="NAME",
        help="once for each one that is wanted, if several have keypoints, and not the same",
    )
    coco.add_argument(
        "--apply-exif",
        action="store_true",
        help="turn photographs as EXIF's orientation says: they were labelled upright",
    )
