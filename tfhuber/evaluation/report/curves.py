"""The report's curves, as SVG that follows the page's colours."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

__all__ = ["chance_band", "coverage_curve", "pit_histogram", "risk_curve", "risk_of_share"]

# What the style sheet of `page` says; matplotlib draws in stand-ins that nothing else in the SVG has.
_COLOURS = {
    "#010203": "var(--ink)",
    "#020304": "var(--faint)",
    "#030405": "var(--raw)",
    "#040506": "var(--calibrated)",
    "#050607": "var(--band)",
}
_INK, _FAINT, _RAW, _CALIBRATED, _BAND = _COLOURS
_LINES = {"raw": _RAW, "calibrated": _CALIBRATED}
_BINS = 20


def chance_band(levels: np.ndarray, photographs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the coverage between which a calibrated model stays at a level 95 times in 100.

    Photographs are counted, not labels: the landmarks of a photograph are taken to err together, so that
    a photograph is one draw of a binomial distribution. That is the widest band there can be.

    >>> chance_band(np.array([0.5]), 100)
    (array([0.4]), array([0.6]))
    """
    low, high = stats.binom.interval(0.95, photographs, levels)
    return low / photographs, high / photographs


def coverage_curve(cdfs: Mapping[str, np.ndarray], photographs: int) -> str:
    """Return the coverage of ellipses against their level, in front of what chance allows.

    Args:
      cdfs: by "raw" or "calibrated", the probability [M] of the ellipse through each label.
      photographs: how many the labels are of.
    """
    levels = np.linspace(0.005, 0.995, 199)

    def draw(axes: Axes) -> None:
        axes.fill_between(levels, *chance_band(levels, photographs), color=_BAND, linewidth=0)
        axes.plot((0, 1), (0, 1), color=_FAINT, linewidth=1)
        for name, cdf in cdfs.items():
            held = np.searchsorted(np.sort(cdf), levels, side="right") / len(cdf)
            axes.plot(levels, held, color=_LINES[name], linewidth=1.8, label=name)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set(xlabel="probability of the ellipse", ylabel="labels inside")

    return _svg(draw, "Coverage of the ellipses against their probability")


def pit_histogram(cdfs: Mapping[str, np.ndarray], photographs: int) -> str:
    """Return the histogram of the probability of the ellipse through the label: flat if calibrated.

    Args:
      cdfs: as for `coverage_curve`.
      photographs: likewise.
    """

    def draw(axes: Axes) -> None:
        low, high = (float(v[0]) for v in chance_band(np.array([1 / _BINS]), photographs))
        axes.axhspan(_BINS * low, _BINS * high, color=_BAND, linewidth=0)
        axes.axhline(1, color=_FAINT, linewidth=1)
        for name, cdf in cdfs.items():
            count, edges = np.histogram(cdf, _BINS, (0, 1))
            density = _BINS * count / len(cdf)
            axes.stairs(density, edges, color=_LINES[name], linewidth=1.8, label=name)
        axes.set(xlim=(0, 1), ylim=(0, None))
        axes.set(xlabel="probability inside the label's ellipse (PIT)", ylabel="density of labels")

    return _svg(draw, "Histogram of the probability integral transform")


def risk_of_share(error: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return shares answered and the mean errors of what is answered, the surest first.

    >>> risk_of_share(np.array([4.0, 1.0]), np.array([2.0, 1.0]))
    (array([0.5, 1. ]), array([1. , 2.5]))
    """
    ordered = error[np.argsort(size, kind="stable")]
    number = np.arange(1, len(error) + 1)
    return number / len(error), np.cumsum(ordered) / number


def risk_curve(error: np.ndarray, size: np.ndarray, unit: str) -> str:
    """Return the mean error of the surest examples against their share.

    Args:
      error: [N] each example's mean error.
      size: [N] how unsure the model is of it.
      unit: of the errors.
    """

    def draw(axes: Axes) -> None:
        axes.axhline(float(error.mean()), color=_FAINT, linewidth=1, label="at random")
        axes.plot(*risk_of_share(error, error), color=_INK, ls=":", lw=1.2, label="best possible")
        axes.plot(*risk_of_share(error, size), color=_RAW, linewidth=1.8, label="by predicted size")
        # The mean of a handful of examples is anything.
        shares, risk = risk_of_share(error, size)
        reach = 1.15 * max(risk[shares >= 0.1].max(), np.finfo(float).tiny)
        axes.set(xlim=(0, 1), ylim=(0, reach), xlabel="share answered, surest first")
        axes.set_ylabel(f"mean error, {unit}")

    return _svg(draw, "Mean error of the surest examples against their share")


def _svg(draw: Callable[[Axes], Any], title: str) -> str:
    """Return what `draw` draws into axes, as an `<svg>` element of the page."""
    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.tick_params(labelsize=9, labelcolor=_INK, color=_FAINT)
    axes.spines[:].set_color(_FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=_INK)
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "text.parse_math": False}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    for stand_in, variable in _COLOURS.items():
        svg = svg.replace(stand_in, variable)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
