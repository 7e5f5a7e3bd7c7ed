"""Export a run for TensorFlow Serving: `python -m tfhuber.export --run DIR --output DIR`.

Writes the next numbered version, `OUTPUT/N/`, after a fresh process has found nothing in it that
TensorFlow Serving would refuse, loaded it as that does, replayed its warm-up requests and got the training
side's numbers. docs/serving.md lists its signatures.
"""

import argparse
from typing import TYPE_CHECKING

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    from tfhuber.saved_model import export
else:
    export = lazy_module("tfhuber.saved_model.export")

__all__ = ["main"]


def main() -> int:
    """Export the run that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.export", description=__doc__)
    parser.add_argument("--run", required=True, help="a directory that tfhuber.train wrote")
    parser.add_argument("--output", required=True, help="the model's directory, e.g. models/wflw")
    parser.add_argument("--checkpoint", choices=("latest", "best"), default="latest")
    parser.add_argument("--data", help="the converted data set (default: the run's)")
    arguments = parser.parse_args()
    import_tensorflow()
    target = export.export(arguments.run, arguments.output, arguments.checkpoint, arguments.data)
    print(f"{target}: exported and checked; serve it with")
    print(
        f"  python -m serving.local_server --model_name={target.parent.name} "
        f"--model_base_path={target.parent.absolute()} --rest_api_port=8501"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
