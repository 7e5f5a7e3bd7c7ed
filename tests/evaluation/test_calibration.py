"""On drawn faces, whose label noise is known, the predicted covariances are the true ones."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from pipelines import make_tfrecords
from pipelines.sample_data import read_truth, write_sample_data
from tfhuber.config import schema
from tfhuber.data import dataset
from tfhuber.evaluation import predictions
from tfhuber.runs.load import load_run
from tfhuber.training.trainer import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_predicted_covariances_follow_the_known_ones(tmp_path):
    """Held-out faces: about 227 x 98 landmarks, never seen in training; about 7 minutes on 2 cores."""
    source, data = tmp_path / "source", tmp_path / "records"
    write_sample_data("wflw", source, train=2000, test=200, seed=0)
    make_tfrecords.main(["--dataset=wflw", f"--source={source}", f"--output={data}", "--size=96"])
    options = schema.load(ROOT / "configs/sample.json", data=str(data))
    metrics = train(options, tmp_path / "run")
    predictor = load_run(tmp_path / "run")
    found = predictions.collect(predictor, dataset.open_split(data, "test"))

    truth = read_truth(source, "test")
    known = np.stack([truth[example.decode()][1] for example in found.id])
    deviation = np.sqrt(found.covariance.trace(axis1=2, axis2=3) / 2).ravel()
    known_deviation = np.sqrt(known.trace(axis1=2, axis2=3) / 2).ravel()
    correlation = scipy.stats.spearmanr(deviation, known_deviation).statistic
    slope = metrics["calibration"]["slope"]
    print(
        f"rank correlation {correlation:.3f}, coverage of 90 % {metrics['coverage_90']:.3f}, "
        f"slope of expected against empirical error {slope:.3f}, {metrics}"
    )
    assert correlation >= 0.8
    assert 0.85 <= metrics["coverage_90"] <= 0.95
    assert 0.9 <= slope <= 1.1
