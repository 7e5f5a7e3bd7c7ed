"""The reader of MPII's MATLAB file: what a person becomes, its quirks, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from official_layouts import (
    ALL_JOINTS,
    EMPTY,
    MPII_FILE,
    image,
    person,
    points,
    real_people,
    struct,
    write_mpii,
)
from reader_outcomes import Annotation, read_all
from scipy.io import loadmat, savemat

from pipelines.readers.annotation import Reject
from pipelines.readers.mpii import Mpii


def read(directory, **options):
    return read_all(Mpii(**options), directory)


def read_one(directory, **changes):
    (item,) = read(write_mpii(directory, image(person(**changes))))
    return item


def test_a_person_becomes_an_annotation(tmp_path):
    item = read_one(tmp_path)
    assert isinstance(item, Annotation)
    assert (item.id, item.split, item.image) == ("015601864.jpg#1", "train", "015601864.jpg")
    assert (item.source, item.position) == (MPII_FILE, "annolist(1).annorect(1)")
    # MATLAB counts from 1.
    np.testing.assert_allclose(item.landmarks, np.array(list(ALL_JOINTS.values())) - 1)
    np.testing.assert_array_equal(item.weights, np.ones(16))
    np.testing.assert_allclose(item.box, [119 - 150, 129 - 150, 119 + 150, 129 + 150])
    assert item.normalizer == pytest.approx(0.6 * 50)
    assert item.attributes == ()


def test_people_are_numbered_and_split_by_image(tmp_path):
    items = read(
        write_mpii(
            tmp_path,
            image(person(), person(), name="a.jpg"),
            image(name="b.jpg"),
            image(person(), name="c.jpg", train=0),
        )
    )
    assert [(i.id, i.split, i.position) for i in items] == [
        ("a.jpg#1", "train", "annolist(1).annorect(1)"),
        ("a.jpg#2", "train", "annolist(1).annorect(2)"),
        ("b.jpg#0", "train", "annolist(2)"),
        ("c.jpg#1", "test", "annolist(3).annorect(1)"),
    ]
    assert items[2].reason == "no_people"


@pytest.mark.parametrize("is_visible", [0, 1, "0", "1", EMPTY, "", np.uint8(1)])
def test_occluded_joints_are_labelled_too(tmp_path, is_visible):
    item = read_one(tmp_path, annopoints=points(ALL_JOINTS, is_visible))
    np.testing.assert_array_equal(item.weights, np.ones(16))


def test_is_visible_may_be_absent_from_the_struct(tmp_path):
    bare = struct({"point": struct({"x": 12.5, "y": 7, "id": 9})})
    item = read_one(tmp_path, annopoints=bare)
    np.testing.assert_array_equal(item.landmarks[9], [11.5, 6])
    assert item.weights.sum() == item.weights[9] == 1


def test_joints_without_annotation_weigh_nothing(tmp_path):
    joints = {joint: at for joint, at in ALL_JOINTS.items() if joint not in (0, 5, 15)}
    item = read_one(tmp_path, annopoints=points(joints))
    np.testing.assert_array_equal(np.flatnonzero(item.weights == 0), [0, 5, 15])
    np.testing.assert_array_equal(item.landmarks[[0, 5, 15]], 0)
    assert set(item.weights) == {0, 1}


def test_joints_given_twice_are_averaged(tmp_path):
    pairs = [*ALL_JOINTS.items(), (7, (81, 91)), (7, (95, 99))]
    item = read_one(tmp_path, annopoints=points(pairs))
    x, y = ALL_JOINTS[7]
    np.testing.assert_allclose(item.landmarks[7], [(x + 81 + 95) / 3 - 1, (y + 91 + 99) / 3 - 1])
    assert item.weights[7] == 1


def test_coordinates_in_small_integers_do_not_overflow(tmp_path):
    pairs = [(3, (np.uint8(0), np.uint8(255))), (3, (np.uint8(0), np.uint8(255)))]
    item = read_one(tmp_path, annopoints=points(pairs), x1=np.uint8(91), x2=np.uint8(61))
    np.testing.assert_allclose(item.landmarks[3], [-1, 254])
    assert item.normalizer == pytest.approx(0.6 * 50)


@pytest.mark.parametrize("x1", [None, EMPTY, np.nan])
def test_a_missing_head_box_leaves_the_normalizer_unknown(tmp_path, x1):
    item = read_one(tmp_path, x1=x1)
    assert isinstance(item, Annotation) and item.normalizer == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"annopoints": None}, "unlabelled"),
        ({"annopoints": EMPTY}, "unlabelled"),
        ({"annopoints": struct({"point": EMPTY})}, "unlabelled"),
        ({"annopoints": points({16: (1, 1)})}, "malformed_point"),
        ({"annopoints": points({-1: (1, 1)})}, "malformed_point"),
        ({"annopoints": points({2.5: (1, 1)})}, "malformed_point"),
        ({"annopoints": points({4: (EMPTY, 1)})}, "malformed_point"),
        ({"annopoints": points({4: ("left", 1)})}, "not_a_number"),
        ({"annopoints": points({4: (np.nan, 1)})}, "non_finite_landmark"),
        ({"annopoints": points({4: (np.inf, 1)})}, "non_finite_landmark"),
        ({"annopoints": points({4: (1, -1e7)})}, "absurd_landmark"),
        ({"scale": None}, "no_box"),
        ({"scale": EMPTY}, "no_box"),
        ({"objpos": None}, "no_box"),
        ({"objpos": EMPTY}, "no_box"),
        ({"objpos": struct({"x": 3})}, "no_box"),
        ({"scale": np.nan}, "non_finite_box"),
        ({"objpos": struct({"x": np.inf, "y": 1})}, "non_finite_box"),
        ({"scale": 0}, "empty_box"),
        ({"scale": -2}, "empty_box"),
        ({"scale": 1e9}, "absurd_box"),
    ],
)
def test_a_damaged_person_is_refused_and_nobody_else(tmp_path, changes, reason):
    people = image(person(), name="a.jpg"), image(person(**changes)), image(person(), name="b.jpg")
    before, damaged, after = read(write_mpii(tmp_path, *people))
    assert isinstance(before, Annotation) and isinstance(after, Annotation)
    assert isinstance(damaged, Reject)
    assert (damaged.reason, damaged.split) == (reason, "train")
    assert (damaged.id, damaged.position) == ("015601864.jpg#1", "annolist(2).annorect(1)")


def test_official_test_people_are_counted_as_unlabelled(tmp_path):
    bare = {"scale": 1.5, "objpos": struct({"x": 120.0, "y": 130.0})}
    (item,) = read(write_mpii(tmp_path, image(bare, train=0)))
    assert (item.reason, item.split) == ("unlabelled", "test")


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (
            (image(person(), name="a.jpg"), image(person(), name="a.jpg", train=0)),
            "duplicate_image",
        ),
        ((image(person(), name="a.jpg"), image(person(), name=EMPTY)), "no_image_name"),
    ],
)
def test_an_entry_without_a_name_of_its_own_is_refused(tmp_path, entries, reason):
    items = read(write_mpii(tmp_path, *entries))
    assert isinstance(items[0], Annotation) and items[1].reason == reason


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"MATLAB 7.3 MAT-file" + bytes(105) + b"\x00\x02IM" + bytes(400),
        b"not a MATLAB file at all " * 40,
        {"other": 1},
        {"RELEASE": 3},
        {"RELEASE": {"annolist": EMPTY, "img_train": EMPTY}},
        {"RELEASE": {"annolist": struct({"image": 1}, {"image": 2}), "img_train": 1}},
        {"RELEASE": {"annolist": struct({"image": 1})}},
    ],
    ids=["empty", "hdf5", "text", "other", "number", "no struct", "few flags", "no flags"],
)
def test_another_file_under_this_name_is_one_error(tmp_path, content):
    (tmp_path / "images").mkdir()
    if isinstance(content, bytes):
        (tmp_path / MPII_FILE).write_bytes(content)
    else:
        savemat(tmp_path / MPII_FILE, content)
    with pytest.raises(ValueError, match="cannot be read as MPII's annotation file") as error:
        read(tmp_path)
    assert str(tmp_path / MPII_FILE) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("cut", [200, 1000, -10])
def test_a_file_that_was_cut_short_is_one_error(tmp_path, cut):
    write_mpii(tmp_path, *(image(person(), name=f"{i}.jpg") for i in range(20)))
    whole = (tmp_path / MPII_FILE).read_bytes()
    (tmp_path / MPII_FILE).write_bytes(whole[:cut])
    with pytest.raises(ValueError, match="cannot be read as MPII's annotation file"):
        read(tmp_path)


value = st.one_of(
    st.floats(),
    st.integers(-(2**31), 2**31 - 1),
    st.text(max_size=5),
    st.just(EMPTY),
    st.just(struct({"x": 1, "point": 2})),
)


@given(st.dictionaries(st.sampled_from([*person()]), value))
def test_any_person_gives_one_item(tmp_path_factory, changes):
    items = read(write_mpii(tmp_path_factory.mktemp("any"), image(person(**changes))))
    assert len(items) == 1
    if isinstance(items[0], Annotation):
        assert np.all(np.isfinite(items[0].landmarks)) and np.isfinite(items[0].normalizer)


@pytest.mark.parametrize("missing", ["images", MPII_FILE])
def test_a_wrong_directory_says_what_to_do(tmp_path, missing):
    write_mpii(tmp_path, image(person()))
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"http://human-pose\.mpi-inf\.mpg\.de") as error:
        read(tmp_path)
    assert str(tmp_path) in str(error.value) and missing in str(error.value)


def test_real_people_come_back_as_they_were(tmp_path, shared_data):
    people, entries = zip(*real_people(shared_data), strict=True)
    items = read(write_mpii(tmp_path, *entries))
    assert len(items) == len(people) == 5
    for item, sample in zip(items, people, strict=True):
        visible = np.array(sample["joints_vis"], bool)
        np.testing.assert_array_equal(item.weights, visible)
        np.testing.assert_allclose(
            item.landmarks[visible], np.array(sample["joints"])[visible], atol=1e-9
        )
        np.testing.assert_allclose((item.box[:2] + item.box[2:]) / 2, sample["center"])
        np.testing.assert_allclose(item.box[2:] - item.box[:2], 200 * sample["scale"])


def test_all_people_of_an_image_are_counted(tmp_path):
    crowd = image(person(), person(annopoints=EMPTY), person(), name="a.jpg")
    items = read(write_mpii(tmp_path, crowd, image(person(), name="b.jpg")))
    found = [item.people for item in items if isinstance(item, Annotation)]
    assert found == [3, 3, 1]


def test_deployment_keeps_the_official_test_people_without_labels(tmp_path):
    bare = {name: person()[name] for name in ("scale", "objpos")}
    entries = (
        image(person(annopoints=EMPTY), name="a.jpg"),
        image(bare, name="b.jpg", train=0),
        image({"scale": 1.5}, name="c.jpg", train=0),
        image(name="d.jpg", train=0),
    )
    train, test, boxless, nobody = read(write_mpii(tmp_path, *entries), deploy=True)
    assert [train.reason, boxless.reason, nobody.reason] == ["unlabelled", "no_box", "no_people"]
    assert (test.split, test.weights.sum(), np.abs(test.landmarks).sum()) == ("test", 0, 0)
    np.testing.assert_allclose(test.box, [119 - 150, 129 - 150, 119 + 150, 129 + 150])


@pytest.mark.parametrize(
    "options",
    [
        {"squeeze_me": True},
        {"struct_as_record": False},
        {"squeeze_me": True, "struct_as_record": False},
        {"simplify_cells": True},
    ],
)
def test_a_file_that_scipy_has_saved_anew_is_the_same(tmp_path, options):
    people = image(person(), person(x1=150.0), name="1.jpg"), image(person(), name="2.jpg")
    bare = {name: person()[name] for name in ("scale", "objpos")}
    write_mpii(tmp_path, *people, image(name="3.jpg"), image(bare, name="4.jpg", train=0))
    before = [vars(item) for item in read(tmp_path)]
    release = loadmat(tmp_path / MPII_FILE, **options)["RELEASE"]
    savemat(tmp_path / MPII_FILE, {"RELEASE": release})
    after = [vars(item) for item in read(tmp_path)]
    assert len(before) == 5 and repr(before) == repr(after)
