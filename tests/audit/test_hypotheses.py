"""Each kind of damage is named, sound annotations are left in peace, and unsure models accuse nobody."""

import numpy as np
import pytest

from tfhuber.audit.hypotheses import Annotation, judge
from tfhuber.calibration.law import Law

LAW = Law("huber", 1.0)
K = 20
MIRROR = np.array([*range(K // 2, K), *range(K // 2)])


def annotations(count, deviation=2.0, seed=0):
    """Shapes of K points on 100 pixels, labelled by the very law that is predicted."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        loc = rng.uniform(0, 100, (K, 2))
        angle, u = rng.uniform(0, 2 * np.pi, K), rng.uniform(0, 1, K)
        grid = np.linspace(0, 30, 4000)
        radius = np.interp(u, LAW.cdf(grid), grid) * deviation
        labels = loc + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        yield Annotation(
            labels,
            np.ones(K, bool),
            loc,
            np.tile(np.eye(2) / deviation, (K, 1, 1)),
            np.full(K, -2 * np.log(deviation)),
        )


def damaged(annotation, kind, rng):
    labels = annotation.labels.copy()
    if kind == "points":
        labels[3] += 40
    elif kind == "left-right":
        labels = labels[MIRROR]
    elif kind == "shifted":
        labels = np.roll(labels, rng.choice([-1, 1]), axis=0)
    elif kind == "beside":
        labels += [25.0, -18.0]
    elif kind == "other":
        labels = rng.uniform(0, 100, labels.shape)
    return Annotation(**{**vars(annotation), "labels": labels})


@pytest.mark.parametrize("kind", ["points", "left-right", "shifted", "beside", "other"])
def test_damage_is_named(kind):
    rng = np.random.default_rng(1)
    found = [judge(damaged(each, kind, rng), LAW, MIRROR) for each in annotations(50)]
    assert [verdict.kind for verdict in found] == [kind] * 50
    assert min(verdict.score for verdict in found) > 3
    if kind == "points":
        assert all((verdict.points > 0).nonzero()[0].tolist() == [3] for verdict in found)


def test_sound_annotations_are_left_in_peace():
    """Of 400 with 20 labels each some labels are in the law's tail, but next to none likelier wrong."""
    found = [judge(each, LAW, MIRROR) for each in annotations(400)]
    wrong = sum(int((verdict.points > 0).sum()) for verdict in found)
    assert {verdict.kind for verdict in found} <= {"right", "points"}
    assert wrong <= 8 and all(verdict.score >= 0 for verdict in found)


def test_a_model_that_is_unsure_accuses_nobody():
    rng = np.random.default_rng(2)
    for each in annotations(50):
        unsure = Annotation(
            damaged(each, "points", rng).labels,
            each.labelled,
            each.loc,
            np.tile(np.eye(2) / 60, (K, 1, 1)),
            np.full(K, -2 * np.log(60)),
        )
        assert judge(unsure, LAW, MIRROR).kind == "right"


def test_points_without_a_label_are_neither_right_nor_wrong():
    rng = np.random.default_rng(3)
    labelled = rng.uniform(size=K) < 0.6
    for each in annotations(30):
        labels = np.where(labelled[:, None], each.labels, np.nan)
        verdict = judge(
            Annotation(**{**vars(each), "labels": labels, "labelled": labelled}), LAW, MIRROR
        )
        assert (verdict.points[~labelled] == -np.inf).all() or verdict.kind == "right"
        swapped = Annotation(
            **{**vars(each), "labels": labels[MIRROR], "labelled": labelled[MIRROR]}
        )
        assert judge(swapped, LAW, MIRROR).kind == "left-right"
