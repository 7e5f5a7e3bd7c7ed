"""Runs an exported model the way TensorFlow Serving's C++ loader does: through a v1 Session."""

import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfhuber.console.cli import import_tensorflow
from tfhuber.console.files import read_json, reason
from tfhuber.drawing.overlay import FAMILIES
from tfhuber.geometry.box_square import SQUARE_RULES

__all__ = [
    "METADATA",
    "Facts",
    "answers",
    "find_version",
    "fresh_process",
    "known_square",
    "read_facts",
    "run",
]

# What a model says of itself lies where TensorFlow Serving leaves files alone.
METADATA = "assets.extra/model.json"


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


@dataclass(frozen=True)
class Facts:
    """What an exported model's users need beside its numbers.

    Attributes:
      names: of its K landmarks.
      edges: pairs of landmarks to join when drawn.
      delta: the knee of its distributions if they are Huber's.
      family: of its distributions, one of `overlay.FAMILIES`.
      square: how it looks at a box, one of `boxes.SQUARE_RULES`; None if it does not say.
    """

    names: list[str]
    edges: list[tuple[int, int]]
    delta: float
    family: str = "huber"
    square: str | None = None


def known_square(metadata: dict) -> str | None:
    """How a model with this metadata looks at a box; None if it says nothing that is known here."""
    square = metadata.get("square")
    return square if square in SQUARE_RULES else None


def read_facts(directory: Path) -> Facts:
    """The facts of an exported model; ValueError if they are not there."""
    path = directory / METADATA
    try:
        values = read_json(path)
        landmark_set = values["landmark_set"]
        edges = [(int(i), int(j)) for i, j in landmark_set["edges"]]
        names = [str(name) for name in landmark_set["names"]]
        if not all(0 <= i < len(names) for edge in edges for i in edge):
            raise ValueError("its edges join landmarks that have no name")
        if values["family"] not in FAMILIES:
            raise ValueError(f"its distributions are of an unknown family, {values['family']!r}")
        return Facts(names, edges, float(values["delta"]), values["family"], known_square(values))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); export the model again") from error
