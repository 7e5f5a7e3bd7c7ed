"""Predict on one picture: `python -m tfhuber.predict --model DIR IMAGE --output overlay.png`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module
from tfhuber.saved_model import image_command, versions
from tfhuber.saved_model.metadata import ModelMetadata

if TYPE_CHECKING:
    from tfhuber.saved_model import litert, session
else:
    litert = lazy_module("tfhuber.saved_model.litert")
    session = lazy_module("tfhuber.saved_model.session")

__all__ = ["main"]


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.predict", description=__doc__)
    parser.add_argument(
        "--model", required=True, help="an exported model or .tflite, as tfhuber.export writes"
    )
    parser.add_argument(
        "--tta", action="store_true", help="fuse with the prediction for the mirror image"
    )
    arguments, image_bytes, image, box = image_command.read_arguments(parser)
    look = _litert if Path(arguments.model).suffix == ".tflite" else _saved_model
    asked = [image_bytes], [np.zeros(4) if box is None else box]
    found, metadata = look(Path(arguments.model), arguments.tta, *asked)
    if not found["valid"][0]:
        fault = "it is no whole JPEG or PNG"
        if box is not None:
            fault += ", or --box is too small or too far away"
        raise ValueError(f"the model cannot use {arguments.image}: {fault}")
    row = {name: values[0] for name, values in found.items()}
    image_command.write_result(arguments, image, row, box, metadata)
    return 0


def _saved_model(
    path: Path, tta: bool, images: list[bytes], boxes: list[np.ndarray]
) -> tuple[dict[str, np.ndarray], ModelMetadata]:
    """Return what an exported model, or its newest version, says of images, and its metadata."""
    model = versions.find_version(path)
    metadata = ModelMetadata.read(model)
    signature = metadata.image_signature(tta)
    import_tensorflow()
    return session.run(model, images, boxes, signature), metadata.of(signature)


def _litert(
    path: Path, tta: bool, images: list[bytes], boxes: list[np.ndarray]
) -> tuple[dict[str, np.ndarray], ModelMetadata]:
    """Return what a LiteRT file says of images, and its metadata."""
    if tta:
        raise ValueError(
            "--tta needs an export for TensorFlow Serving; a .tflite has no signature for it"
        )
    import_tensorflow()
    model = litert.LiteRTModel(path)
    return model.predict(images, boxes), model.metadata


if __name__ == "__main__":
    run_main(main)
