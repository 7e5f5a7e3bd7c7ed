"""How the errors of a photograph's landmarks go together: one correlation for all photographs.

Each whitened error is first given a normal length: z becomes g = z / |z| sqrt(-2 log(1 - F(|z|))), with F
the law of |z|. If the model is calibrated, g is standard normal in the plane, and no wrong label can move
much. All 2K coordinates of g are then taken for jointly normal, with covariance

    R = F F' outside of the 2 x 2 blocks of the landmarks, and the identity inside,

where F [2K, r] has low rank: a Gaussian copula, which leaves every landmark its predicted distribution. F
are the principal axes of the correlation of g, shrunk; rank and shrinkage are those that predict
photographs left out best. All mathematics are in NumPy and float64.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from tfhuber.calibration.law import Law
from tfhuber.calibration.photographs import folds

__all__ = ["Fit", "correlation", "draw_errors", "fit_dependence", "log_ratio", "normal_scores"]

_RANKS = (1, 2, 4, 8, 16, 32, 64)
_KEPT = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)

# The largest part of a landmark's variance that others may share; with all of it R would be singular.
_MOST_SHARED = 0.995

# Of the probability beyond a radius, below which a score would be infinite.
_LEAST = 1e-12


@dataclass(frozen=True)
class Fit:
    """The dependence that was found.

    Attributes:
      factor: [2K, r] F; r is 0 where independence predicts photographs left out best.
      gain: how much likelier, in nats an object, it makes labels in photographs left out.
    """

    factor: np.ndarray
    gain: float


def normal_scores(errors: np.ndarray, law: Law) -> np.ndarray:
    """Return whitened errors [..., 2] with the lengths that they would have if they were normal."""
    radius = np.linalg.norm(errors, axis=-1, keepdims=True)
    beyond = np.maximum(1 - law.cdf(radius), _LEAST)
    return errors / np.where(radius > 0, radius, 1) * np.sqrt(-2 * np.log(beyond))


def correlation(factor: np.ndarray) -> np.ndarray:
    """Return R [2K, 2K]."""
    count = len(factor) // 2
    found = (factor @ factor.T).reshape(count, 2, count, 2)
    found[np.arange(count), :, np.arange(count), :] = np.eye(2)
    return found.reshape(2 * count, 2 * count)


def draw_errors(
    factor: np.ndarray, law: Law, shape: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray:
    """Return whitened errors [*shape, K, 2] of whole objects, each landmark's length by the law."""
    lower = np.linalg.cholesky(correlation(factor))
    scores = (generator.standard_normal((*shape, len(lower))) @ lower.T).reshape(*shape, -1, 2)
    length = np.linalg.norm(scores, axis=-1, keepdims=True)
    level = np.minimum(-np.expm1(-(length**2) / 2), np.nextafter(1, 0))
    return law.quantile(level) * scores / length


def log_ratio(scores: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return how much likelier [N] the dependence makes labels than independence does, in nats.

    Args:
      scores: [N, K, 2] normal scores; NaN where unlabelled, which counts as not observed.
      factor: [2K, r].
    """
    whole, found = correlation(factor), np.zeros(len(scores))
    flat = scores.reshape(len(scores), -1)
    patterns, member = np.unique(~np.isnan(flat), axis=0, return_inverse=True)
    for i, seen in enumerate(patterns):
        if not seen.any():
            continue
        rows = np.flatnonzero(member.ravel() == i)
        values = flat[np.ix_(rows, np.flatnonzero(seen))]
        lower = np.linalg.cholesky(whole[np.ix_(seen, seen)])
        white = linalg.solve_triangular(lower, values.T, lower=True)
        found[rows] = (np.sum(values.T**2 - white**2, axis=0)) / 2 - np.log(np.diag(lower)).sum()
    return found


def fit_dependence(scores: np.ndarray, photograph: np.ndarray) -> Fit:
    """Fit how the normal scores [N, K, 2] of a photograph's landmarks go together.

    Args:
      scores: NaN where unlabelled.
      photograph: [N] the photograph of each example.
    """
    fold = folds(photograph)
    ranks = [rank for rank in _RANKS if rank < 2 * scores.shape[1]]
    gains = np.zeros((len(ranks), len(_KEPT)))
    for i in np.unique(fold):
        axes = _axes(scores[fold != i])
        for a, rank in enumerate(ranks):
            factor = _bounded(axes[:, -rank:])
            for b, kept in enumerate(_KEPT):
                gains[a, b] += log_ratio(scores[fold == i], np.sqrt(kept) * factor).sum()
    gains /= len(scores)
    a, b = divmod(int(np.argmax(gains)), len(_KEPT))
    if gains[a, b] <= 0:
        return Fit(np.zeros((2 * scores.shape[1], 0)), 0.0)
    factor = _bounded(_axes(scores)[:, -ranks[a] :])
    return Fit(np.sqrt(_KEPT[b]) * factor, float(gains[a, b]))


def _axes(scores: np.ndarray) -> np.ndarray:
    """Return the principal axes [2K, 2K] of the correlation, the longest last.

    It is that of the pairs that are labelled, and 0 where there are none.
    """
    flat = scores.reshape(len(scores), -1)
    seen = ~np.isnan(flat)
    values = np.where(seen, flat, 0.0)
    count = seen.T.astype(np.float64) @ seen
    moments = values.T @ values / np.maximum(count, 1)
    scale = np.sqrt(np.where(np.diag(count) > 0, np.diag(moments), 1))
    scale = np.maximum(scale, np.finfo(np.float64).tiny)
    values, vectors = np.linalg.eigh(moments / np.outer(scale, scale))
    return vectors * np.sqrt(np.maximum(values, 0))


def _bounded(factor: np.ndarray) -> np.ndarray:
    """Return F with what each landmark shares bounded, so that R stays positive definite."""
    blocks = factor.reshape(-1, 2, factor.shape[1])
    largest = np.linalg.norm(blocks, ord=2, axis=(1, 2))
    scale = np.minimum(1, np.sqrt(_MOST_SHARED) / np.maximum(largest, np.finfo(np.float64).tiny))
    return (blocks * scale[:, np.newaxis, np.newaxis]).reshape(factor.shape)
