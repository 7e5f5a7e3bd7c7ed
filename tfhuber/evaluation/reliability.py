"""How honest predicted uncertainty is (coverage, calibration), and how small (sharpness): section 4.2.

NumPy in float64 only; what depends on the distributions' family is an argument. A landmark counts where
its weight is positive.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from tfhuber.drawing.ellipses import standard_deviation

__all__ = [
    "BIN_SIZE",
    "CalibrationCurve",
    "calibration_curve",
    "coverage",
    "expected_distance",
    "rank_correlation",
    "sharpness",
]

BIN_SIZE = 734  # the paper's


def coverage(
    radial_cdf: ArrayLike, weights: ArrayLike, levels: Sequence[float] = (0.5, 0.9, 0.95)
) -> dict[float, float]:
    """Return for each level p the fraction of labels inside their p-ellipse; p itself if calibrated.

    Args:
      radial_cdf: [N, K] probability that the model gives to the ellipse through the label.
      weights: [N, K]; landmarks of weight 0 don't count.
      levels: probabilities in (0, 1).

    Raises:
      ValueError: if the shapes differ, a labelled entry is no probability, or nothing is labelled.
    """
    radial_cdf, labelled = np.asarray(radial_cdf, np.float64), np.asarray(weights) > 0
    if radial_cdf.shape != labelled.shape:
        raise ValueError(
            "radial_cdf and weights must have one shape, "
            f"got {radial_cdf.shape} and {labelled.shape}"
        )
    inside = radial_cdf[labelled]
    if not inside.size:
        raise ValueError("weights must be positive somewhere, got no labelled landmark")
    if not np.all((inside >= 0) & (inside <= 1)):
        raise ValueError("radial_cdf must be in [0, 1] at every labelled landmark")
    return {level: float(np.mean(inside <= level)) for level in levels}


def expected_distance(covariance: ArrayLike, mean_radius: float) -> np.ndarray:
    """Compute the mean distance E|y - mu| [...] of 2-D elliptical distributions, in their frame's pixels.

    A point of the distribution is `mu + r inv(A) u` with u uniform on the unit circle and independent
    of r. So its mean distance is E[r] times that of an ellipse's points from its centre, a complete
    elliptic integral: E|y - mu| = m (2 / pi) a E(1 - b^2 / a^2), with a >= b the square roots of the
    covariance's eigenvalues and m = E[r] / sqrt(kappa). It is exact.

    The mean error of well calibrated predictions tends to it. (The root of the covariance's trace would
    have to be compared with an RMS error, which a few wrong labels decide.)

    Args:
      covariance: [..., 2, 2].
      mean_radius: m, the mean radius in standard deviations: sqrt(pi / 2) for Gauss, and with I_n as
        in `radial`, (I_2 / I_1) / sqrt(kappa) for every family.

    Example:
      >>> expected_distance(np.eye(2), math.sqrt(math.pi / 2)).round(4)
      np.float64(1.2533)
    """
    variances = np.linalg.eigvalsh(np.asarray(covariance, np.float64)).clip(0)
    small, large = np.moveaxis(variances, -1, 0)
    # Where both are 0 the distance is, whatever their ratio.
    eccentricity = 1 - small / np.where(large > 0, large, 1)
    return mean_radius * 2 / math.pi * np.sqrt(large) * special.ellipe(eccentricity)


@dataclass(frozen=True)
class CalibrationCurve:
    """Mean expected and mean actual errors of bins of samples with similar expected error (figure 3).

    Attributes:
      expected: [B] mean of the errors that the predicted distributions expect, ascending.
      empirical: [B] mean of the errors that were made, in the same unit.
      count: [B] samples in each bin.
    """

    expected: np.ndarray
    empirical: np.ndarray
    count: np.ndarray

    @property
    def slope(self) -> float:
        """The slope s of expected = s empirical.

        Least squares through the origin, each bin weighing what it counts. 1 is calibrated, less is
        overconfident (errors are larger than expected), more is underconfident.
        """
        product = np.sum(self.count * self.expected * self.empirical)
        square = np.sum(self.count * np.square(self.empirical))
        return float(product / square) if square else math.inf


def calibration_curve(
    expected: ArrayLike, empirical: ArrayLike, bin_size: int = BIN_SIZE
) -> CalibrationCurve:
    """Sort samples by expected error into bins; calibrated predictions lie on the diagonal.

    There are as many bins of equal size as hold at least `bin_size` samples each (one if there are
    fewer samples).

    Args:
      expected: [M] errors that the predicted distributions expect.
      empirical: [M] errors that were made, in the same unit.
      bin_size: samples a bin.

    Raises:
      ValueError: if the two are not non-empty vectors of one length, or `bin_size` is not positive.
    """
    expected, empirical = np.asarray(expected, np.float64), np.asarray(empirical, np.float64)
    if expected.ndim != 1 or expected.shape != empirical.shape or not expected.size:
        raise ValueError(
            "expected and empirical must be non-empty vectors of one length, "
            f"got {expected.shape} and {empirical.shape}"
        )
    if bin_size < 1:
        raise ValueError(f"bin_size must be at least 1, got {bin_size}")
    order = np.argsort(expected, kind="stable")
    bins = np.array_split(order, max(1, len(order) // bin_size))
    return CalibrationCurve(
        np.array([expected[members].mean() for members in bins]),
        np.array([empirical[members].mean() for members in bins]),
        np.array([len(members) for members in bins]),
    )


def rank_correlation(expected: ArrayLike, empirical: ArrayLike) -> float | None:
    """Compute Spearman's correlation of expected and actual errors [M]; None if either never varies."""
    if np.ptp(expected) == 0 or np.ptp(empirical) == 0:
        return None
    return float(stats.spearmanr(expected, empirical).statistic)


def sharpness(covariance: ArrayLike, radius: float) -> dict[str, float]:
    """Measure how concentrated predictions are; among calibrated models, sharper is better.

    Args:
      covariance: [M, 2, 2], in units squared of one's choice.
      radius: of the 90 % ellipse in standard deviations, as `ellipses.radius_for` gives it.

    Returns:
      `mean_deviation` and `median_deviation`: of the standard deviation sqrt(trace / 2), in those units;
      `mean_area_90` and `median_area_90`: of the area of the ellipse that holds 90 %, in them squared.
    """
    covariance = np.asarray(covariance, np.float64)
    deviation = standard_deviation(covariance)
    area = math.pi * radius**2 * np.sqrt(np.linalg.det(covariance).clip(0))
    return {
        "mean_deviation": float(deviation.mean()),
        "median_deviation": float(np.median(deviation)),
        "mean_area_90": float(area.mean()),
        "median_area_90": float(np.median(area)),
    }
