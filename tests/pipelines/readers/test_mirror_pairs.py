"""Left and right in names: which points change places in a mirror image."""

import pytest

from pipelines.readers.mirror_pairs import mirror_pairs, pairs_left_alone
from tfhuber.landmarks.known_sets import LANDMARK_SETS, parse


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("left_ear", "right_ear"),
        ("LeftEar", "RightEar"),
        ("LEFT EYE", "RIGHT EYE"),
        ("leftear", "rightear"),
        ("earleft", "earright"),
        ("eyeLeft", "eyeRight"),
        ("l_hip", "r_hip"),
        ("hip_l", "hip_r"),
        ("pawL", "pawR"),
        ("Lpaw", "Rpaw"),
        ("lhip", "rhip"),
        ("LH", "RH"),
        ("FL", "FR"),
        ("hl_paw", "hr_paw"),
        ("paw1LH_top", "paw4RH_top"),
        ("leg-left-1", "leg-right-2"),
        ("ohr.left", "ohr.right"),
    ],
)
def test_two_names_that_differ_in_the_side_are_a_pair(one, other):
    assert mirror_pairs(["nose", one, "tail", other]) == ([(one, other)], [])
    assert mirror_pairs([other, one, "nose"]) == ([(other, one)], [])


def test_numbers_decide_where_they_are_the_same():
    names = ["L1", "L2", "R2", "R1", "legL3", "legR3"]
    assert mirror_pairs(names)[0] == [("L1", "R1"), ("L2", "R2"), ("legL3", "legR3")]


def test_what_is_in_doubt_is_no_pair_and_said():
    assert mirror_pairs(["R1_leg", "L2_leg", "R3_leg"]) == ([], ["R1_leg", "L2_leg", "R3_leg"])
    assert mirror_pairs(["left_wing", "nose"]) == ([], ["left_wing"])


@pytest.mark.parametrize(
    "names", [["Hand", "Finger1", "Tongue", "Joystick1", "Joystick2"], ["tail", "rail", "ear"], []]
)
def test_names_without_a_side_are_their_own_mirror_image(names):
    pairs, alone = mirror_pairs(names)
    assert (pairs, alone) == ([], [])


def test_the_mirror_mouse():
    legs = ["paw1LH", "paw2LF", "paw3RF", "paw4RH"]
    names = [f"{leg}_{view}" for view in ("top", "bot") for leg in legs] + ["nose_top", "nose_bot"]
    assert mirror_pairs(names)[0] == [
        ("paw1LH_top", "paw4RH_top"),
        ("paw2LF_top", "paw3RF_top"),
        ("paw1LH_bot", "paw4RH_bot"),
        ("paw2LF_bot", "paw3RF_bot"),
    ]


def test_pairs_that_a_mirror_image_leaves_alone_are_found():
    described = {"name": "head", "landmarks": ["nose", "left_ear", "right_ear", "eyeL", "eyeR"]}
    bare = parse(described, "here")
    assert pairs_left_alone(bare) == [("left_ear", "right_ear"), ("eyeL", "eyeR")]
    half = parse({**described, "mirror": [["left_ear", "right_ear"]]}, "here")
    assert pairs_left_alone(half) == [("eyeL", "eyeR")]
    crossed = parse({**described, "mirror": [["left_ear", "eyeR"], ["eyeL", "right_ear"]]}, "here")
    assert pairs_left_alone(crossed) == []


@pytest.mark.parametrize("landmark_set", LANDMARK_SETS.values(), ids=LANDMARK_SETS.keys())
def test_known_sets_have_their_mirror_pairs(landmark_set):
    assert pairs_left_alone(landmark_set) == []
