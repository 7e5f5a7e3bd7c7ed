"""The export of a run as a SavedModel, which is checked before it is published."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhuber.calibration.model import calibration_of
from tfhuber.console.cli import progress
from tfhuber.console.files import write_json
from tfhuber.drawing.ellipses import standard_deviation
from tfhuber.runs import load
from tfhuber.saved_model import (
    description,
    lint,
    served_examples,
    session,
    signatures,
    versions,
    warmup,
)
from tfhuber.saved_model.metadata import METADATA

__all__ = ["export"]

Functions = dict[str, Callable[..., dict[str, tf.Tensor]]]

# TF Serving looks at numbered directories only, so the dot keeps it from loading half a model.
_ASIDE = ".export-"
_ABANDONED_SECONDS = 24 * 3600


def export(
    run: str | Path,
    output: str | Path,
    checkpoint: str = "latest",
    data: str | Path | None = None,
    *,
    calibrated: bool = True,
) -> Path:
    """Write a run's model as the next version under `output`, and return that version's directory.

    Args:
      run: what `tfhuber.train` wrote.
      output: the model's directory, whose numbered subdirectories are its versions.
      checkpoint: "latest" or "best".
      data: the run's converted data set, if it is not where the run found it.
      calibrated: whether covariances are corrected by the run's `calibration.json`, if it has one.

    Raises:
      ValueError: if the run, its calibration or its data set cannot be loaded, or the written model is
        not fit for TensorFlow Serving, or its numbers are not the run's.
    """
    predictor = load.load_run(run, checkpoint)
    config = load.read_config(run)
    calibration = calibration_of(run, predictor) if calibrated else None
    directory = config.data.directory if data is None else data
    try:
        size = predictor.options.image_size
        examples = served_examples.read(directory, predictor.landmark_set, size)
    except ValueError as error:
        error.add_note("--data DIR says where the run's data set is now")
        raise
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(output)
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=output))
    try:
        # It takes as long to start as the first steps take.
        with session.fresh_process() as in_fresh_process:
            mirrored = config.augmentation.mirror > 0
            functions = signatures.predict_functions(predictor, mirrored, calibration)
            deviations = served_examples.deviations(functions["serving_default"], examples)
            described = description.describe(
                predictor, run, checkpoint, deviations, "tta" in functions, calibration
            )
            functions["metadata"] = signatures.metadata_function(description.text(described))
            requests = [request for request in warmup.make(examples) if request[0] in functions]
            with progress(total=3, desc="export", unit="step") as steps:
                _write(aside, functions, described, requests)
                steps.update()
                found = in_fresh_process(lint.examine, aside)
                steps.update()
                _compare(aside, functions, found)
                steps.update()
        os.chmod(aside, 0o755)
        return _publish(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(
    directory: Path,
    functions: Functions,
    described: dict[str, Any],
    requests: Iterable[warmup.Request],
) -> None:
    # It finds the variables that its endpoints use; to `track` the model would store them twice.
    archive = keras.export.ExportArchive()
    for name, function in functions.items():
        archive.add_endpoint(name, function)
    archive.write_out(str(directory), verbose=False)
    warmup.write(directory, requests)
    write_json(directory / METADATA, described, indent=None)


def _compare(directory: Path, functions: Functions, found: list[dict[str, np.ndarray]]) -> None:
    """Raise ValueError unless the written model's answers to its warm-up requests are `functions`'."""
    for (signature, inputs), answer in zip(warmup.requests(directory), found, strict=True):
        expected = {name: value.numpy() for name, value in functions[signature](**inputs).items()}
        for name, value in expected.items():
            if name == "landmarks":
                equal = _equal_points(value, answer[name], expected["covariance"])
            else:
                equal = _equal(value, answer[name])
            if not equal:
                raise ValueError(
                    f"the exported model's {name} in {signature} differs from the run's; "
                    "not published"
                )


def _equal_points(expected: np.ndarray, found: np.ndarray, covariance: np.ndarray) -> bool:
    """Whether points differ by rounding only, or by a thousandth of their standard deviation.

    Where two views contradict each other their optimum is flat, and rounding moves it far.
    """
    rounding = 1e-4 + 2 * np.spacing(np.abs(expected).max())
    allowed = rounding + 1e-3 * standard_deviation(covariance)
    return bool((np.abs(found - expected).max(-1) <= allowed).all())


def _equal(expected: np.ndarray, found: np.ndarray) -> bool:
    if expected.dtype != np.float32:
        return np.array_equal(expected, found)
    # The least elements of a matrix are the differences of far larger numbers.
    return np.allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def _publish(aside: Path, output: Path) -> Path:
    """Rename a finished version to the next number that no other export takes meanwhile."""
    number = max(versions.numbered(output), default=0) + 1
    while True:
        try:
            return aside.rename(output / str(number))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            number += 1


def _remove_abandoned(output: Path) -> None:
    """Remove what exports that were killed have left; one that still runs is never that old."""
    for path in output.glob(f"{_ASIDE}*"):
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
