"""Runs an exported model the way TensorFlow Serving's C++ loader does: through a v1 Session."""

import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from tfhuber.console.cli import import_tensorflow
from tfhuber.console.files import reason

__all__ = ["answers", "find_version", "fresh_process", "run"]


def find_version(directory: str | Path) -> Path:
    """The SavedModel in `directory`: itself, or its subdirectory with the highest number.

    Raises:
      ValueError: if there is none; the message says how to make one.
    """
    directory = Path(directory)
    if (directory / "saved_model.pb").is_file():
        return directory
    versions = []
    if directory.is_dir():
        versions = [p for p in directory.iterdir() if p.name.isdigit()]
        versions = [p for p in versions if (p / "saved_model.pb").is_file()]
    if not versions:
        raise ValueError(
            f"{directory} holds no exported model; make one with "
            f"`python -m tfhuber.export --run DIR --output {directory}`"
        )
    return max(versions, key=lambda p: int(p.name))


def run(
    directory: str | Path, image_bytes: list[bytes], boxes, signature: str = "serving_default"
) -> dict[str, np.ndarray]:
    """The outputs of a signature for image files, in original pixels: `landmarks`, `covariance`, ...

    Args:
      directory: the SavedModel itself.
      image_bytes: N whole JPEG or PNG files.
      boxes: [N, 4] x0, y0, x1, y1 in original pixels; all zeros: the whole image.
      signature: "serving_default", or "tta" for each image fused with its mirror image.

    Raises:
      ValueError: as `answers`.
    """
    inputs = {"image_bytes": np.array(image_bytes, object), "box": np.asarray(boxes, np.float32)}
    return answers(directory, [(signature, inputs)])[0]


def answers(
    directory: str | Path, requests: Iterable[tuple[str, Mapping[str, np.ndarray]]]
) -> list[dict[str, np.ndarray]]:
    """All outputs by name for each request to a SavedModel: a signature and its inputs by name.

    Raises:
      ValueError: if the directory holds no such model, it has no such signature, or it cannot take
        these inputs.
    """
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        try:
            meta = tf.compat.v1.saved_model.load(session, ["serve"], str(directory))
            return [_answer(session, meta.signature_def, *request) for request in requests]
        except (KeyError, OSError, tf.errors.OpError, RuntimeError, ValueError) as error:
            raise ValueError(f"{directory}: {reason(error)}") from error


def _answer(session, signatures, signature: str, inputs: Mapping) -> dict[str, np.ndarray]:
    if signature not in signatures:
        raise ValueError(f"it has no signature {signature!r}; export the model again")
    definition = signatures[signature]
    if set(inputs) != set(definition.inputs):
        raise ValueError(f"{signature} takes {sorted(definition.inputs)}, got {sorted(inputs)}")
    feeds = {definition.inputs[name].name: value for name, value in inputs.items()}
    fetches = {name: output.name for name, output in definition.outputs.items()}
    return session.run(fetches, feeds)


@contextlib.contextmanager
def fresh_process() -> Iterator[Callable]:
    """A new Python process with nothing but TensorFlow in it, which starts at once in the background.

    Yields:
      A function that calls its first argument with the others there, and returns or raises what that
      does; ValueError if the process dies of it.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, import_tensorflow) as pool:
        pool.submit(int)

        def call(function: Callable, *arguments):
            try:
                return pool.submit(function, *arguments).result()
            except concurrent.futures.BrokenExecutor as error:
                raise ValueError("the process that loaded the model has died") from error

        yield call
