"""Whatever signal comes at whatever time, a run goes on with the same command to the same end."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfhuber.console.cpus import uses_onednn
from tfhuber.console.signals import Interrupted, SignalWatch
from tfhuber.model import whitening
from tfhuber.runs.load import load_run, read_config
from tfhuber.training import finite_guard, trainer

ROOT = Path(__file__).resolve().parents[2]
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_at_once_or_waits_until_somebody_looks(number):
    before = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(Interrupted, match="same command") as caught, SignalWatch() as watch:
        signal.raise_signal(number)
    assert caught.value.status == 128 + number and watch.received == number
    with SignalWatch() as watch:
        watch.defer()
        assert watch.received is None
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert watch.received == number
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # the next one kills
        with pytest.raises(Interrupted), watch.not_deferred():
            raise AssertionError("one that came before counts")
        assert watch.interrupted("saved").__notes__ == ["saved"]
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_a_process_that_ignores_interrupts_goes_on_ignoring_them():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with SignalWatch() as watch:
            signal.raise_signal(signal.SIGINT)
            assert watch.received is None
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def _after(function, condition, number):
    """Return the function, with a signal to this process after the first call that meets the condition."""
    pending = [number]

    def called(*arguments, **options):
        result = function(*arguments, **options)
        if pending and condition(*arguments):
            signal.raise_signal(pending.pop())
        return result

    return called


def test_signals_in_every_part_of_a_training(tiny_run, tiny_config, tmp_path, monkeypatch):
    """While whitening, in step 3, in the evaluation after step 5; in the end all weights are the same."""
    run = tmp_path / "run"
    before = [signal.getsignal(n) for n in SIGNALS]
    places = [
        (whitening, "fit", lambda *_: True, signal.SIGINT, "the same command goes on$", []),
        (
            finite_guard.FiniteGuard,
            "record",
            lambda _, step, __: step == 3,
            signal.SIGTERM,
            "step 3 is",
            [3],
        ),
        (trainer, "collect", lambda *_: True, signal.SIGINT, f"step 5 is saved in {run};", [3, 5]),
    ]
    for module, name, condition, number, message, steps in places:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, _after(getattr(module, name), condition, number))
            with pytest.raises(Interrupted, match=message) as caught:
                trainer.train(tiny_config, run, quiet=True)
        assert caught.value.status == 128 + number
        assert [signal.getsignal(n) for n in SIGNALS] == before
        found = sorted(int(p.stem[5:]) for p in run.glob("latest/*.index"))
        assert found == steps and not (run / "best.json").exists()
    trainer.train(tiny_config, run, quiet=True)
    _assert_same_end(run, tiny_run)


def test_training_outside_of_the_main_thread(tiny_run, tiny_config):
    """Python lets only the main thread hear signals; training must not need them."""
    found = []
    thread = threading.Thread(
        target=lambda: found.append(trainer.train(tiny_config, tiny_run, quiet=True))
    )
    thread.start()
    thread.join()
    assert found == [json.loads((tiny_run / "metrics.json").read_text())]


# The rest runs in processes of its own.


def _write_config(path: Path, tiny_config, **changes) -> Path:
    values = tiny_config.model_dump(mode="json")
    values["train"].update(changes)
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def start():
    """Start the training of a configuration in a run, in a process that the test cannot leave behind."""
    processes = []

    def start_one(config_path: Path, run: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "tfhuber.train", "--config", str(config_path)]
        command += ["--run", str(run)]
        processes.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()


def _wait(process: subprocess.Popen, condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, f"training ended too early: {process.stderr.read()}"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _assert_same_end(run: Path, other: Path) -> None:
    """All that a run ends with, moments and averages included, bit for bit; oneDNN was on, or as asked."""
    for values in (json.loads((r / "run.json").read_text()) for r in (run, other)):
        assert values["provenance"]["host"]["onednn"] is uses_onednn()
    for part in ("latest", "best"):
        ours, theirs = (
            tf.train.load_checkpoint(tf.train.latest_checkpoint(r / part)) for r in (run, other)
        )
        keys = [k for k in ours.get_variable_to_shape_map() if "OBJECT_GRAPH" not in k]
        assert len(keys) > 100 and set(keys) <= set(theirs.get_variable_to_shape_map())
        for key in (k for k in keys if not k.startswith("save_counter")):
            np.testing.assert_array_equal(
                ours.get_tensor(key), theirs.get_tensor(key), err_msg=f"{part}: {key}"
            )
    for name in ("best.json", "whitening.json"):
        assert (run / name).read_text() == (other / name).read_text()


def test_commands_say_what_is_saved_and_exit_as_shells_have_it(start, tiny_config, tmp_path):
    """SIGTERM after a checkpoint; then two interrupts, of which the second does not wait."""
    path = _write_config(tmp_path / "c.json", tiny_config, epochs=1000, checkpoint_minutes=0.001)
    run = tmp_path / "run"
    process = start(path, run)
    _wait(process, lambda: any(run.glob("latest/*.index")))
    process.send_signal(signal.SIGTERM)
    lines = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 143
    step = max(int(p.stem[5:]) for p in run.glob("latest/*.index"))
    last = f"interrupted; step {step} is saved in {run}; the same command goes on from there"
    assert lines[-1] == last and all(line.startswith("training") for line in lines[:-1])

    process = start(path, run)
    _wait(process, lambda: not (run / f"latest/ckpt-{step}.index").exists())
    process.send_signal(signal.SIGINT)
    time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in process.communicate(timeout=60)[1]
    assert process.returncode in (130, -signal.SIGINT)
    assert load_run(run).step is not None and read_config(run).train.epochs == 1000


@pytest.mark.slow
def test_five_times_sigkill_and_the_run_ends_as_if_undisturbed(start, tiny_config, tmp_path):
    """With averages, decay and held layers, so that every part of the state counts.

    Killed by turns while a checkpoint is written and at a random moment after one: 80 steps, a
    checkpoint every 0.1 seconds at most, and one at the evaluation after every twentieth step.
    """
    path = _write_config(
        tmp_path / "c.json",
        tiny_config,
        epochs=16,
        evaluation_epochs=4,
        checkpoint_minutes=0.002,
        frozen_epochs=3,
        ema=0.9,
        optimizer="adamw",
        weight_decay=0.05,
        learning_rate=[[0, 1e-3], [16, 1e-4]],
    )
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    process = start(path, quiet)
    assert process.communicate()[1] is not None and process.returncode == 0

    rng, cut_off = random.Random(5), 0
    for kill in range(5):
        old = set(killed.glob("latest/*.index"))
        process = start(path, killed)
        _wait(process, lambda old=old: set(killed.glob("latest/*.index")) - old)
        if kill % 2 == 0:
            _wait(process, lambda: any(killed.glob("latest/*_temp")))
        else:
            time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.communicate()
        cut_off += any(killed.glob("latest/*_temp"))
        assert not (killed / "metrics.json").exists()
    assert cut_off >= 1, "no checkpoint was being written when its process was killed"
    process = start(path, killed)
    assert "Traceback" not in process.communicate()[1] and process.returncode == 0
    _assert_same_end(killed, quiet)
    assert (killed / "metrics.json").read_text() == (quiet / "metrics.json").read_text()
    assert not any(killed.glob("latest/*_temp")) and len(list(killed.glob("latest/*.index"))) == 2
