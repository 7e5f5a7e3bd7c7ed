"""Export a run for TensorFlow Serving or phones: `python -m tfhuber.export --run DIR --output DIR`.

Writes the next numbered version, `OUTPUT/N/`, after a fresh process has found nothing in it that
TensorFlow Serving would refuse, loaded it as that does, replayed its warm-up requests and got the training
side's numbers. docs/serving.md lists its signatures.

With `--format litert` it writes the file `OUTPUT`, `*.tflite`, for LiteRT (once TensorFlow Lite), after its
numbers on up to 256 examples were those of the run. docs/devices.md says how a phone uses it.
"""

import argparse
from typing import TYPE_CHECKING

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    from tfhuber.saved_model import export, litert_export
else:
    export = lazy_module("tfhuber.saved_model.export")
    litert_export = lazy_module("tfhuber.saved_model.litert_export")

__all__ = ["main"]


def main() -> int:
    """Export the run that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.export", description=__doc__)
    parser.add_argument("--run", required=True, help="a directory that tfhuber.train wrote")
    parser.add_argument("--output", required=True, help="the model's directory, e.g. models/wflw")
    parser.add_argument("--checkpoint", choices=("latest", "best"), default="latest")
    parser.add_argument("--data", help="the converted data set (default: the run's)")
    parser.add_argument(
        "--uncalibrated",
        action="store_true",
        help="leave out the run's calibration.json, by which covariances are corrected",
    )
    parser.add_argument(
        "--format",
        choices=("savedmodel", "litert"),
        default="savedmodel",
        help="savedmodel: for TensorFlow Serving (default); litert: a .tflite file for phones",
    )
    parser.add_argument(
        "--quantize",
        choices=("none", "float16", "int8"),
        default="none",
        help="what a .tflite file stores: float32 (default), or half or a quarter of its bytes",
    )
    parser.add_argument(
        "--representative",
        type=int,
        default=200,
        metavar="N",
        help="training images that give the ranges of int8 (default: 200, at most 1000)",
    )
    parser.add_argument("--seed", type=int, default=0, help="which images those are (default: 0)")
    arguments = parser.parse_args()
    if arguments.quantize != "none" and arguments.format != "litert":
        parser.error("--quantize needs --format litert")
    import_tensorflow()
    return _for_phones(arguments) if arguments.format == "litert" else _for_serving(arguments)


def _for_serving(arguments: argparse.Namespace) -> int:
    target = export.export(
        arguments.run,
        arguments.output,
        arguments.checkpoint,
        arguments.data,
        calibrated=not arguments.uncalibrated,
    )
    print(f"{target}: exported and checked; serve it with")
    print(
        f"  python -m serving.local_server --model_name={target.parent.name} "
        f"--model_base_path={target.parent.absolute()} --rest_api_port=8501"
    )
    return 0


def _for_phones(arguments: argparse.Namespace) -> int:
    exported = litert_export.export(
        arguments.run,
        arguments.output,
        arguments.checkpoint,
        arguments.data,
        quantize=arguments.quantize,
        representative=arguments.representative,
        seed=arguments.seed,
        calibrated=not arguments.uncalibrated,
    )
    for scheme, found in exported.missed.items():
        print(f"not taken: {scheme}, which is {found}")
    megabytes = exported.path.stat().st_size / 1e6
    print(f"{exported.path}: exported and checked, {megabytes:.1f} MB, {exported.scheme};")
    print(f"  {exported.difference}")
    return 0


if __name__ == "__main__":
    run_main(main)
