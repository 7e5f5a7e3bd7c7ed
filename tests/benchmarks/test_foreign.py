"""What the benchmark of foreign objects makes of crops and boxes, and what it prints of a run."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import foreign


def test_crops_are_damaged_as_their_names_say():
    crops = np.random.default_rng(1).uniform(0, 255, (6, 32, 32, 3))
    made = {name: damage(crops) for name, damage in foreign.damages().items()}
    assert all(each.shape == crops.shape for each in made.values())
    np.testing.assert_array_equal(made["upside-down"][:, ::-1, ::-1], crops)
    assert made["dark, a twentieth of the light"].max() <= 13
    same = np.isclose(made["half covered"], crops).all(axis=-1).mean(axis=(1, 2))
    np.testing.assert_allclose(same, 0.5)
    assert made["blurred, a sixteenth of the side"].std() < crops.std() / 3
    assert np.diff(made["walls"], axis=2).std() < 8 < made["noise"].std()
    assert not np.allclose(made["noise"], crops)


def test_boxes_miss_by_what_their_names_say():
    box = tf.constant([10.0, 20.0, 50.0, 40.0])
    moved = [move(box).numpy().tolist() for move in foreign.boxes().values()]
    assert moved == [[25, 27.5, 65, 47.5], [-10, 10, 70, 50], [20, 25, 40, 35]]


def test_the_area_under_the_curve_is_a_probability():
    rng = np.random.default_rng(0)
    known, other = rng.normal(size=50), rng.normal(1, 1, size=40)
    by_hand = np.mean(other[:, None] > known)
    assert foreign.auroc(known, other) == pytest.approx(by_hand)


@pytest.mark.slow
def test_a_run_is_measured(tiny_run, tiny_config, monkeypatch, capsys):
    other = f"{tiny_config.data.directory}:train"
    monkeypatch.setattr(sys, "argv", ["foreign", "--run", str(tiny_run), "--other", other])
    assert foreign.main() == 0
    printed = capsys.readouterr().out
    assert "the split itself" in printed and "0.500" in printed and other in printed
    assert printed.count("not calibrated") == 11
