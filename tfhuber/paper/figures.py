"""The paper's figures 2 to 6."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from tfhuber.data import dataset
from tfhuber.data.dataset import Split
from tfhuber.distributions.elliptical import Elliptical
from tfhuber.distributions.radial import Gauss, Huber, RadialEnergy
from tfhuber.drawing.ellipses import standard_deviation
from tfhuber.evaluation import examples, plots, summary
from tfhuber.evaluation.predictions import Predictions, collect
from tfhuber.evaluation.reliability import BIN_SIZE, calibration_curve
from tfhuber.linalg import small_matrix
from tfhuber.model.predictor import Predictor
from tfhuber.runs import load

__all__ = ["certain_and_uncertain", "contours", "distributions", "figure2", "figure3", "figure4to6"]

CROP_SIZE = 448  # side of figure 2's pictures in pixels

# What the contours of figures 4 to 6 hold.
PERCENTILES = (0.005, 0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 0.99)
SCATTER = np.array([[9.0, 3.0], [3.0, 4.0]])  # Sigma, or the inverse of Lambda
DELTAS = (0.8, 1.0, 1.5, 3.0)
DIVISORS = (1, 2, 3, 4)  # of Lambda in figure 6; the paper doesn't say which


def distributions(name: str) -> dict[str, Elliptical]:
    """Return the panels of figure 4, 5 or 6 by caption: distributions around 0, in float64.

    With Lambda = A A, a Huber distribution's second-moment matrix is kappa inv(Lambda).

    Raises:
      ValueError: if `name` is none of "figure4", "figure5", "figure6".
    """
    if name == "figure6":
        names = [r"\Lambda_1", *(rf"\Lambda_1 / {divisor}" for divisor in DIVISORS[1:])]
        return {
            f"({letter}) $\\Lambda = {text}$": _centred(divisor * SCATTER, Huber(1.0))
            for letter, text, divisor in zip("abcd", names, DIVISORS, strict=True)
        }
    if name in ("figure4", "figure5"):
        shown = {f"(a) Gauss\n$\\Sigma = {_typeset(SCATTER)}$": _centred(SCATTER, Gauss())}
        for letter, delta in zip("bcde", DELTAS, strict=True):
            huber = Huber(delta)
            inverse = SCATTER / huber.kappa(2) if name == "figure4" else SCATTER
            caption = f"({letter}) $\\delta = {delta:g}$\n$\\Lambda^{{-1}} = {_typeset(inverse)}$"
            shown[caption] = _centred(inverse, huber)
        return shown
    raise ValueError(f"name must be one of figure4, figure5, figure6, got {name!r}")


def contours(distribution: Elliptical, caption: str = "", points: int = 240) -> plots.Contours:
    """Return the contours of a 2-D distribution that hold `PERCENTILES`, in its own frame.

    A ring's mean density is the probability between its two ellipses over the area between them.
    """
    radius = distribution.radius_quantile(PERCENTILES).numpy()
    inverse = np.linalg.inv(distribution.precision_factor.numpy())
    angle = np.arange(points) * (2 * np.pi / points)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    outlines = distribution.loc.numpy() + radius[:, None, None] * circle @ inverse
    mass = np.diff(PERCENTILES, prepend=0)
    area = np.pi * np.linalg.det(inverse) * np.diff(np.square(radius), prepend=0)
    return plots.Contours(caption, outlines, np.log(mass / area))


def certain_and_uncertain(predictions: Predictions) -> tuple[int, int]:
    """Return the indices of the examples that the model is the surest of and the least sure of.

    An example's uncertainty is the mean over its landmarks of the predicted standard deviation,
    sqrt(trace / 2), relative to the extent of the predicted landmarks (the diagonal of their box).
    """
    deviation = standard_deviation(predictions.covariance).mean(axis=1)
    extent = np.linalg.norm(np.ptp(predictions.landmarks, axis=1), axis=-1)
    uncertainty = deviation / np.maximum(extent, np.finfo(np.float32).tiny)
    return int(np.argmin(uncertainty)), int(np.argmax(uncertainty))


def figure2(run: str | Path, data: str | None = None, split: str | None = None) -> Figure:
    """Draw the examples that `certain_and_uncertain` chooses, with one-standard-deviation ellipses.

    Args:
      run: what `tfhuber.train` wrote.
      data: the converted data set; None: the run's.
      split: None: the run's evaluation split.

    Raises:
      ValueError: if there is no such run, data set or split.
    """
    predictor, opened, predictions = _measured(run, data, split)
    chosen = certain_and_uncertain(predictions)
    found = examples.crops(predictor, opened, predictions, chosen, CROP_SIZE)
    panels = []
    for word, index in zip(("certain", "uncertain"), chosen, strict=True):
        crop = found[index]
        error = np.linalg.norm(crop.landmarks - crop.truth, axis=-1)
        deviation, error = (
            100 * np.nanmean(lengths) / CROP_SIZE
            for lengths in (standard_deviation(crop.covariance), error)
        )
        caption = f"{word}: standard deviation {deviation:.1f} %, error {error:.1f} % of the width"
        panels.append(plots.Example(caption, crop.image, crop.landmarks, crop.covariance))
    return plots.example_figure(panels, predictor.landmark_set.edges)


def figure3(
    runs: Sequence[str | Path],
    data: str | None = None,
    split: str | None = None,
    bin_size: int = BIN_SIZE,
) -> Figure:
    """Draw expected against empirical error in bins of `bin_size` landmarks, a panel for each run.

    Args:
      runs: what `tfhuber.train` wrote, from left to right.
      data: the converted data set; None: each run's own.
      split: None: each run's evaluation split.
      bin_size: landmarks a bin.

    Raises:
      ValueError: if there is no such run, data set or split; if the runs measure errors in different
        units; or if fewer than two bins can be filled.
    """
    curves, units = {}, set()
    for run in runs:
        predictor, opened, predictions = _measured(run, data, split)
        expected, actual = summary.calibration_errors(predictor, predictions)
        if len(expected) < 2 * bin_size:
            raise ValueError(
                f"split {opened.name!r} of {opened.directory} has {len(expected):,} labelled "
                f"landmarks, too few for two bins of {bin_size:,}; say --bin-size "
                f"{max(1, len(expected) // 10)} for ten bins"
            )
        title = f"{load.read_config(run).train.epochs} epochs"
        if title in curves:
            title = f"{title}, {Path(run).name}"
        curves[title] = calibration_curve(expected, actual, bin_size)
        units.add(summary.error_unit(predictor))
    if len(units) > 1:
        raise ValueError(f"the runs measure errors in different units: {' and '.join(units)}")
    return plots.calibration_figure(curves, units.pop())


def figure4to6(name: str) -> Figure:
    """Draw the distributions of figure 4, 5 or 6; ValueError if `name` is no such."""
    panels = distributions(name).items()
    return plots.contour_figure([contours(shown, caption) for caption, shown in panels])


def _centred(inverse: np.ndarray, energy: RadialEnergy) -> Elliptical:
    """Return the elliptical distribution around 0 with inv(A A) = `inverse`."""
    precision = tf.constant(np.linalg.inv(inverse))
    return Elliptical(tf.zeros(2, tf.float64), small_matrix.square_root(precision), energy)


def _typeset(matrix: np.ndarray) -> str:
    """Return a 2 x 2 matrix as Matplotlib's mathtext."""
    digits = 0 if np.all(matrix == np.round(matrix)) else 2
    top, bottom = (r"\;\;".join(f"{value:.{digits}f}" for value in row) for row in matrix)
    return rf"\genfrac{{(}}{{)}}{{0}}{{0}}{{{top}}}{{{bottom}}}"


def _measured(
    run: str | Path, data: str | None, split: str | None
) -> tuple[Predictor, Split, Predictions]:
    """Return a run's predictor, the opened split, and the predictions for it."""
    predictor, own = load.load_run(run), load.read_config(run).data
    opened = dataset.open_split(
        own.directory if data is None else data, own.evaluation_split if split is None else split
    )
    return predictor, opened, collect(predictor, opened)
