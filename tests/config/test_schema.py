"""Configurations are checked, and what is wrong with one is said in a line."""

import json
from pathlib import Path

import pytest

from tfhuber.config import schema

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.json"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configurations_are_valid_and_say_what_they_are(path):
    loaded = schema.load(path)
    assert len(loaded.about) > 40
    assert loaded.train.learning_rate[-1][0] <= loaded.train.epochs


def test_the_papers_configurations_have_the_papers_settings():
    for name in ("wflw", "mpii"):
        loaded = schema.load(next(path for path in CONFIGS if path.stem == name))
        assert loaded.model.image_size == 224 and loaded.model.delta == 1.0
        assert loaded.train.batch_size == 32 and loaded.train.head_l2 == 0.1
        assert loaded.train.frozen_epochs == 3
        assert loaded.train.learning_rate == [(0, 1e-3), (25, 1e-3), (40, 1e-4), (50, 1e-5)]


def _write(tmp_path, values) -> Path:
    path = tmp_path / "c.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "data is required"),
        ({"data": {"directory": "d", "trian_split": "x"}}, "did you mean 'train_split'"),
        ({"data": {"directory": "d"}, "trian": {}}, "did you mean 'train'"),
        ({"data": {"directory": "d"}, "train": {"epochs": 0}}, "train.epochs"),
        ({"data": {"directory": "d"}, "train": {"epochs": "many"}}, "train.epochs"),
        ({"data": {"directory": "d"}, "model": {"image_size": 100}}, "model.image_size"),
        (
            {"data": {"directory": "d"}, "model": {"backbone": "vgg"}},
            "model.backbone: must be one of",
        ),
        ({"data": {"directory": "d"}, "train": {"learning_rate": [[5, 1], [5, 1]]}}, "ascend"),
        ({"data": {"directory": "d"}, "train": {"gradient_clip": 0}}, "train.gradient_clip"),
        ({"data": {"directory": "d"}, "train": {"ema": 1}}, "train.ema"),
        ({"data": {"directory": "d"}, "train": {"weight_decay": 0.1}}, "adam has none"),
        ({"data": {"directory": "d"}, "train": {"optimizer": "adamw"}}, "needs a weight_decay"),
        ({"data": {"directory": "d"}, "train": {"schedule": "step"}}, "train.schedule"),
        ({"data": {"directory": "d"}, "train": {"best_metric": "mne"}}, "train.best_metric"),
        (
            {"data": {"directory": "d"}, "train": {"early_stop_epochs": 0}},
            "train.early_stop_epochs",
        ),
        ({"data": {"directory": "d"}, "train": {"distribution": "all"}}, "train.distribution"),
        ("{", "not JSON: .* line 1"),
        ("[]", "must hold a JSON object"),
        ('{"data": {"directory": "d"}, "model": {"delta": NaN}}', "model.delta"),
    ],
)
def test_faults_are_named(tmp_path, values, message):
    with pytest.raises(ValueError, match=message) as caught:
        schema.load(_write(tmp_path, values))
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_those_there_are(tmp_path):
    with pytest.raises(ValueError, match="no configuration file"):
        schema.load(tmp_path / "none.json")


def test_overrides_and_data(tmp_path):
    path = _write(tmp_path, {"data": {"directory": "d"}})
    loaded = schema.load(path, ["train.epochs=3", "model.covariance=diagonal"], data="elsewhere")
    assert loaded.train.epochs == 3 and loaded.model.covariance == "diagonal"
    assert loaded.data.directory == "elsewhere"
    assert schema.differences(schema.load(path), loaded) == [
        "data.directory: 'd', 'elsewhere'",
        "model.covariance: 'full', 'diagonal'",
        "train.epochs: 50, 3",
    ]


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train.epochs.x=1", "train.epoch=3"])
def test_bad_overrides_are_refused(tmp_path, override):
    path = _write(tmp_path, {"data": {"directory": "d"}, "train": {"epochs": 2}})
    with pytest.raises(ValueError, match=r"--set|unknown key"):
        schema.load(path, [override])


def test_a_model_has_one_origin():
    with pytest.raises(ValueError, match="pretrained and transfer exclude each other"):
        schema.parse({"data": {"directory": "d"}, "model": {"pretrained": "a", "transfer": "b"}})


@pytest.mark.parametrize(
    ("backbone", "good", "bad"),
    [
        ("resnet18", "resnet_18_imagenet", None),
        ("efficientnet_lite1", "imagenet", "efficientnet_lite1_imagenet"),
        ("mobilenet_v3_small_100_imagenet", "mobilenet_v3_small_100_imagenet", "imagenet"),
        ("./preset", "./preset", "./other"),
    ],
)
def test_pretrained_is_the_backbones_own(backbone, good, bad):
    for pretrained in (None, good):
        assert schema.Model(backbone=backbone, pretrained=pretrained).backbone == backbone
    if bad is not None:
        values = {"data": {"directory": "d"}, "model": {"backbone": backbone, "pretrained": bad}}
        with pytest.raises(ValueError, match=f"pretrained must be '{good}' or null .*got '{bad}'"):
            schema.parse(values)
