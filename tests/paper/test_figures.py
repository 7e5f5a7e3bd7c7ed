"""The paper's figures show what they claim: masses, second moments, densities, examples, errors."""

import dataclasses
import sys

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.path import Path

from tfhuber import figures
from tfhuber.data import dataset
from tfhuber.distributions.elliptical import Elliptical
from tfhuber.distributions.location_scatter import LocationScatter
from tfhuber.distributions.radial import FAMILIES, radial_energy
from tfhuber.evaluation import predictions, summary
from tfhuber.paper.figures import (
    PERCENTILES,
    certain_and_uncertain,
    contours,
    distributions,
    figure2,
    figure3,
)
from tfhuber.runs.load import load_run

NAMES = ("figure4", "figure5", "figure6")
PANELS = {"figure4": 5, "figure5": 5, "figure6": 4}
SCATTER = [[9.0, 3.0], [3.0, 4.0]]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["figures", *map(str, arguments)])
    return figures.main()


def empty_predictions(**values):
    blank = {field.name: None for field in dataclasses.fields(predictions.Predictions)}
    return predictions.Predictions(**(blank | values))


@pytest.mark.parametrize("name", NAMES)
def test_contours_hold_the_stated_masses(name):
    """40,000 samples of each panel: four standard errors are at most 0.01."""
    shown = distributions(name)
    assert len(shown) == PANELS[name]
    for caption, distribution in shown.items():
        samples = distribution.sample(40_000, seed=1).numpy()
        outlines = contours(distribution, caption).outlines
        within = [Path(outline).contains_points(samples).mean() for outline in outlines]
        np.testing.assert_allclose(within, PERCENTILES, atol=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_shades_are_the_mean_densities_of_the_rings(name):
    for caption, distribution in distributions(name).items():
        panel = contours(distribution, caption)
        assert panel.caption == caption
        assert np.all(np.diff(panel.log_density) < 0)
        # The density falls outwards, so a ring's mean lies between those on its two outlines.
        on_outline = distribution.log_prob(panel.outlines[:, 0]).numpy()
        at_centre = distribution.log_prob([0.0, 0.0]).numpy()
        inner = np.concatenate([[at_centre], on_outline[:-1]])
        assert np.all((on_outline < panel.log_density) & (panel.log_density < inner))


@pytest.mark.parametrize("family", FAMILIES)
def test_contours_of_every_family_wherever_it_lies(family):
    """The mean density of each ring, integrated over the ring, is its mass."""
    factor = tf.constant([[0.8, 0.3], [0.3, 0.5]], tf.float64)
    loc = tf.constant([3.0, -7.0], tf.float64)
    panel = contours(Elliptical(loc, factor, radial_energy(family)), points=720)
    np.testing.assert_allclose(panel.outlines.mean(axis=1), np.tile(loc, (9, 1)), atol=1e-10)
    x, y = np.moveaxis(panel.outlines, -1, 0)
    area = np.abs(np.sum(x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1), axis=1)) / 2
    mass = np.exp(panel.log_density) * np.diff(area, prepend=0)
    np.testing.assert_allclose(np.cumsum(mass), PERCENTILES, rtol=2e-5)


def test_figure4_has_one_second_moment_matrix():
    for distribution in distributions("figure4").values():
        np.testing.assert_allclose(distribution.covariance(), SCATTER, rtol=1e-12)


def test_figure4_says_its_parameters():
    last = list(distributions("figure4"))[-1]
    # kappa is 1.0086 for delta = 3.
    assert last.startswith(r"(e) $\delta = 3$") and r"{8.92\;\;2.97}{2.97\;\;3.97}" in last


def test_figure5_has_one_lambda_and_shrinks_towards_the_gaussian():
    gauss, *hubers = distributions("figure5").values()
    precision = np.linalg.inv(SCATTER)
    for distribution in (gauss, *hubers):
        factor = distribution.precision_factor.numpy()
        np.testing.assert_allclose(factor @ factor, precision, rtol=1e-12)
    assert [float(h.radial.delta) for h in hubers] == [0.8, 1.0, 1.5, 3.0]
    spread = [np.trace(d.covariance()) for d in (*hubers, gauss)]
    assert np.all(np.diff(spread) < 0) and spread[-1] == pytest.approx(13.0)
    assert spread[1] == pytest.approx(13 * 3.0765, rel=1e-4)


def test_figure6_grows_with_the_root_of_the_factor():
    outlines = [contours(d).outlines for d in distributions("figure6").values()]
    for divisor, outline in zip((1, 2, 3, 4), outlines, strict=True):
        np.testing.assert_allclose(outline, np.sqrt(divisor) * outlines[0], rtol=1e-10)


def test_an_unknown_figure_has_no_distributions():
    with pytest.raises(ValueError, match="name must be one of figure4, figure5, figure6"):
        distributions("figure7")


def test_certain_and_uncertain_are_relative_to_the_extent():
    landmarks = np.array([[0.0, 0.0], [3.0, 4.0]]) * np.array([1, 10, 100])[:, None, None]
    deviation = np.array([0.5, 4.0, 100.0])[:, None, None, None]  # over 5, 50 and 500 pixels
    covariance = np.tile(np.eye(2), (3, 2, 1, 1)) * deviation**2
    predicted = LocationScatter(landmarks, None, None)
    chosen = certain_and_uncertain(empty_predictions(predicted=predicted, covariance=covariance))
    assert chosen == (1, 2)


def test_figure2_shows_the_two_examples(tiny_run, tiny_config):
    figure = figure2(tiny_run)
    predictor = load_run(tiny_run)
    split = dataset.open_split(tiny_config.data.directory, "test")
    found = predictions.collect(predictor, split)
    captions = [axes.get_xlabel() for axes in figure.axes]
    assert [caption.split(":")[0] for caption in captions] == ["certain", "uncertain"]
    deviations = [float(caption.split()[3]) for caption in captions]
    assert deviations[0] < deviations[1]
    # By another way: the network's own crop is 32 pixels wide.
    index = certain_and_uncertain(found)[0]
    images = np.concatenate([b["image"] for b in dataset.evaluation_batches(split, 32, 8)])
    predicted = predictor.predict(images[index : index + 1]).at(0)
    covariance = predicted.covariance(predictor.energy)
    expected = 100 / 32 * np.sqrt(np.trace(covariance, axis1=1, axis2=2) / 2).mean()
    assert deviations[0] == pytest.approx(expected, abs=0.06)
    dots = figure.axes[0].collections[-1].get_offsets()
    np.testing.assert_allclose((dots + 0.5) / 14 - 0.5, predicted.loc, atol=0.02)


def test_figure3_has_a_panel_for_each_run(tiny_run, tiny_config):
    figure = figure3([tiny_run, tiny_run], bin_size=100)
    assert [axes.get_title() for axes in figure.axes] == ["2 epochs", f"2 epochs, {tiny_run.name}"]
    predictor = load_run(tiny_run)
    split = dataset.open_split(tiny_config.data.directory, "test")
    errors = summary.calibration_errors(predictor, predictions.collect(predictor, split))
    crosses = figure.axes[0].collections[0].get_offsets()
    assert len(crosses) == len(errors[0]) // 100
    # Bins are of almost one size, so the mean over them is nearly the mean of all.
    np.testing.assert_allclose(
        crosses.mean(axis=0), [errors[1].mean(), errors[0].mean()], rtol=0.01
    )


def test_figure3_needs_two_bins(tiny_run):
    with pytest.raises(ValueError, match=r"has .* labelled landmarks, too few for two bins of 734"):
        figure3([tiny_run])


@pytest.mark.parametrize("name", ["figure4", "figure6"])
@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_command_draws_distributions(monkeypatch, capsys, tmp_path, name, suffix):
    output = tmp_path / f"{name}.{suffix}"
    assert run(monkeypatch, name, "--output", output) == 0
    assert capsys.readouterr().out == f"wrote {output}\n"
    assert output.stat().st_size > 20_000


def test_the_command_draws_runs(monkeypatch, tmp_path, tiny_run):
    output = tmp_path / "figure2.png"
    assert run(monkeypatch, "figure2", "--run", tiny_run, "--output", output) == 0
    assert output.stat().st_size > 20_000
    output = tmp_path / "figure3.pdf"
    arguments = ["--run", tiny_run, "--split", "train", "--output", output]
    assert run(monkeypatch, "figure3", *arguments) == 0
    assert output.stat().st_size > 5_000


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["figure2"], "give --run DIR; make one with `python -m tfhuber.train"),
        (["figure3"], "give --run DIR; make one with `python -m tfhuber.train"),
        (["figure4", "--run", "r"], "figure4 shows distributions, not a run"),
        (["figure2", "--run", "r", "--run", "s"], "one run, got --run 2 times"),
        (["figure3", "--run", "r", "--bin-size", "0"], "--bin-size must be at least 1, got 0"),
        (["figure3", "--run", "nowhere"], "nowhere is no training run"),
    ],
)
def test_the_command_refuses(monkeypatch, tmp_path, arguments, message):
    output = tmp_path / "figure.png"
    with pytest.raises(ValueError) as error:
        run(monkeypatch, *arguments, "--output", output)
    assert message in str(error.value)
    assert not output.exists()


def test_the_command_refuses_a_name_before_any_work(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.pdf, \.png or \.svg"):
        run(monkeypatch, "figure5", "--output", tmp_path / "figure.gif")
