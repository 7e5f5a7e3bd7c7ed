"""The drawn film moves a little from frame to frame, is the same each time, and says where it is."""

import json
import sys

import av
import numpy as np
import pytest

from pipelines import sample_film
from pipelines.sample.film import SIDE, draw_film
from tfhuber.geometry.boxes import read_boxes


def test_one_face_moves_smoothly_and_a_bar_passes():
    drawn = list(draw_film(3, 12))
    places = np.array([landmarks for _, landmarks in drawn])
    assert places.shape == (12, 98, 2) and ((places > 0) & (places < SIDE)).all()
    steps = np.linalg.norm(np.diff(places, axis=0), axis=-1)
    assert np.median(steps) > 0.2 and steps.max() < 12
    again, landmarks = next(draw_film(3, 12))
    assert np.array_equal(again, drawn[0][0]) and np.array_equal(landmarks, places[0])
    assert not np.allclose(next(draw_film(4, 12))[1], places[0])
    # What stands still does so to the pixel: the corner, until the bar comes.
    corners = np.array([np.asarray(image)[:8, -8:] for image, _ in drawn])
    assert np.ptp(corners[:6], axis=0).max() == 0


def test_the_film_and_its_truth(tmp_path, monkeypatch, capsys):
    film = tmp_path / "film.mp4"
    monkeypatch.setattr(sys, "argv", ["sample_film", "--output", str(film), "--frames", "5"])
    assert sample_film.main() == 0 and "5 frames" in capsys.readouterr().out
    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    drawn = list(draw_film(0, 5))
    assert len(frames) == 5
    for frame, (image, _) in zip(frames, drawn, strict=True):
        assert np.abs(frame.astype(float) - np.asarray(image)).mean() < 4
    lines = [json.loads(line) for line in sample_film.truth_path(film).open()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4]
    boxes = read_boxes(sample_film.truth_path(film))
    for line, (_, landmarks) in zip(lines, drawn, strict=True):
        np.testing.assert_allclose(line["landmarks"], landmarks, atol=5e-4)
        box = boxes[str(line["frame"])]
        assert (box[:2] < landmarks.min(0)).all() and (box[2:] > landmarks.max(0)).all()


@pytest.mark.parametrize(
    "arguments",
    [["--output", "film.avi"], ["--output", "f.mp4", "--frames", "0"]],
    ids=["not mp4", "no frames"],
)
def test_what_cannot_be_is_refused(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sample_film", *arguments])
    with pytest.raises(ValueError, match="must"):
        sample_film.main()
    assert not list(tmp_path.iterdir())
