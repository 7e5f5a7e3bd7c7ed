"""What a run's calibration.json holds, sound or with other fields, for the tests."""


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
