"""From ImageNet's weights to an exported model, and the same weights again after an interruption."""

import contextlib
import json
import signal
from pathlib import Path

import numpy as np
import pytest

from tfhuber.config import schema
from tfhuber.console.signals import Interrupted
from tfhuber.model import efficientnet_lite
from tfhuber.runs.load import load_run
from tfhuber.saved_model import export, lint, session, warmup
from tfhuber.training import finite_guard, trainer

pytestmark = pytest.mark.slow  # 141 layers take their time to be traced


@pytest.fixture(scope="module")
def config(face_records) -> schema.Config:
    return schema.parse(
        {
            "data": {"directory": str(face_records)},
            "model": {"backbone": "efficientnet_lite0", "pretrained": "imagenet", "image_size": 32},
            "train": {"epochs": 1, "batch_size": 10, "learning_rate": [[0, 1e-4]]},
        }
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory) -> Path:
    """Four steps from ImageNet's weights."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    trainer.train(config, run, quiet=True)
    return run


def test_it_starts_from_imagenet_and_is_exported(run, tmp_path, monkeypatch):
    stem = efficientnet_lite.read_imagenet("efficientnet_lite0")["conv_stem"]["weight"]
    # A run is read without the package that its first weights were from.
    monkeypatch.setattr(efficientnet_lite, "read_imagenet", None)
    backbone = load_run(run).model.get_layer("backbone")
    moved = backbone.get_layer("conv_stem").get_weights()[0] - stem.transpose(2, 3, 1, 0)
    assert 0 < np.abs(moved).max() < 1e-3  # Adam's steps are 1e-4
    this_process = contextlib.nullcontext(lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(session, "fresh_process", lambda: this_process)
    model = export.export(run, tmp_path)  # compares the numbers too
    assert lint.faults(model) == []
    assert {name for name, _ in warmup.requests(model)} >= {"serving_default", "tta", "tensor"}


def test_it_goes_on_bit_for_bit_after_a_signal(config, run, tmp_path, monkeypatch):
    record = finite_guard.FiniteGuard.record

    def interrupting(guard, step, *rest):
        record(guard, step, *rest)
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(finite_guard.FiniteGuard, "record", interrupting)
        with pytest.raises(Interrupted, match="step 2 is"):
            trainer.train(config, tmp_path, quiet=True)
    metrics = trainer.train(config, tmp_path, quiet=True)
    assert metrics == json.loads((run / "metrics.json").read_text())
    ours, theirs = load_run(run).model, load_run(tmp_path).model
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)
