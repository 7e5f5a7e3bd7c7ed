"""One object followed line by line: what is known at once, without the frames to come."""

from dataclasses import dataclass

import numpy as np

from tfhuber.tracking.batched import inverse, quadratic
from tfhuber.tracking.filtering import Filter, Measurements, State, usable
from tfhuber.tracking.fitting import DEFAULT_SHARE, DEFAULT_TIME, fit_motion
from tfhuber.tracking.law import HuberLaw
from tfhuber.tracking.motion import Motion
from tfhuber.tracking.smoothing import typical_speed

__all__ = ["Estimate", "Follower"]

# Until the film has shown how it moves: accelerations of this part of the object's extent per frame^2.
_LIVELINESS = 0.01
# The object's speed before its second frame, in extents per frame.
_SPEED = 0.5
# The motion is fitted anew after so many frames, to those since.
_FITTED_AFTER = (60, 240, 960)
# An object that is elsewhere, by so many deviations, in so many frames one after the other is there: a cut.
_ELSEWHERE, _TIMES_ELSEWHERE = 6.0, 3


@dataclass
class Estimate:
    """An object at a moment: [K, 2] and [K, 2, 2], in pixels and frames."""

    place: np.ndarray
    velocity: np.ndarray
    place_covariance: np.ndarray
    velocity_covariance: np.ndarray


class Follower:
    """The filter of one object, from its first sighting on.

    Attributes:
      last: the time of the last sighting.

    Args:
      landmarks: [K, 2] of the first sighting, of which one at least is usable.
      covariance: [K, 2, 2].
      time: in frames.
      law: of the jitter.
      order: 1 for constant velocity, 2 for acceleration.
      learns: whether it fits its motion to what it has seen; else it keeps usual values.
    """

    def __init__(
        self,
        landmarks: np.ndarray,
        covariance: np.ndarray,
        time: float,
        law: HuberLaw,
        order: int = 1,
        learns: bool = False,
    ):
        self._law, self._order, self._learns = law, order, learns
        shown = landmarks[usable(landmarks, covariance)]
        self._extent = float(np.linalg.norm(np.ptp(shown, axis=0))) or 1.0
        usual = np.ones(len(landmarks))
        process = usual * (_LIVELINESS * self._extent) ** 2
        motion = Motion(process, DEFAULT_SHARE * usual, DEFAULT_TIME * usual, order)
        self._kalman = Filter(motion, law, 2)
        self._film: list[tuple[float, np.ndarray, np.ndarray]] = []
        self._elsewhere = 0
        self._begin(landmarks, covariance, time)

    def _begin(self, landmarks: np.ndarray, covariance: np.ndarray, time: float) -> None:
        measured = Measurements.of(landmarks[None], covariance[None])
        shown = measured.seen[0] > 0
        place = np.where(shown[:, None], measured.place[0], measured.place[0, shown].mean(0))
        unknown = self._extent**2 * np.eye(2)
        vague = np.where(shown[:, None, None], measured.covariance[0], unknown)
        self._state = self._kalman.start(place, vague, _SPEED * self._extent)
        self._time = self.last = time
        self._elsewhere = 0
        self.see(landmarks, covariance, time)

    def distance(
        self, landmarks: np.ndarray, covariance: np.ndarray, time: float
    ) -> tuple[float, float]:
        """Return how many deviations the median landmark of a sighting is from where it should be.

        And its cost, twice less its log density but for a constant: of two objects that a sighting fits as
        well, it is the one of which more is known.
        """
        return self._distance(self._at(time), Measurements.of(landmarks[None], covariance[None]))

    def see(self, landmarks: np.ndarray, covariance: np.ndarray, time: float) -> None:
        """Take in a sighting."""
        measured = Measurements.of(landmarks[None], covariance[None])
        if time > self._time:
            state = self._at(time)
            away = self._distance(state, measured)[0] > _ELSEWHERE
            self._elsewhere = self._elsewhere + 1 if away else 0
            if self._elsewhere == _TIMES_ELSEWHERE:
                self._film.clear()
                self._begin(landmarks, covariance, time)
                return
            self._state, self._time = state, time
        self.last = time
        root, core = self._kalman.split(measured.covariance[0])
        self._kalman.update(self._state, measured.place[0], root, core, measured.seen[0])
        if self._learns:
            self._learn(landmarks, covariance, time)

    def estimate(self, time: float) -> Estimate:
        """Return what is known at a time, the last sighting's or later."""
        state = self._at(time)
        mean, spread = state.mean, state.covariance
        return Estimate(mean[:, :2], mean[:, 2:4], spread[:, :2, :2], spread[:, 2:4, 2:4])

    def _at(self, time: float) -> State:
        state = State(self._state.joint.copy())
        if time > self._time:
            self._kalman.predict(state, time - self._time)
        return state

    def _distance(self, state: State, measured: Measurements) -> tuple[float, float]:
        """Return the medians over landmarks of the Mahalanobis distance and the cost."""
        root, _ = self._kalman.split(measured.covariance[0])
        looks, looks_back = self._kalman.looks(root)
        spread = looks @ state.covariance @ looks_back
        jitter = measured.covariance[0] * (1 - self._kalman.motion.share)[:, None, None]
        innovation = measured.place[0] - (looks @ state.mean[..., None])[..., 0]
        information, determinant = inverse(spread + jitter)
        shown = measured.seen[0] > 0
        if not shown.any():
            return np.inf, np.inf
        squares = quadratic(innovation, information)[shown]
        costs = squares + np.log(np.maximum(determinant[shown], 1e-300))
        return float(np.sqrt(np.median(squares))), float(np.median(costs))

    def _learn(self, landmarks: np.ndarray, covariance: np.ndarray, time: float) -> None:
        """Fit the motion when enough has been seen, and go through those frames again with it."""
        if len(self._film) >= _FITTED_AFTER[-1]:
            return
        self._film.append((time, landmarks, covariance))
        if len(self._film) not in _FITTED_AFTER:
            return
        times, places, covariances = zip(*self._film, strict=True)
        measured = Measurements.of(np.stack(places), np.stack(covariances), np.array(times))
        self._kalman = Filter(fit_motion(measured, self._law, self._order), self._law, 2)
        state = self._kalman.start(*measured.first_seen(), typical_speed(measured))
        self._state = state
        for _ in self._kalman.run(measured, state):
            pass
