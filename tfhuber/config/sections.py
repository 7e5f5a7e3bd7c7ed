"""The sections of a configuration that say what the examples are, and what all sections share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["Augmentation", "Count", "Data", "Fraction", "Positive", "Section"]

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# A count that no 64-bit product of two overflows.
Count = Annotated[int, Field(ge=1, lt=2**31)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _not_calibration(split: str) -> str:
    if split == "calibration":
        raise ValueError("no run trains on split 'calibration', as that would end what it is for")
    return split


class Data(Section):
    """Where the examples come from."""

    directory: str = Field(description="A converted data set: a directory with manifest.json.")
    train_split: Annotated[str, AfterValidator(_not_calibration)] = Field(
        "train", description="The split to train on; never calibration, which others are judged by."
    )
    evaluation_split: str = Field("test", description="The split to evaluate on.")
    shuffle_buffer: Count = Field(
        8192,
        description="Examples shuffled at a time; of more than these, the order of shards is shuffled "
        "as well.",
    )
    cache_gigabytes: float = Field(
        2.0,
        ge=0,
        description="Memory for decoded crops of the training split: if all fit, and there are no more "
        "than shuffle_buffer, each is decoded once. It changes speed and nothing else; 0 for none.",
    )
    wrong_labels: Fraction = Field(
        0.0,
        description="Fraction of the training landmarks that get a wrong position, somewhere in the "
        "crop and the same in every epoch: for experiments on robustness.",
    )


class Augmentation(Section):
    """How far the random map of the network crop may go; the defaults are the paper's recipe."""

    mirror: Fraction = Field(0.5, description="Probability of a mirror image.")
    rotation_degrees: float = Field(30.0, ge=0, le=180, description="Largest rotation either way.")
    scale: float = Field(
        1.2, ge=1, le=2, description="Largest factor of the area's and of the shape's change."
    )
    shift: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Largest shift before and after the perspective, of the size.",
    )
    perspective: float = Field(0.3, ge=0, lt=1, description="Largest perspective over the size.")
    occlusion: Fraction = Field(
        0.0,
        description="Probability that a rectangle of 7 to 64 % of the side is covered: by a plain colour, "
        "noise, or another part of the photograph. Labels stay, so that deviations learn to grow there.",
    )
    colour: Fraction = Field(
        0.0,
        description="How far brightness, contrast, gamma, saturation and the white balance may go; with "
        "a fifth of that as probability, the image becomes grey.",
    )
    blur: Fraction = Field(
        0.0, description="Probability that the network crop is blurred, by up to 2.4 pixels."
    )
    equal_spacing: bool = Field(
        True, description="Move points along contours (WFLW's jaw) to equal arc-length spacing."
    )
