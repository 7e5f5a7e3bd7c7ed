"""Predicts on one picture: `python -m tfhuber.predict --model DIR IMAGE --output overlay.png`."""

import argparse

import numpy as np

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.saved_model import metadata, pictures, session

__all__ = ["main"]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.predict", description=__doc__)
    parser.add_argument(
        "--model", required=True, help="an exported model, as tfhuber.export writes"
    )
    parser.add_argument(
        "--tta", action="store_true", help="fuse with the prediction for the mirror image"
    )
    arguments, image_bytes, image, box = pictures.read_arguments(parser)
    model = session.find_version(arguments.model)
    facts = metadata.read_facts(model)
    import_tensorflow()
    signature = "tta" if arguments.tta else "serving_default"
    found = session.run(model, [image_bytes], [np.zeros(4) if box is None else box], signature)
    if not found["valid"][0]:
        fault = "it is no whole JPEG or PNG"
        if box is not None:
            fault += ", or --box is too small or too far away"
        raise ValueError(f"the model cannot use {arguments.image}: {fault}")
    landmarks, covariance = found["landmarks"][0], found["covariance"][0]
    pictures.write_result(arguments, image, landmarks, covariance, box, facts)
    return 0


if __name__ == "__main__":
    run_main(main)
