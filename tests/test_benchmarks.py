"""The benchmark of fusion at a size that takes seconds, and its verdict."""

import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "benchmarks.fusion"]


def test_a_missed_bound_is_an_exit_status():
    """One image is too few to gain 300 times from; the accuracy does not depend on that."""
    small = ["--images", "1", "--rounds", "1", "--points", "1"]
    result = subprocess.run([*COMMAND, *small], capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    lines = result.stdout.splitlines()
    assert int(lines[3].split()[0]) < 300 and "times faster" in lines[3]
    assert "largest distance" in lines[-1] and float(lines[-1].split()[2]) < 1e-5


def test_bad_options_are_refused_in_one_line():
    result = subprocess.run([*COMMAND, "--images", "0"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "error: --images must be at least 1, got 0.\n"


@pytest.mark.slow
def test_fusion_is_300_times_faster_than_a_loop():
    result = subprocess.run(COMMAND, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
