"""Runs an exported model the way TensorFlow Serving's C++ loader does: through a v1 Session."""

import concurrent.futures
import multiprocessing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tfhuber.cli import import_tensorflow
from tfhuber.files import read_json, reason, write_json

__all__ = ["Facts", "find_version", "read_facts", "run", "run_in_fresh_process", "write_facts"]

_FACTS = "assets.extra/landmarks.json"


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


def run(directory: str | Path, image_bytes: list[bytes], boxes) -> dict[str, np.ndarray]:
    """The outputs of `serving_default`: `landmarks`, `covariance` (original pixels) and `valid`.

    Args:
      directory: the SavedModel itself.
      image_bytes: N whole JPEG or PNG files.
      boxes: [N, 4] x0, y0, x1, y1 in original pixels; all zeros: the whole image.

    Raises:
      ValueError: if the directory holds no such model, or it cannot take these inputs.
    """
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        try:
            meta = tf.compat.v1.saved_model.load(session, ["serve"], str(directory))
            signature = meta.signature_def["serving_default"]
            feeds = {
                signature.inputs["image_bytes"].name: np.array(image_bytes, object),
                signature.inputs["box"].name: np.asarray(boxes, np.float32),
            }
            names = ("landmarks", "covariance", "valid")
            fetches = {name: signature.outputs[name].name for name in names}
            return session.run(fetches, feeds)
        except (KeyError, OSError, tf.errors.OpError, RuntimeError) as error:
            raise ValueError(f"{directory}: {reason(error)}") from error


def run_in_fresh_process(directory: str | Path, image_bytes: list[bytes], boxes) -> dict:
    """`run` in a new Python process, which shares nothing with the one that made the model."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, import_tensorflow) as pool:
        return pool.submit(run, directory, image_bytes, boxes).result()


@dataclass(frozen=True)
class Facts:
    """What an exported model's users need beside its numbers.

    Attributes:
      names: of its K landmarks.
      edges: pairs of landmarks to join when drawn.
      delta: the knee of its Huber distributions.
    """

    names: list[str]
    edges: list[tuple[int, int]]
    delta: float


def write_facts(directory: Path, facts: Facts) -> None:
    """Puts the facts beside a model, where TF Serving leaves files alone."""
    (directory / _FACTS).parent.mkdir(exist_ok=True)
    write_json(directory / _FACTS, asdict(facts), indent=None)


def read_facts(directory: Path) -> Facts:
    """The facts of an exported model; ValueError if they are not there."""
    path = directory / _FACTS
    try:
        values = read_json(path)
        edges = [(int(i), int(j)) for i, j in values["edges"]]
        names = [str(name) for name in values["names"]]
        if not all(0 <= i < len(names) for edge in edges for i in edge):
            raise ValueError("its edges join landmarks that have no name")
        return Facts(names, edges, float(values["delta"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); export the model again") from error
