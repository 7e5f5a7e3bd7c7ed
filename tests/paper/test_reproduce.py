"""Every table plans its runs without data; runs are shared, continued and refused as they should."""

import json
import re
import shutil
import subprocess
import sys

import finished_runs
import keras
import numpy as np
import pytest

from pipelines import make_tfrecords
from pipelines.sample_data import write_sample_data
from tfhuber import reproduce
from tfhuber.config import schema
from tfhuber.console.files import write_json
from tfhuber.data import records
from tfhuber.evaluation import run_evaluation
from tfhuber.model import network as model
from tfhuber.paper import report, reproduction
from tfhuber.paper.tables import TABLES, Cell, Table, Variant
from tfhuber.runs import results

SMALL = [
    "model.backbone=resnet18",
    "model.pretrained=null",
    "model.image_size=32",
    "train.frozen_epochs=0",
    "train.epochs=1",
    "train.learning_rate=[[0,0.001]]",
    "train.batch_size=8",
]


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["reproduce", *map(str, arguments)])
    return reproduce.main()


def finish(run, data="a", **metrics):
    """Leaves what a finished training would have left."""
    config = run.config.model_dump(mode="json")
    metrics = {"split": "test", "tta": "none", **metrics}
    finished_runs.finish(run.directory, metrics, config=config, data=data)


@pytest.fixture
def checksum(face_records):
    """Return the checksum of the data set's manifest."""
    return records.read_manifest(face_records)["sha256"]


def test_the_papers_tables_are_all_there():
    assert {f"table{n}" for n in range(1, 11)} <= set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_every_table_dry_runs_without_data(name, tmp_path, monkeypatch, capsys):
    assert run_main(monkeypatch, name, "--dry-run", "--output", tmp_path / "none") == 0
    printed = capsys.readouterr().out
    runs = reproduction.plan(TABLES[name], None, tmp_path, 5, [])
    assert len(runs) == 5 * len(TABLES[name].variants)
    assert all(run.name in printed for run in runs)
    assert f"{len(runs)} runs" in printed and "hours at 20 TFLOP/s" in printed
    assert list(tmp_path.iterdir()) == []


def test_published_values_are_the_papers():
    def cells(name):
        return {(cell.row, cell.column): cell.published for cell in TABLES[name].cells}

    assert cells("table2")["Gauss", "Full"] == (5.40, 0.17)
    assert cells("table3")["Laplace", "Diagonal"] == (-306.6, 2.8)
    assert cells("table4")["Charbonnier", "Identity"] == (80.2, 0.1)
    assert cells("table6")["300W-LP", "With"] == (4.58, 0.02)
    assert cells("table10")["average pooling", "NLL"] == (-336.5, 0.40)


def test_a_variants_changes_reach_its_run(tmp_path):
    runs = {run.name: run for run in reproduction.plan(TABLES["table2"], None, tmp_path, 2, [])}
    assert len(runs) == 24
    chosen = runs["wflw-laplace-diagonal-seed1"].config
    assert (chosen.model.family, chosen.model.covariance) == ("laplace", "diagonal")
    assert chosen.train.seed == 1 and chosen.model.backbone == "resnet101"


def test_pretraining_comes_first_and_is_carried_over(tmp_path):
    runs = reproduction.plan(TABLES["table5"], tmp_path / "data", tmp_path, 2, [])
    by_name = {run.name: run for run in runs}
    long = by_name["wflw-from-300w_lp-200epochs-seed1"]
    assert long.pretraining is by_name["300w_lp-seed1"]
    assert long.config.model.transfer == str(long.pretraining.directory)
    assert long.config.model.pretrained is None and long.config.train.epochs == 200
    assert long.pretraining.config.data.directory == str(tmp_path / "data/300w_lp")
    assert runs.index(long.pretraining) < runs.index(long)


def test_tables_share_runs(tmp_path):
    names = {
        table: {run.name for run in reproduction.plan(TABLES[table], None, tmp_path, 1, [])}
        for table in ("table2", "table3", "table9", "table10", "parameterization", "robustness")
    }
    assert names["table3"] < names["table2"]
    for name, runs in names.items():
        assert "wflw-huber-full-seed0" in runs, name


def test_overrides_win_unless_they_leave_nothing_to_compare(tmp_path):
    runs = reproduction.plan(TABLES["table9"], None, tmp_path, 1, ["model.pretrained=null"])
    assert {run.config.model.pretrained for run in runs} == {None}
    with pytest.raises(ValueError, match="leave out what the table compares"):
        reproduction.plan(TABLES["table9"], None, tmp_path, 1, SMALL)
    with pytest.raises(ValueError, match="are the same"):
        reproduction.plan(TABLES["table2"], None, tmp_path, 2, ["train.seed=4"])
    with pytest.raises(ValueError, match="did you mean 'epochs'"):
        reproduction.plan(TABLES["table2"], None, tmp_path, 1, ["train.epoch=4"])


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnet101"])
def test_costs_are_those_of_the_layers(backbone):
    """Multiply-accumulates of all convolutions, counted on the model itself, within 2 %."""
    network = model.build(schema.Model(backbone=backbone, image_size=64), 98)
    layers = network.get_layer("backbone").layers
    total = 0
    for layer in layers:
        if isinstance(layer, keras.layers.Conv2D):
            height, width = layer.output.shape[1:3]
            total += height * width * int(np.prod(layer.kernel.shape))
    expected = 1e9 * reproduction.GIGAMACS[backbone] * (64 / 224) ** 2
    assert total == pytest.approx(expected, rel=0.02)


def test_the_cost_of_a_backbone_that_was_not_counted_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduction, "GIGAMACS", {})
    runs = reproduction.plan(TABLES["table2"], None, tmp_path, 1, [])
    table = reproduction.cost_table(runs)
    assert table.count("unknown") == len(runs) + 1
    assert "TFLOP/s" not in table


def test_missing_and_wrong_data_are_one_line(tmp_path, monkeypatch, face_records):
    with pytest.raises(ValueError, match=r"make_tfrecords --dataset wflw --source SOURCE"):
        run_main(monkeypatch, "table2", "--data", tmp_path, "--output", tmp_path / "o")
    with pytest.raises(ValueError, match="holds wflw landmarks, but the table needs mpii"):
        run_main(monkeypatch, "table4", "--data", face_records, "--output", tmp_path / "o")
    with pytest.raises(ValueError, match="--seeds must be from 1"):
        run_main(monkeypatch, "table2", "--seeds", "0")
    assert not (tmp_path / "o").exists()


def test_finished_runs_are_not_trained_again(tmp_path, monkeypatch, face_records, checksum, capsys):
    options = [f"--set={text}" for text in SMALL]
    runs = reproduction.plan(TABLES["table3"], face_records, tmp_path, 2, SMALL)
    for number, run in enumerate(runs):
        finish(run, checksum, nll_relative=-100.0 - number, nme=5.0)
    monkeypatch.setattr(reproduction, "_train", lambda *_: pytest.fail("trained again"))
    arguments = ["--data", face_records, "--output", tmp_path, "--seeds", "2", *options]
    assert run_main(monkeypatch, "table3", *arguments) == 0
    table = (tmp_path / "table3.md").read_text()
    assert "| Huber | -100.5 ± 0.7 | -307.0 ± 1.3 | -102.5 ± 0.7 | -310.0 ± 1.4 |" in table
    assert table.strip() in capsys.readouterr().out
    written = json.loads((tmp_path / "table3.json").read_text())
    assert written["cells"][0]["values"] == [-100.0, -101.0]
    assert (tmp_path / "table3.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match=r"train.epochs: 1, 2; choose another --output"):
        run_main(monkeypatch, "table3", *arguments, "--set", "train.epochs=2")


def test_a_failed_run_is_named_and_the_others_count(
    tmp_path, monkeypatch, face_records, checksum, capsys
):
    runs = reproduction.plan(TABLES["table10"], face_records, tmp_path, 2, SMALL)
    for run in runs[:3]:
        finish(run, checksum, nme=4.0, loss=-300.0)

    def fail(command, stdout, stderr, env):
        stdout.write("a traceback\nerror: the loss is nan\n")
        return subprocess.CompletedProcess(command, 2)

    monkeypatch.setattr(subprocess, "run", fail)
    arguments = ["--data", face_records, "--output", tmp_path, "--seeds", "2"]
    options = [f"--set={text}" for text in SMALL]
    assert run_main(monkeypatch, "table10", *arguments, *options) == 1
    captured = capsys.readouterr()
    assert "failed: wflw-average-pooling-seed1: error: the loss is nan" in captured.err
    assert "4.00 (1 of 2 runs)" in captured.out


def test_damaged_runs_are_one_line(tmp_path, monkeypatch, face_records, checksum, capsys):
    options = [f"--set={text}" for text in SMALL]
    for run in reproduction.plan(TABLES["table10"], face_records, tmp_path, 1, SMALL):
        finish(run, checksum, nme=4.0, loss=-300.0)
    first = tmp_path / "runs/wflw-huber-full-seed0"
    arguments = ["table10", "--data", face_records, "--output", tmp_path, "--seeds", "1", *options]
    (first / "metrics.json").write_text("3")
    with pytest.raises(ValueError, match=r"metrics.json holds no metrics; delete it"):
        run_main(monkeypatch, *arguments)
    (first / "metrics.json").write_text('{"tta": "none", "split": "test"}')
    (first / "run.json").write_text("{}")
    assert run_main(monkeypatch, *arguments) == 1
    assert re.search(
        r"failed: wflw-huber-full-seed0: error: .*run.json is damaged", capsys.readouterr().err
    )


def _plan_of(tiny_config, directory):
    return reproduction.Run(Variant("v"), 0, directory, tiny_config)


def test_evaluating_a_run_that_was_killed_does_not_finish_it(tiny_run, tiny_config, tmp_path):
    """Neither now nor where an earlier version wrote metrics.json, in which it named the checkpoint."""
    run = _plan_of(tiny_config, tmp_path / "killed")
    shutil.copytree(tiny_run, run.directory)
    assert run.status == "done" and reproduction._is_done(run)
    values = json.loads((run.directory / "run.json").read_text())
    assert values.pop("finished")["step"] == 10
    write_json(run.directory / "run.json", values)
    assert run.status == "done"  # as a run of an earlier version, by its metrics.json
    (run.directory / "metrics.json").unlink()
    metrics, (path, *_) = run_evaluation.evaluate_run(run.directory)
    assert path.is_file() and run.status == "begun" and not reproduction._is_done(run)
    write_json(run.directory / "metrics.json", {**metrics, "checkpoint": "latest"})
    assert run.status == "begun" and not reproduction._is_done(run)


def test_a_run_of_another_data_set_is_refused(tmp_path, tiny_config, checksum):
    run = _plan_of(tiny_config, tmp_path / "run")
    finish(run, checksum)
    assert reproduction._is_done(run)
    finish(run, "b")
    expected = (
        rf"run was trained on another data set \(sha256 b+\) than .* holds now \({checksum}\)"
    )
    with pytest.raises(ValueError, match=expected):
        reproduction._is_done(run)


@pytest.mark.parametrize("change", ["split", "tta", "data", "step", "nothing"])
def test_only_what_was_measured_alike_is_not_measured_again(
    tmp_path, tiny_config, checksum, monkeypatch, change
):
    """A table's cell with fusion takes an evaluation of this split, data set and step, and no other."""
    run = _plan_of(tiny_config, tmp_path / "run")
    finish(run, checksum, nme=5.0)
    there = {
        "split": "test",
        "tta": "ml",
        "step": 100,
        "data": {"sha256": checksum},
        "nme": 4.0,
    }
    others = {"split": "train", "tta": "mean", "step": 50, "data": {"sha256": "b"}}
    there |= {change: others[change]} if change in others else {}
    path = results.evaluation_path(run.directory, there["split"], there["tta"], "latest")
    path.parent.mkdir()
    write_json(path, there)
    measured = []

    def evaluate_run(directory, tta):
        measured.append((directory, tta))
        return {"nme": 3.0}, []

    monkeypatch.setattr(run_evaluation, "evaluate_run", evaluate_run)
    assert reproduction._metrics(run, "ml")["nme"] == (4.0 if change == "nothing" else 3.0)
    assert measured == ([] if change == "nothing" else [(run.directory, "ml")])
    assert reproduction._metrics(run, "none")["nme"] == 5.0
    finish(run, checksum, nme=5.0, split="valid")
    assert reproduction._metrics(run, "none")["nme"] == 3.0


def test_an_increase_is_paired_by_seed():
    variant = Variant("v")
    cells = tuple(Cell("Huber", column, variant, "nme") for column in ("Clean", "Wrong"))
    table = Table("t", cells, increase=("Clean", "Wrong"))
    values = {("Huber", "Clean"): [5.0, 7.0], ("Huber", "Wrong"): [5.5, 7.7]}
    text = report.markdown("t", table, values, 2)
    assert "| Huber | 6.00 ± 1.41 | 6.60 ± 1.56 | 0.60 ± 0.14 |" in text


@pytest.mark.slow
def test_tables_9_and_10_at_cpu_scale(face_records, tmp_path):
    """Both for real: four trainings of an epoch each, and the second table finds one of them done."""
    for table, changes, trainings in (
        ("table9", [text for text in SMALL if "backbone" not in text], 3),
        ("table10", [text for text in SMALL if "backbone" not in text], 1),
    ):
        command = [sys.executable, "-m", "tfhuber.reproduce", table, "--seeds", "1"]
        command += ["--data", str(face_records), "--output", str(tmp_path)]
        command += [f"--set={change}" for change in changes]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert f"{trainings}/{trainings}" in result.stderr
        cells = json.loads((tmp_path / f"{table}.json").read_text())["cells"]
        values = [cell["values"][0] for cell in cells]
        assert np.all(np.isfinite(values))
        rows = {cell["row"]: tuple(cell["values"]) for cell in cells if cell["metric"] == "nme"}
        assert len(set(rows.values())) == len(rows)
        assert str(round(cells[0]["values"][0], 2)) in result.stdout


@pytest.mark.slow
def test_pretraining_on_300w_lp_and_both_fusions_at_cpu_scale(face_records, tmp_path):
    """Table 6 for real: faces of 68 landmarks first, then those of 98, plain and fused."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "wflw").symlink_to(face_records)
    write_sample_data("300w_lp", tmp_path / "source", train=30, test=1, seed=0, processes=1)
    source = ["--dataset", "300w_lp", "--source", str(tmp_path / "source"), "--size", "96"]
    make_tfrecords.main([*source, "--output", str(data / "300w_lp")])
    command = [sys.executable, "-m", "tfhuber.reproduce", "table6", "--seeds", "1"]
    command += ["--data", str(data), "--output", str(tmp_path / "out")]
    command += [f"--set={change}" for change in SMALL]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    cells = json.loads((tmp_path / "out/table6.json").read_text())["cells"]
    values = {(cell["row"], cell["tta"]): cell["values"][0] for cell in cells}
    assert len(values) == len(set(values.values())) == 4 and np.all(
        np.isfinite(list(values.values()))
    )
