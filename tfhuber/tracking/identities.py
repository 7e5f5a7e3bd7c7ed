"""Which object of a frame is which of the frames before: assignment by Mahalanobis distance.

Each object is followed by a filter of its own (`Follower`). The objects of a frame go to those that
are followed so that together they are likeliest (`scipy.optimize.linear_sum_assignment`); one that is
further than `GATE` from all is new, and one that has been lost for long is over. While it is lost its
covariance grows, and with it the distance at which it is found again.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tfhuber.console.lazy import lazy_module
from tfhuber.tracking.follower import Follower
from tfhuber.tracking.law import HuberLaw
from tfhuber.tracking.lines import Sighting

if TYPE_CHECKING:
    from scipy import optimize
else:
    optimize = lazy_module("scipy.optimize")

__all__ = ["GATE", "Identities"]

GATE = 6.0  # deviations, of the median landmark
_NONE = 1e6  # the cost of a pair beyond it


@dataclass
class Identities:
    """The objects that are followed.

    Attributes:
      law, order, learns: as for `Follower`.
      patience: frames after which a lost object is over.
      followers: by the number of the object, from 1.
    """

    law: HuberLaw
    order: int = 1
    learns: bool = False
    patience: float = 50.0
    followers: dict[int, Follower] = field(default_factory=dict)
    _count: int = 0

    def assign(self, sightings: list[Sighting], time: float) -> list[int]:
        """Return the number of each object of a frame, and take it in."""
        self.forget(time)
        numbers = [0] * len(sightings)
        known = [n for n, follower in self.followers.items() if follower.last < time]
        found = [
            self.followers[n].distance(s.landmarks, s.covariance, time)
            for s in sightings
            for n in known
        ]
        distances, costs = np.array(found).reshape(len(sightings), len(known), 2).transpose(2, 0, 1)
        # All beyond the gate are as bad, so that none of them makes another pair worse.
        fits = distances < GATE
        rows, columns = optimize.linear_sum_assignment(np.where(fits, costs, _NONE))
        for row, column in zip(rows, columns, strict=True):
            if fits[row, column]:
                numbers[row] = known[column]
        for index, sighting in enumerate(sightings):
            numbers[index] = self._take(numbers[index], sighting, time)
        return numbers

    def forget(self, time: float) -> None:
        """Let go of objects that have been lost for too long."""
        over = [n for n, f in self.followers.items() if time - f.last > self.patience]
        for number in over:
            del self.followers[number]

    def _take(self, number: int, sighting: Sighting, time: float) -> int:
        """Give a sighting to the object of that number, or to a new one if it is 0."""
        here = sighting.landmarks, sighting.covariance, time
        if number:
            self.followers[number].see(*here)
            return number
        self._count += 1
        self.followers[self._count] = Follower(*here, self.law, self.order, self.learns)
        return self._count
