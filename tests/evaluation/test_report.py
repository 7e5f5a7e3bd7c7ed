"""The report says what was measured, lets no string of the data act as HTML, and needs no other file."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from demo_browser import Visit, chromium

from tfhuber.data import dataset, records
from tfhuber.evaluation import run_evaluation
from tfhuber.evaluation.predictions import collect
from tfhuber.evaluation.report import curves, page, photographs
from tfhuber.runs import results
from tfhuber.runs.load import load_run

HOSTILE = "<img src=x onerror=alert(1)>\"'&$"


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    directory = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(tiny_run, directory, ignore=shutil.ignore_patterns("evaluations"))
    return directory


@pytest.fixture(scope="module")
def evaluated(run):
    return run_evaluation.evaluate_run(run)


@pytest.fixture(scope="module")
def hostile_page(run, evaluated, tiny_config, tmp_path_factory):
    """A report whose landmarks, groups, subsets, images and run have names that would be HTML."""
    predictor, split = load_run(run), dataset.open_split(tiny_config.data.directory, "test")
    landmark_set = dataclasses.replace(
        predictor.landmark_set,
        name=HOSTILE,
        names=(HOSTILE, *predictor.landmark_set.names[1:]),
        groups={HOSTILE: (0, 1)},
        attributes=(HOSTILE, *predictor.landmark_set.attributes[1:]),
    )
    predictor = dataclasses.replace(predictor, landmark_set=landmark_set)
    split = dataclasses.replace(split, landmark_set=landmark_set)
    raw = collect(predictor, split)
    raw = dataclasses.replace(raw, id=np.array([HOSTILE.encode()] * len(raw.id), object))
    metrics = evaluated[0] | run_evaluation._details(predictor, raw, raw)
    metrics["split"] = HOSTILE
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    facts = {"run": HOSTILE, "command": HOSTILE}
    page.write_report(path, page.Subject(raw, predictor, raw, split, metrics, facts))
    return path


def test_the_report_says_what_was_measured(run, evaluated):
    metrics, files = evaluated
    assert files[-1] == run / "evaluations/test-none-latest/report.html"
    text = files[-1].read_text()
    assert f"{metrics['errors']['all']['mean_pixels']:.2f} px" in text
    assert metrics["data"]["sha256"] in text and "--split=test" in text
    assert f"<td>{100 * metrics['coverage']['raw']['all']['90']:.1f}</td>" in text
    assert text.count('<details class="photograph"') == 16 and text.count("<figure>") == 3
    assert files[-1].stat().st_size < 5_000_000
    nme = metrics["errors"]["all"]["mean_percent"]
    assert nme == pytest.approx(metrics["nme"], rel=1e-6)  # every landmark is labelled
    assert metrics["coverage"]["raw"]["all"]["90"] == pytest.approx(metrics["coverage_90"])


def test_no_name_of_the_data_is_html(hostile_page):
    text = hostile_page.read_text()
    assert "<img" not in text and "<script" not in text and "&lt;img src=x" in text


def test_nothing_is_fetched_from_elsewhere(evaluated):
    text = evaluated[1][-1].read_text()
    links = re.findall(r'(?:href|src)="([^"#][^"]*)"', text)
    assert len(links) == 16 and all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert not re.search(r"@import|url\((?!#)", text)


def test_a_browser_shows_it_and_enlarges_a_photograph(hostile_page):
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 390, "height": 800})
        visit = Visit(context, hostile_page.as_uri())
        tab = visit.page
        assert visit.complaints == []
        assert [url for url in visit.urls if not url.startswith("data:")] == [hostile_page.as_uri()]
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        photograph = tab.locator("details.photograph").first
        before = photograph.bounding_box()["width"]
        photograph.locator("summary").click()
        assert photograph.bounding_box()["width"] > 1.8 * before
        browser.close()


def test_another_data_set_is_another_file(run, evaluated, tiny_config, tmp_path):
    """It is another if its manifest's checksum is, wherever it lies."""
    metrics, (path, *_) = evaluated
    own, config = path.read_bytes(), run_evaluation.read_config(run)
    moved = tmp_path / "moved"
    shutil.copytree(tiny_config.data.directory, moved)
    assert run_evaluation._is_own(run, config, moved, metrics["data"]["sha256"])
    assert run_evaluation._is_own(run, config, config.data.directory, "0" * 64)
    assert not run_evaluation._is_own(run, config, moved, None)

    manifest = json.loads((moved / records.MANIFEST).read_text())
    manifest["splits"]["renamed"] = manifest["splits"].pop("train")
    (moved / records.MANIFEST).write_text(records.manifest_text(manifest))
    found, files = run_evaluation.evaluate_run(run, data=str(moved))
    sha256 = found["data"]["sha256"]
    assert files[0].name == f"test-none-latest-on-moved-{sha256[:8]}.json"
    assert files[-1].parent.name == files[0].stem
    assert path.read_bytes() == own and sha256 != metrics["data"]["sha256"]
    assert results.find_metrics(run, "test", "none", sha256) == found
    assert set(results.evaluations(run)) == {path.stem, files[0].stem}


def test_names_of_files_are_safe():
    other = results.data_name("d/other set", "0123456789abcdef")
    path = results.evaluation_path(
        Path("run"), "test", "none", "best", calibrated=True, other=other
    )
    assert path.name == "test-none-best-on-other_set-01234567-calibrated.json"


def test_the_band_holds_what_chance_gives():
    """Of 20,000 draws of 76 photographs, 95 % and, as counts are whole numbers, little more are inside."""
    levels = np.array([0.5, 0.9, 0.95])
    low, high = curves.chance_band(levels, 76)
    held = np.random.default_rng(0).binomial(76, levels, (20_000, 3)) / 76
    inside = np.mean((held >= low) & (held <= high), axis=0)
    assert np.all((inside > 0.945) & (inside < 0.985))


def test_the_surest_are_answered_first():
    share, risk = curves.risk_of_share(np.array([3.0, 1.0, 8.0]), np.array([0.2, 0.1, 0.9]))
    assert share.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert risk.tolist() == [1, 2, 4]


def test_examples_are_chosen_by_error_and_by_the_farthest_label():
    error = np.array([5.0, np.nan, *np.arange(10.0, 20.0), 1.0])
    radius = np.full((13, 2), 1.0)
    radius[1, 1], radius[4] = 50.0, np.nan
    found = photographs.choose(error, radius)
    assert found["best"] == [12, 0, 2, 3] and found["worst"] == [11, 10, 9, 8]
    assert found["median"] == [4, 5, 6, 7]
    assert found["most surprising"][0] == 1 and 4 not in found["most surprising"]


def test_a_mark_is_drawn_where_the_numbers_are():
    """An ellipse of 4 x 1 pixels along (1, 1), in an SVG whose pixels' centres are halves."""
    axes = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    crop = photographs.Crop(
        np.zeros((9, 9, 3), np.uint8),
        np.array([[3.0, 4.0]]),
        (axes @ np.diag([16.0, 1.0]) @ axes.T)[np.newaxis],
        np.array([[6.0, 4.0]]),
    )
    mark = photographs._mark(crop, 0, 2.0, "a<b")
    assert 'rx="8.0" ry="2.0" transform="translate(3.5 4.5) rotate(' in mark
    angle = int(re.search(r"rotate\((-?\d+)\)", mark)[1])
    assert angle % 180 == 45
    assert 'd="M3.5 4.5L6.5 4.5"' in mark and "<title>a&lt;b</title>" in mark
