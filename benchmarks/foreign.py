"""What covariances say of objects that a model doesn't know: `python -m benchmarks.foreign --run RUN`.

The objects of a split that the run was not trained on stand against the same ones damaged (upside-down,
shifted and wrongly scaled boxes, half covered, blurred, dark), against noise and walls, and against the
objects of other data sets. For each kind: the area under the ROC curve of the predicted size (minus the
mean log-determinant of A), that of the disagreement of two views, and, where the run is calibrated, the
share that `in_distribution` calls foreign.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage, stats

from tfhuber.console.cli import import_tensorflow, progress, run_main
from tfhuber.console.lazy import lazy_module
from tfhuber.console.table import aligned

if TYPE_CHECKING:
    import tensorflow as tf

    from tfhuber.calibration import model
    from tfhuber.data import dataset, split
    from tfhuber.model.predictor import Predictor
    from tfhuber.runs import load
else:
    model = lazy_module("tfhuber.calibration.model")
    dataset = lazy_module("tfhuber.data.dataset")
    split = lazy_module("tfhuber.data.split")
    load = lazy_module("tfhuber.runs.load")
    tf = lazy_module("tensorflow")

__all__ = ["auroc", "boxes", "damages", "main"]

# From a box (x0, y0, x1, y1) to a wrong one.
Move = Callable[[Any], Any]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a directory that tfhuber.train wrote")
    parser.add_argument("--data", help="the converted data set (default: the run's)")
    parser.add_argument("--split", help="the split (default: the run's, to evaluate on)")
    parser.add_argument(
        "--other",
        action="append",
        default=[],
        metavar="DATA[:SPLIT]",
        help="another converted data set, whose objects are foreign; its split valid by default",
    )
    arguments = parser.parse_args()
    import_tensorflow()
    run = Path(arguments.run)
    predictor, config = load.load_run(run), load.read_config(run)
    calibration = model.calibration_of(run, predictor)
    judge = partial(_judged, predictor, calibration)
    own_split = dataset.open_split(
        arguments.data or config.data.directory, arguments.split or config.data.evaluation_split
    )
    size = predictor.options.image_size
    own = judge(_crops(own_split, size))
    rows = [["", "objects", "AUROC by size", "by the views' disagreement", "called foreign"]]
    rows.append(_row("the split itself", own, own))
    kinds: dict[str, Iterator[np.ndarray]] = {
        **{name: map(damage, _crops(own_split, size)) for name, damage in damages().items()},
        **{name: _crops(own_split, size, move) for name, move in boxes().items()},
        **{name: _crops(_opened(name), size) for name in arguments.other},
    }
    for name, crops in progress(kinds.items(), desc="kinds", unit=" kinds"):
        rows.append(_row(name, judge(crops), own))
    print(aligned(rows))
    return 0


def damages() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return by name the functions from network crops [N, S, S, 3] in 0..255 to those of no such object."""
    generator = np.random.default_rng(0)

    def noise(crops: np.ndarray) -> np.ndarray:
        return generator.uniform(0, 255, crops.shape)

    def wall(crops: np.ndarray) -> np.ndarray:
        n, side = len(crops), crops.shape[1]
        colours = generator.uniform(0, 255, (2, n, 1, 1, 3))
        across = np.linspace(0, 1, side)[:, None, None]
        return colours[0] + across * (colours[1] - colours[0]) + generator.normal(0, 4, crops.shape)

    def covered(crops: np.ndarray) -> np.ndarray:
        found, half = crops.copy(), crops.shape[1] // 2
        parts = (np.s_[:, :half], np.s_[:, half:], np.s_[half:])  # left, right, below
        for each, which in zip(found, generator.integers(3, size=len(found)), strict=True):
            each[parts[which]] = generator.uniform(0, 255, 3)
        return found

    def blurred(crops: np.ndarray) -> np.ndarray:
        sigma = crops.shape[1] / 16
        return ndimage.gaussian_filter(crops, (0, sigma, sigma, 0), mode="nearest")

    return {
        "noise": noise,
        "walls": wall,
        "upside-down": lambda crops: crops[:, ::-1, ::-1],
        "half covered": covered,
        "blurred, a sixteenth of the side": blurred,
        "dark, a twentieth of the light": lambda crops: np.round(crops / 20),
    }


def boxes() -> dict[str, Move]:
    """Return by name the functions from a box to one that misses its object."""

    def moved(shift: float, scale: float, box: Any) -> Any:
        low, high = box[:2], box[2:]
        middle, half = (low + high) / 2 + shift * (high - low), scale * (high - low) / 2
        return tf.concat([middle - half, middle + half], 0)

    return {
        "box shifted by 3/8, both ways": partial(moved, 0.375, 1.0),
        "box of twice the side": partial(moved, 0.0, 2.0),
        "box of half the side": partial(moved, 0.0, 0.5),
    }


def auroc(known: np.ndarray, foreign: np.ndarray) -> float:
    """Return the probability that a foreign score is the larger, a tie counting half.

    >>> auroc(np.array([1.0, 2.0]), np.array([3.0, 2.0]))
    0.875
    """
    statistic = stats.mannwhitneyu(foreign, known).statistic
    return float(statistic / (len(known) * len(foreign)))


def _opened(name: str) -> "dataset.Split":
    directory, _, part = name.partition(":")
    return dataset.open_split(directory, part or "valid")


def _crops(objects: "dataset.Split", size: int, move: Move | None = None) -> Iterator[np.ndarray]:
    """Yield batches of the network crops of a split's boxes, as they are or moved."""

    def prepare(example: dict[str, Any]) -> Any:
        if move is not None:
            example = example | {"box": move(example["box"])}
        return dataset.network_example(example, objects.landmark_set, size)["image"]

    stored = split.stored_examples(objects)
    for batch in stored.map(prepare, num_parallel_calls=2).batch(32):
        yield batch.numpy()


def _judged(
    predictor: "Predictor", calibration: "model.Calibration | None", crops: Iterator[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return of each crop `size`, `disagreement` and, of a calibrated run, `foreign`."""
    found: list[dict[str, np.ndarray]] = []
    views = tf.function(predictor.views, reduce_retracing=True)
    for batch in crops:
        plain, mirrored = views(tf.constant(batch, tf.float32))
        apart = mirrored.loc - plain.loc
        each = {
            "size": -tf.reduce_mean(plain.log_det, axis=1).numpy(),
            "disagreement": tf.reduce_mean(
                tf.norm(tf.linalg.matvec(plain.precision_factor, apart), axis=-1), axis=1
            ).numpy(),
        }
        if calibration is not None and (fitted := calibration.signatures["none"]).abstention:
            flags = fitted.abstention.flags(
                fitted.apply(plain), fitted.energy, predictor.options.image_size
            )
            each["foreign"] = ~flags["in_distribution"].numpy()
        found.append(each)
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def _row(name: str, found: dict[str, np.ndarray], own: dict[str, np.ndarray]) -> list[str]:
    areas = [f"{auroc(own[score], found[score]):.3f}" for score in ("size", "disagreement")]
    foreign = f"{100 * found['foreign'].mean():.1f} %" if "foreign" in found else "not calibrated"
    return [name, str(len(found["size"])), *areas, foreign]


if __name__ == "__main__":
    run_main(main)
