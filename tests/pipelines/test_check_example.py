"""What is demanded of an example: each fault is named, and the edge of what is allowed is allowed."""

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.check_example import check_example
from tfhuber.landmarks.known_sets import WFLW, LandmarkSet

PAIR = LandmarkSet(
    name="pair",
    names=("left", "right"),
    mirror=(1, 0),
    edges=(),
    metric="nme",
    square="longest",
    attributes=("blur", "night"),
)


def jpeg(size=(60, 40), form="JPEG"):
    file = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(file, form)
    return file.getvalue()


def example(**changes):
    """As `records.decode` gives it; the crop shows (100.5, 50.5) and what lies below to the rim."""
    values = {
        "id": b"a.jpg#1",
        "image": jpeg(),
        "landmarks": [120, 80, 0, 0],
        "weights": [1, 0],
        "box": [110, 60, 150, 100],
        "crop_to_original": [2, 0, 100.5, 0, 2, 50.5, 0, 0, 1],
        "normalizer": [0],
        "attributes": [0, 1],
        "image_size": [220, 130],
        "people": [1],
    } | changes
    integers = ("attributes", "image_size", "people")
    for name, value in values.items():
        if not isinstance(value, bytes):
            values[name] = np.array(value, np.int64 if name in integers else np.float32)
    return values


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weights": [0, 0], "landmarks": [0, 0, 0, 0]},
        {"landmarks": [-300, 9000, 0, 0]},
        {"box": [-50, -50, -49, 900]},
        {"image_size": [100_000, 799], "people": [9]},
        # To the right and below, the crop ends at the original's rim; here it also starts there.
        {"image_size": [120, 80], "crop_to_original": [2, 0, 0.5, 0, 2, 0.5, 0, 0, 1]},
    ],
)
def test_sound_examples_pass(changes):
    check_example(example(**changes), PAIR)


@pytest.mark.parametrize("width", [61, 1000, 99_999])
def test_maps_to_the_rim_pass_in_spite_of_their_rounding(width):
    step = width / 60
    matrix = [step, 0, (step - 1) / 2, 0, 1, 0, 0, 0, 1]
    check_example(example(crop_to_original=matrix, image_size=[width, 40]), PAIR)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"landmarks": [1, 2]}, "landmarks has 2 values instead of 4"),
        ({"weights": [1, 0, 0]}, "weights has 3 values instead of 2"),
        ({"box": [1, 2, 3]}, "box has 3 values instead of 4"),
        ({"crop_to_original": [1, 0, 0, 0, 1, 0]}, "crop_to_original has 6 values instead of 9"),
        ({"normalizer": []}, "normalizer has 0 values instead of 1"),
        ({"attributes": [0]}, "attributes has 1 values instead of 2"),
        ({"image_size": [9]}, "image_size has 1 values instead of 2"),
        ({"people": [1, 1]}, "people has 2 values instead of 1"),
        ({"landmarks": [np.nan, 1, 0, 0]}, "landmarks is not finite"),
        ({"weights": [np.nan, 0]}, "weights is not finite"),
        ({"box": [1, 2, np.inf, 4]}, "box is not finite"),
        ({"crop_to_original": [np.nan] * 9}, "crop_to_original is not finite"),
        ({"normalizer": [np.inf]}, "normalizer is not finite"),
        ({"id": b""}, "id must be not empty"),
        ({"weights": [0.5, 0]}, "weights must be 0 or 1"),
        ({"weights": [0, 0]}, "landmarks must be 0 where there is no label"),
        ({"box": [40, 30, 40, 150]}, "box must be not empty"),
        ({"box": [40, 150, 140, 30]}, "box must be not empty"),
        ({"normalizer": [-1]}, "normalizer must be at least 0"),
        ({"attributes": [0, 2]}, "attributes must be 0 or 1"),
        ({"image_size": [0, 180]}, "image_size must be at least 1"),
        ({"people": [0]}, "people must be at least 1"),
        ({"image": b""}, "image is no JPEG"),
        ({"image": jpeg(form="PNG")}, "image is no JPEG"),
        ({"image": jpeg()[:-400]}, "image does not decode: image file is truncated"),
        ({"image": jpeg()[:-1]}, "image does not decode: "),
        ({"image": jpeg() + b"more"}, "image does not decode: its end is missing"),
        ({"image": jpeg((61, 40))}, "crop_to_original leaves the original image by 2 pixels"),
        ({"image_size": [220, 129]}, "crop_to_original leaves the original image by 1 pixels"),
        (
            {"crop_to_original": [1, 0, -0.01, 0, 1, 0, 0, 0, 1]},
            "crop_to_original leaves the original image by 0.01 pixels",
        ),
        ({"crop_to_original": np.zeros(9)}, "crop_to_original is no affine map"),
        ({"crop_to_original": [1, 0, 0, 0, 0, 0, 0, 0, 1]}, "crop_to_original is no affine map"),
        ({"crop_to_original": [1, 0, 0, 0, 1, 0, 1e-4, 0, 1]}, "crop_to_original is no affine map"),
    ],
)
def test_faults_are_named(changes, message):
    with pytest.raises(ValueError) as error:
        check_example(example(**changes), PAIR)
    assert str(error.value).startswith(message)


def test_an_example_of_another_landmark_set():
    with pytest.raises(ValueError, match="landmarks has 4 values instead of 196"):
        check_example(example(), WFLW)


@pytest.mark.parametrize("seed", range(20))
def test_cut_images_are_found_wherever_the_cut_is(seed):
    rng = np.random.default_rng(seed)
    image = jpeg((int(rng.integers(8, 60)), int(rng.integers(8, 40))))
    with pytest.raises(ValueError, match=r"^image (is no JPEG|does not decode: )"):
        check_example(example(image=image[: rng.integers(len(image))]), PAIR)
