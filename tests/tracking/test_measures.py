"""Questions to shapes: derivatives beside finite differences, deviations beside simulation."""

import numpy as np
import pytest

from tfhuber.calibration.dependence import correlation
from tfhuber.tracking.measures import Measure, parse_measure

RNG = np.random.default_rng(0)
NAMES = ["nose", "left eye", "right eye", "7"]
MEASURES = [
    Measure("d", "distance", (3, 1)),
    Measure("a", "angle", (0, 2, 3)),
    Measure("r", "ratio", (0, 1, 2, 3)),
    Measure("shared", "ratio", (0, 1, 1, 3)),  # one landmark in both distances
]


def shapes(n=5, spread=50.0):
    root = RNG.normal(size=(n, 4, 2, 2))
    covariance = root @ np.swapaxes(root, -1, -2) + 0.1 * np.eye(2)
    return RNG.normal(size=(n, 4, 2)) * spread, covariance


@pytest.mark.parametrize("measure", MEASURES, ids=lambda each: each.name)
def test_the_variance_is_that_of_finite_differences(measure):
    places, covariance = shapes()
    factor = RNG.uniform(-0.6, 0.6, (8, 2))
    together, step = correlation(factor), 1e-5
    value, deviation = measure.of(places, covariance, together)
    alone = measure.of(places, covariance)[1]
    for i in range(5):
        slope = np.zeros(8)
        for j in range(8):
            moved = np.zeros(8)
            moved[j] = step
            ends = [
                measure.of(places[i] + s * moved.reshape(4, 2), covariance[i])[0] for s in (1, -1)
            ]
            slope[j] = (ends[0] - ends[1]) / (2 * step)
        vectors = np.linalg.eigh(covariance[i])
        root = np.einsum("kij,kj,klj->kil", vectors[1], np.sqrt(vectors[0]), vectors[1])
        blocks = together.reshape(4, 2, 4, 2)
        whole = np.einsum("aij,ajbk,bkl->aibl", root, blocks, root).reshape(8, 8)
        assert deviation[i] == pytest.approx(np.sqrt(slope @ whole @ slope), rel=1e-6)
        own = sum(
            slope[2 * k : 2 * k + 2] @ covariance[i, k] @ slope[2 * k : 2 * k + 2] for k in range(4)
        )
        assert alone[i] == pytest.approx(np.sqrt(own), rel=1e-6)
    assert np.isfinite(value).all()


def test_values_are_those_of_geometry():
    square = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0], [0.0, 4.0]])
    small = np.tile(1e-4 * np.eye(2), (4, 1, 1))
    found = [
        Measure("", kind, points).of(square, small)[0]
        for kind, points in (
            ("distance", (0, 2)),
            ("angle", (0, 1, 2)),
            ("angle", (2, 1, 0)),
            ("ratio", (0, 1, 1, 2)),
        )
    ]
    assert found == pytest.approx([5, 90, 90, 0.75])


def test_deviations_are_those_of_a_simulation():
    """100,000 draws of landmarks 50 pixels apart with deviations of 1: to first order within 2 %."""
    _, covariance = shapes(1)
    places = np.array([[[0.0, 0.0], [60.0, 5.0], [55.0, 70.0], [-10.0, 50.0]]])
    for measure in MEASURES:
        drawn = places[0] + np.stack(
            [RNG.multivariate_normal(np.zeros(2), each, 100_000) for each in covariance[0]], axis=1
        )
        values, _ = measure.of(drawn, np.broadcast_to(covariance[0], (100_000, 4, 2, 2)))
        assert measure.of(places, covariance)[1][0] == pytest.approx(values.std(), rel=0.03)


def test_what_is_not_known_is_nan():
    places, covariance = shapes(3)
    places[0, 3] = np.nan
    covariance[1, 1] = np.inf
    places[2, 1] = places[2, 3]
    value, deviation = MEASURES[0].of(places, covariance)
    assert np.isnan(value[:2]).all() and np.isnan(deviation).all()
    assert np.isnan(
        value[2]
    )  # two in one place: their distance has no direction to be unsure along


def test_measures_are_read_by_number_and_name():
    assert parse_measure(" gap = distance( left eye , 2)", NAMES) == Measure(
        "gap", "distance", (1, 2)
    )
    assert parse_measure("x=angle(0,7,1)", NAMES).points == (0, 3, 1)  # a name goes before a number


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("distance(0,1)", "NAME=KIND"),
        ("a=length(0,1)", "distance, angle, ratio"),
        ("a=distance(0,chin)", "no landmark is called 'chin'"),
        ("a=distance(0,4)", "from 0 to 3"),
        ("a=distance(0,²)", "no landmark"),
        ("a=angle(0,1)", "angle is of 3 landmarks, not 2"),
        ("a=distance(1,left eye)", "from itself"),
        ("a=ratio(0,1,2,2)", "from itself"),
    ],
)
def test_what_asks_for_nothing_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        parse_measure(text, NAMES)
