"""What a run's calibration.json holds, sound or with other fields, for the tests."""

import json

import numpy as np

ABSTENTION = {
    "false_alarms": 0.02,
    "largest_size": 3.0,
    "tolerance": 0.05,
    "risk": 0.1,
    "confidence": 0.95,
    "least_probability": 0.5,
}


def signature(log_scale=None, count=3, **changes):
    """One way to predict `count` landmarks; by default with scales of 1."""
    region = {
        "level": 0.9,
        "pooled": 2.5,
        "landmarks": [2.0, None, *[3.0] * (count - 2)],
        "simultaneous": None,
        "thirds": [1.0, 2.0, None],
    }
    values = {
        "family": "huber",
        "delta": 2.0,
        "correlation": None,
        "log_scale": [list(each) for each in log_scale or [(0.0, 0.0, 0.0)] * count],
        "size_edges": [1.0, 2.0],
        "fitted_to": 30,
        "promised_by": 31,
        "radii": [region],
        "tried": [{"name": "as the model says", "nll": 1.0, "kept": True}],
    }
    return {**values, **changes}


def document(step=7, **changes):
    """The whole file, of the weights of a step."""
    source = {
        "directory": "d",
        "split": "calibration",
        "sha256": "0" * 64,
        "photographs": 61,
        "examples": 61,
        "labels": 183,
        "checkpoint": "latest",
        "step": step,
    }
    values = {
        "format": 1,
        "date": "2026-01-01T00:00:00+00:00",
        "landmarks": ["a", "b", "c"],
        "source": source,
        "signatures": {
            "none": signature(),
            "mean": signature(correlation=0.9),
            "ml": signature(correlation=0.8),
        },
    }
    return {**values, **changes}


def calibrate(run, **changes):
    """Write to a run a calibration with other laws, scales and matrices than the model's own.

    Args:
      run: its directory.
      changes: of each signature.
    """
    from tfhuber.calibration.model import FILE, Calibration
    from tfhuber.runs.load import load_run

    rng, predictor = np.random.default_rng(0), load_run(run)
    typical = rng.normal(-2, 1, predictor.landmark_set.count).tolist()
    contrast = {"exponent": 0.4, "typical": typical, "least": -1.0, "largest": 0.8}
    names, laws = predictor.landmark_set.names, {"none": ("huber", None), "ml": ("laplace", 0.8)}
    laws["mean"] = laws["ml"]
    fitted = {
        tta: signature(
            rng.normal(0, 0.3, (len(names), 3)).tolist(),
            len(names),
            family=family,
            correlation=correlation,
            contrast=contrast,
            **changes,
        )
        for tta, (family, correlation) in laws.items()
    }
    values = document(predictor.step, landmarks=list(names), signatures=fitted)
    Calibration.model_validate(values)
    (run / FILE).write_text(json.dumps(values))
