"""Process noise, and the bias's share and time, by maximum likelihood from the film itself.

The likelihood is that of the filter's innovations, whose covariance holds all parameters. It is Gaussian,
so that the covariances are right whatever the noise's law, but grows like a logarithm of the
Mahalanobis distance beyond `_KNEE`, so that one wrong measurement in ten cannot pass for liveliness. A
few windows of the film are enough; they, the landmarks and the trial values are filtered all at once, as
rows of one batch.

First three numbers are found that all landmarks share: share, time, and how much calmer the process is than
each landmark's second differences suggest. Then each landmark moves away from them as far as its own
likelihood pays for, against a Gaussian prior about what is shared (`_PRIOR`).
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tfhuber.console.lazy import lazy_module
from tfhuber.tracking.batched import inverse, quadratic
from tfhuber.tracking.filtering import Filter, Measurements
from tfhuber.tracking.law import HuberLaw
from tfhuber.tracking.motion import Motion
from tfhuber.tracking.smoothing import typical_speed

if TYPE_CHECKING:
    from scipy import optimize
else:  # it takes a third of a second, which a film with given parameters is spared
    optimize = lazy_module("scipy.optimize")

__all__ = ["DEFAULT_SHARE", "DEFAULT_TIME", "fit_motion"]

# Where a film is too short to tell, and what the search begins near.
DEFAULT_SHARE, DEFAULT_TIME = 0.8, 30.0

_WINDOWS, _FRAMES, _LANDMARKS = 3, 240, 24
_LEAST_FRAMES = 12
_REFINEMENTS = 6

# What moves is not quite driven by white noise, and then the likeliest noise is too calm: of ellipses of
# 90 %, 82 to 88 % hold the truth. With half as much again it is 86 to 91 %, and the error is the same.
_LIVELIER = 1.5
_KNEE = 3.0  # of the Mahalanobis distance; a Gaussian's is beyond it once in 90

# Of log process / (second difference)^2, logit share and log time: a weak prior, and then
# how far a landmark may be from its film.
_USUAL = np.array([-4.0, 1.4, np.log(DEFAULT_TIME)])
_SPREAD = np.array([4.0, 2.0, 1.5])
_PRIOR = np.array([2.5, 0.7, 0.5])
_LEAST = np.array([-18.0, -6.0, 0.0])
# At most 98 % in the bias, for 30 frames. With next to no jitter, as where R is too large, slow changes
# of R pass for measurements of the bias, and the track leaves the truth by far more than it says.
_MOST = np.array([3.0, np.log(49.0), np.log(30.0)])


def fit_motion(measured: Measurements, law: HuberLaw, order: int = 1) -> Motion:
    """Return the parameters of the film's landmarks.

    Args:
      measured: the film, without cuts.
      law: of the jitter.
      order: 1 for constant velocity, 2 for constant acceleration.
    """
    scale = _second_differences(measured)
    count = len(measured.times)
    if count < _LEAST_FRAMES or not measured.seen.any():
        usual = np.repeat(_USUAL[:, None], len(scale), axis=1)
        return _livelier(_motion(usual, scale, order))
    windows = _windows(measured)
    seen = measured.seen.sum(0)
    most_seen = np.argsort(-seen, kind="stable")[: max(1, int((seen > 0).sum()))]
    chosen = np.sort(most_seen[:: -(-len(most_seen) // _LANDMARKS)])
    few = _Likelihood([window.part(slice(None), chosen) for window in windows], law, order)
    shared = _fit_shared(few, scale[chosen])
    every = _Likelihood(windows, law, order)
    return _livelier(_motion(_fit_each(every, scale, shared), scale, order))


def _second_differences(measured: Measurements) -> np.ndarray:
    """Return the mean square [K] of z_(t+1) - 2 z_t + z_(t-1), a coordinate's, by its median."""
    z, seen = measured.place, measured.seen
    if len(z) < 3:
        return np.trace(measured.covariance, axis1=2, axis2=3).mean(0)
    square = np.square(z[2:] - 2 * z[1:-1] + z[:-2]).mean(-1)
    shown = (seen[2:] * seen[1:-1] * seen[:-2]) > 0
    least = 1e-8 * np.trace(measured.covariance, axis1=2, axis2=3).mean(0)
    medians = np.array(
        [
            np.median(column[ok]) if ok.any() else 0.0
            for column, ok in zip(square.T, shown.T, strict=True)
        ]
    )
    return (
        np.maximum(medians / 0.69, least) + 1e-12
    )  # the median of half a chi square with 2 degrees


def _windows(measured: Measurements) -> list[Measurements]:
    """Return windows of equal length, spread over the film."""
    count = len(measured.times)
    length = min(count, _FRAMES)
    windows = max(1, min(_WINDOWS, count // length))
    starts = np.linspace(0, count - length, windows).round().astype(int)
    return [measured.part(slice(start, start + length)) for start in starts]


def _motion(values: np.ndarray, scale: np.ndarray, order: int) -> Motion:
    """Return the parameters that the search's numbers [3, K] mean."""
    relative, logit, log_time = np.clip(values, _LEAST[:, None], _MOST[:, None])
    return Motion(scale * np.exp(relative), 1 / (1 + np.exp(-logit)), np.exp(log_time), order)


def _livelier(motion: Motion) -> Motion:
    return dataclasses.replace(motion, process=_LIVELIER * motion.process)


@dataclass
class _Likelihood:
    """The log likelihood of windows, for several trial values of their landmarks at once."""

    windows: list[Measurements]
    law: HuberLaw
    order: int

    def of(self, values: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return the log likelihoods [V, K] of values [V, 3, K], summed over the windows."""
        trials, _, landmarks = values.shape
        copies = len(self.windows)
        rows = np.repeat(values.transpose(1, 0, 2)[:, :, None], copies, axis=2).reshape(3, -1)
        motion = _motion(rows, np.tile(scale, trials * copies), self.order)
        place, covariance, seen = (
            np.concatenate([getattr(window, name) for window in self.windows], axis=1)
            for name in ("place", "covariance", "seen")
        )
        found = _log_likelihood(
            Measurements(place, covariance, seen, self.windows[0].times), trials, motion, self.law
        )
        return found.reshape(trials, copies, landmarks).sum(1)


def _log_likelihood(
    measured: Measurements, trials: int, motion: Motion, law: HuberLaw
) -> np.ndarray:
    """Return the log likelihood of each row, of which there are `trials` copies of those measured."""
    kalman = Filter(motion, law, measured.dimensions)
    place, covariance = (_repeated(first, trials) for first in measured.first_seen())
    state = kalman.start(place, covariance, typical_speed(measured))
    total = np.zeros(len(place))
    before = measured.times[0]
    for frame, time in enumerate(measured.times.tolist()):
        if time > before:
            kalman.predict(state, time - before)
        before = time
        root, core = kalman.split(_repeated(measured.covariance[frame], trials))
        seen = _repeated(measured.seen[frame], trials)
        place = _repeated(measured.place[frame], trials)
        update = kalman.update(state, place, root, core, seen)
        information, determinant = inverse(update.spread + core * law.precision)
        square = quadratic(update.innovation, information)
        distance = np.sqrt(np.maximum(square, 0))
        beyond = _KNEE**2 * (0.5 + np.log(np.maximum(distance, _KNEE) / _KNEE))
        energy = np.where(distance < _KNEE, square / 2, beyond)
        total -= seen * (energy + np.log(np.maximum(determinant, 1e-300)) / 2)
    return total


def _repeated(rows: np.ndarray, times: int) -> np.ndarray:
    """Return rows [K, ...] one after another `times` times."""
    return np.tile(rows, (times,) + (1,) * (rows.ndim - 1))


def _fit_shared(likelihood: _Likelihood, scale: np.ndarray) -> np.ndarray:
    """Return the three numbers [3] that maximise the posterior of all landmarks together."""

    def objective(values: np.ndarray) -> np.ndarray:
        wide = np.repeat(values[:, :, None], len(scale), axis=2)
        prior = np.square((values - _USUAL) / _SPREAD).sum(1) / 2
        return prior - likelihood.of(wide, scale).sum(1)

    grid = [
        (q, s, t)
        for q in (-1.0, -4.0, -7.0, -10.0)
        for s in (-1.0, 1.4, 3.5)
        for t in (1.5, 3, 4.5)
    ]
    starts = np.array(grid)
    best = starts[np.argmin(objective(starts))]
    offsets = 0.02 * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])

    def with_slope(x: np.ndarray) -> tuple[float, np.ndarray]:
        found = objective(x + offsets)
        return found[0], (found[1:4] - found[4:]) / 0.04

    bounds = list(zip(_LEAST, _MOST, strict=True))
    options = {"maxiter": 25, "ftol": 1e-5}
    return optimize.minimize(
        with_slope, best, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    ).x


def _fit_each(likelihood: _Likelihood, scale: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Return the numbers [3, K] of each landmark, by damped Newton steps from those that are shared."""
    step = 0.3
    offsets = step * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    values = np.repeat(shared[:, None], len(scale), axis=1)
    best, best_value = values, np.full(len(scale), -np.inf)
    for _ in range(_REFINEMENTS):
        trials = values + offsets[:, :, None]
        prior = np.square((trials - shared[:, None]) / _PRIOR[:, None]).sum(1) / 2
        found = likelihood.of(trials, scale) - prior
        better = found[0] > best_value
        best = np.where(better, values, best)
        best_value = np.where(better, found[0], best_value)
        slope = (found[1:4] - found[4:]) / (2 * step)
        bend = (2 * found[0] - found[1:4] - found[4:]) / step**2
        move = np.clip(slope / np.maximum(bend, 1 / _PRIOR[:, None] ** 2), -1.5, 1.5)
        onward = np.where(better, best + move, best + 0.3 * (values - best))
        values = np.clip(onward, _LEAST[:, None], _MOST[:, None])
    return best
