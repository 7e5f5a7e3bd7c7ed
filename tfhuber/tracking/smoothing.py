"""The smoother: what the frames after tell of each frame, by the adjoint of the filter.

Backward through the film it carries the gradient l [n] and the information L [n, n] of all later frames,
which is the smoother of Rauch, Tung and Striebel without its inverses (de Jong 1989): with the
filter's mean x and covariance P of a frame, and l and L of the frames after it,

    smoothed mean = x + P l,    smoothed covariance = P - P L P.

A long film is filtered twice, its parts the second time one by one, so that memory is bounded.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfhuber.tracking.filtering import Correction, Filter, Measurements, State
from tfhuber.tracking.law import HuberLaw
from tfhuber.tracking.motion import Motion

__all__ = ["Track", "filtered", "smooth", "typical_speed"]

# Numbers of covariances that are kept at a time, 8 bytes each.
_MOST_NUMBERS = 45_000_000
_BLOCK = 32  # frames that are smoothed together, few enough to stay in the cache


@dataclass
class Track:
    """Places and velocities of K landmarks in T frames, with the covariance of each.

    The covariance of a place holds both parts of the network's error, the bias and the jitter.

    Attributes:
      place, velocity: [T, K, d], in pixels and pixels per frame.
      place_covariance, velocity_covariance: [T, K, d, d].
    """

    place: np.ndarray
    velocity: np.ndarray
    place_covariance: np.ndarray
    velocity_covariance: np.ndarray

    @classmethod
    def empty(cls, count: int, landmarks: int, d: int) -> "Track":
        """Return a track of zeros."""
        vectors, matrices = (count, landmarks, d), (count, landmarks, d, d)
        return cls(*(np.zeros(shape) for shape in (vectors, vectors, matrices, matrices)))

    def put(self, frames: int | slice, mean: np.ndarray, covariance: np.ndarray) -> None:
        """Store means [..., K, 2 d] and covariances [..., K, 2 d, 2 d] of places and velocities."""
        d = self.place.shape[-1]
        covariance = (
            covariance + covariance.mT
        ) / 2  # which rounding, after a vague beginning, may bend
        self.place[frames], self.velocity[frames] = mean[..., :d], mean[..., d:]
        self.place_covariance[frames] = covariance[..., :d, :d]
        self.velocity_covariance[frames] = covariance[..., d:, d:]


def typical_speed(measured: Measurements) -> float:
    """Return a standard deviation that holds any velocity of the film: ten times its largest step."""
    steps = np.diff(measured.place, axis=0) * (measured.seen[1:] * measured.seen[:-1])[..., None]
    variance = np.trace(measured.covariance, axis1=2, axis2=3)[measured.seen > 0]
    noise = float(variance.mean()) if variance.size else 1.0
    return 10 * float(np.sqrt(np.square(steps).sum(-1).max(initial=0) + noise))


def _beginning(kalman: Filter, measured: Measurements) -> State:
    """Return the state before the first frame: where each landmark is first seen, vaguely."""
    return kalman.start(*measured.first_seen(), typical_speed(measured))


def filtered(measured: Measurements, motion: Motion, law: HuberLaw) -> Track:
    """Return what the filter knows at each frame, of it and of those before."""
    kalman = Filter(motion, law, measured.dimensions)
    count, landmarks, d = measured.place.shape
    track = Track.empty(count, landmarks, d)
    for frame, state, _ in kalman.run(measured, _beginning(kalman, measured)):
        track.put(frame, state.mean[:, : 2 * d], state.covariance[:, : 2 * d, : 2 * d])
    return track


def smooth(
    measured: Measurements,
    motion: Motion,
    law: HuberLaw,
    advance: Callable[[int], object] = lambda frames: None,
) -> Track:
    """Return what the whole film tells of each frame.

    Args:
      measured: the film, without cuts.
      motion: the parameters of its landmarks.
      law: of its jitter.
      advance: called with numbers of frames as they are done; each is counted once.
    """
    kalman = Filter(motion, law, measured.dimensions)
    count, landmarks, d = measured.place.shape
    length = max(_BLOCK, _MOST_NUMBERS // (kalman.size**2 * landmarks))
    parts = [slice(start, min(start + length, count)) for start in range(0, count, length)]
    states, history, state = [], None, _beginning(kalman, measured)
    for part in parts:
        states.append(State(state.joint.copy()))
        history = _History.of(kalman, measured, part, state)
    track = Track.empty(count, landmarks, d)
    later = _Later(kalman, landmarks)
    for part, state in zip(reversed(parts), reversed(states), strict=True):
        history = history or _History.of(kalman, measured, part, state)
        _smooth_part(history, later, measured.times, part.start, track, advance)
        history = None
    return track


@dataclass
class _History:
    """What the filter did in some frames.

    Attributes:
      joint: [T, K, 2 d + 1, n] the covariance's rows of places and velocities, and the mean.
      corrections: one a frame.
    """

    joint: np.ndarray
    corrections: list[Correction]

    @classmethod
    def of(cls, kalman: Filter, measured: Measurements, frames: slice, state: State) -> "_History":
        """Filter some frames from the state at the end of those before; the state moves on."""
        part = measured.part(frames)
        rows = 2 * kalman.d
        shape = len(part.times), len(state.joint), rows + 1, kalman.size
        history = cls(np.empty(shape), [])
        previous = measured.times[frames.start - 1] if frames.start else None
        for frame, now, update in kalman.run(part, state, previous):
            history.joint[frame, :, :rows] = now.joint[:, :rows]
            history.joint[frame, :, rows] = now.mean
            history.corrections.append(update.correction)
        return history


class _Later:
    """The information L and the gradient l of all later frames, carried backward.

    Attributes:
      joint: [K, n + 1, n], L and, as one more row, l.
    """

    def __init__(self, kalman: Filter, landmarks: int):
        self._kalman = kalman
        self.joint = np.zeros((landmarks, kalman.size + 1, kalman.size))

    def add(self, correction: Correction) -> None:
        """Take in a frame's measurement: L becomes (1 - G H)' L (1 - G H) + H' inv(S) H.

        That is L - W H - (W H)' with W = L G - H' (inv(S) + G' L G) / 2.
        """
        looks, looks_back = self._kalman.looks(correction.root)
        gain = correction.gain[:, :-1]
        product = self.joint @ gain
        inner = np.ascontiguousarray(gain.mT) @ product[:, :-1]
        inner += correction.information
        inner /= 2
        product[:, :-1] -= looks_back @ inner
        product[:, -1] += correction.gain[:, -1]
        through = product @ looks
        self.joint -= through
        self.joint[:, :-1] -= through[:, :-1].mT

    def step_back(self, step: float) -> None:
        """Go from a frame to the one `step` before it."""
        moves = self._kalman.step(step)
        self.joint = moves.both_back @ (self.joint @ moves.transition)


def _smooth_part(
    history: _History,
    later: _Later,
    times: np.ndarray,
    start: int,
    track: Track,
    advance: Callable[[int], object],
) -> None:
    """Smooth the frames of a history, of which the first is number `start`, backward."""
    count, rows = len(history.joint), history.joint.shape[2] - 1
    for stop in range(count, 0, -_BLOCK):
        frames = range(max(0, stop - _BLOCK), stop)
        block = np.empty((len(frames), *later.joint.shape))
        for frame in reversed(frames):
            block[frame - frames.start] = later.joint
            later.add(history.corrections[frame])
            number = start + frame
            if number:
                later.step_back(times[number] - times[number - 1])
        now = history.joint[frames.start : stop]
        mean, covariance = _smoothed(now, block, rows)
        track.put(slice(start + frames.start, start + stop), mean, covariance)
        advance(len(frames))


def _smoothed(now: np.ndarray, later: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x + P l and P - P L P of the first `rows` of states."""
    some = now[..., :rows, :]
    mean = now[..., rows, :rows] + (some @ later[..., -1, :, None])[..., 0]
    covariance = some[..., :rows] - (some @ later[..., :-1, :]) @ some.mT
    return mean, covariance
