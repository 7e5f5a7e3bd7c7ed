"""A run is calibrated and then evaluated as calibrated; what cannot be used leaves everything alone."""

import json
import shutil
import sys

import numpy as np
import pytest

from tfhuber import calibrate
from tfhuber import evaluate as evaluate_command
from tfhuber.calibration import run_calibration
from tfhuber.calibration.corrected import corrected
from tfhuber.calibration.model import FILE, load_calibration
from tfhuber.console.cli import run_main
from tfhuber.data import dataset, records
from tfhuber.evaluation.predictions import collect
from tfhuber.evaluation.run_evaluation import evaluate_run
from tfhuber.landmarks import known_sets
from tfhuber.runs.load import load_run


@pytest.fixture(scope="module")
def data(face_records, tmp_path_factory):
    """Drawn faces whose 40 training images are called the split "calibration"."""
    directory = tmp_path_factory.mktemp("data") / "faces"
    shutil.copytree(face_records, directory)
    manifest = json.loads((directory / records.MANIFEST).read_text())
    manifest["splits"] = {
        "calibration": manifest["splits"]["train"],
        "test": manifest["splits"]["test"],
    }
    (directory / records.MANIFEST).write_text(records.manifest_text(manifest))
    return directory


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(tiny_run, directory)
    return directory


@pytest.fixture(scope="module")
def calibration(run, data):
    made, checks = run_calibration.calibrate_run(run, data=str(data))
    return made, checks


def call(monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        run_main(module.main)
    return stop.value.code


def test_each_way_to_predict_is_better_and_covers_what_it_says(run, calibration):
    made, checks = calibration
    assert load_calibration(run) == made
    assert made.source.photographs == 40 and made.source.split == "calibration"
    for tta, (raw, then) in checks.items():
        signature = made.signatures[tta]
        assert (signature.fitted_to, signature.promised_by) == (20, 20)
        # A network of two epochs knows nothing of its errors; on 20 other photographs of the same kind:
        assert then.nll < raw.nll
        assert abs(then.coverage[0.9] - 0.9) < abs(raw.coverage[0.9] - 0.9) + 0.05
        levels = {radii.level: radii for radii in signature.radii}
        # 20 photographs: ceil(21 p) is at most 20 up to 0.95.
        assert levels[0.95].pooled is not None and levels[0.99].pooled is None
        assert levels[0.9].simultaneous > levels[0.9].pooled > levels[0.5].pooled


def test_evaluation_is_of_the_calibrated_predictions(run, data, calibration, monkeypatch, capsys):
    made, _ = calibration
    predictor, split = load_run(run), dataset.open_split(data, "test")
    for tta in ("ml",):
        status = call(
            monkeypatch,
            evaluate_command,
            "--run",
            run,
            "--data",
            data,
            "--split",
            "test",
            "--tta",
            tta,
        )
        assert status == 0
        printed = capsys.readouterr().out
        assert "inside, raw" in printed and "calibrated by 40 photographs" in printed
        (path,) = (run / "evaluations").glob(f"test-{tta}-latest-on-faces-*-calibrated.json")
        found = json.loads(path.read_text())
        assert set(found["coverage"]) == {"raw", "calibrated"} and "  ->  " in printed
        report = (path.with_suffix("") / "report.html").read_text()
        assert report.count('class="shape"') == 3 * 8 and "Whole shapes" in report
        together = found["calibrated"]["joint"]
        assert "distances, joint" in printed and together["gain"] > 5 and together["length"] < 1
        raw = collect(predictor, split, tta)
        energy, predictions = corrected(made, tta, predictor, split, raw)
        # The density from the predictions themselves.
        distribution = predictions.predicted.distribution(energy.energy)
        nll = -(distribution.log_prob(predictions.truth).numpy() * raw.weights).sum(1)
        assert found["nll"] == pytest.approx(nll.mean(), rel=1e-5)
        inside = distribution.radial_cdf(predictions.truth).numpy()[raw.weights > 0] <= 0.9
        assert found["coverage_90"] == pytest.approx(inside.mean())
        assert found["coverage"]["calibrated"]["all"]["90"] == pytest.approx(inside.mean())
        assert found["calibrated"]["raw"]["nll"] == pytest.approx(raw.nll.sum() / raw.weights.sum())
        assert found["calibrated"]["calibrated"]["coverage"]["90"] == pytest.approx(inside.mean())
        assert np.array_equal(predictions.landmarks, raw.landmarks)
        change = predictions.nll - raw.nll
        constants = energy.energy.log_normalizer(2) - predictor.energy.log_normalizer(2)
        np.testing.assert_allclose(
            predictions.loss - raw.loss,
            change - constants * raw.weights.sum(1),
            rtol=1e-4,
            atol=1e-3,
        )
        for region in found["calibrated"]["regions"].values():
            assert all(0 <= share <= 1 for share in region.values())


@pytest.mark.slow
def test_without_its_calibration_a_run_measures_as_ever(tiny_run, run, data, calibration, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(tiny_run, plain)
    expected, files = evaluate_run(plain, data=str(data), split="test")
    found, again = evaluate_run(run, data=str(data), split="test")
    assert found == expected and "calibrated" not in found
    assert files[0].read_bytes() == again[0].read_bytes()


def refused(monkeypatch, capsys, module, *arguments):
    assert call(monkeypatch, module, *arguments) == 2
    (line,) = (each for each in capsys.readouterr().err.splitlines() if each.startswith("error"))
    return line


def test_what_cannot_calibrate_is_refused_and_nothing_is_overwritten(
    run, data, calibration, tiny_config, tmp_path, monkeypatch, capsys
):
    before = (run / FILE).read_bytes()

    def line(*arguments):
        return refused(monkeypatch, capsys, calibrate, "--run", run, *arguments)

    assert "was trained on split 'train'" in line("--split", "train")
    assert "split 'calibration' of" in line()  # the run's own data set has none
    assert "holds 12 photographs with labels, too few" in line("--data", data, "--split", "test")
    assert "holds no manifest.json" in line("--data", tmp_path)
    monkeypatch.setattr(run_calibration, "FEWEST_PHOTOGRAPHS", 50)
    assert "40 photographs with labels, too few to calibrate with: 50" in line("--data", data)

    foreign = tmp_path / "foreign"
    shutil.copytree(data, foreign)
    manifest = json.loads((foreign / records.MANIFEST).read_text())
    changed = records.manifest_text(
        {**manifest, "landmark_set": known_sets.describe(known_sets.MPII)}
    )
    (foreign / records.MANIFEST).write_text(changed)
    assert "predicts wflw landmarks, but" in line("--data", foreign)
    assert (run / FILE).read_bytes() == before


@pytest.mark.slow
def test_unlabelled_photographs_are_refused(run, data, calibration, monkeypatch):
    before = (run / FILE).read_bytes()
    real = dataset.network_example

    def unlabelled(*arguments):
        example = real(*arguments)
        return {**example, "weights": 0 * example["weights"]}

    monkeypatch.setattr(dataset, "network_example", unlabelled)
    with pytest.raises(ValueError, match="has no labels to calibrate with"):
        run_calibration.calibrate_run(run, data=str(data))
    assert (run / FILE).read_bytes() == before


@pytest.mark.slow
def test_a_calibration_of_other_weights_is_not_applied(
    run, data, calibration, tmp_path, monkeypatch, capsys
):
    made, _ = calibration
    other = tmp_path / "run"
    shutil.copytree(run, other)
    values = made.to_json()
    values["source"]["step"] += 1
    (other / FILE).write_text(json.dumps(values))
    arguments = ["--run", other, "--data", data, "--split", "test"]
    line = refused(monkeypatch, capsys, evaluate_command, *arguments)
    assert "is of the weights of step" in line and "--uncalibrated" in line
    (other / FILE).write_text(json.dumps({**made.to_json(), "landmarks": ["x"] * 98}))
    assert "other landmarks" in refused(monkeypatch, capsys, evaluate_command, *arguments)
    (other / FILE).write_text("{")
    assert "is not JSON" in refused(monkeypatch, capsys, evaluate_command, *arguments)
    assert call(monkeypatch, evaluate_command, *arguments, "--uncalibrated") == 0
