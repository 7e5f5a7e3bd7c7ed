"""When a model should say "I don't know": of a landmark, and of an object that is like none it knows.

Both are thresholds, with a promise that needs no model to be right, only photographs to come that are
exchangeable with those that the thresholds are from.

A landmark is `reliable` where the predicted probability that its error is within a tolerance is at least a
threshold. For one threshold let a photograph's loss be the share of its reliable labels that are further
away, and let the n photographs count that have any such label. That the mean loss is above the stated risk
is refuted by the p-value of Hoeffding and Bentkus (Angelopoulos et al., Learn then Test, 2021, section 3).
Thresholds are tried in an order that was fixed before, from the strictest to the laxest, each at the full
level, until one cannot be trusted; the last that could is taken, and holds with the stated confidence.

An object is `in_distribution` where its predicted size is at most the conformal bound of those in the
photographs: of objects like them no more than the stated rate are called foreign.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tfhuber.calibration.conformal import guaranteed_bound

__all__ = [
    "Aims",
    "fewest_photographs",
    "p_value",
    "probability_threshold",
    "size_threshold",
    "thresholds",
]

# Of the landmarks of photographs that nothing is promised by, how many each threshold calls reliable.
_SHARES = np.linspace(0.3, 1.0, 15)


@dataclass(frozen=True)
class Aims:
    """What is to be promised.

    Attributes:
      false_alarms: the rate of objects like those of the calibration that may be called foreign.
      tolerance: an error beyond it is a gross one; as a part of the network crop's side.
      risk: of a photograph's reliable landmarks, the largest share that may have gross errors, on average.
      confidence: with which that is promised.
    """

    false_alarms: float = 0.02
    tolerance: float = 0.05
    risk: float = 0.1
    confidence: float = 0.95


def p_value(losses: np.ndarray, risk: float) -> float:
    """Return the p-value of "the mean loss is above `risk`", for losses [n] in [0, 1] drawn independently.

    >>> round(p_value(np.zeros(30), 0.1), 4)
    0.0424
    """
    n, mean = len(losses), float(np.mean(losses)) if len(losses) else 1.0
    if mean >= risk:
        return 1.0
    divergence = (1 - mean) * math.log((1 - mean) / (1 - risk))
    if mean > 0:
        divergence += mean * math.log(mean / risk)
    bentkus = math.e * stats.binom.cdf(math.ceil(n * mean - 1e-9), n, risk)
    return float(min(math.exp(-n * divergence), bentkus))


def fewest_photographs(risk: float, confidence: float) -> int:
    """Return how many photographs without any gross error show that the risk is kept.

    >>> fewest_photographs(0.1, 0.95), fewest_photographs(0.05, 0.95)
    (29, 59)
    """
    return math.ceil(math.log(1 - confidence) / math.log(1 - risk))


def thresholds(
    probability: np.ndarray, photograph: np.ndarray, risk: float, confidence: float
) -> list[float]:
    """Return the thresholds to try, the strictest first, from photographs that do not promise.

    Args:
      probability: [N, K] of an error within the tolerance, NaN where unlabelled.
      photograph: [N].
      risk: the most that may be gross errors.
      confidence: with which it is promised.

    Returns:
      Those that leave enough photographs with a reliable landmark for a promise to be possible.
    """
    known = probability[~np.isnan(probability)]
    found = [float(np.quantile(known, 1 - share)) for share in _SHARES[:-1]] + [0.0]
    enough = fewest_photographs(risk, confidence)

    def answered(least: float) -> int:
        return len(np.unique(photograph[np.any(probability >= least, axis=1)]))

    return [least for least in found if answered(least) >= enough]


def probability_threshold(
    probability: np.ndarray,
    is_gross: np.ndarray,
    photograph: np.ndarray,
    candidates: Sequence[float],
    *,
    risk: float,
    confidence: float,
) -> float | None:
    """Return the least probability of landmarks that are reliable; None if none can be trusted.

    Args:
      probability: [N, K] of an error within the tolerance, NaN where unlabelled.
      is_gross: [N, K] whether the error is larger.
      photograph: [N] the photograph of each example.
      candidates: thresholds in the order in which they are tried, which these examples had no part in.
      risk: the largest mean, over photographs, of the share of gross errors among reliable landmarks.
      confidence: the probability over sets of photographs with which that is promised.
    """
    owner = np.unique(photograph, return_inverse=True)[1]
    trusted = None
    for least in candidates:
        reliable = probability >= least
        count = np.bincount(owner, reliable.sum(axis=1))
        gross = np.bincount(owner, (reliable & is_gross).sum(axis=1))
        if p_value(gross[count > 0] / count[count > 0], risk) > 1 - confidence:
            break
        trusted = least
    return trusted


def size_threshold(size: np.ndarray, photograph: np.ndarray, false_alarms: float) -> float | None:
    """Return the largest size of objects that are in the distribution; None if photographs are too few.

    Args:
      size: [N] as in `conformal.third`.
      photograph: [N] the photograph of each example.
      false_alarms: the rate of objects like these that may be called foreign.
    """
    bound = guaranteed_bound(size, photograph, 1 - false_alarms)
    return bound if math.isfinite(bound) else None
