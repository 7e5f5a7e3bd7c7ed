"""Predict on one picture: `python -m tfhuber.predict --model DIR IMAGE --output overlay.png`."""

import argparse
from typing import TYPE_CHECKING

import numpy as np

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module
from tfhuber.saved_model import image_command, versions
from tfhuber.saved_model.metadata import ModelMetadata

if TYPE_CHECKING:
    from tfhuber.saved_model import session
else:
    session = lazy_module("tfhuber.saved_model.session")

__all__ = ["main"]


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.predict", description=__doc__)
    parser.add_argument(
        "--model", required=True, help="an exported model, as tfhuber.export writes"
    )
    parser.add_argument(
        "--tta", action="store_true", help="fuse with the prediction for the mirror image"
    )
    arguments, image_bytes, image, box = image_command.read_arguments(parser)
    model = versions.find_version(arguments.model)
    metadata = ModelMetadata.read(model)
    signature = metadata.image_signature(arguments.tta)
    import_tensorflow()
    found = session.run(model, [image_bytes], [np.zeros(4) if box is None else box], signature)
    if not found["valid"][0]:
        fault = "it is no whole JPEG or PNG"
        if box is not None:
            fault += ", or --box is too small or too far away"
        raise ValueError(f"the model cannot use {arguments.image}: {fault}")
    landmarks, covariance = found["landmarks"][0], found["covariance"][0]
    image_command.write_result(arguments, image, landmarks, covariance, box, metadata)
    return 0


if __name__ == "__main__":
    run_main(main)
