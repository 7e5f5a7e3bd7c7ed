"""The command `tfhuber.triangulate`: from each camera's lines to points, and what it refuses."""

import csv
import json
import sys

import numpy as np
import pytest
from anipose_files import write_anipose
from rigs import rig, seen_by

from tfhuber import triangulate
from tfhuber.console.cli import run_main

pytest.importorskip("cv2")  # which writes the calibration

FRAMES, K = 60, 4


@pytest.fixture
def study(tmp_path):
    """Calibration and three cameras' lines of points that move steadily; and where these are [T, K, 3]."""
    cameras = rig()
    start, speed = np.random.default_rng(0).uniform(-0.5, 0.5, (2, K, 3))
    truth = start + 0.01 * speed * np.arange(FRAMES)[:, None, None]
    places, covariances = seen_by(cameras, truth.reshape(-1, 3))
    write_anipose(tmp_path / "calibration.toml", cameras)
    for v, camera in enumerate(cameras):
        lines = [
            {
                "source": "film.mp4",
                "frame": t,
                "seconds": t / 50,
                "box": None,
                "landmarks": places[v].reshape(FRAMES, K, 2)[t].tolist(),
                "covariance": covariances[v].reshape(FRAMES, K, 2, 2)[t].tolist(),
            }
            for t in range(FRAMES)
            if (v, t) != (1, 7)  # a frame that a camera lacks
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{camera.name}.jsonl").write_text(text)
    return tmp_path, truth


def run(monkeypatch, folder, *arguments, files=("cam0.jsonl", "cam1.jsonl", "cam2.jsonl")):
    given = [str(folder / name) if "=" not in name else name for name in files]
    calibration = ["--calibration", str(folder / "calibration.toml")]
    monkeypatch.setattr(sys, "argv", ["triangulate", *given, *calibration, *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        run_main(triangulate.main)
    return stop.value.code


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_points_are_the_truth_and_smoothing_brings_them_nearer(study, monkeypatch, capsys):
    folder, truth = study
    assert run(monkeypatch, folder, "--jsonl", folder / "raw.jsonl") == 0
    assert "240 of 240 points in 60 frames from 3 cameras" in capsys.readouterr().out
    assert run(monkeypatch, folder, "--jsonl", folder / "smooth.jsonl", "--smooth") == 0
    raw, smooth = read(folder / "raw.jsonl"), read(folder / "smooth.jsonl")
    errors = [
        np.sqrt(np.square(np.array([line["points"] for line in lines]) - truth).sum(-1).mean())
        for lines in (raw, smooth)
    ]
    assert errors[0] < 0.012 and errors[1] < 0.6 * errors[0]
    assert np.shape(raw[0]["covariance"]) == (K, 3, 3) and set(raw[0]["cameras"]) == {
        "cam0",
        "cam1",
        "cam2",
    }
    assert raw[7]["cameras"]["cam1"] == [0.0] * K and raw[7]["seconds"] == 7 / 50
    velocity = np.array([line["velocity"] for line in smooth])[30]
    np.testing.assert_allclose(velocity, 50 * (truth[1] - truth[0]), atol=0.06)


def test_the_csv_is_one_that_anipose_writes(study, monkeypatch):
    folder, truth = study
    assert run(monkeypatch, folder, "--anipose", folder / "points.csv") == 0
    with (folder / "points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == FRAMES and [int(row["fnum"]) for row in rows] == list(range(FRAMES))
    for k in range(K):
        found = [[float(row[f"{k}_{axis}"]) for axis in "xyz"] for row in rows]
        np.testing.assert_allclose(found, truth[:, k], atol=0.06)
    assert rows[7]["0_ncams"] == "2" and rows[8]["0_ncams"] == "3" and float(rows[0]["M_00"]) == 1


def test_movement_reads_the_csv(study, monkeypatch):
    load_poses = pytest.importorskip("movement.io.load_poses", reason="movement is not installed")
    folder, truth = study
    assert run(monkeypatch, folder, "--anipose", folder / "points.csv") == 0
    found = load_poses.from_file(folder / "points.csv", source_software="Anipose", fps=50)
    place = found.position.sel(keypoints="2", individuals="id_0").values
    np.testing.assert_allclose(place, truth[:, 2], atol=0.06)


def test_a_calibration_of_another_rig_is_named(study, monkeypatch, capsys):
    folder, _ = study
    (folder / "left.jsonl").write_text("")
    out = "--jsonl", folder / "points.jsonl"
    assert run(monkeypatch, folder, *out, files=("left.jsonl", "cam1.jsonl")) == 2
    error = capsys.readouterr().err
    assert "no camera of the calibration is called 'left', they are cam0, cam1, cam2" in error
    named = f"cam0={folder / 'cam2.jsonl'}"
    assert run(monkeypatch, folder, *out, files=(named, "cam1.jsonl")) == 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "no frame shows an object"),
        ('{"frame": 0, "landmarks": [[1, 2]]}\n', "landmarks without covariances"),
        (
            '{"frame": 0, "landmarks": [[1, 2]], "covariance": [[[1, 0], [0, 1]]]}\n' * 2,
            "2 objects",
        ),
        (
            '{"frame": 0, "landmarks": [[1, 2]], "covariance": [[[1, 0], [0, 1]]]}\n',
            "different land",
        ),
    ],
)
def test_what_is_no_camera_s_film_is_refused(study, monkeypatch, capsys, lines, message):
    folder, _ = study
    (folder / "cam2.jsonl").write_text(lines)
    assert run(monkeypatch, folder, "--jsonl", folder / "points.jsonl") == 2
    assert message in capsys.readouterr().err and not (folder / "points.jsonl").exists()


def test_cameras_that_have_no_frame_in_common_are_refused(study, monkeypatch, capsys):
    folder, _ = study
    for name, keeps in (("cam0", range(20)), ("cam1", range(20, 40))):
        path = folder / f"{name}.jsonl"
        lines = [
            text for text in path.read_text().splitlines() if json.loads(text)["frame"] in keeps
        ]
        path.write_text("\n".join(lines) + "\n")
    out = "--jsonl", folder / "points.jsonl"
    assert run(monkeypatch, folder, *out, files=("cam0.jsonl", "cam1.jsonl")) == 2
    assert "no landmark is seen by two cameras in the same frame" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(study, monkeypatch, capsys):
    folder, _ = study
    files = "cam0=nowhere.jsonl", "cam1.jsonl"
    assert run(monkeypatch, folder, "--jsonl", folder / "points.jsonl", files=files) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err
