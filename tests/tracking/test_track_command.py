"""The command `tfhuber.track`: its files, its pipe, and its words for what is no film of an object."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from films import film, rms

from tfhuber import track
from tfhuber.console.cli import run_main

ROOT = Path(__file__).resolve().parents[2]
FRAMES, K = 80, 4
TRUTH, VELOCITY, PLACES, COVARIANCES = film(FRAMES, K, process=0.02)


def line(t, offset=0.0, **values):
    found = {"landmarks": (PLACES[t] + offset).tolist(), "covariance": COVARIANCES[t].tolist()}
    head = {"source": "film.mp4", "frame": t, "seconds": t / 25, "box": [100, 100, 300, 300]}
    return json.dumps({**head, **found, **values}) + "\n"


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "found.jsonl"
    path.write_text("".join(line(t) for t in range(FRAMES)))
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["track", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_main(track.main)
        return stop.value.code or 0, *capsys.readouterr()

    return call


def read(path):
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_lines_hold_places_and_velocities_with_covariances(run, lines, tmp_path):
    status, out, _ = run(lines, "--jsonl", tmp_path / "tracks.jsonl")
    assert status == 0 and "80 frames, velocities in pixels a second" in out
    rows = read(tmp_path / "tracks.jsonl")
    assert [row["frame"] for row in rows] == list(range(FRAMES))
    assert {row["track"] for row in rows} == {1} and rows[0]["box"] == [100, 100, 300, 300]
    places = np.array([row["landmarks"] for row in rows])
    assert rms(places, TRUTH) < 0.8 * rms(PLACES, TRUTH)
    velocity = np.array([row["velocity"] for row in rows])
    assert rms(velocity[5:], 25 * VELOCITY[5:]) < 0.5 * rms(0 * velocity[5:], 25 * VELOCITY[5:])
    error = (velocity - 25 * VELOCITY)[10:]
    spread = np.array([row["velocity_covariance"] for row in rows])[10:]
    squares = np.einsum("tki,tkij,tkj->tk", error, np.linalg.inv(spread), error)
    assert 0.3 < squares.mean() / 2 < 3  # in two dimensions the mean is 2
    for name in ("covariance", "velocity_covariance"):
        values = np.array([row[name] for row in rows])
        assert values.shape == (FRAMES, K, 2, 2) and (np.linalg.eigvalsh(values) > 0).all()


def test_the_same_lines_give_the_same_bytes(run, lines, tmp_path):
    """So a command that was killed is started again; until it is done there is no file of that name."""
    for name in ("one.jsonl", "two.jsonl"):
        assert run(lines, "--jsonl", tmp_path / name)[0] == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "found.jsonl",
        "one.jsonl",
        "two.jsonl",
    ]


def started(*arguments):
    command = [sys.executable, "-m", "tfhuber.track", *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


def test_a_command_that_was_killed_is_started_again(run, lines, tmp_path):
    assert run(lines, "--jsonl", tmp_path / "whole.jsonl")[0] == 0
    path = tmp_path / "tracks.jsonl"
    with started("-", "--jsonl", path) as process:
        process.stdin.write("".join(line(t) for t in range(40)).encode())
        process.stdin.flush()
        process.kill()
    assert not path.exists()
    assert run(lines, "--jsonl", path)[0] == 0
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_a_live_film_wrote_is_kept_when_it_is_ended(tmp_path):
    path = tmp_path / "live.jsonl"
    with started("-", "--live", "--jsonl", path) as process:
        process.stdin.write("".join(line(t) for t in range(5)).encode())
        process.stdin.flush()
        part = tmp_path / "live.jsonl.tmp"
        while not (part.exists() and part.read_bytes().count(b"\n") == 5):
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        _, error = process.communicate()
    assert process.returncode == 143 and b"live.jsonl holds the 5 lines until then" in error
    assert [row["frame"] for row in read(path)] == [0, 1, 2, 3, 4]


def test_every_format_that_the_client_writes(run, lines, tmp_path):
    files = ("a.csv", "b.json", "c.nc", "d.jsonl")
    for name in files:
        assert run(lines, "--results", tmp_path / name, "--csv", tmp_path / "rows.csv")[0] == 0
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == FRAMES * K and float(rows[5]["vxx"]) > 0
    expected = [float(rows[0][axis]) for axis in "xy"]
    cells = (tmp_path / "a.csv").read_text().splitlines()[3].split(",")
    np.testing.assert_allclose([float(cell) for cell in cells[1:3]], expected, rtol=1e-6)
    np.testing.assert_allclose(
        json.loads((tmp_path / "b.json").read_text())[0]["keypoints"][:2], expected
    )
    np.testing.assert_allclose(read(tmp_path / "d.jsonl")[0]["landmarks"][0], expected, rtol=1e-6)
    assert (tmp_path / "a_cov.csv").exists()


def test_sleap_reads_the_file(run, lines, tmp_path):
    sleap_io = pytest.importorskip("sleap_io")
    assert run(lines, "--results", tmp_path / "tracks.slp", "--csv", tmp_path / "rows.csv")[0] == 0
    labels = sleap_io.load_slp(str(tmp_path / "tracks.slp"), open_videos=False)
    assert len(labels) == FRAMES
    assert rms(labels[40].instances[0].numpy(), TRUTH[40]) < 4


def test_a_further_object_has_a_file_of_its_own(run, tmp_path):
    path = tmp_path / "two.jsonl"
    path.write_text("".join(line(t) + line(t, 300.0) for t in range(FRAMES)))
    _, out, _ = run(path, "--results", tmp_path / "t.csv", "--jsonl", tmp_path / "t.jsonl")
    assert "object 2: frames 0 to 79" in out
    assert (tmp_path / "t.csv").exists() and (tmp_path / "t_2.csv").exists()
    assert [row["track"] for row in read(tmp_path / "t.jsonl")[:4]] == [1, 2, 1, 2]


def test_a_live_line_goes_out_before_the_next_comes_in():
    with started("-", "--live") as process:
        for t in range(5):
            process.stdin.write(line(t).encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["frame"] == t
        out, error = process.communicate()
    assert (process.returncode, out, error) == (0, b"", b"")


def test_a_live_film_ends_where_the_filter_of_the_whole_one_does(run, lines, tmp_path):
    assert run(lines, "--live", "--jsonl", tmp_path / "live.jsonl")[0] == 0
    assert run(lines, "--filter-only", "--jsonl", tmp_path / "whole.jsonl")[0] == 0
    live, whole = (read(tmp_path / name)[-1]["landmarks"] for name in ("live.jsonl", "whole.jsonl"))
    assert rms(np.array(live), np.array(whole)) < 1.5


def test_an_overlay_is_drawn_on_the_video(run, tmp_path):
    video_files = pytest.importorskip("video_files")
    pytest.importorskip("cv2")
    video = video_files.make_video(tmp_path / "film.mp4", FRAMES, (400, 400))
    path = tmp_path / "found.jsonl"
    path.write_text("".join(line(t, source=str(video)) for t in range(FRAMES)))
    assert run(path, "--overlay", tmp_path / "drawn.mp4")[0] == 0
    frames, _, _ = video_files.read_video(tmp_path / "drawn.mp4")
    plain, _, _ = video_files.read_video(video)
    assert len(frames) == FRAMES
    x, y = TRUTH[40, 0].round().astype(int)
    here = slice(y - 4, y + 5), slice(x - 4, x + 5)
    assert np.abs(frames[40][here].astype(int) - plain[40][here]).max() > 60


def test_damaged_lines_are_counted_and_one_frame_is_enough(run, tmp_path):
    path = tmp_path / "found.jsonl"
    path.write_text(line(0) + '{"source": "fi\n' + "nonsense\n")
    status, _, err = run(path, "--jsonl", tmp_path / "tracks.jsonl")
    assert status == 0 and len(read(tmp_path / "tracks.jsonl")) == 1
    assert "left out 2 damaged lines, the first line 2" in err
    assert "of one frame no velocity is known" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no lines"),
        ('{"source": "a.mp4", "frame": 0, "error": "no face"}\n', "1 have no answer (no face)"),
        ("nonsense\n", "no line is a prediction: 1 are damaged"),
        (line(0, covariance=None), "line 1: landmarks without covariances"),
        (line(5) + line(3), "frame 3 comes after frame 5"),
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_what_is_no_film_of_an_object_is_refused(run, tmp_path, text, message, live):
    path = tmp_path / "found.jsonl"
    path.write_text(text)
    options = ["--live"] if live else []
    status, out, err = run(path, *options, "--jsonl", tmp_path / "tracks.jsonl")
    assert status == 2 and out == "" and message in err
    assert not (tmp_path / "tracks.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to write"),
        (["--live", "--csv", "x.csv"], "leave out --csv"),
        (["--jsonl", "x.jsonl", "--delta", "0"], "--delta must be positive, got 0"),
        (["--jsonl", "x.jsonl", "--landmarks", "wflw"], "wflw has 98 landmarks, the lines have 4"),
        (["--overlay", "x.avi"], "must end in .mp4"),
    ],
)
def test_options_that_make_no_sense_are_refused(run, lines, arguments, message):
    status, _, err = run(lines, *arguments)
    assert status == 2 and message in err


def test_a_video_is_refused_with_the_pipe_that_is_meant(run):
    status, _, err = run("clip.mp4", "--jsonl", "x.jsonl")
    assert status == 2 and "tfhuber client clip.mp4 --jsonl - | tfhuber track -" in err


def test_what_is_read_is_not_written(run, lines):
    before = lines.read_bytes()
    status, _, err = run(lines, "--jsonl", lines)
    assert status == 2 and "is what is read" in err and lines.read_bytes() == before


def test_questions_to_each_shape(run, lines, tmp_path):
    """`gap` is of two landmarks that err alike: sure of it is only who knows that."""
    files = {
        name: tmp_path / name for name in ("tracks.jsonl", "table.csv", "model.json", "joint.jsonl")
    }
    asked = ["--measure", "gap=distance(0,1)", "--measure", "turn=angle(0,1,second)"]
    about = {
        "landmark_set": {"names": ["zero", "one", "second", "three"], "edges": []},
        "family": "huber",
        "delta": 1.0,
        "calibration": {
            "signatures": {
                "serving_default": {
                    "family": "huber",
                    "delta": 1.0,
                    "joint": [[0.9, 0], [0, 0.9]] * K,
                }
            }
        },
    }
    files["model.json"].write_text(json.dumps(about))
    options = ["--jsonl", files["tracks.jsonl"], "--measures", files["table.csv"]]
    assert run(lines, *options, *asked[:2])[0] == 0
    status, _, err = run(
        lines, "--jsonl", files["joint.jsonl"], *asked, "--model-json", files["model.json"]
    )
    assert status == 0 and "note:" not in err, err
    files["model.json"].write_text(json.dumps({**about, "calibration": None}))
    _, _, err = run(lines, "--jsonl", "-", *asked, "--model-json", files["model.json"])
    assert "says nothing of how landmarks go together" in err
    alone, together = read(files["tracks.jsonl"]), read(files["joint.jsonl"])
    places = np.array([row["landmarks"] for row in alone])
    gap = np.linalg.norm(places[:, 0] - places[:, 1], axis=-1)
    np.testing.assert_allclose([row["measures"]["gap"]["value"] for row in alone], gap, atol=1e-4)
    deviations = [
        [row["measures"]["gap"]["deviation"] for row in rows] for rows in (alone, together)
    ]
    assert np.median(np.divide(*deviations[::-1])) < 0.8
    assert set(together[0]["measures"]) == {"gap", "turn"} and "measures" not in read(lines)[0]
    with files["table.csv"].open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["source", "frame", "track", "gap", "gap_deviation"]
    np.testing.assert_allclose(
        [float(row["gap_deviation"]) for row in table], deviations[0], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--measure", "a=distance(0,9)"], "a number from 0 to 3"),
        (["--measure", "a=distance(0,1)", "--measure", "a=distance(0,2)"], "asked twice"),
        (["--measures", "table.csv"], "say what to measure"),
        (
            ["--measure", "a=distance(0,1)", "--model-json", "found.jsonl"],
            "found.jsonl is not JSON",
        ),
        (["--measure", "a=distance(0,1)", "--model-json", "nothing.json"], "nothing.json"),
    ],
)
def test_questions_that_make_no_sense_are_refused(run, lines, monkeypatch, arguments, message):
    monkeypatch.chdir(lines.parent)
    status, _, err = run(lines, "--jsonl", "tracks.jsonl", *arguments)
    assert status == 2 and err.splitlines()[-1].startswith("error: ") and "Traceback" not in err
    assert message in err and "track:" not in err  # before anything is tracked
    assert not Path("tracks.jsonl").exists()
