"""Lines of JSON are read as the client writes them; what is wrong with one is said or counted."""

import json
import re

import numpy as np
import pytest

from tfhuber.landmarks.json_lines import answer_line
from tfhuber.tracking.lines import LineReader

SQUARE = [[2.0, 0.5], [0.5, 1.0]]


def line(frame=None, source="a.mp4", **values):
    values = {"landmarks": [[1.0, 2.0]], "covariance": [SQUARE], **values}
    place = {} if frame is None else {"frame": frame, "seconds": frame / 25}
    return json.dumps({"source": source, **place, "box": [0, 0, 9, 9], **values}).encode()


def test_the_clients_lines():
    found = {"landmarks": np.array([[0.1, 2.5]]), "covariance": np.array([SQUARE])}
    text = answer_line("a.mp4", np.array([1.0, 2, 3, 4]), found, frame=3, seconds=0.12)
    (frame,) = LineReader("x").frames([text])
    assert (frame.source, frame.number, frame.seconds, frame.is_video) == ("a.mp4", 3, 0.12, True)
    np.testing.assert_allclose(frame.sightings[0].landmarks, [[0.1, 2.5]])
    np.testing.assert_allclose(frame.sightings[0].covariance, [SQUARE])
    np.testing.assert_allclose(frame.sightings[0].box, [1, 2, 3, 4])


def test_lines_of_one_frame_are_its_objects_and_pictures_are_counted():
    frames = list(LineReader("x").frames([line(0), line(0), line(4), b"\n"]))
    assert [(f.number, len(f.sightings)) for f in frames] == [(0, 2), (4, 1)]
    pictures = [line(source="b.jpg"), line(source="b.jpg"), line(source="a.jpg")]
    frames = list(LineReader("x").frames(pictures))
    assert [(f.number, len(f.sightings), f.is_video) for f in frames] == [
        (0, 2, False),
        (1, 1, False),
    ]


def test_null_is_a_landmark_that_is_not_known():
    two = line(0, landmarks=[[1, 2], [None, None]], covariance=[SQUARE, SQUARE])
    (frame,) = LineReader("x").frames([two])
    assert np.isnan(frame.sightings[0].landmarks[1]).all()


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (b'{"source": "a.mp4", "fra', "line 2: "),
        (b"[1, 2]", "neither landmarks nor an error"),
        (b'"text"', "neither landmarks nor an error"),
        (b"\xff\xfe", "line 2: "),
        (line(1, landmarks=[[1, 2, 3]]), r"landmarks must be \[N, 2\]"),
        (line(1, landmarks=[["a", 2]]), "landmarks are no lists of numbers"),
        (line(1, covariance=[[1, 2]]), r"covariance must be \[N, 2, 2\]"),
        (line(1, covariance=[SQUARE, SQUARE]), "not as many covariances"),
        (line(1, box=[1, 2]), "box has not four sides"),
        (line(-1), "frame is no number from 0, but -1"),
        (line(1, source=3), "source is no text"),
    ],
)
def test_damaged_lines_are_counted_and_left_out(damaged, why):
    reader = LineReader("x")
    assert [frame.number for frame in reader.frames([line(0), damaged, line(2), b"{"])] == [0, 2]
    assert reader.damaged == 2 and reader.first_damaged.startswith("line 2: ")
    assert re.search(why, reader.first_damaged)


def test_pictures_without_an_answer_are_counted():
    reader = LineReader("x")
    failed = b'{"source": "a.mp4", "frame": 1, "seconds": 0.1, "box": null, "error": "no face"}'
    unknown = line(2, landmarks=[[None, 1]])
    not_positive = line(3, covariance=[[[1, 2], [2, 1]]])
    frames = list(reader.frames([line(0), failed, unknown, not_positive]))
    assert [len(frame.sightings) for frame in frames] == [1, 0, 0, 0]
    assert (reader.failures, reader.first_failure, reader.damaged) == (3, "no face", 0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line(5), line(3)], "x, line 2: frame 3 comes after frame 5; sort the lines"),
        ([line(0, covariance=None)], "x, line 1: landmarks without covariances"),
        (
            [line(0), line(1, landmarks=[[1, 2]] * 3, covariance=[SQUARE] * 3)],
            "x, line 2: 3 landmarks, but 1 before",
        ),
    ],
)
def test_lines_that_make_no_film_are_refused(lines, message):
    with pytest.raises(ValueError, match=message):
        list(LineReader("x").frames(lines))
