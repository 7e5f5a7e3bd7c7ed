"""Files of points in space: lines of JSON, and Anipose's CSV, which pandas and movement read."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import orjson

from tfhuber.cameras.triangulation import Points
from tfhuber.console.files import Aside, blamed

__all__ = ["write_anipose", "write_lines"]


class _Frame(Protocol):
    """The number and the seconds of a frame."""

    number: int
    seconds: float | None


class _Track(Protocol):
    """Points that were smoothed: [T, K, 3] and [T, K, 3, 3]."""

    place: np.ndarray
    velocity: np.ndarray
    place_covariance: np.ndarray
    velocity_covariance: np.ndarray


def write_lines(
    path: Path,
    frames: Sequence[_Frame],
    points: Points,
    cameras: Sequence[str],
    track: _Track | None,
    rate: float | None,
) -> None:
    """Write a line of JSON for each frame.

    It has `frame` and `seconds`; `points` [K, 3] and their `covariance` [K, 3, 3], null where unknown;
    `velocity` and `velocity_covariance` if they were smoothed, a second where the rate is known, else a
    frame; `cameras`, how far each counts for each point [K]; and `error` [K] in pixels.
    """
    count = len(frames)
    places = points.place.reshape(count, -1, 3) if track is None else track.place
    covariances = (
        points.covariance.reshape(count, -1, 3, 3) if track is None else track.place_covariance
    )
    counts, errors = points.counts.reshape(count, -1, len(cameras)), points.error.reshape(count, -1)
    speed = rate or 1.0
    with Aside(path) as aside, blamed(path):
        out = aside.open()
        for index, frame in enumerate(frames):
            line: dict[str, object] = {"frame": frame.number, "seconds": frame.seconds}
            line |= {"points": places[index], "covariance": covariances[index]}
            if track is not None:
                line["velocity"] = speed * track.velocity[index]
                line["velocity_covariance"] = speed**2 * track.velocity_covariance[index]
            line["cameras"] = {
                name: np.ascontiguousarray(counts[index, :, v]) for v, name in enumerate(cameras)
            }
            line["error"] = errors[index]
            out.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")


def write_anipose(
    path: Path, numbers: Sequence[int], points: Points, names: Sequence[str], track: _Track | None
) -> None:
    """Write Anipose's CSV of 3-D points: for each landmark x, y, z, error, ncams and score.

    The score is the greatest share that a camera counts with. The covariance, which Anipose does not know,
    is in the lines of JSON.
    """
    count = len(numbers)
    places = points.place.reshape(count, -1, 3) if track is None else track.place
    errors = points.error.reshape(count, -1)
    counts = points.counts.reshape(count, len(names), -1)
    columns = [f"{n}_{c}" for n in names for c in ("x", "y", "z", "error", "ncams", "score")]
    axes = [f"M_{i}{j}" for i in range(3) for j in range(3)] + [f"center_{i}" for i in range(3)]
    own = [*np.eye(3).ravel().tolist(), 0.0, 0.0, 0.0]
    with Aside(path) as aside, blamed(path):
        rows = csv.writer(aside.open(newline=""), lineterminator="\n")
        rows.writerow([*columns, *axes, "fnum"])
        for index, number in enumerate(numbers):
            table = np.column_stack(
                [places[index], errors[index], (counts[index] > 0).sum(1), counts[index].max(1)]
            )
            cells = ["" if np.isnan(value) else f"{value:.9g}" for value in table.ravel().tolist()]
            rows.writerow([*cells, *own, number])
