"""The client's benchmark at a size that takes seconds, and its verdict."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import client

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("seconds", "status", "ratio"),
    [([(2.0, 2.4, 3.0)], 0, "1.20"), ([(3.0, 2.6, 9.0), (2.0, 2.5, 3.0)], 1, "1.25")],
)
def test_the_fastest_rounds_decide(seconds, status, ratio, capsys):
    assert client.report(seconds, 200) == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-6:] == ["2.00", "s", "10.0", "ms", "a", "frame"]
    assert lines[-1] == f"the client over the model: {ratio} (<= 1.2 is required)"


@pytest.mark.slow
def test_a_small_model_and_a_short_video(tiny_run, tmp_path):
    """What the ratio is, is another question: beside so small a model anything takes long."""
    pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")
    from tfhuber.export import export

    base = export(tiny_run, tmp_path / "wflw").parent
    command = [sys.executable, "-m", "benchmarks.client", "--model_base_path", str(base)]
    command += ["--frames", "20", "--rounds", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode in (0, 1), result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "20 frames of 640 x 480 pixels" and len(lines) == 5
    assert float(lines[-1].split(":")[1].split()[0]) > 0


@pytest.mark.parametrize("option", ["--frames", "--batch", "--parallel", "--rounds"])
def test_options_out_of_range_are_refused(option, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["client", option, "0"])
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        client.main()
