"""Tracks of a live picture: for each line a line, of what is known at once."""

from dataclasses import dataclass

import numpy as np

from tfhuber.tracking.film import Settings
from tfhuber.tracking.follower import Estimate, Follower
from tfhuber.tracking.identities import Identities
from tfhuber.tracking.law import huber_law
from tfhuber.tracking.lines import Frame

__all__ = ["LiveFilm", "Seen"]


@dataclass
class Seen:
    """An object in a frame: its number, what is known of it, and the box that was looked at."""

    number: int
    estimate: Estimate
    box: np.ndarray | None = None


class LiveFilm:
    """The objects of a film whose frames come one by one; the motion is learnt on the way.

    A line goes to the nearest object that its frame has not shown yet. As long as no frame has shown
    two, all lines are of the same object.

    Attributes:
      rate: frames in a second so far, or None.
    """

    def __init__(self, settings: Settings):
        law = huber_law(settings.delta, 2)
        self._identities = Identities(law, settings.order, True, settings.patience)
        self._several = False
        self._start: Frame | None = None
        self._last: Frame | None = None
        self.rate: float | None = None

    def see(self, frame: Frame) -> list[Seen]:
        """Return the object that a frame shows; if it shows none, where those that are known should be."""
        self._measure_rate(frame)
        time = float(frame.number)
        followers = self._identities.followers
        if not frame.sightings:
            self._identities.forget(time)
            lost = {n: f for n, f in followers.items() if f.last < time}
            return [Seen(number, f.estimate(time)) for number, f in lost.items()]
        (sighting,) = frame.sightings
        again = self._last is not None and self._last.number == frame.number
        self._several |= again and bool(self._last and self._last.sightings)
        self._last = frame
        alone: Follower | None = next(iter(followers.values()), None)
        if alone is None or self._several:
            (number,) = self._identities.assign([sighting], time)
        else:
            (number,) = followers
            alone.see(sighting.landmarks, sighting.covariance, time)
        return [Seen(number, followers[number].estimate(time), sighting.box)]

    def _measure_rate(self, frame: Frame) -> None:
        if frame.seconds is None:
            return
        if self._start is None:
            self._start = frame
        assert self._start.seconds is not None
        frames, seconds = frame.number - self._start.number, frame.seconds - self._start.seconds
        if frames > 0 and seconds > 0:
            self.rate = frames / seconds
