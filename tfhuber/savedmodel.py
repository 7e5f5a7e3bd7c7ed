"""Runs an exported model the way TensorFlow Serving's C++ loader does: through a v1 Session."""

import concurrent.futures
import multiprocessing
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tfhuber.cli import import_tensorflow
from tfhuber.files import read_json, reason, write_json
from tfhuber.overlay import FAMILIES

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


def run(
    directory: str | Path, image_bytes: list[bytes], boxes, signature: str = "serving_default"
) -> dict[str, np.ndarray]:
    """The outputs of a signature: `landmarks`, `covariance` (original pixels) and `valid`.

    Args:
      directory: the SavedModel itself.
      image_bytes: N whole JPEG or PNG files.
      boxes: [N, 4] x0, y0, x1, y1 in original pixels; all zeros: the whole image.
      signature: "serving_default", or "tta" for each image fused with its mirror image.

    Raises:
      ValueError: if the directory holds no such model, it has no such signature, or it cannot take
        these inputs.
    """
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        try:
            meta = tf.compat.v1.saved_model.load(session, ["serve"], str(directory))
            if signature not in meta.signature_def:
                raise ValueError(
                    f"{directory} has no signature {signature!r}; export the model again"
                )
            definition = meta.signature_def[signature]
            feeds = {
                definition.inputs["image_bytes"].name: np.array(image_bytes, object),
                definition.inputs["box"].name: np.asarray(boxes, np.float32),
            }
            names = ("landmarks", "covariance", "valid")
            fetches = {name: definition.outputs[name].name for name in names}
            return session.run(fetches, feeds)
        except (KeyError, OSError, tf.errors.OpError, RuntimeError) as error:
            raise ValueError(f"{directory}: {reason(error)}") from error


def run_in_fresh_process(
    directory: str | Path, image_bytes: list[bytes], boxes, signatures: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """`run` for each signature in a new Python process, which shares nothing with the model's maker."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, import_tensorflow) as pool:
        futures = {s: pool.submit(run, directory, image_bytes, boxes, s) for s in signatures}
        return {signature: future.result() for signature, future in futures.items()}


@dataclass(frozen=True)
class Facts:
    """What an exported model's users need beside its numbers.

    Attributes:
      names: of its K landmarks.
      edges: pairs of landmarks to join when drawn.
      delta: the knee of its distributions if they are Huber's.
      family: of its distributions, one of `overlay.FAMILIES`; models without it are Huber's.
    """

    names: list[str]
    edges: list[tuple[int, int]]
    delta: float
    family: str = "huber"


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
        family = values.get("family", Facts.family)
        if family not in FAMILIES:
            raise ValueError(f"its distributions are of an unknown family, {family!r}")
        return Facts(names, edges, float(values["delta"]), family)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); export the model again") from error
