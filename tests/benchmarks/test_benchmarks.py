"""The benchmarks at a size that takes seconds, and their verdicts."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from fake_server import save_toy

from benchmarks import loss, paired_timing, serving

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


def test_the_losses_are_equal_in_float64():
    """784 landmarks: loss and gradients of the closed form, compiled or not, and of `eigh`."""
    steps = loss.tensorflow_steps(*loss.random_inputs(8, np.float64))
    reference = steps["closed form"]()
    assert [part.shape for part in reference] == [(), (8, 98, 2), (8, 98, 3)]
    for name in ("closed form, XLA", "eigh"):
        assert loss.difference(steps[name](), reference) < 1e-10, name


def test_the_loss_in_pytorch_is_equal_in_float64():
    pytest.importorskip("torch")
    inputs = loss.random_inputs(8, np.float64)
    reference = loss.tensorflow_steps(*inputs)["closed form"]()
    assert loss.difference(loss.torch_steps(*inputs)["PyTorch"](), reference) < 1e-10


def test_the_derivative_of_eigh_fails_at_equal_eigenvalues_and_the_closed_form_does_not():
    pytest.importorskip("torch")
    y, nu, vector = loss.random_inputs(1, np.float64)
    vector[:] = [2.0, 0.0, 2.0]
    for part in loss.tensorflow_steps(y, nu, vector)["closed form"]():
        assert np.isfinite(part).all()
    assert not np.isfinite(loss.torch_steps(y, nu, vector)["PyTorch"]()[2]).all()


def test_the_training_benchmark_names_every_rate_and_its_verdict(face_records):
    """A batch of 4 at 32 pixels; what the rates are is another question."""
    small = [
        "--backbones",
        "resnet18",
        "--image-size",
        "32",
        "--batch",
        "4",
        "--turns",
        "1",
        "--steps",
        "1",
    ]
    command = [sys.executable, "-m", "benchmarks.training", "--data", str(face_records), *small]
    result = subprocess.run(command, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    rates = {}
    for line in lines:
        name, found, rest = line.rpartition(" images/s")
        if found:
            name, rate = name.rsplit(maxsplit=1)
            rates[name.strip()] = float(rate), "is required" in rest
    assert list(rates) == [
        "input, crops kept decoded",
        "input, crops decoded each time",
        "the warp, batched on the device",
        "backbone, no update",
        "backbone, step",
        "full step, random",
        "full step, TFRecords",
    ]
    ratio = float(lines[-2].split("): ")[-1].split(": ")[1].split()[0])
    expected = rates["full step, TFRecords"][0] / rates["backbone, step"][0]
    assert abs(ratio - expected) < 0.01 * expected
    kept = ratio >= 0.95 and all(rate >= 600 for rate, bound in rates.values() if bound)
    assert result.returncode == (0 if kept else 1), result.stderr


def test_a_machine_that_slows_down_leaves_ratios_alone():
    times = {"a": [[1, 1, 9], [10, 10, 10], [3, 3, 3]], "b": [[2, 2, 2], [20, 20, 20], [2, 2, 2]]}
    assert paired_timing.ratio(times, "a", "b") == 0.5
    assert paired_timing.median_and_least(times["a"]) == (3, 1)


def test_a_difference_that_is_nan_is_no_agreement(capsys):
    one, nan = [np.ones(3)], [np.full(3, np.nan)]
    assert loss.difference(one, one) == 0 and np.isnan(loss.difference(nan, one))
    times = {"closed form": [[1.0]], "closed form, XLA": [[1.0]], "eigh": [[10.0]]}
    results = dict.fromkeys(times, one)
    assert loss.report(times, results, "PyTorch is not installed")
    assert "closed form, XLA over PyTorch: not measured: PyTorch is not" in capsys.readouterr().out
    assert not loss.report(times | {"eigh": [[9.9]]}, results, "")
    assert not loss.report(times | {"PyTorch": [[9.9]]}, results, None)
    assert not loss.report(times, results | {"eigh": nan}, "")
    assert capsys.readouterr().out.endswith("VERSIONS DIFFER\n")


@pytest.mark.slow
def test_the_loss_alone_at_a_small_size():
    """At this size it is overhead that is timed, so that the verdict may be either."""
    command = [sys.executable, "-m", "benchmarks.loss", "--skip-backbone"]
    small = ["--batch", "2", "--turns", "1"]
    result = subprocess.run([*command, *small], capture_output=True, text=True)
    assert result.returncode in (0, 1), result.stderr
    assert "largest difference" in result.stdout and "VERSIONS DIFFER" not in result.stdout
    is_measured = "closed form, XLA over PyTorch: not measured: PyTorch is not" not in result.stdout
    assert is_measured == (importlib.util.find_spec("torch") is not None)


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


@pytest.mark.slow
def test_the_servers_answers_are_right_under_load_and_the_verdict_is_an_exit_status(tmp_path):
    """A toy in place of a network, for seconds: its times and memory may be either, its answers not."""
    save_toy(tmp_path / "wflw" / "1")
    small = ["--requests", "40", "--clients", "8", "--seconds", "3", "--turn", "1"]
    command = [sys.executable, "-m", "benchmarks.serving", "--model_base_path"]
    result = subprocess.run(
        [*command, str(tmp_path / "wflw"), *small], capture_output=True, text=True
    )
    assert "wrong answers: 0 (0 is required)" in result.stdout, result.stdout + result.stderr
    verdicts = [line for line in result.stdout.splitlines() if "(<= " in line]
    assert len(verdicts) == 2
    kept = [
        float(line.rpartition(": ")[2].split()[0]) <= float(line.partition("(<= ")[2].split()[0])
        for line in verdicts
    ]
    assert result.returncode == (0 if all(kept) else 1)


def test_an_answer_with_other_numbers_is_noticed():
    outputs = {"landmarks": np.ones([1, 98, 2]), "valid": np.array([True])}
    row = {name: array[0].tolist() for name, array in outputs.items()}
    assert serving.agrees([row], outputs)
    assert not serving.agrees([row, row], outputs)
    assert not serving.agrees([row | {"valid": False}], outputs)
    assert not serving.agrees([row | {"landmarks": np.full([98, 2], 1.01).tolist()}], outputs)
    assert not serving.agrees([{"valid": True}], outputs)
    assert not serving.agrees([row | {"landmarks": [[1, 1]]}], outputs)
