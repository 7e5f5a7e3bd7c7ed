"""The known landmark sets are what the data sets' papers say; anyone's own is what its description says."""

import copy
import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfhuber.landmarks import known_sets
from tfhuber.landmarks.known_sets import LandmarkSet

SETS = pytest.mark.parametrize(
    "landmark_set", known_sets.LANDMARK_SETS.values(), ids=lambda s: s.name
)
WRENCH = {
    "name": "wrench",
    "landmarks": ["hole", "upper_jaw", "lower_jaw", "neck"],
    "mirror": [["lower_jaw", "upper_jaw"]],
    "edges": [["hole", "neck"], ["neck", "upper_jaw"]],
    "normalizer": {"distance": ["neck", "hole"]},
    "square": "diagonal",
    "metric": "pckh",
    "groups": {"jaws": ["upper_jaw", "lower_jaw"]},
    "contours": [["hole", "lower_jaw"]],
    "attributes": ["rusty"],
    "shift_in_company": False,
}


@SETS
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
    assert list(known_sets.WFLW.mirror) == [int(part) for part in text.split(",")]


def test_coco_is_what_its_own_files_say(shared_data):
    file = shared_data / "real_samples/coco/test_coco.json"
    (category,) = json.loads(file.read_text())["categories"]
    assert list(known_sets.COCO.names) == category["keypoints"]
    theirs = {frozenset((a - 1, b - 1)) for a, b in category["skeleton"]}
    assert set(map(frozenset, known_sets.COCO.edges)) == theirs
    assert len(known_sets.COCO.edges) == len(theirs) == 19


def test_counts_and_lookup():
    assert known_sets.by_count(98) is known_sets.WFLW and known_sets.by_count(16) is known_sets.MPII
    assert (
        known_sets.by_count(68) is known_sets.LP300W and known_sets.by_count(17) is known_sets.COCO
    )
    assert known_sets.by_count(5) is None
    assert known_sets.get("mpii") is known_sets.parse("mpii") is known_sets.MPII
    with pytest.raises(ValueError, match="known: 300w_lp, coco, mpii, wflw"):
        known_sets.get("cofw")


def test_pckh_groups_leave_out_pelvis_and_thorax():
    joints = np.concatenate(list(known_sets.MPII.groups.values()))
    assert sorted(joints) == [i for i in range(16) if i not in (6, 7)]


def test_only_mpii_is_not_shifted_in_company():
    assert [s.name for s in known_sets.LANDMARK_SETS.values() if not s.shift_in_company] == ["mpii"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mirror": (1, 2, 0)}, "undoes itself"),
        ({"mirror": (1, 0)}, "undoes itself"),
        ({"edges": ((0, 3),)}, r"landmarks of x are 0 to 2, got \(0, 3\)"),
        ({"groups": {"g": (-1,)}}, "landmarks of x are 0 to 2"),
        ({"contours": ((2, 1),)}, "from a landmark to a later one"),
        ({"normalizer": (0, 7)}, "landmarks of x are 0 to 2"),
        ({"normalizer": (1, 1)}, 'normalizer must be "box", "reader" or'),
        ({"normalizer": "eyes"}, 'normalizer must be "box", "reader" or'),
        ({"metric": "oks"}, "metric must be one of"),
        ({"square": "round"}, "square must be one of"),
        ({"metric": "pckh"}, 'metric "pckh" is a mean over the landmarks of groups'),
    ],
)
def test_an_impossible_set_is_refused(changes, message):
    sound = {"mirror": (0, 2, 1), "edges": (), "metric": "nme", "square": "longest"}
    with pytest.raises(ValueError, match=message):
        LandmarkSet("x", ("a", "b", "c"), **(sound | changes))


def test_the_length_that_errors_are_divided_by():
    points, box = np.arange(98 * 2.0).reshape(98, 2), np.array([10, 20, 14, 29])
    weights = np.ones(98)
    between = np.hypot(*(points[72] - points[60]))
    assert known_sets.WFLW.normalizer_length(points, weights, box) == pytest.approx(between)
    weights[72] = 0
    assert known_sets.WFLW.normalizer_length(points, weights, box) == 0
    assert known_sets.COCO.normalizer_length(points, weights, box) == pytest.approx(6)
    assert known_sets.MPII.normalizer_length(points, weights, box) == 0


@SETS
def test_a_known_set_is_its_description(landmark_set):
    described = json.loads(json.dumps(known_sets.describe(landmark_set)))
    assert known_sets.parse(described) == landmark_set
    assert list(described["groups"]) == list(landmark_set.groups)


def test_a_description_has_every_key(tmp_path):
    assert known_sets.load(write(tmp_path, WRENCH)) == LandmarkSet(
        name="wrench",
        names=("hole", "upper_jaw", "lower_jaw", "neck"),
        mirror=(0, 2, 1, 3),
        edges=((0, 3), (3, 1)),
        metric="pckh",
        square="diagonal",
        groups={"jaws": (1, 2)},
        contours=((0, 2),),
        attributes=("rusty",),
        normalizer=(3, 0),
        shift_in_company=False,
    )


def test_a_description_needs_little():
    least = known_sets.parse({"name": "dots", "landmarks": ["a", "b"]})
    assert least == LandmarkSet("dots", ("a", "b"), (0, 1), (), "nme", "longest")
    assert (least.normalizer, least.shift_in_company) == ("box", True)


@st.composite
def landmark_sets(draw):
    words = st.text(min_size=1, max_size=20).filter(str.isprintable)
    names = draw(st.lists(words, min_size=1, max_size=8, unique=True))
    points = st.integers(0, len(names) - 1)
    pairs = st.lists(st.tuples(points, points), max_size=5)
    order = draw(st.permutations(range(len(names))))
    mirror = list(range(len(names)))
    for a, b in zip(order[::2], order[1::2], strict=False):
        if draw(st.booleans()):
            mirror[a], mirror[b] = b, a
    groups = draw(st.dictionaries(words, st.lists(points, min_size=1).map(tuple), max_size=3))
    distances = st.permutations(range(len(names))).map(lambda order: tuple(order[:2]))
    lengths = st.sampled_from(["box", "reader"]) | (distances if len(names) > 1 else st.nothing())
    return LandmarkSet(
        name="own",
        names=tuple(names),
        mirror=tuple(mirror),
        edges=tuple(draw(pairs)),
        metric=draw(st.sampled_from(["nme", "pckh"] if groups else ["nme"])),
        square=draw(st.sampled_from(["longest", "diagonal"])),
        groups=groups,
        contours=tuple((a, b) for a, b in draw(pairs) if a < b),
        attributes=tuple(draw(st.lists(words, max_size=3, unique=True))),
        normalizer=draw(lengths),
        shift_in_company=draw(st.booleans()),
    )


@given(landmark_sets())
def test_any_set_is_its_description(landmark_set):
    assert (
        known_sets.parse(json.loads(json.dumps(known_sets.describe(landmark_set)))) == landmark_set
    )


MIRROR_TWICE = [["upper_jaw", "lower_jaw"], ["upper_jaw", "neck"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edgse": []}, "unknown key 'edgse'; did you mean 'edges'?"),
        ({"zzz": 1}, "unknown key 'zzz'; known: name, landmarks, mirror"),
        ({"name": None}, "name: Input should be a valid string (got None)"),
        ({"name": "a b"}, "name: String should match pattern"),
        ({"name": "wflw"}, "name: 'wflw' is a known set with other landmarks"),
        ({"landmarks": []}, "landmarks: List should have at least 1 item"),
        ({"landmarks": ["a"] * 1001}, "landmarks: List should have at most 1000 items"),
        ({"landmarks": ["a", "b", "a"]}, "landmarks: 'a' is there 2 times"),
        ({"landmarks": ["a", "b\n"]}, "landmarks.1: must be printable"),
        ({"landmarks": [1, 2]}, "landmarks.0: Input should be a valid string (got 1)"),
        ({"mirror": [["upper_jaw"]]}, "mirror.0: List should have at least 2 items"),
        ({"mirror": MIRROR_TWICE}, "mirror: 'upper_jaw' is there 2 times"),
        ({"mirror": [["neck", "neck"]]}, "mirror: 'neck' is there 2 times"),
        ({"mirror": [["hole", "nec"]]}, "mirror: 'nec' is no landmark; did you mean 'neck'?"),
        ({"edges": [["hole", "x"]]}, "edges: 'x' is no landmark; known: hole, upper_jaw"),
        ({"groups": {"g": ["hol"]}}, "groups: 'hol' is no landmark; did you mean 'hole'?"),
        ({"normalizer": "eyes"}, 'normalizer must be "box", "reader" or'),
        ({"normalizer": {}}, 'normalizer must be "box", "reader" or'),
        ({"normalizer": {"distance": ["neck"]}}, 'normalizer must be "box", "reader" or'),
        ({"normalizer": {"distance": ["neck", "neck"]}}, 'normalizer must be "box", "reader" or'),
        ({"normalizer": {"distance": ["neck", "x"]}}, "normalizer: 'x' is no landmark"),
        (
            {"square": "round"},
            "square: Input should be 'diagonal', 'longest' or 'stretch' (got 'round')",
        ),
        ({"metric": "oks"}, "metric: Input should be 'nme' or 'pckh' (got 'oks')"),
        ({"groups": {}}, 'metric "pckh" is a mean over the landmarks of groups: there are none'),
        ({"contours": [["neck", "hole"]]}, "contours of wrench must go from a landmark to a later"),
        ({"attributes": ["a", "a"]}, "attributes: 'a' is there 2 times"),
        ({"shift_in_company": "no"}, "shift_in_company: Input should be a valid boolean"),
    ],
)
def test_a_wrong_description_is_one_line_with_file_and_key(tmp_path, changes, message):
    path = write(tmp_path, WRENCH | changes)
    with pytest.raises(ValueError) as info:
        known_sets.load(path)
    assert str(info.value).startswith(f"{path}: {message}") and "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"here: must be a JSON object, got \[\]"),
        ({}, "here: name is required"),
        ({"name": "x"}, "here: landmarks is required"),
        ("x", "here: unknown landmark set 'x'; known: 300w_lp, coco, mpii, wflw"),
    ],
)
def test_what_is_no_description_is_refused(value, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        known_sets.parse(value, "here")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([*WRENCH, "else"]), json_values)
def test_any_value_of_any_key_is_a_set_or_one_line(key, value):
    try:
        found = known_sets.parse(copy.deepcopy(WRENCH) | {key: value})
    except ValueError as error:
        assert str(error).startswith("landmark set: ") and len(str(error).splitlines()) == 1
    else:
        assert (
            dataclasses.is_dataclass(found)
            and known_sets.parse(known_sets.describe(found)) == found
        )


def write(directory, description):
    path = directory / "landmarks.json"
    path.write_text(json.dumps(description), encoding="utf-8")
    return path
