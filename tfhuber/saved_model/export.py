"""Exports of a run as a SavedModel, checked before it is published."""

import errno
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from tfhuber.console.cli import progress
from tfhuber.console.files import write_json
from tfhuber.saved_model import lint, session, versions, warmup
from tfhuber.saved_model.metadata import METADATA

__all__ = ["examine", "export"]

# TF Serving looks at numbered directories only, so the dot keeps it from loading half a model.
_ASIDE = ".export-"
_ABANDONED_SECONDS = 24 * 3600

# Examples on which the reference of the predicted uncertainty stands, and how many at once.
_EXAMPLES, _BATCH = 256, 16


def export(
    run: str | Path,
    output: str | Path,
    checkpoint: str = "latest",
    data: str | Path | None = None,
) -> Path:
    """Writes a run's model as the next version under `output` and returns that version's directory.

    Args:
      run: what `tfhuber.train` wrote.
      output: the model's directory, whose numbered subdirectories are its versions.
      checkpoint: "latest" or "best".
      data: the run's converted data set, if it is not where the run found it.

    Raises:
      ValueError: if the run or its data set cannot be loaded, or the written model is not fit for
        TensorFlow Serving, or its numbers are not the run's.
    """
    from tfhuber.runs import load
    from tfhuber.saved_model import description, served_examples, signatures

    predictor = load.load_run(run, checkpoint)
    size = predictor.config.model.image_size
    directory = predictor.config.data.directory if data is None else data
    try:
        examples = served_examples.read(directory, predictor.landmark_set, size, _EXAMPLES)
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
            functions = signatures.predict_functions(predictor)
            deviations = _deviations(functions["serving_default"], examples)
            metadata = description.describe(predictor, run, checkpoint, deviations)
            text = description.text(metadata)
            functions["metadata"] = signatures.metadata_function(text)
            with progress(total=3, desc="export", unit="step") as steps:
                _write(aside, functions, metadata, warmup.make(examples))
                steps.update()
                found = in_fresh_process(examine, aside)
                steps.update()
                _compare(aside, functions, found)
                steps.update()
        os.chmod(aside, 0o755)
        return _publish(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def examine(directory: Path) -> list[dict[str, np.ndarray]]:
    """The answers of a SavedModel to its warm-up requests; ValueError if it could not be served."""
    lint.check(directory)
    return session.answers(directory, warmup.requests(directory))


def _deviations(function, examples: dict[str, np.ndarray]) -> np.ndarray:
    """`relative_deviations` [N, K] that the model predicts for examples."""
    from tfhuber.saved_model.description import relative_deviations

    files, boxes = examples["image_bytes"], examples["box"]
    found = []
    for start in progress(range(0, len(boxes), _BATCH), desc="examples", unit="batch"):
        rows = slice(start, start + _BATCH)
        answer = {name: value.numpy() for name, value in function(files[rows], boxes[rows]).items()}
        if not answer["valid"].all():
            raise ValueError("the model's numbers for an example of its data set are not finite")
        found.append(relative_deviations(answer["covariance"], boxes[rows]))
    return np.concatenate(found)


def _write(directory: Path, functions: dict, metadata: dict, requests: list) -> None:
    import keras

    # It finds the variables that its endpoints use; to `track` the model would store them twice.
    archive = keras.export.ExportArchive()
    for name, function in functions.items():
        archive.add_endpoint(name, function)
    archive.write_out(str(directory), verbose=False)
    warmup.write(directory, requests)
    write_json(directory / METADATA, metadata, indent=None)


def _compare(directory: Path, functions: dict, found: list[dict[str, np.ndarray]]) -> None:
    """Raises ValueError where the written model's answers to its warm-up requests are not `functions`'."""
    for (signature, inputs), answer in zip(warmup.requests(directory), found, strict=True):
        for name, value in functions[signature](**inputs).items():
            if not _equal(name, value.numpy(), answer[name]):
                raise ValueError(
                    f"the exported model's {name} in {signature} differs from the run's; "
                    "not published"
                )


def _equal(name: str, expected: np.ndarray, found: np.ndarray) -> bool:
    if expected.dtype != np.float32:
        return np.array_equal(expected, found)
    largest = np.abs(expected).max()
    if name == "landmarks":
        return np.allclose(found, expected, rtol=0, atol=1e-4 + 2 * np.spacing(largest))
    # The least elements of a matrix are the differences of far larger numbers.
    return np.allclose(found, expected, rtol=1e-4, atol=1e-5 * largest)


def _publish(aside: Path, output: Path) -> Path:
    """Renames a finished version to the next number, which another export may take at the same time."""
    number = max(versions.numbered(output), default=0) + 1
    while True:
        try:
            return aside.rename(output / str(number))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            number += 1


def _remove_abandoned(output: Path) -> None:
    """Removes what exports that were killed have left; one that still runs is never that old."""
    for path in output.glob(f"{_ASIDE}*"):
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
