"""The benchmarks at a size that takes seconds, and their verdicts."""

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


@pytest.mark.slow
def test_the_conversion_is_the_same_in_all_ways_and_its_verdict_is_an_exit_status():
    """At this size it is their start that is timed, so that the verdict may be either."""
    small = ["--few", "20", "--many", "60", "--rounds", "1"]
    command = [sys.executable, "-m", "benchmarks.make_tfrecords", *small]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "all shards are the same, byte for byte" in result.stdout, result.stderr
    ratios = [line for line in result.stdout.splitlines() if "is required" in line]
    assert len(ratios) == 3
    kept = all(_is_kept(*line.rpartition(": ")[2].split()[:3]) for line in ratios)
    assert result.returncode == (0 if kept else 1)


def _is_kept(ratio, relation, bound):
    bound = float(bound)
    return float(ratio) >= bound if relation == "(>=" else float(ratio) <= bound
