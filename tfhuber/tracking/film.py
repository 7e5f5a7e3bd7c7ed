"""A whole film: its objects told apart, cut where it is cut, and each smoothed."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tfhuber.tracking.cuts import find_cuts
from tfhuber.tracking.filtering import Measurements
from tfhuber.tracking.fitting import fit_motion
from tfhuber.tracking.identities import Identities
from tfhuber.tracking.law import huber_law
from tfhuber.tracking.lines import Frame
from tfhuber.tracking.motion import Motion
from tfhuber.tracking.smoothing import Track, filtered, smooth

__all__ = ["DELTA", "ObjectTrack", "Settings", "frame_times", "track_film", "track_shots"]

# The knee of the jitter's law. Of a network's whole error it is 1, with heavy tails; of what does not
# persist it may be anything up to a Gaussian's. With 2 the information counted is within 10 % of right for
# both, where 1 would count a Gaussian's jitter as worth 43 % more than it is.
DELTA = 2.0


_GRID = 64  # places of a frame's time between two frames


@dataclass(frozen=True)
class Settings:
    """What a track is made with.

    Attributes:
      order: 1 for constant velocity, 2 for constant acceleration.
      delta: of the law of the jitter.
      smooths: whether each frame knows of those after it.
      patience: frames after which a lost object is over.
    """

    order: int = 1
    delta: float = DELTA
    smooths: bool = True
    patience: float = 50.0


@dataclass
class ObjectTrack:
    """One object, from the first frame that shows it to the last.

    Attributes:
      number: from 1, in the order of appearance.
      first: the index of its first frame.
      track: of its frames.
      boxes: what was looked at in each, or None.
      motion: that was fitted.
      cuts: indices of frames with which another shot begins.
    """

    number: int
    first: int
    track: Track
    boxes: list[np.ndarray | None]
    motion: Motion
    cuts: list[int]


def frame_times(frames: Sequence[Frame]) -> tuple[np.ndarray, float | None]:
    """Return the times [T] of frames, in frames, and how many frames a second has, or None.

    They are the seconds of a video where all lines have them and they ascend, or else the numbers.
    """
    numbers = np.array([frame.number for frame in frames], float)
    if len(frames) < 2 or any(frame.seconds is None for frame in frames):
        return numbers, None
    seconds = np.array([frame.seconds for frame in frames], float)
    steps, counts = np.diff(seconds), np.diff(numbers)
    if not (steps > 0).all():
        return numbers, None
    mean = steps.sum() / counts.sum()
    is_even = bool((np.abs(steps / counts - mean) < 0.1 * mean).all())
    usual = float(mean if is_even else np.median(steps / counts))
    times = (seconds - seconds[0]) / usual
    # On a grid, steps that differ by rounding only are equal, and their matrices are made once.
    on_grid = np.round(times * _GRID) / _GRID
    return on_grid if (np.diff(on_grid) > 0).all() else times, 1 / usual


def track_film(
    frames: Sequence[Frame], settings: Settings, advance: Callable[[int], object] = lambda n: None
) -> list[ObjectTrack]:
    """Return the tracks of a film's objects, in the order in which they appear.

    Args:
      frames: of which one at least shows an object.
      settings: what they are made with.
      advance: called with numbers of frames as they are done.
    """
    times, _ = frame_times(frames)
    law = huber_law(settings.delta, 2)
    shown: dict[int, dict[int, int]] = {}  # by object, the index of the sighting in each frame
    several = any(len(frame.sightings) > 1 for frame in frames)
    identities = Identities(law, settings.order, patience=settings.patience)
    for index, frame in enumerate(frames):
        if not several:
            numbers = [1] * len(frame.sightings)
        else:
            numbers = identities.assign(frame.sightings, times[index])
        for position, number in enumerate(numbers):
            shown.setdefault(number, {})[index] = position
    return [
        _track_object(number, where, frames, times, settings, advance)
        for number, where in shown.items()
    ]


def _track_object(
    number: int,
    where: dict[int, int],
    frames: Sequence[Frame],
    times: np.ndarray,
    settings: Settings,
    advance: Callable[[int], object],
) -> ObjectTrack:
    first, last = min(where), max(where)
    some = frames[first].sightings[where[first]]
    landmarks = np.full((last - first + 1, *some.landmarks.shape), np.nan)
    covariance = np.full((*landmarks.shape, 2), np.nan)
    boxes: list[np.ndarray | None] = [None] * len(landmarks)
    for index, position in where.items():
        sighting = frames[index].sightings[position]
        landmarks[index - first], covariance[index - first] = (
            sighting.landmarks,
            sighting.covariance,
        )
        boxes[index - first] = sighting.box
    measured = Measurements.of(landmarks, covariance, times[first : last + 1])
    track, motion, cuts = track_shots(measured, settings, advance)
    return ObjectTrack(number, first, track, boxes, motion, [first + cut for cut in cuts])


def track_shots(
    measured: Measurements, settings: Settings, advance: Callable[[int], object] = lambda n: None
) -> tuple[Track, Motion, list[int]]:
    """Return the track of one object, its motion as fitted to the longest shot, and the film's cuts.

    A landmark that a shot never shows is not known there: NaN.
    """
    law = huber_law(settings.delta, measured.dimensions)
    cuts = find_cuts(measured)
    ends = [0, *cuts, len(measured.times)]
    shots = [slice(a, b) for a, b in itertools.pairwise(ends)]
    longest = max(shots, key=lambda shot: shot.stop - shot.start)
    motion = fit_motion(measured.part(longest), law, settings.order)
    track = Track.empty(*measured.place.shape)
    for shot in shots:
        part = measured.part(shot)
        if settings.smooths:
            found = smooth(part, motion, law, advance)
        else:
            found = filtered(part, motion, law)
            advance(shot.stop - shot.start)
        unknown = ~part.seen.any(0)
        for name, values in vars(found).items():
            values[:, unknown] = np.nan
            getattr(track, name)[shot] = values
    return track, motion, cuts
