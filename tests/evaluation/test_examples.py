"""Chosen examples: the right ones, with the predictions where they belong in the enlarged crop."""

import numpy as np

from tfhuber.data import dataset
from tfhuber.evaluation import examples
from tfhuber.evaluation.predictions import collect
from tfhuber.runs.load import load_run


def test_crops_are_the_networks_own_enlarged(tiny_run, tiny_config):
    predictor = load_run(tiny_run)
    split = dataset.open_split(tiny_config.data.directory, "test")
    predictions = collect(predictor, split)
    found = examples.crops(predictor, split, predictions, [3, 11], size=96)
    assert sorted(found) == [3, 11]

    batches = list(dataset.evaluation_batches(split, 32, 8))
    images = np.concatenate([batch["image"] for batch in batches])
    truth = np.concatenate([batch["landmarks"] for batch in batches])
    predicted = predictor.predict(images)
    loc, covariance = predicted.loc, predicted.covariance(predictor.energy)
    for index, crop in found.items():
        assert crop.image.shape == (96, 96, 3) and crop.image.dtype == np.uint8
        # From 32 pixels to 96, by u -> 3 (u + 0.5) - 0.5.
        np.testing.assert_allclose(crop.landmarks, 3 * (loc[index] + 0.5) - 0.5, atol=2e-3)
        np.testing.assert_allclose(crop.covariance, 9 * covariance[index], rtol=1e-3, atol=0.01)
        np.testing.assert_allclose(crop.truth, 3 * (truth[index] + 0.5) - 0.5, atol=2e-3)
        small = crop.image.reshape(32, 3, 32, 3, 3).mean(axis=(1, 3))
        assert np.abs(small - images[index]).mean() < 6  # the same picture, out of 255


def test_the_sheet_shows_best_and_worst(tiny_run, tiny_config):
    predictor = load_run(tiny_run)
    split = dataset.open_split(tiny_config.data.directory, "test")
    sheet = examples.best_median_worst(predictor, split, collect(predictor, split))
    assert sheet.width > 4 * 360 and sheet.height > 3 * 360
