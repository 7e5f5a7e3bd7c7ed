"""The client's benchmark at a size that takes seconds, and its verdict."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import client

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("client_seconds", "status", "ratio"),
    [((2.4, 2.2, 9.0), 0, "1.20"), ((2.6, 2.6, 2.0), 1, "1.30")],
)
def test_the_median_of_the_rounds_ratios_decides(client_seconds, status, ratio, capsys):
    rounds = [[1000 * seconds] for seconds in client_seconds]
    times = {"video: model": [[2000.0]] * 3, "video: client": rounds}
    times |= {"folder: model": [[2000.0]] * 3, "folder: client": [[2100.0]] * 3}
    whole = {name: [[3000.0]] * 3 for name in ("video", "folder")}
    assert client.report(times, whole, 200) == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["video", "the", "model", "alone", "10.0"]
    assert lines[-2] == f"video: the client over the model {ratio} (<= 1.2 is required)"
    assert lines[-1] == "folder: the client over the model 1.05 (<= 1.2 is required)"


@pytest.mark.slow
def test_a_small_model_and_a_short_video(tiny_run, tmp_path):
    """What the ratio is, is another question: beside so small a model anything takes long."""
    pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")
    from tfhuber.saved_model.export import export

    base = export(tiny_run, tmp_path / "wflw").parent
    command = [sys.executable, "-m", "benchmarks.client", "--model_base_path", str(base)]
    command += ["--frames", "20", "--rounds", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode in (0, 1), result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("20 frames of 640 x 480 pixels") and len(lines) == 9
    assert all(float(line.split()[6]) > 0 for line in lines[-2:])


@pytest.mark.parametrize("option", ["--frames", "--batch", "--parallel", "--rounds"])
def test_options_out_of_range_are_refused(option, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["client", option, "0"])
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        client.main()
