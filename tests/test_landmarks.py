"""The landmark sets are what the data sets' papers say."""

import numpy as np
import pytest

from tfhuber import landmarks


@pytest.mark.parametrize("landmark_set", landmarks.LANDMARK_SETS.values(), ids=lambda s: s.name)
def test_sets_are_consistent(landmark_set):
    assert len(set(landmark_set.names)) == landmark_set.count
    assert max(max(edge) for edge in landmark_set.edges) < landmark_set.count
    swapped = [
        n.replace("left", "?").replace("right", "left").replace("?", "right")
        for n in landmark_set.names
    ]
    stems = [name.rstrip("0123456789") for name in swapped]
    mirrored = [landmark_set.names[i].rstrip("0123456789") for i in landmark_set.mirror]
    assert stems == mirrored


def test_wflw_mirror_is_the_published_one(shared_data):
    text = (shared_data / "real_samples/wflw/Mirror98.txt").read_text()
    assert list(landmarks.WFLW.mirror) == [int(part) for part in text.split(",")]


def test_counts_and_lookup():
    assert landmarks.by_count(98) is landmarks.WFLW and landmarks.by_count(16) is landmarks.MPII
    assert landmarks.by_count(68) is landmarks.LP300W and landmarks.by_count(5) is None
    with pytest.raises(ValueError, match="known: 300w_lp, mpii, wflw"):
        landmarks.get("cofw")


def test_a_mirror_that_does_not_undo_itself_is_refused():
    with pytest.raises(ValueError, match="undoes itself"):
        landmarks.LandmarkSet("x", ("a", "b", "c"), (1, 2, 0), (), "nme", "longest")


def test_pckh_groups_leave_out_pelvis_and_thorax():
    joints = np.concatenate(list(landmarks.MPII.groups.values()))
    assert sorted(joints) == [i for i in range(16) if i not in (6, 7)]
