"""Matplotlib figures of distributions as contours, of calibration curves, and of examples with ellipses.

Without TensorFlow; what they show is computed elsewhere (`paper.figures`, `evaluation.summary`).
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from tfhuber.drawing.ellipses import ellipse_points
from tfhuber.evaluation.reliability import CalibrationCurve

__all__ = [
    "Contours",
    "Example",
    "calibration_figure",
    "check_name",
    "contour_figure",
    "example_figure",
    "landmark_figure",
    "rendered",
    "save_figure",
]

SUFFIXES = (".pdf", ".png", ".svg")
INK, FAINT = "#1d2733", "#aab4bf"
BLUE, RED, GREEN = "#1f5fd0", "#e02b2b", "#2be04c"
# More names than this under an axis can't be read.
MOST_NAMES = 30
# From the least dense ring to the densest.
SHADES = ("#e9f3f4", "#9fcdd2", "#3f97a6", "#13566b", "#072838")


@dataclass(frozen=True)
class Contours:
    """A density by its iso-probability contours.

    Attributes:
      caption: what is written below.
      outlines: [L, n, 2] closed outlines, from the innermost to the outermost.
      log_density: [L] log of the mean density between each outline and the one inside it.
    """

    caption: str
    outlines: np.ndarray
    log_density: np.ndarray


@dataclass(frozen=True)
class Example:
    """An image with predictions, in its pixels.

    Attributes:
      caption: what is written below.
      image: [H, W, 3] uint8.
      landmarks: [K, 2].
      covariance: [K, 2, 2].
    """

    caption: str
    image: np.ndarray
    landmarks: np.ndarray
    covariance: np.ndarray


def contour_figure(panels: Sequence[Contours]) -> Figure:
    """Draw densities side by side, with one scale of lengths and one of shades (figures 4 to 6)."""
    densities = np.concatenate([panel.log_density for panel in panels])
    shades = ScalarMappable(
        Normalize(densities.min(), densities.max()),
        LinearSegmentedColormap.from_list("density", SHADES),
    )
    reach = 1.08 * max(np.abs(panel.outlines).max() for panel in panels)
    figure, row = _panels(len(panels), width=2.3, height=3.5, sharey=True)
    for axes, panel in zip(row, panels, strict=True):
        # The largest first, so that what remains of each is its ring.
        axes.add_collection(
            PolyCollection(
                list(panel.outlines[::-1]),
                facecolors=shades.to_rgba(panel.log_density[::-1]),
                edgecolors=[FAINT] + ["white"] * (len(panel.outlines) - 1),
                linewidths=0.6,
            )
        )
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.set_xlabel(panel.caption, labelpad=8, fontsize=11, linespacing=2.4)
    bar = figure.colorbar(shades, cax=row[-1].inset_axes((1.06, 0, 0.045, 1)))
    bar.set_label("log mean density", color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=INK, color=FAINT)
    return figure


def calibration_figure(curves: Mapping[str, CalibrationCurve], unit: str) -> Figure:
    """Draw expected against empirical error, a blue cross for each bin, and the identity (figure 3).

    Args:
      curves: title -> curve, a panel each, from left to right.
      unit: of the errors.
    """
    largest = [max(c.expected.max(), c.empirical.max()) for c in curves.values()]
    reach = 1.06 * max(max(largest), np.finfo(float).tiny)
    figure, row = _panels(len(curves), width=4.2, height=4.4, sharey=True)
    for axes, (title, curve) in zip(row, curves.items(), strict=True):
        axes.plot((0, reach), (0, reach), color=RED, linewidth=1.4)
        size = 60 / (1 + len(curve.count) / 100)
        axes.scatter(curve.empirical, curve.expected, size, BLUE, marker="x", linewidths=1.2)
        axes.set(xlim=(0, reach), ylim=(0, reach), aspect="equal")
        axes.set_title(title, color=INK, fontsize=12)
        axes.set_xlabel(f"empirical error ({unit})")
        bins, few, many = len(curve.count), curve.count.min(), curve.count.max()
        samples = f"{few:,}" if few == many else f"{few:,} to {many:,}"
        note = f"slope {curve.slope:.3f}\n{bins} bin{'s' * (bins > 1)} of {samples}"
        axes.text(
            *(0.05, 0.95, note), transform=axes.transAxes, va="top", color=INK, linespacing=1.5
        )
    row[0].set_ylabel(f"expected error ({unit})")
    return figure


def example_figure(examples: Sequence[Example], edges: Iterable[tuple[int, int]] = ()) -> Figure:
    """Draw images with predicted positions in red and one-standard-deviation ellipses in green (figure 2).

    Args:
      examples: from left to right.
      edges: pairs of landmarks that are joined by a line.
    """
    figure, row = _panels(len(examples), width=4.4, height=4.8)
    for axes, example in zip(row, examples, strict=True):
        height, width = example.image.shape[:2]
        axes.imshow(example.image, interpolation="lanczos")
        lines = [example.landmarks[[i, j]] for i, j in edges]
        axes.add_collection(LineCollection(lines, colors=[(1, 1, 1, 0.45)], linewidths=0.8))
        outlines = [
            ellipse_points(*prediction, 1.0)
            for prediction in zip(example.landmarks, example.covariance, strict=True)
        ]
        # Many ellipses overlap: thinner lines and fainter fills keep the photograph visible.
        pen, fill = (1.5, "14") if len(outlines) < 30 else (0.9, "0c")
        axes.add_collection(
            PolyCollection(outlines, facecolors=GREEN + fill, edgecolors=GREEN, linewidths=pen)
        )
        x, y = example.landmarks.T
        axes.scatter(x, y, 8 * pen**2, RED, linewidths=0)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
        axes.set_xlabel(example.caption, labelpad=8, fontsize=9)
        axes.spines[:].set_visible(False)
    return figure


def landmark_figure(
    names: Sequence[str], expected: np.ndarray, actual: np.ndarray, unit: str
) -> Figure:
    """Draw the mean error of each landmark as a bar, and the error that the model expects as a cross.

    Args:
      names: of the landmarks; left out where there are too many to read.
      expected: [K] mean expected errors; NaN where there is none.
      actual: [K] mean actual errors, in the same unit.
      unit: of the errors.
    """
    figure, (axes,) = _panels(1, width=9, height=3.4)
    numbers = np.arange(len(actual))
    axes.bar(numbers, actual, 0.8, color=FAINT, label="empirical")
    axes.scatter(numbers, expected, 22, BLUE, marker="x", linewidths=1.2, label="expected")
    axes.set(xlim=(-1, len(actual)), ylabel="mean error")
    axes.set_title(unit, color=INK, fontsize=10)
    if len(names) <= MOST_NAMES:
        axes.set_xticks(numbers, names, rotation=30, ha="right")
    else:
        axes.set_xlabel("landmark")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=2)
    return figure


def rendered(figure: Figure, dpi: int = 100) -> np.ndarray:
    """Return a figure's pixels, [H, W, 3] uint8."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.1)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def check_name(path: str | Path) -> None:
    """Raise ValueError if no figure can be written under that name, because of its suffix."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"a figure's name must end in .pdf, .png or .svg, got {str(path)!r}")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PDF, PNG or SVG, by the path's suffix, and create its directory if need be.

    Raises:
      ValueError: if the suffix is none of these.
      OSError: if the file cannot be written.
    """
    check_name(path)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200, bbox_inches="tight", pad_inches=0.1)


def _panels(
    count: int, *, width: float, height: float, sharey: bool = False
) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with `count` axes in a row, each of about that many inches, and those axes."""
    figure = Figure(figsize=(width * count + 0.7, height), layout="constrained")
    row = figure.subplots(1, count, sharey=sharey, squeeze=False)[0]
    for axes in row:
        axes.tick_params(labelsize=8, colors=INK, color=FAINT)
        axes.spines[:].set_color(FAINT)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
    return figure, row
