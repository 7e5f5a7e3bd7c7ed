"""An export of a calibrated run answers with calibrated numbers, and says with which law."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from calibrations import calibrate
from scipy import linalg

from tfhuber.calibration.model import FILE, calibration_of
from tfhuber.distributions.radial import Huber
from tfhuber.geometry.projective import box_to_crop
from tfhuber.runs.load import load_run, read_config
from tfhuber.saved_model import description, served_examples, signatures
from tfhuber.saved_model.export import export
from tfhuber.saved_model.metadata import ModelMetadata


@pytest.fixture(scope="module")
def calibrated_run(tiny_run, tmp_path_factory):
    """A copy of the tiny run with a calibration of other laws, scales and matrices."""
    run = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(tiny_run, run)
    calibrate(run)
    return run


def _examples(predictor, run):
    size = predictor.options.image_size
    return served_examples.read(read_config(run).data.directory, predictor.landmark_set, size, 4)


@pytest.mark.parametrize("tta", ["none", "ml"])
def test_numbers_are_those_of_the_formula(calibrated_run, tta):
    """inv(A B B A) kappa with B = exp(S) by SciPy, from what the model answers without calibration.

    Before that, A has the contrast's factor exp(c u), with u from log|A| in the network's crop.
    """
    predictor = load_run(calibrated_run)
    calibration = calibration_of(calibrated_run, predictor)
    examples, fitted = _examples(predictor, calibrated_run), calibration.signatures[tta]
    request = tf.constant(examples["image_bytes"]), tf.constant(examples["box"])
    found = signatures.image_function(predictor, tta, calibration)(*request)
    plain = predictor.correlated(calibration.correlations)
    before = signatures.image_function(plain, tta)(*request)
    factor = before["precision_factor"].numpy().astype(np.float64)
    rule = predictor.landmark_set.square
    zoom = box_to_crop(tf.constant(examples["box"]), predictor.options.image_size, rule)
    log_det = np.linalg.slogdet(factor)[1] - 2 * np.log(zoom.numpy()[:, 0, 0])[:, None]
    contrast = fitted.contrast
    surer = np.clip(log_det - contrast.typical, contrast.least, contrast.largest)
    assert len(np.unique(surer)) > 10  # not all at a bound
    factor *= np.exp(contrast.exponent * surer)[..., None, None]
    scale = np.stack([linalg.expm(each) for each in fitted.log_matrix])
    square = factor @ scale @ scale @ factor
    covariance = fitted.energy.kappa(2) * np.linalg.inv(square)
    assert found["valid"].numpy().all()
    np.testing.assert_array_equal(found["landmarks"], before["landmarks"])
    close = 1e-4 * np.abs(covariance).max()
    np.testing.assert_allclose(found["covariance"], covariance, rtol=1e-3, atol=close)
    precision = found["precision_factor"].numpy().astype(np.float64)
    np.testing.assert_allclose(precision @ precision, square, rtol=1e-3, atol=1e-4 * square.max())


def test_the_tensor_signature_is_corrected_too(calibrated_run):
    predictor = load_run(calibrated_run)
    calibration = calibration_of(calibrated_run, predictor)
    crops = tf.constant(_examples(predictor, calibrated_run)["image"])
    found = signatures.tensor_function(predictor, calibration)(crops)
    fitted = calibration.signatures["none"]
    expected = fitted.apply(predictor.predict(tf.cast(crops, tf.float32)))
    np.testing.assert_allclose(
        found["covariance"], expected.covariance(fitted.energy), rtol=1e-3, atol=1e-2
    )


def test_metadata_say_which_law_each_signature_has(calibrated_run):
    predictor = load_run(calibrated_run)
    calibration = calibration_of(calibrated_run, predictor)
    arguments = predictor, calibrated_run, "latest", np.ones((3, 98))
    described = description.describe(*arguments, True, calibration)
    read = ModelMetadata.parse(json.loads(description.text(described)))
    plain, fused = read.of("serving_default"), read.of("tta")
    assert (plain.family, plain.delta) == ("huber", 2.0) == (read.family, read.delta)
    assert plain.kappa == pytest.approx(Huber(2.0).kappa(2))
    assert (fused.family, fused.kappa) == ("laplace", pytest.approx(3.0))
    tta = described["calibration"]["signatures"]["tta"]
    assert described["calibrated"] is True
    assert tta["log_scale"] == calibration.signatures["ml"].log_scale
    assert tta["regions"][0]["pooled"] == 2.5 and tta["promised_by"] == 31
    assert described["calibration"]["source"]["sha256"] == "0" * 64

    before = description.describe(*arguments)
    assert before["calibrated"] is False and before["calibration"] is None
    assert before["delta"] == predictor.options.delta
    assert not ModelMetadata.parse(before).laws
    assert (
        "tta"
        not in description.describe(*arguments, False, calibration)["calibration"]["signatures"]
    )


def test_a_calibration_of_other_weights_is_refused(calibrated_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(calibrated_run, run)
    values = json.loads((run / FILE).read_text())
    values["source"]["step"] += 1
    (run / FILE).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"weights of step .* --uncalibrated"):
        export(run, tmp_path / "models")
    assert not (tmp_path / "models").exists()
