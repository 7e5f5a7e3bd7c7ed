"""Exports a run for TensorFlow Serving: `python -m tfhuber.export --run DIR --output DIR`.

Writes the next numbered version, `OUTPUT/N/`, after a fresh process has loaded it as TensorFlow Serving
does and got the training side's numbers. It has two signatures with the same inputs and outputs:
`serving_default` looks at each image, `tta` at the image and its mirror image, fused by maximum
likelihood.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from tfhuber.cli import import_tensorflow, run_main
from tfhuber.savedmodel import Facts, run_in_fresh_process, write_facts

__all__ = ["MAX_ROWS", "SIGNATURES", "export", "main", "serving_function"]

# What each signature makes of an image: the `tta` of `Predictor.predict`.
SIGNATURES = {"serving_default": "none", "tta": "ml"}

# What the network needs for a row, tens of megabytes, is the server's to bound, not the client's.
MAX_ROWS = 256


def serving_function(predictor, tta: str = "none"):
    """The function behind a signature: image files and boxes to positions and covariances.

    Args:
      predictor: an `inference.Predictor`.
      tta: as in its `predict`.

    Returns:
      A `tf.function` from `image_bytes` [N] string (whole JPEG or PNG files) and `box` [N, 4] float32
      (x0, y0, x1, y1 in original pixels; all zeros: the whole image) to a dict of `landmarks`
      [N, K, 2] and `covariance` [N, K, 2, 2] in original image pixels, and `valid` [N]: false where the
      file is no whole JPEG or PNG, or the box is empty, not finite or outside the image; the
      row's numbers are 0 there. More than `MAX_ROWS` rows are an `InvalidArgumentError`.
    """
    import tensorflow as tf

    from tfhuber import geometry, images

    size = predictor.config.model.image_size
    rule = predictor.landmark_set.square

    def crop(arguments):
        image, decoded = images.decode(arguments[0])
        region, h, inside = images.network_crop(image, arguments[1], size, rule)
        return region, h, decoded & inside

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="image_bytes"),
            tf.TensorSpec([None, 4], tf.float32, name="box"),
        ]
    )
    def predict(image_bytes, box):
        few = tf.debugging.assert_less_equal(
            tf.shape(image_bytes)[0], MAX_ROWS, f"at most {MAX_ROWS} images in a request"
        )
        with tf.control_dependencies([few]):
            image_bytes = tf.identity(image_bytes)
        crops, to_network, valid = tf.map_fn(
            crop,
            (image_bytes, box),
            fn_output_signature=(
                tf.TensorSpec([size, size, 3], tf.float32),
                tf.TensorSpec([3, 3], tf.float32),
                tf.TensorSpec([], tf.bool),
            ),
        )
        loc, factor = predictor.predict(crops, tta)
        covariance = predictor.distribution(loc, factor).covariance()
        to_original = geometry.invert(to_network)
        landmarks = geometry.apply_map(to_original, loc)
        covariance = geometry.push_covariance(geometry.jacobian(to_original, loc), covariance)
        finite = tf.reduce_all(tf.math.is_finite(landmarks), [1, 2])
        finite &= tf.reduce_all(tf.math.is_finite(covariance), [1, 2, 3])
        valid &= finite
        return {
            "landmarks": tf.where(valid[:, None, None], landmarks, 0.0),
            "covariance": tf.where(valid[:, None, None, None], covariance, 0.0),
            "valid": valid,
        }

    return predict


def export(run: str | Path, output: str | Path, checkpoint: str = "latest") -> Path:
    """Writes a run's model as the next version under `output` and returns that version's directory.

    Args:
      run: what `tfhuber.train` wrote.
      output: the model's directory, whose numbered subdirectories are its versions.
      checkpoint: "latest" or "best".

    Raises:
      ValueError: if the run cannot be loaded, or the written model's numbers are not the run's.
    """
    import keras

    from tfhuber import inference

    predictor = inference.load_run(run, checkpoint)
    functions = {name: serving_function(predictor, tta) for name, tta in SIGNATURES.items()}
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    # TF Serving looks at numbered directories only, so the dot keeps it from loading half a model.
    aside = Path(tempfile.mkdtemp(prefix=".export-", dir=output))
    try:
        # It finds the variables that its endpoints use; to `track` the model would store them twice.
        archive = keras.export.ExportArchive()
        for name, function in functions.items():
            archive.add_endpoint(name, function)
        archive.write_out(str(aside), verbose=False)
        landmark_set, delta = predictor.landmark_set, predictor.config.model.delta
        facts = Facts(landmark_set.names, landmark_set.edges, delta, predictor.config.model.family)
        write_facts(aside, facts)
        _prove(aside, functions)
        os.chmod(aside, 0o755)
        target = output / str(_next_version(output))
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _prove(directory: Path, functions: dict) -> None:
    """Compares the written model, loaded in a fresh process through a v1 Session, with `functions`."""
    import tensorflow as tf

    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    files = [tf.io.encode_jpeg(noise).numpy(), tf.io.encode_png(noise).numpy(), b"no image"]
    boxes = np.array([[10, 5, 70, 55], [0, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    found = run_in_fresh_process(directory, files, boxes, list(functions))
    for signature, function in functions.items():
        expected = function(tf.constant(files), tf.constant(boxes))
        for name, value in expected.items():
            # The least elements of a covariance are the differences of far larger numbers.
            rounding = 1e-4 + 1e-5 * np.abs(value).max()
            if not np.allclose(value, found[signature][name], rtol=1e-4, atol=rounding):
                raise ValueError(
                    f"the exported model's {name} in {signature} differs from the run's; "
                    "not published"
                )


def _next_version(output: Path) -> int:
    return max((int(p.name) for p in output.iterdir() if p.name.isdigit()), default=0) + 1


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.export", description=__doc__)
    parser.add_argument("--run", required=True, help="a directory that tfhuber.train wrote")
    parser.add_argument("--output", required=True, help="the model's directory, e.g. models/wflw")
    parser.add_argument("--checkpoint", choices=("latest", "best"), default="latest")
    arguments = parser.parse_args()
    import_tensorflow()
    target = export(arguments.run, arguments.output, arguments.checkpoint)
    print(f"{target}: exported and checked; serve it with")
    print(
        f"  python -m serving.local_server --model_name={target.parent.name} "
        f"--model_base_path={target.parent.absolute()} --rest_api_port=8501"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
