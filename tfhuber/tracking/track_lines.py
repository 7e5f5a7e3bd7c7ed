"""A track in text: a line of JSON, or rows of CSV, for each object in each frame."""

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np

from tfhuber.landmarks.json_lines import answer_line, readable
from tfhuber.tracking.follower import Estimate
from tfhuber.tracking.lines import Frame
from tfhuber.tracking.measures import Questions

__all__ = ["CSV_HEADER", "csv_rows", "measures_header", "measures_row", "track_line"]

CSV_HEADER = "source,frame,track,landmark,name,x,y,sxx,sxy,syy,vx,vy,vxx,vxy,vyy\n"


def track_line(
    frame: Frame,
    number: int,
    estimate: Estimate,
    box: np.ndarray | None,
    rate: float | None,
    questions: Questions,
) -> bytes:
    """Return the line: as the client's, with the object's `track`, `velocity` and `velocity_covariance`.

    Velocities are pixels a second where the rate of frames is known, else pixels a frame. Where there are
    questions, `measures` has the answers by name. What is not known is null.
    """
    speed = rate or 1.0
    found = {
        "landmarks": estimate.place,
        "covariance": estimate.place_covariance,
        "velocity": speed * estimate.velocity,
        "velocity_covariance": speed**2 * estimate.velocity_covariance,
    }
    answers = questions.answers(estimate.place, estimate.place_covariance)
    more = {"measures": answers} if answers else {}
    return answer_line(frame.source, box, found, **_place_in_film(frame), track=number, **more)


def measures_header(questions: Questions) -> str:
    """Return the first row of a table of measures."""
    columns = [
        column for each in questions.measures for column in (each.name, f"{each.name}_deviation")
    ]
    return _quoted("source", "frame", "track", *columns) + "\n"


def measures_row(frame: Frame, number: int, estimate: Estimate, questions: Questions) -> str:
    """Return an object's row under `measures_header`; what is not known is empty."""
    answers = questions.answers(estimate.place, estimate.place_covariance).values()
    numbers = [value for each in answers for value in (each["value"], each["deviation"])]
    cells = [f"{value:.9g}" if np.isfinite(value) else "" for value in numbers]
    place = frame.number if frame.is_video else ""
    return _quoted(readable(frame.source), place, number, *cells) + "\n"


def _place_in_film(frame: Frame) -> dict[str, object]:
    return {"frame": frame.number, "seconds": frame.seconds} if frame.is_video else {}


def csv_rows(
    frame: Frame, number: int, estimate: Estimate, rate: float | None, names: Sequence[str]
) -> Iterator[str]:
    """Yield a row with its end for each landmark that is known, under `CSV_HEADER`."""
    speed = rate or 1.0
    variances = [
        covariance[:, (0, 0, 1), (0, 1, 1)]
        for covariance in (estimate.place_covariance, speed**2 * estimate.velocity_covariance)
    ]
    table = np.concatenate(
        [estimate.place, variances[0], speed * estimate.velocity, variances[1]], axis=1
    )
    start = _quoted(readable(frame.source), frame.number if frame.is_video else "", number)
    for index, (name, row) in enumerate(zip(names, table.tolist(), strict=True)):
        if np.isfinite(row).all():
            yield f"{start},{index},{_quoted(name)},{','.join(f'{value:.9g}' for value in row)}\n"


def _quoted(*values: object) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(values)  # so that \r and \n are quoted
    return out.getvalue()[:-2]
