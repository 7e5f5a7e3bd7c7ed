"""How landmarks move and how a network errs about them, as one linear system.

A landmark's state is its place p, velocity v (and, in order 2, acceleration), and u, the part of the
network's error that persists, in units of its predicted deviation:

    z_t = p_t + sqrt(share R_t) u_t + jitter,    jitter ~ Huber's law with covariance (1 - share) R_t.

The highest derivative is driven by white noise of density `process`. u is a first-order Gauss-Markov
process with unit variance, whose autocorrelation falls to 1 / e in `time`. So the whole error has
covariance R_t at every frame, grows where the network says so, and is alike in neighbouring frames.
The unit of time is a frame.
"""

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Motion"]


@dataclass(frozen=True)
class Motion:
    """The parameters of K landmarks.

    Attributes:
      process: [K] spectral density of the noise that drives the highest derivative, in
        pixels^2 / frame^3 with velocities and pixels^2 / frame^5 with accelerations.
      share: [K] of the variance R that persists from frame to frame, in [0, 1).
      time: [K] frames in which its autocorrelation falls to 1 / e.
      order: 1 for constant velocity, 2 for constant acceleration.
    """

    process: np.ndarray
    share: np.ndarray
    time: np.ndarray
    order: int = 1

    def transition(self, step: float, dimensions: int) -> np.ndarray:
        """Return F [K, n, n], which takes a state `step` frames on."""
        derivatives = self.order + 1
        matrix = np.zeros((len(self.process), derivatives + 1, derivatives + 1))
        for row in range(derivatives):
            for column in range(row, derivatives):
                power = column - row
                matrix[:, row, column] = step**power / math.factorial(power)
        matrix[:, -1, -1] = self._persistence(step)
        return _per_axis(matrix, dimensions)

    def noise(self, step: float, dimensions: int) -> np.ndarray:
        """Return the covariance Q [K, n, n] that `step` frames add to a state."""
        last = self.order
        matrix = np.zeros((len(self.process), last + 2, last + 2))
        for row in range(last + 1):
            for column in range(last + 1):
                # The integral of t^a / a! t^b / b! over the step.
                a, b = last - row, last - column
                scale = (a + b + 1) * math.factorial(a) * math.factorial(b)
                matrix[:, row, column] = self.process * step ** (a + b + 1) / scale
        matrix[:, -1, -1] = 1 - self._persistence(step) ** 2
        return _per_axis(matrix, dimensions)

    def _persistence(self, step: float) -> np.ndarray:
        """Return the autocorrelations [K] of the bias between frames that are `step` apart."""
        return np.exp(-step / self.time)


def _per_axis(matrix: np.ndarray, dimensions: int) -> np.ndarray:
    """Return matrices [K, m d, m d] that do to each axis what [K, m, m] do, with the axes innermost."""
    identity = np.eye(dimensions)
    size = matrix.shape[-1] * dimensions
    return np.einsum("kij,ab->kiajb", matrix, identity).reshape(-1, size, size)
