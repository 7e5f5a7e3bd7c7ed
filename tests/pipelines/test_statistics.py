"""What is counted of examples: the same as NumPy finds, and the same in one part or several."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.statistics import Statistics
from tfhuber.landmarks.known_sets import LandmarkSet

CROSS = LandmarkSet(
    name="cross",
    names=("west", "middle", "east"),
    mirror=(2, 1, 0),
    edges=(),
    metric="nme",
    square="longest",
    attributes=("blur", "night"),
)
FACE = LandmarkSet(
    name="face", names=("nose",), mirror=(0,), edges=(), metric="nme", square="diagonal"
)


def example(landmarks, weights=(1, 1, 1), box=(10, 20, 30, 40), attributes=(0, 1), size=(60, 50)):
    """As `records.decode` gives it."""
    return {
        "landmarks": np.array(landmarks, np.float32).ravel(),
        "weights": np.array(weights, np.float32),
        "box": np.array(box, np.float32),
        "attributes": np.array(attributes, np.int64),
        "image_size": np.array(size, np.int64),
    }


def random_examples(count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        weights = rng.integers(0, 2, 3)
        low = rng.uniform(-50, 500, 2)
        yield example(
            rng.uniform(0, 500, (3, 2)) * weights[:, np.newaxis],
            weights,
            (*low, *(low + rng.uniform(5, 200, 2))),
            rng.integers(0, 2, 2),
            rng.integers(1, 5000, 2),
        )


def statistics_of(examples, landmark_set=CROSS):
    statistics = Statistics(landmark_set)
    for each in examples:
        statistics.add(each)
    return statistics


def test_coordinates_are_those_of_the_square():
    # The square of (10, 20, 30, 40) has its centre at (20, 30), and half a side of 10.
    summary = statistics_of([example([(10, 20), (20, 30), (35, 25)])]).summary()
    means = [summary["landmarks"][name]["mean"] for name in CROSS.names]
    assert means == [[-1, -1], [0, 0], [1.5, -0.5]]
    diagonal = example([(10, 20)], [1], box=(7, 16, 13, 24), attributes=())
    # Half the diagonal of a 6 x 8 box is 5.
    assert statistics_of([diagonal], FACE).summary()["landmarks"]["nose"]["mean"] == [0, 0]
    diagonal["landmarks"] += np.float32([5, -10])
    assert statistics_of([diagonal], FACE).summary()["landmarks"]["nose"]["mean"] == [1, -2]


def test_moments_are_numpys():
    examples = list(random_examples(200))
    summary = statistics_of(examples).summary()
    for k, name in enumerate(CROSS.names):
        points = []
        for each in examples:
            x0, y0, x1, y1 = each["box"].astype(float)
            centre, half = np.array([x0 + x1, y0 + y1]) / 2, max(x1 - x0, y1 - y0) / 2
            if each["weights"][k]:
                points.append((each["landmarks"].reshape(3, 2)[k] - centre) / half)
        found = summary["landmarks"][name]
        assert found["labelled"] == len(points)
        np.testing.assert_allclose(found["mean"], np.mean(points, axis=0), rtol=1e-10)
        wanted = np.cov(np.transpose(points), bias=True)
        np.testing.assert_allclose(found["covariance"], wanted, rtol=1e-8)
    flags = np.sum([each["attributes"] for each in examples], axis=0).tolist()
    assert summary["attributes"] == dict(zip(CROSS.attributes, flags, strict=True))


@pytest.mark.parametrize(
    "size, wanted",
    [
        ((1, 1), "1-1"),
        ((2, 1), "2-3"),
        ((255, 10), "128-255"),
        ((10, 256), "256-511"),
        ((511, 511), "256-511"),
        ((512, 3), "512-1023"),
        ((65500, 1), "32768-65535"),
    ],
)
def test_image_sizes_are_counted_by_their_longer_side(size, wanted):
    summary = statistics_of([example(np.zeros((3, 2)), size=size)] * 2).summary()
    assert summary["image_sizes"] == {wanted: 2}


def test_image_sizes_are_in_order():
    sides = (3000, 90, 700, 100, 20)
    summary = statistics_of(example(np.zeros((3, 2)), size=(side, 5)) for side in sides).summary()
    assert list(summary["image_sizes"].items()) == [
        ("16-31", 1),
        ("64-127", 2),
        ("512-1023", 1),
        ("2048-4095", 1),
    ]


def test_statistics_of_nothing():
    summary = statistics_of([]).summary()
    nothing = {"labelled": 0, "mean": [0, 0], "covariance": [[0, 0], [0, 0]]}
    assert summary == {
        "examples": 0,
        "landmarks": dict.fromkeys(CROSS.names, nothing),
        "attributes": {"blur": 0, "night": 0},
        "image_sizes": {},
    }


def test_unlabelled_landmarks_count_nowhere():
    summary = statistics_of([example([(1, 2), (0, 0), (0, 0)], (1, 0, 0))]).summary()
    labelled = {name: found["labelled"] for name, found in summary["landmarks"].items()}
    assert labelled == {"west": 1, "middle": 0, "east": 0}
    assert summary["landmarks"]["middle"]["mean"] == [0, 0]


@given(st.lists(st.integers(0, 20), max_size=4), st.integers(0, 1000))
@settings(max_examples=30)
def test_statistics_of_parts_add_up_to_those_of_the_whole(cuts, seed):
    examples = list(random_examples(20, seed))
    whole, merged = statistics_of(examples), Statistics(CROSS)
    borders = [0, *sorted(cuts), 20]
    for start, stop in pairwise(borders):
        part = statistics_of(examples[start:stop]).to_json()
        merged.merge(json.loads(json.dumps(part)))
    assert_close(merged.summary(), whole.summary())


def assert_close(found, wanted):
    assert found.keys() == wanted.keys()
    for key in ("examples", "attributes", "image_sizes"):
        assert found[key] == wanted[key]
    for name, values in wanted["landmarks"].items():
        assert found["landmarks"][name]["labelled"] == values["labelled"]
        for moment in ("mean", "covariance"):
            got = found["landmarks"][name][moment]
            np.testing.assert_allclose(got, values[moment], rtol=1e-9, atol=1e-9)
