"""What TensorFlow Serving would refuse in a SavedModel: `python -m tfhuber.graph_lint DIR`.

Prints the faults and exits with 1 if there are any.
"""

import argparse
from typing import TYPE_CHECKING

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    from tfhuber.saved_model import lint
else:
    lint = lazy_module("tfhuber.saved_model.lint")

__all__ = ["main"]


def main() -> int:
    """Print the faults of the SavedModel that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.graph_lint", description=__doc__)
    parser.add_argument(
        "directory", metavar="DIR", help="a SavedModel, the one with saved_model.pb"
    )
    arguments = parser.parse_args()
    import_tensorflow()
    found = lint.faults(arguments.directory)
    for fault in found:
        print(fault)
    if not found:
        print(f"{arguments.directory}: fit for TensorFlow Serving")
    return 1 if found else 0


if __name__ == "__main__":
    run_main(main)
