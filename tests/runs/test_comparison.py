"""Runs beside each other: what differs, which is best, and what doesn't compare."""

import importlib
import json
import shutil
import sys

import pytest

from tfhuber import compare
from tfhuber.config import schema
from tfhuber.console import files
from tfhuber.console.cli import run_main
from tfhuber.landmarks import known_sets
from tfhuber.runs import comparison

SHA = {name: name * 64 for name in "ab"}


def _metrics(nme, **changes):
    values = {
        "split": "test",
        "tta": "none",
        "nme": nme,
        "loss": -200.0 - nme,
        "nll_relative": -150.0 - nme,
        "nll": 700.0 + nme,
        "coverage_50": 0.5 + nme / 100,
        "coverage_90": 0.9 - nme / 100,
        "coverage_95": 0.95,
        "sharpness": {"percent": {"median_deviation": nme / 2}},
        "calibration": {"slope": 1 + nme / 100, "rank_correlation": 0.5, "bins": {"count": [1]}},
    }
    return values | changes


@pytest.fixture
def make_run(tmp_path):
    """Make a run's directory as training leaves it."""

    def make(name, sections=None, metrics=None, *, sha="a", landmark_set=known_sets.WFLW, **extra):
        values = {"data": {"directory": "data/wflw"}, **(sections or {})}
        finished = extra.pop("finished", True)
        versions = {"python": "3.11.2", "tensorflow": extra.pop("tensorflow", "2.21.0")}
        run = {
            "config": schema.parse(values).model_dump(mode="json"),
            "landmark_set": known_sets.describe(landmark_set),
            "provenance": {
                "versions": versions,
                "commit": {"sha": "0123456789abcdef" * 2, "modified": extra.pop("modified", False)},
                "host": {"cpus": 2, "devices": ["CPU"]},
                "data": {"landmark_set": landmark_set.name, "sha256": SHA[sha]},
            },
            **extra,
        }
        evaluations = run.pop("evaluations", {})
        if metrics is not None and finished:
            run["finished"] = {"step": 100, "data_sha256": SHA[sha]}
        directory = tmp_path / name
        directory.mkdir(parents=True)
        files.write_json(directory / "run.json", run)
        if metrics is not None:
            files.write_json(directory / "metrics.json", metrics)
        if evaluations:
            (directory / "evaluations").mkdir()
        for stem, values in evaluations.items():
            files.write_json(directory / "evaluations" / f"{stem}.json", values)
        return directory

    return make


@pytest.fixture
def shown(monkeypatch, capsys):
    """Run the command and return its standard output."""

    def run(*arguments, width=100):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
        assert compare.main() == 0
        return capsys.readouterr().out

    return run


def _cells(text, label):
    """Return the values of the row with this label."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(label + "  ")]
    return line.strip().removeprefix(label).split()


def test_only_what_differs_is_shown_and_the_best_is_marked(make_run, shown):
    a = make_run("a", {"train": {"epochs": 3}}, _metrics(5.0))
    b = make_run("b", {"train": {"epochs": 60}}, _metrics(4.25))
    text = shown(a, b)
    assert _cells(text, "train.epochs") == ["3", "60"]
    assert "train.seed" not in text and "python" not in text and "warning" not in text
    expected = {
        "NME, %": ["5.000", "*4.250"],
        "loss (eq. 6)": ["*-205.0", "-204.2"],
        "NLL, original pixels": ["705.0", "*704.2"],
        "in 50 % ellipses": ["0.5500", "*0.5425"],
        "in 90 % ellipses": ["0.8500", "*0.8575"],
        "in 95 % ellipses": ["0.9500", "0.9500"],
        "sharpness, %": ["2.500", "*2.125"],
        "calibration slope": ["1.050", "*1.042"],
        "rank correlation": ["0.5000", "0.5000"],
        "data, sha256": [SHA["a"][:12]] * 2,
        "commit": ["0123456789ab"] * 2,
    }
    assert {label: _cells(text, label) for label in expected} == expected


def test_higher_pckh_is_better(make_run, shown):
    metrics = [{"split": "valid", "pckh_0.5": value} for value in (20.0, 24.31)]
    runs = [make_run(str(i), None, m, landmark_set=known_sets.MPII) for i, m in enumerate(metrics)]
    text = shown(*runs)
    assert _cells(text, "PCKh@0.5, %") == ["20.00", "*24.31"]
    assert "NME" not in text and "calibration" not in text


def test_numbers_are_aligned_at_the_point(make_run, shown):
    runs = [make_run(f"run{i}", None, _metrics(nme)) for i, nme in enumerate((4.5, 12.25, 101.0))]
    lines = [line for line in shown(*runs).splitlines() if "NME" in line or "NLL," in line]
    points = [[i for i, c in enumerate(line[24:]) if c == "."] for line in lines]
    assert lines[0].split()[2:] == ["*4.5", "12.2", "101.0"]
    assert len(points[0]) == 3 and points[0] == points[1]


def test_a_run_without_results_shows_dashes(make_run, shown):
    text = shown(make_run("done", None, _metrics(5.0)), make_run("running"))
    assert _cells(text, "NME, %") == ["5.000", "-"]
    assert _cells(text, "rank correlation") == ["0.5000", "-"]
    assert "warning" not in text


def test_time_and_speed(make_run, shown):
    slow = make_run("slow", None, training={"seconds": 1500.0, "images_per_second": 30.0})
    fast = make_run("fast", None, training={"seconds": 750.0, "images_per_second": 61.5})
    text = shown(slow, fast)
    assert _cells(text, "minutes") == ["25.00", "12.50"]
    assert _cells(text, "images/s") == ["30.00", "*61.50"]


def test_a_run_that_goes_on_shows_its_latest_evaluation(make_run, shown):
    running = {
        "training": {"seconds": 60.0, "images_per_second": 32.0, "steps": 50},
        "results": {"latest": {"step": 40, **_metrics(6.0)}, "best": {"step": 20, "nme": 5.5}},
    }
    done = {"training": {"seconds": 90.0, "images_per_second": 64.0, "steps": 100}}
    text = shown(make_run("running", **running), make_run("done", None, _metrics(5.0), **done))
    assert _cells(text, "NME, %") == ["6.000", "*5.000"]
    assert _cells(text, "steps") == ["50", "100"]
    assert _cells(text, "minutes") == ["1.000", "1.500"]
    with pytest.raises(ValueError, match=r"run\.json holds no metrics"):
        comparison.read_run(str(make_run("odd", results=[3])))
    finished = make_run("finished", None, _metrics(4.0), **running)
    assert _cells(shown(finished, finished), "NME, %") == ["4.000"] * 2


def test_runs_that_differ_in_their_seeds_are_summed_up(make_run, shown):
    wide = [
        make_run(f"wide-{seed}", {"train": {"seed": seed, "ema": 0.5}}, _metrics(nme))
        for seed, nme in enumerate((4.0, 5.0, 6.0))
    ]
    plain = [
        make_run(f"plain-{seed}", {"train": {"seed": seed}}, _metrics(nme))
        for seed, nme in enumerate((7.0, 7.5))
    ]
    other = make_run("other", {"train": {"seed": 3, "epochs": 7}}, _metrics(9.0))
    unfinished = make_run("unfinished", {"train": {"seed": 4}})
    runs = [*wide, *plain, other, unfinished]
    blocks = [
        block
        for block in shown(*runs, width=200).split("\n\n")
        if block.strip().startswith("mean and standard deviation")
    ]
    assert [block.strip().splitlines()[0].partition(": ")[2] for block in blocks] == [
        "wide-0, wide-1, wide-2",
        "plain-0, plain-1",
    ]
    assert _cells(blocks[0], "NME, %") == ["5.0", "+-", "1.0"]
    assert _cells(blocks[1], "NME, %") == ["7.25", "+-", "0.35"]
    values = json.loads(shown(*runs, "--json"))["seeds"]
    assert [len(group["runs"]) for group in values] == [3, 2]
    assert values[0]["results"]["NME, %"] == {"mean": 5.0, "std": 1.0, "values": [4.0, 5.0, 6.0]}


def test_the_same_seed_twice_is_no_sample(make_run, shown):
    runs = [make_run(name, None, _metrics(5.0)) for name in "ab"]
    assert "standard deviation" not in shown(*runs)


def test_the_loss_of_other_families_does_not_compare(make_run, shown):
    runs = [
        make_run(family, {"model": {"family": family}}, _metrics(nme))
        for family, nme in (("huber", 4.0), ("gauss", 5.0))
    ]
    text = shown(*runs)
    assert "*" not in "".join(_cells(text, "loss (eq. 6)"))
    assert _cells(text, "NME, %") == ["*4.000", "5.000"]


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"sha": "b"}, "the runs are of different data sets"),
        ({"metrics": _metrics(4.0, tta="ml")}, "measured on different splits or in different ways"),
        ({"metrics": _metrics(4.0, split="valid")}, "measured on different splits"),
        ({"landmark_set": known_sets.LP300W}, "the runs are of different landmarks"),
    ],
    ids=["data", "tta", "split", "landmarks"],
)
def test_what_does_not_compare_is_warned_of(make_run, shown, change, warning):
    a = make_run("a", None, _metrics(5.0))
    b = make_run("b", **{"metrics": _metrics(4.0), **change})
    (line,) = [line for line in shown(a, b).splitlines() if line.startswith("warning: ")]
    assert warning in line
    marked = "*" in "".join(_cells(shown(a, b), "NME, %"))
    assert marked == ("landmark_set" not in change)


def test_versions_that_differ_and_a_modified_tree(make_run, shown):
    text = shown(make_run("a"), make_run("b", tensorflow="2.20.0", modified=True))
    assert _cells(text, "tensorflow") == ["2.21.0", "2.20.0"]
    assert _cells(text, "commit") == ["0123456789ab", "0123456789ab", "modified"]
    assert "python" not in text


def test_all_shows_everything(make_run, shown):
    text = shown(make_run("a"), make_run("b"), "--all")
    assert _cells(text, "train.epochs") == ["50", "50"]
    assert _cells(text, "python") == ["3.11.2", "3.11.2"]
    assert _cells(text, "NME, %") == ["-", "-"]


def _evaluation(nme, step=100, sha="a"):
    made = {"checkpoint": "latest", "step": step, "data": {"directory": "d", "sha256": SHA[sha]}}
    return _metrics(nme, tta="ml", **made)


def test_evaluations_stand_beside_what_training_measured(make_run, shown):
    trained = {"training": {"steps": 100}}
    a, b = (
        make_run(name, None, _metrics(nme), evaluations={"test-ml-latest": evaluation}, **trained)
        for name, nme, evaluation in (("a", 5.0, _evaluation(3.0)), ("b", 4.0, _evaluation(3.5)))
    )
    text = shown(a, b, make_run("c", None, _metrics(6.0)))
    results, evaluation = text.split("evaluation test-ml-latest\n")
    assert _cells(results, "NME, %") == ["5.000", "*4.000", "6.000"]
    assert _cells(evaluation, "NME, %") == ["*3.000", "3.500", "-"]
    assert _cells(evaluation, "after step") == ["100", "100", "-"] and "warning" not in text
    (values, _) = json.loads(shown(a, b, "--json"))["runs"]
    assert values["evaluations"]["test-ml-latest"]["nme"] == 3.0 and values["results"]["nme"] == 5.0


@pytest.mark.parametrize(
    ("evaluation", "warning"),
    [
        (_evaluation(3.0, sha="b"), "the evaluations test-ml-latest are of different data sets"),
        (_evaluation(3.0, step=60), "b has trained on since its evaluation test-ml-latest"),
    ],
    ids=["data", "step"],
)
def test_evaluations_that_do_not_compare_are_warned_of(make_run, shown, evaluation, warning):
    trained = {"training": {"steps": 100}}
    runs = [
        make_run(name, None, _metrics(5.0), evaluations={"test-ml-latest": each}, **trained)
        for name, each in (("a", _evaluation(3.0)), ("b", evaluation))
    ]
    (line,) = [line for line in shown(*runs).splitlines() if line.startswith("warning: ")]
    assert warning in line


def test_a_run_measured_on_other_data_than_trained_on_is_warned_of(make_run, shown):
    run = make_run("a", None, _metrics(5.0))
    values = files.read_json(run / "run.json")
    values["finished"]["data_sha256"] = SHA["b"]
    files.write_json(run / "run.json", values)
    assert "a was trained on one data set and measured on another" in shown(run)


def test_metrics_that_evaluating_once_wrote_over_the_trainings_are_an_evaluation(make_run, shown):
    """In earlier versions; what training measured last is in run.json still."""
    overwritten = _metrics(3.0, tta="ml", checkpoint="best")
    latest = {"training": {"steps": 40}, "results": {"latest": {"step": 40, **_metrics(6.0)}}}
    old = make_run("old", None, overwritten, finished=False, **latest)
    results, evaluation = shown(old).split("evaluation test-ml-best\n")
    assert _cells(results, "NME, %") == ["6.000"] and _cells(evaluation, "NME, %") == ["3.000"]
    whole = make_run("whole", None, _metrics(5.0), finished=False, **latest)
    assert _cells(shown(whole), "NME, %") == ["5.000"] and "evaluation" not in shown(whole)


def test_json_has_the_numbers_as_they_are(make_run, shown):
    a = make_run("a", {"train": {"epochs": 3}}, _metrics(5.0, nll=float("nan")))
    b = make_run("b", None, _metrics(4.125), sha="b", training={"seconds": 7.5})
    values = json.loads(shown(a, b, "--json"), parse_constant=pytest.fail)
    first, second = values["runs"]
    assert first["run"] == str(a) and first["config"] == {"train.epochs": 3}
    assert second["results"]["nme"] == 4.125 and first["results"]["nll"] is None
    assert second["facts"]["training.seconds"] == 7.5
    assert len(values["warnings"]) == 1
    both = json.loads(shown(a, b, "--json", "--all"))["runs"]
    assert both[0]["config"]["train.batch_size"] == 32


def test_a_run_of_an_older_version_has_the_defaults_of_newer_keys(make_run, shown):
    old, new = make_run("old"), make_run("new")
    values = files.read_json(old / "run.json")
    del values["config"]["train"]["gradient_clip"], values["provenance"]
    values["config"]["train"]["retired_key"] = 7
    values["landmark_set"] = "wflw"
    files.write_json(old / "run.json", values)
    text = shown(old, new)
    assert _cells(text, "train.retired_key") == ["7", "-"]
    assert "gradient_clip" not in text and "warning" not in text
    assert _cells(text, "data, sha256") == ["-", SHA["a"][:12]]


def test_runs_of_one_name_are_told_apart_by_their_paths(make_run, shown, tmp_path, monkeypatch):
    make_run("x/run"), make_run("y/run")
    monkeypatch.chdir(tmp_path)
    assert shown("x/run", "y/run").splitlines()[0].split() == ["x/run", "y/run"]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_table_fits_the_terminal_and_leaves_nothing_out(make_run, shown, width, count):
    rates = [[[0, 0.001], [10, 0.0005], [20 + i, 0.00012345]] for i in range(count)]
    runs = [
        make_run(f"a_run_with_a_long_name_{i}", {"train": {"learning_rate": rate}}, _metrics(4 + i))
        for i, rate in enumerate(rates)
    ]
    text = shown(*runs, "--all", width=width)
    assert max(map(len, text.splitlines())) <= max(width, 45)
    values = [x for line in text.splitlines() if "NME" in line for x in line.split()[2:]]
    assert [float(value.strip("*")) for value in values] == [4.0 + i for i in range(count)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, "is no training run: it holds no run.json"),
        ("run.json", "{", "run.json is not JSON"),
        ("run.json", "[]", "run.json is not that of a training run"),
        ("run.json", '{"config": 3}', "run.json is not that of a training run"),
        ("run.json", '{"config": {"data": 3}}', "run.json is not that of a training run"),
        ("metrics.json", "junk", "metrics.json is not JSON"),
        ("metrics.json", "[1]", "metrics.json holds no metrics"),
    ],
    ids=range(7),
)
def test_what_is_no_run_is_refused_in_one_line(
    make_run, monkeypatch, capsys, name, content, message
):
    good, bad = make_run("good"), make_run("bad", None, _metrics(3.0))
    (bad / name).unlink()
    if content is not None:
        (bad / name).write_text(content)
    monkeypatch.setattr(sys, "argv", ["compare", str(good), str(bad)])
    with pytest.raises(SystemExit) as stop:
        run_main(importlib.import_module("tfhuber.compare").main)
    captured = capsys.readouterr()
    assert stop.value.code == 2 and captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and message in line and str(bad) in line


def test_a_trained_run_can_be_compared(tiny_run, shown, tmp_path):
    run = tmp_path / "run"  # what other tests measured of it stays behind
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("evaluations"))
    text = shown(run, run)
    assert len(_cells(text, "NME, %")) == 2 and "*" not in text
