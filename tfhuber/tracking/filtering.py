"""The Kalman filter of many landmarks at once, each frame measured with its own covariance.

The update maximises the posterior under Huber's energy (`law.measurement_weight`). In the equations
below a landmark's measurement has H = [1 0 B] with B = sqrt(share R), M = P H', C = H P H',
S = C + core / w, and G = M inv(S); the state moves by G times the innovation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfhuber.tracking.batched import inverse, square_root
from tfhuber.tracking.law import HuberLaw, measurement_weight, residual_radius
from tfhuber.tracking.motion import Motion

__all__ = ["Correction", "Filter", "Measurements", "State", "Update", "usable"]

# The prior of the first place, in units of its R: next to nothing is known before.
_VAGUE = 1e4


@dataclass
class Measurements:
    """What a film shows of K landmarks in d dimensions.

    Attributes:
      place: [T, K, d]; any finite number where it is not seen.
      covariance: [T, K, d, d] predicted R; the identity where it is not seen.
      seen: [T, K], 1 or 0.
      times: [T] ascending, in frames.
    """

    place: np.ndarray
    covariance: np.ndarray
    seen: np.ndarray
    times: np.ndarray

    @classmethod
    def of(
        cls, landmarks: np.ndarray, covariance: np.ndarray, times: np.ndarray | None = None
    ) -> "Measurements":
        """Return the measurements of landmarks [T, K, d] and covariances [T, K, d, d].

        A landmark with a number that is not finite, or a covariance that is not positive definite, is not
        seen.

        Raises:
          ValueError: shapes don't fit, d is neither 2 nor 3, or times do not ascend.
        """
        landmarks, covariance = np.asarray(landmarks, float), np.asarray(covariance, float)
        if landmarks.ndim != 3 or landmarks.shape[-1] not in (2, 3):
            raise ValueError(f"landmarks must be [T, K, 2 or 3], got {list(landmarks.shape)}")
        count, _, d = landmarks.shape
        if covariance.shape != (*landmarks.shape, d):
            raise ValueError(
                f"covariance must be {[*landmarks.shape, d]}, got {list(covariance.shape)}"
            )
        times = np.arange(count, dtype=float) if times is None else np.asarray(times, float)
        if times.shape != (count,) or not (np.diff(times) > 0).all():
            raise ValueError(f"times must be {count} ascending numbers")
        seen = usable(landmarks, covariance)
        return cls(
            np.where(seen[..., None], landmarks, 0.0),
            np.where(seen[..., None, None], covariance, np.eye(d)),
            seen.astype(float),
            times,
        )

    def part(self, frames: slice, landmarks: np.ndarray | slice = slice(None)) -> "Measurements":
        """Return those of some frames and landmarks."""
        return Measurements(
            self.place[frames, landmarks],
            self.covariance[frames, landmarks],
            self.seen[frames, landmarks],
            self.times[frames],
        )

    @property
    def dimensions(self) -> int:
        """The number of dimensions, d."""
        return self.place.shape[-1]

    def first_seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each landmark's place [K, d] and R [K, d, d] where it is first seen."""
        at = self.seen.argmax(0), np.arange(self.place.shape[1])
        return self.place[at], self.covariance[at]


def usable(landmarks: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return whether landmarks [..., d] and covariances [..., d, d] are finite, and these positive."""
    finite = np.isfinite(landmarks).all(-1) & np.isfinite(covariance).all((-1, -2))
    d = landmarks.shape[-1]
    matrix = np.where(finite[..., None, None], covariance, np.eye(d))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for size in range(1, d + 1):  # its leading minors
            determinant = inverse(matrix[..., :size, :size])[1]
            finite &= (determinant > 0) & np.isfinite(determinant)
    return finite


@dataclass
class State:
    """What is known of places, velocities (, accelerations) and biases of K landmarks.

    Attributes:
      joint: [K, n + 1, n], the covariance and, as one more row, the mean: the same steps change both.
    """

    joint: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """[K, n]."""
        return self.joint[:, -1]

    @property
    def covariance(self) -> np.ndarray:
        """[K, n, n]."""
        return self.joint[:, :-1]


@dataclass
class Correction:
    """What a measurement did to the state, as the smoother needs it.

    Attributes:
      root: B [K, d, d].
      gain: [K, n + 1, d], G and, as one more row, less inv(S) times the innovation.
      information: inv(S) [K, d, d]; 0 where nothing was seen.
    """

    root: np.ndarray
    gain: np.ndarray
    information: np.ndarray


@dataclass
class Update:
    """What a measurement did and showed.

    Attributes:
      correction: of the state.
      innovation: [K, d] measured less predicted; 0 where nothing was seen.
      spread: [K, d, d], C.
    """

    correction: Correction
    innovation: np.ndarray
    spread: np.ndarray


@dataclass
class Step:
    """What some frames do to a state: contiguous matrices, whose products are twice as fast.

    Attributes:
      transition, transition_back: F and F' [K, n, n].
      both, both_back: [K, n + 1, n + 1], F and F' with a 1 for the row of the mean.
      noise: [K, n + 1, n], Q and 0 for the mean.
    """

    transition: np.ndarray
    transition_back: np.ndarray
    both: np.ndarray
    both_back: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, motion: Motion, step: float, dimensions: int) -> "Step":
        transition = motion.transition(step, dimensions)
        count, n, _ = transition.shape
        both = np.zeros((count, n + 1, n + 1))
        both[:, :n, :n], both[:, n, n] = transition, 1
        noise = np.zeros((count, n + 1, n))
        noise[:, :n] = motion.noise(step, dimensions)
        back, both_back = (np.ascontiguousarray(matrix.mT) for matrix in (transition, both))
        return cls(transition, back, both, both_back, noise)


class Filter:
    """The filter of K landmarks with these parameters.

    Args:
      motion: the parameters.
      law: of the jitter.
      dimensions: d.
    """

    def __init__(self, motion: Motion, law: HuberLaw, dimensions: int):
        self.motion, self.law, self.d = motion, law, dimensions
        self.size = (motion.order + 2) * dimensions
        self._steps: dict[float, Step] = {}
        count = len(motion.process)
        self._looks = np.zeros((count, dimensions, self.size))
        self._looks[:, :, :dimensions] = np.eye(dimensions)
        self._looks_back = np.ascontiguousarray(self._looks.mT)

    def split(self, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the bias's root B and the jitter's core of covariances [..., K, d, d], in their shape."""
        share = self.motion.share[:, None, None]
        core = covariance * ((1 - share) / self.law.precision)
        return square_root(covariance) * np.sqrt(share), core

    def start(self, place: np.ndarray, covariance: np.ndarray, speed: float) -> State:
        """Return what is known before the first measurement.

        Args:
          place: [K, d] a first guess, such as the first measurement.
          covariance: [K, d, d] its R.
          speed: standard deviation of each derivative, per frame; large.
        """
        d, count = self.d, len(place)
        state = State(np.zeros((count, self.size + 1, self.size)))
        state.mean[:, :d] = place
        largest = np.trace(covariance, axis1=1, axis2=2)
        for row in range(self.size):
            block = row // d
            is_bias = block == self.motion.order + 1
            variance = 1.0 if is_bias else (speed**2 if block else _VAGUE * largest)
            state.covariance[:, row, row] = variance
        return state

    def step(self, step: float) -> "Step":
        """Return what `step` frames do to a state."""
        if step not in self._steps:
            if len(self._steps) > 100:  # no two steps of a film are alike
                self._steps.clear()
            self._steps[step] = Step.of(self.motion, step, self.d)
        return self._steps[step]

    def looks(self, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return H [K, d, n] and H', which the next call changes."""
        self._looks[:, :, -self.d :] = self._looks_back[:, -self.d :] = root
        return self._looks, self._looks_back

    def predict(self, state: State, step: float) -> None:
        """Move a state on by `step` frames."""
        moves = self.step(step)
        state.joint = moves.both @ (state.joint @ moves.transition_back)
        state.joint += moves.noise

    def update(
        self, state: State, place: np.ndarray, root: np.ndarray, core: np.ndarray, seen: np.ndarray
    ) -> Update:
        """Measure places [K, d], of which those count that are seen [K]; the state's array changes."""
        looks, looks_back = self.looks(root)
        product = state.joint @ looks_back
        product[:, -1] -= place
        product[:, -1] *= seen[:, None]
        innovation = -product[:, -1]
        spread = looks @ product[:, :-1]
        information, _ = inverse(spread + core)
        self._weigh(information, innovation, spread, core)
        information *= seen[:, None, None]
        gain = product @ information
        state.joint -= gain @ np.ascontiguousarray(product[:, :-1].mT)
        return Update(Correction(root, gain, information), innovation, spread)

    def _weigh(
        self, information: np.ndarray, innovation: np.ndarray, spread: np.ndarray, core: np.ndarray
    ) -> None:
        """Replace inv(S) of the landmarks that lie beyond the knee, in place."""
        left = residual_radius(information, innovation, core)
        rows = np.flatnonzero(left > self.law.knee)
        if rows.size:
            spread, core = spread[rows], core[rows]
            here = innovation[rows], spread, core, self.law.knee, left[rows]
            weight = measurement_weight(*here)
            information[rows] = inverse(spread + core / weight[:, None, None])[0]

    def run(
        self, measured: Measurements, state: State, previous: float | None = None
    ) -> Iterator[tuple[int, State, Update]]:
        """Yield the number of each frame, the state after it, which changes later, and its update.

        Args:
          measured: the frames.
          state: before the first frame; at it if there is no previous one.
          previous: the time of the frame before the first.
        """
        root, core = self.split(measured.covariance)
        before = measured.times[0] if previous is None else previous
        for frame, time in enumerate(measured.times.tolist()):
            if time > before:
                self.predict(state, time - before)
            before = time
            here = measured.place[frame], root[frame], core[frame], measured.seen[frame]
            yield frame, state, self.update(state, *here)
