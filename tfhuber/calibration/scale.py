"""How much too long or too short whitened errors are: of all landmarks, of each one, along two axes.

A whitened error z = A (y - mu) should follow the law. Where it doesn't, a symmetric positive definite B
makes it do so: |B z| is then the length to go by. B is found by maximum likelihood under the law, which is
the fixed point

    mean of w(|B z|) (B z)(B z)^T = I,    w(r) = rho'(r) / r,

and for a number instead of a matrix the trace of that. B travels as S = log B, which may be any symmetric
matrix.

Few labels make a landmark's own S a poor guess. Its elements are therefore shrunk, by an empirical Bayes
rule in two steps: log-scales of a group's landmarks are taken as normal around the group's, and those of
groups around all landmarks'. Both variances are DerSimonian and Laird's, by moments; the variance of each
guess is the sandwich estimator's, clustered by photograph. The fewer the labels, the nearer to the group.
"""

import math
from collections.abc import Sequence

import numpy as np

from tfhuber.calibration.law import Law

__all__ = [
    "fit_scale",
    "log_scale",
    "matrix_exponential",
    "shrink",
    "transformed",
]

_ITERATIONS = 200
_CONVERGED = 1e-10

# Fewer photographs than this with a landmark say nothing of its own scale.
_FEWEST = 5

# Directions in which S may move: larger, longer along x than y, longer along a diagonal.
_DIRECTIONS = np.array([[[1, 0], [0, 1]], [[1, 0], [0, -1]], [[0, 1], [1, 0]]], np.float64)


def fit_scale(
    errors: np.ndarray, photograph: np.ndarray, groups: Sequence[int], law: Law, kind: str
) -> np.ndarray:
    """Return S = log B [K, 2, 2] of each landmark.

    Args:
      errors: [N, K, 2] whitened errors, NaN where unlabelled.
      photograph: [N] the photograph of each example.
      groups: [K] the group of each landmark.
      law: what the errors B z should follow.
      kind: "one" number for all, a number for each of the "landmarks", or a matrix with its own "axes".
    """
    k = errors.shape[1]
    if kind == "one":
        radius = np.linalg.norm(errors, axis=-1)
        return np.broadcast_to(log_scale(radius[~np.isnan(radius)], law) * np.eye(2), (k, 2, 2))
    directions = _DIRECTIONS if kind == "axes" else _DIRECTIONS[:1]
    fitted = [
        _fit_landmark(each, photograph, law, directions) for each in np.moveaxis(errors, 1, 0)
    ]
    estimate, variance = (np.array(values) for values in zip(*fitted, strict=True))
    shrunk = [
        shrink(estimate[:, i], variance[:, i], np.asarray(groups)) for i in range(len(directions))
    ]
    return np.einsum("ik,iab->kab", np.array(shrunk), directions)


def log_scale(radius: np.ndarray, law: Law) -> float:
    """Return t = log s of maximum likelihood, with which s r follows the law in the plane."""
    positive = radius[radius > 0]
    if not positive.size:
        return 0.0
    t = -math.log(np.median(positive))
    for _ in range(_ITERATIONS):
        scaled = math.exp(t) * radius
        step = -math.log(np.mean(law.weight(scaled) * scaled**2) / 2) / 2
        t += step
        if abs(step) < _CONVERGED:
            break
    return t


def transformed(errors: np.ndarray, log_matrix: np.ndarray) -> np.ndarray:
    """Return B z [N, K, 2] for S = log B [K, 2, 2]."""
    return np.einsum("kab,nkb->nka", matrix_exponential(log_matrix), errors)


def matrix_exponential(log_matrix: np.ndarray) -> np.ndarray:
    """Return exp(S) [..., 2, 2] of symmetric matrices."""
    values, vectors = np.linalg.eigh(log_matrix)
    return np.einsum("...ab,...b,...cb->...ac", vectors, np.exp(values), vectors)


def shrink(estimate: np.ndarray, variance: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Shrink numbers [K] of known variance towards their group's, and groups towards all.

    An infinite variance stands for a number that is not known at all.

    >>> shrink(np.array([0.0, 1.0, 5.0]), np.array([1.0, 1.0, math.inf]), np.array([0, 0, 0]))
    array([0.5, 0.5, 0.5])
    """
    known = np.isfinite(variance)
    if not known.any():
        return np.zeros_like(estimate)
    names, member = np.unique(groups, return_inverse=True)
    weight = np.where(known, 1 / np.where(known, np.maximum(variance, 1e-12), 1), 0.0)
    guess = np.where(known, estimate, 0.0)
    within = _excess_variance(guess, weight, member, len(names))

    weight = np.where(known, 1 / (within + np.where(known, np.maximum(variance, 1e-12), 1)), 0.0)
    total = np.bincount(member, weight, len(names))
    there = total > 0
    mean = np.bincount(member, weight * guess, len(names)) / np.where(there, total, 1)
    between = _excess_variance(mean, total, np.zeros(len(names), np.int64), 1)
    group_variance = np.where(there, 1 / np.where(there, total, 1), np.inf)
    group_weight = np.where(there, 1 / (between + group_variance), 0.0)
    overall = np.sum(group_weight * mean) / np.sum(group_weight)
    centre = overall + _kept(between, group_variance) * (mean - overall)
    return centre[member] + _kept(within, variance) * (guess - centre[member])


def _kept(spread: float, variance: np.ndarray) -> np.ndarray:
    """Return the part of a deviation that is kept: its prior variance over that and its own."""
    return np.where(np.isfinite(variance), spread / np.maximum(spread + variance, 1e-300), 0.0)


def _excess_variance(
    guess: np.ndarray, weight: np.ndarray, member: np.ndarray, count: int
) -> float:
    """Return DerSimonian and Laird's variance of numbers around their groups' means, beyond their own."""
    total = np.bincount(member, weight, count)
    there = total > 0
    safe = np.where(there, total, 1)
    mean = np.bincount(member, weight * guess, count) / safe
    q = np.sum(weight * (guess - mean[member]) ** 2)
    freedom = np.count_nonzero(weight) - np.count_nonzero(there)
    slack = np.sum(total - np.bincount(member, weight**2, count) / safe)
    return max(0.0, float((q - freedom) / slack)) if slack > 0 else 0.0


def _fit_landmark(
    errors: np.ndarray, photograph: np.ndarray, law: Law, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients of S along the directions, and their variances; infinite if unknown."""
    labelled = ~np.isnan(errors[:, 0])
    z, owner = errors[labelled], photograph[labelled]
    unknown = np.zeros(len(directions)), np.full(len(directions), np.inf)
    if len(np.unique(owner)) < _FEWEST or np.linalg.matrix_rank(z) < 2:
        return unknown
    if len(directions) == 1:
        log_matrix = log_scale(np.linalg.norm(z, axis=1), law) * np.eye(2)
    else:
        log_matrix = _log_matrix(z, law)
    at_home = z @ matrix_exponential(log_matrix)
    estimate = np.einsum("iab,ab->i", directions, log_matrix) / 2
    return estimate, np.array([_variance(at_home, owner, law, each) for each in directions])


def _log_matrix(z: np.ndarray, law: Law) -> np.ndarray:
    """Return S = log B of maximum likelihood of errors [N, 2]."""
    start = math.exp(2 * log_scale(np.linalg.norm(z, axis=1), law))
    square = start * np.eye(2)
    for _ in range(_ITERATIONS):
        radius = np.sqrt(np.einsum("na,ab,nb->n", z, square, z))
        updated = np.linalg.inv(np.einsum("n,na,nb->ab", law.weight(radius), z, z) / len(z))
        moved = np.abs(updated - square).max() / np.abs(square).max()
        square = updated
        if moved < _CONVERGED:
            break
    values, vectors = np.linalg.eigh(square)
    return (vectors * np.log(values) / 2) @ vectors.T


def _variance(z: np.ndarray, photograph: np.ndarray, law: Law, direction: np.ndarray) -> float:
    """Return the sandwich variance, clustered by photograph, of S along a direction, where it is right."""

    def score(step: float) -> np.ndarray:
        moved = z + step * z @ direction
        weight = law.weight(np.linalg.norm(moved, axis=1))
        return weight * np.einsum("na,ab,nb->n", moved, direction, moved) - np.trace(direction)

    step = 1e-4
    slope = np.sum(score(step) - score(-step)) / (2 * step)
    clustered = np.bincount(np.unique(photograph, return_inverse=True)[1], score(0.0))
    return float(np.sum(clustered**2) / slope**2)
