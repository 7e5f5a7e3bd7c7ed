"""Several seeds: each a run of its own, and what they have in common."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from finished_runs import finish

from tfhuber import seeds
from tfhuber.console.signals import run_child
from tfhuber.runs import seeds as seed_runs
from tfhuber.runs import spread


def test_mean_and_deviation_of_the_sample():
    found = spread.spread([2.0, 4.0, 9.0])
    assert found["mean"] == 5.0 and found["std"] == pytest.approx(13**0.5)
    assert spread.spread([3.0]) == {"mean": 3.0, "std": None, "values": [3.0]}


def test_only_what_every_run_measured_is_summarised():
    results = [
        {"split": "test", "examples": 9, "nme": 4.0, "calibration": {"slope": 0.5, "bins": {}}},
        {"split": "test", "examples": 9, "nme": 5.0, "calibration": {"slope": 1.0}, "new": 1.0},
    ]
    results[0]["calibration"]["rank_correlation"] = None
    results[1]["calibration"]["rank_correlation"] = 0.5
    summary = spread.summarise(results)
    assert {name: each["values"] for name, each in summary.items()} == {
        "nme": [4.0, 5.0],
        "calibration.slope": [0.5, 1.0],
    }
    assert spread.table(summary).splitlines() == [
        "nme                4.50 +- 0.71  (4, 5)",
        "calibration.slope  0.75 +- 0.35  (0.5, 1)",
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([4.512, 4.498, 4.551], "4.520 +- 0.027"),
        ([1273.0, 24.0], "648 +- 883"),
        ([100.0, 100.0], "100 +- 0"),
        ([1.0, float("inf")], "inf +- nan"),
        ([4.25], "4.25"),
    ],
)
def test_decimals_follow_the_deviation(values, text):
    assert spread.mean_and_deviation(spread.spread(values)) == text


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run the command with trainings that only write their results; `trained` lists their options."""
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps({"data": {"directory": "data/wflw"}}))

    def train(arguments):
        options = list(zip(arguments[3::2], arguments[4::2], strict=True))
        run.trained.append(options)
        seed = int(options[-2][1].removeprefix("train.seed="))
        if seed == run.failing:
            return run.status
        directory = options[-1][1]
        metrics = {"split": "test", "tta": "none", "nme": 4.0 + seed}
        finish(Path(directory), metrics, **run.changes.get(seed, {}))
        return 0

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["seeds", "--config", str(config), *arguments])
        return seeds.main()

    run.trained, run.failing, run.status, run.changes = [], None, 0, {}
    monkeypatch.setattr(seed_runs, "run_child", train)
    monkeypatch.chdir(tmp_path)
    return run


def test_each_seed_is_a_run(command, tmp_path, capsys):
    options = ["--data", "d", "--set", "train.epochs=3", "--set", "train.seed=9"]
    assert command("--seeds", "0", "2", "--run", "r", *options) == 0
    for seed, trained in zip((0, 2), command.trained, strict=True):
        assert trained == [
            ("--config", str(tmp_path / "tiny.json")),
            ("--data", "d"),
            ("--set", "train.epochs=3"),
            ("--set", "train.seed=9"),
            ("--set", f"train.seed={seed}"),
            ("--run", f"r/seed-{seed}"),
        ]
    written = json.loads((tmp_path / "r/seeds.json").read_text())
    nme = {"mean": 5.0, "std": pytest.approx(2**0.5), "values": [4.0, 6.0]}
    assert written == {"seeds": [0, 2], "metrics": {"nme": nme}}
    assert capsys.readouterr().out == "nme  5.0 +- 1.4  (4, 6)\nr/seeds.json: 2 seeds\n"


def test_the_directory_is_named_after_the_configuration(command, tmp_path):
    assert command("--seeds", "1") == 0
    assert (tmp_path / "runs/tiny-seeds/seed-1/metrics.json").is_file()


@pytest.mark.parametrize(("status", "expected"), [(2, 2), (143, 143), (-9, 137)])
def test_a_training_that_fails_ends_it(command, tmp_path, status, expected):
    command.failing, command.status = 1, status
    assert command("--seeds", "0", "1", "2", "--run", "r") == expected
    assert len(command.trained) == 2 and not (tmp_path / "r/seeds.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finished": None}, "seed-1 is not finished; train it to its end"),
        ({"data": "b"}, r"seed-1 was trained on the data set b+, but r/seed-0 was .* set a+$"),
        ({"measured_on": "b"}, "seed-1 was measured on the data set b"),
        ({"split": "valid"}, "was measured on the split valid, but r/seed-0 was .* split test"),
        ({"tta": "ml"}, "seed-1 was measured with tta ml"),
    ],
    ids=str,
)
def test_seeds_that_were_measured_otherwise_are_refused(command, tmp_path, change, message):
    command.changes = {1: change}
    with pytest.raises(ValueError, match=message):
        command("--seeds", "0", "1", "--run", "r")
    assert not (tmp_path / "r/seeds.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0", "1", "0"], "--seeds must differ, got 0 1 0"),
        (["--seeds", "0", "-1"], "train.seed"),
        (["--seeds", "0", "--set", "train.distribution=multi_worker"], "one seed at a time"),
        (["--seeds", "0", "--run", "."], "is itself a training run"),
    ],
)
def test_what_cannot_be_is_refused_before_any_training(command, tmp_path, arguments, message):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=message):
        command(*arguments)
    assert not command.trained


def test_sigterm_goes_on_to_the_training(tmp_path):
    """It saves what it must, and then we end, though its status says that all is well."""
    script = (
        "import signal, sys, time\n"
        "def stop(*_): open(sys.argv[1], 'w').write('saved'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "open(sys.argv[2], 'w').close()\n"
        "time.sleep(60)\n"
    )
    saved, ready = tmp_path / "saved", tmp_path / "ready"

    def terminate():
        while not ready.exists():
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_child([sys.executable, "-c", script, str(saved), str(ready)])
    assert saved.read_text() == "saved" and signal.getsignal(signal.SIGTERM) is before
