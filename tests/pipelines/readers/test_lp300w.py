"""300W-LP: what a file becomes, what is refused and why, whole photographs held out, drawn copies."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conversion import arguments, convert, photograph, run
from hypothesis import given
from hypothesis import strategies as st
from reader_outcomes import read_all
from scipy.io import savemat

from pipelines.readers.annotation import Reject
from pipelines.readers.lp300w import Lp300w
from tfhuber.data import records
from tfhuber.landmarks import known_sets

POINTS = np.random.default_rng(0).uniform(120, 330, (68, 2))
PLAIN = "AFW/AFW_134212_1_0"


def add(directory, name=PLAIN, points=POINTS, pt2d=None, picture=True):
    """Writes one name's files: labels of its own, points of the photograph's, and a picture."""
    for part, path, variable in (
        (points, directory / f"landmarks/{name}_pts.mat", "pts_2d"),
        (pt2d, directory / f"{name}.mat", "pt2d"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        if part is not None:
            savemat(path, {variable: part})
    if picture:
        photograph(directory / f"{name}.jpg", size=(450, 450))
    return directory


def read(directory):
    return read_all(Lp300w(), directory)


def reason(item):
    assert isinstance(item, Reject) and item.detail and "\n" not in item.detail
    return item.reason


def examples(output, split):
    paths = records.shard_paths(output, records.read_manifest(output), split)
    for serialized in tf.data.TFRecordDataset(paths):
        parsed = records.parse(serialized, known_sets.LP300W)
        yield {key: value.numpy() for key, value in parsed.items()}


# --- labels


def test_a_file_becomes_an_annotation(tmp_path):
    (item,) = read(add(tmp_path))
    assert (item.id, item.image, item.split) == (f"{PLAIN}.jpg", f"{PLAIN}.jpg", "train")
    assert (item.source, item.position) == (f"landmarks/{PLAIN}_pts.mat", "pts_2d")
    np.testing.assert_array_equal(item.landmarks, POINTS)
    np.testing.assert_array_equal(item.weights, np.ones(68))
    np.testing.assert_array_equal(item.box, [*POINTS.min(axis=0), *POINTS.max(axis=0)])
    assert item.normalizer == pytest.approx(np.hypot(*(POINTS[36] - POINTS[45])), rel=1e-12)
    assert item.attributes == ()


def test_a_poses_own_labels_come_before_the_photographs(tmp_path):
    (item,) = read(add(tmp_path, pt2d=POINTS.T + 30))
    np.testing.assert_array_equal(item.landmarks, POINTS)


def test_without_own_labels_the_photographs_serve_for_the_photograph_only(tmp_path):
    turned = POINTS * [0.8, 1] + [40, 0]
    for name, points in (("2_0", POINTS), ("2_1", POINTS), ("2_2", turned), ("3_1", POINTS)):
        add(tmp_path, f"IBUG/IBUG_image_011_{name}", points=None, pt2d=points.T)
    plain, copied, turned_too, alone = read(tmp_path)
    assert (plain.source, plain.position) == ("IBUG/IBUG_image_011_2_0.mat", "pt2d")
    np.testing.assert_array_equal(plain.landmarks, POINTS)
    assert reason(copied) == "labels_of_another_pose"
    np.testing.assert_array_equal(turned_too.landmarks, turned)
    np.testing.assert_array_equal(alone.landmarks, POINTS)


def test_unlabelled_points_weigh_nothing_and_leave_the_box_alone(tmp_path):
    points = POINTS.astype(np.float32)
    points[[3, 45]] = (-1, 452)  # As AFLW2000, the authors' test set, marks them.
    (item,) = read(add(tmp_path, points=points))
    np.testing.assert_array_equal(np.flatnonzero(item.weights == 0), [3, 45])
    np.testing.assert_array_equal(item.landmarks[[3, 45]], 0)
    labelled = np.delete(points, [3, 45], axis=0)
    np.testing.assert_array_equal(item.box, [*labelled.min(axis=0), *labelled.max(axis=0)])
    assert item.normalizer == 0


def test_images_and_labels_of_the_four_folders_are_listed_once_and_nothing_else(tmp_path):
    for name in ("LFPW/LFPW_image_test_0001_3", "HELEN/HELEN_1_1_0", PLAIN, "AFW_Flip/AFW_1_1_0"):
        add(tmp_path, name, pt2d=POINTS.T)
    add(tmp_path, "HELEN/HELEN_1_1_1", picture=False)
    photograph(tmp_path / "IBUG/IBUG_image_003_1_0.jpg")
    (tmp_path / "Code").mkdir()
    (tmp_path / "Code/AFW.mat").write_bytes(b"")
    assert [item.image for item in read(tmp_path)] == [
        f"{PLAIN}.jpg",
        "HELEN/HELEN_1_1_0.jpg",
        "HELEN/HELEN_1_1_1.jpg",
        "IBUG/IBUG_image_003_1_0.jpg",
        "LFPW/LFPW_image_test_0001_3.jpg",
    ]


# --- damage

WHOLE_FILE = "to be cut short"
DAMAGE = {
    "empty": (b"", "unreadable_labels"),
    "text": (b"not a MATLAB file at all " * 40, "unreadable_labels"),
    "hdf5": (b"MATLAB 7.3 MAT-file" + bytes(105) + b"\x00\x02IM" + bytes(400), "unreadable_labels"),
    "truncated": (WHOLE_FILE, "unreadable_labels"),
    "folder": (None, "missing_labels"),
    "large": (bytes(70_000), "labels_too_large"),
    "other": ({"pts_3d": POINTS}, "no_points"),
    "nothing": ({}, "no_points"),
    "transposed": ({"pts_2d": POINTS.T}, "wrong_shape"),
    "few": ({"pts_2d": POINTS[:21]}, "wrong_shape"),
    "solid": ({"pts_2d": np.zeros((68, 2, 2))}, "wrong_shape"),
    "scalar": ({"pts_2d": 3}, "wrong_shape"),
    "cells": ({"pts_2d": np.full((68, 2), "x", object)}, "not_a_number"),
    "complex": ({"pts_2d": POINTS + 1j}, "not_a_number"),
    "nan": ({"pts_2d": np.where(POINTS > 300, np.nan, POINTS)}, "non_finite_landmark"),
    "infinite": ({"pts_2d": np.where(POINTS > 300, np.inf, POINTS)}, "non_finite_landmark"),
    "absurd": ({"pts_2d": POINTS * 1e6}, "absurd_landmark"),
    "unlabelled": ({"pts_2d": np.full((68, 2), -1.0)}, "unlabelled"),
    "point": ({"pts_2d": np.full((68, 2), 200.0)}, "empty_box"),
    "outside": ({"pts_2d": POINTS + 1000}, "box_outside_image"),
}


def damaged(directory):
    """A good file before and after each kind of damage; returns the reasons in the reader's order."""
    reasons = {}
    for name, (content, why) in DAMAGE.items():
        add(directory, f"HELEN/{name}_0")
        path = directory / f"landmarks/HELEN/{name}_0_pts.mat"
        if content is WHOLE_FILE:
            path.write_bytes(path.read_bytes()[:700])
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif content is None:
            path.unlink()
            path.mkdir()
        else:
            savemat(path, content)
        reasons[f"HELEN/{name}_0.jpg"] = why
    add(directory, "HELEN/no_image_0", picture=False)
    photograph(directory / "HELEN/no_labels_0.jpg")
    add(directory, "HELEN/no_jpeg_0").joinpath("HELEN/no_jpeg_0.jpg").write_text("text")
    reasons |= {f"HELEN/no_{name}_0.jpg": f"missing_{name}" for name in ("image", "labels")}
    reasons["HELEN/no_jpeg_0.jpg"] = "undecodable_image"
    for name in (PLAIN, "LFPW/LFPW_image_test_0001_0"):
        add(directory, name)
    return dict(sorted(reasons.items()))


def test_each_kind_of_damage_is_named_and_costs_only_itself(tmp_path):
    reasons = damaged(tmp_path / "source")
    options = ["--validation-fraction", "0", "--shard-examples", "5"]
    manifest, rejects = convert(tmp_path / "source", tmp_path / "out", *options, dataset="300w_lp")
    assert {reject["id"]: reject["reason"] for reject in rejects} == reasons
    assert [reject["id"] for reject in rejects] == list(reasons)
    assert all(reject["detail"] and reject["image"] == reject["id"] for reject in rejects)
    split = manifest["splits"]["train"]
    assert (split["examples"], split["rejects"]) == (2, len(DAMAGE) + 3)
    assert sum(split["rejects_by_reason"].values()) == len(rejects)
    ids = [example["id"].decode() for example in examples(tmp_path / "out", "train")]
    assert ids == [f"{PLAIN}.jpg", "LFPW/LFPW_image_test_0001_0.jpg"]


def test_a_file_of_a_gigabyte_is_refused_unread(tmp_path):
    (item,) = read(add(tmp_path))
    with open(tmp_path / item.source, "r+b") as file:
        file.truncate(2**30)
    (item,) = read(tmp_path)
    assert reason(item) == "labels_too_large"


def test_a_pipe_is_not_waited_for(tmp_path):
    (item,) = read(add(tmp_path))
    (tmp_path / item.source).unlink()
    os.mkfifo(tmp_path / item.source)
    (item,) = read(tmp_path)
    assert reason(item) == "missing_labels"


value = st.one_of(
    st.floats(),
    st.text(max_size=5),
    st.just({"x": 1.0}),
    st.just(POINTS),
    st.just(POINTS.T),
    st.lists(st.floats(width=32), min_size=136, max_size=136).map(
        lambda numbers: np.array(numbers).reshape(68, 2)
    ),
)


@given(st.dictionaries(st.sampled_from(["pts_2d", "pts_3d"]), value), st.integers(0, 2000))
def test_any_file_is_read_or_refused(tmp_path_factory, variables, cut):
    directory = add(tmp_path_factory.mktemp("any"), picture=False)
    path = directory / f"landmarks/{PLAIN}_pts.mat"
    savemat(path, variables)
    if cut < path.stat().st_size and cut % 3 == 0:
        path.write_bytes(path.read_bytes()[:cut])
    (item,) = read(directory)
    if isinstance(item, Reject):
        assert reason(item)
    else:
        assert np.all(np.isfinite(item.landmarks)) and np.isfinite(item.normalizer)
        assert np.all(item.box[2:] - item.box[:2] >= 1)


@pytest.mark.parametrize("folder", [None, "300W_LP/AFW", "AFW_Flip", "AFW"])
def test_a_wrong_directory_says_what_to_do(tmp_path, folder):
    if folder:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match="does not have 300W-LP's layout") as error:
        read(tmp_path)
    for part in (str(tmp_path), "AFW/, HELEN/, IBUG/, LFPW/", "landmarks/", "http://www.cbsr.ia"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_directory_is_one_line_on_stderr(tmp_path):
    code, out, err = run(*arguments(tmp_path, tmp_path / "out", dataset="300w_lp"))
    assert (code, out) == (2, "") and "Traceback" not in err
    assert err.splitlines()[-1].startswith(f"error: {tmp_path} does not have 300W-LP's layout")


# --- held-out photographs


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("AFW/AFW_134212_1_0.jpg", "AFW_134212"),
        ("AFW/AFW_134212_2_16.jpg", "AFW_134212"),
        ("AFW_Flip/AFW_134212_1_3.jpg", "AFW_134212"),
        ("HELEN/HELEN_1269874180_1_10.jpg", "HELEN_1269874180"),
        ("IBUG/IBUG_image_011_1_2.jpg", "IBUG_image_011"),
        ("IBUG/IBUG_image_014_5.jpg", "IBUG_image_014"),
        ("LFPW/LFPW_image_test_0001_12.jpg", "LFPW_image_test_0001"),
        ("LFPW/odd.jpg", "odd"),
    ],
)
def test_a_photograph_is_known_by_its_images_names(image, name):
    assert Lp300w().photograph(image) == name


def test_all_images_of_a_photograph_are_on_the_same_side(tmp_path):
    source = tmp_path / "source"
    for number in range(40):
        for face_and_pose in ("1_0", "1_7", "2_0"):
            add(source, f"AFW/AFW_{1000 + number}_{face_and_pose}", picture=False)
        photograph(source / f"AFW/AFW_{1000 + number}_1_0.jpg", size=(450, 450))
        for face_and_pose in ("1_7", "2_0"):
            shutil.copy(
                source / f"AFW/AFW_{1000 + number}_1_0.jpg",
                source / f"AFW/AFW_{1000 + number}_{face_and_pose}.jpg",
            )
    options = ["--validation-fraction", "0.3"]
    manifest, rejects = convert(source, tmp_path / "out", *options, dataset="300w_lp")
    found = {
        split: [Lp300w().photograph(e["id"].decode()) for e in examples(tmp_path / "out", split)]
        for split in ("train", "valid")
    }
    assert rejects == [] and manifest["landmark_set"]["name"] == "300w_lp"
    assert not set(found["train"]) & set(found["valid"])
    # 40 photographs, each held out with chance 0.3: 12 +- 2.9, so that 3 to 21 is over 3 sigma.
    assert 3 <= len(set(found["valid"])) <= 21
    assert all(names.count(name) == 3 for names in found.values() for name in names)
    # An image on a list takes its photograph's others with it.
    (tmp_path / "valid.txt").write_text("AFW/AFW_1005_1_7.jpg\n")
    options = ["--validation-images", str(tmp_path / "valid.txt")]
    manifest, _ = convert(source, tmp_path / "listed", *options, dataset="300w_lp")
    assert manifest["splits"]["valid"]["examples"] == 3


# --- real photographs


@pytest.mark.parametrize("variable", ["pts_2d", "pt2d"])
def test_real_faces_come_back_as_they_were(tmp_path, shared_data, variable):
    folder = shared_data / "real_samples/300wlp"
    samples = json.loads((folder / "test_300wlp.json").read_text())
    names = {image["id"]: image["file_name"] for image in samples["images"]}
    expected = {}
    for sample in samples["annotations"]:
        name, points = names[sample["image_id"]], np.array(sample["keypoints"]).reshape(68, 3)
        labels = {"points": points[:, :2]} if variable == "pts_2d" else {"points": None}
        labels["pt2d"] = points[:, :2].T
        add(tmp_path / "source", f"AFW/{name.removesuffix('.jpg')}", **labels, picture=False)
        shutil.copy(folder / name, tmp_path / "source/AFW")
        expected[f"AFW/{name}"] = points[:, :2], sample["bbox"]
    options = ["--validation-fraction", "0"]
    _, rejects = convert(tmp_path / "source", tmp_path / "out", *options, dataset="300w_lp")
    found = {example["id"].decode(): example for example in examples(tmp_path / "out", "train")}
    assert rejects == [] and found.keys() == expected.keys() and len(found) == 2
    for id, (points, (x, y, width, height)) in expected.items():
        np.testing.assert_array_equal(found[id]["landmarks"], points.astype(np.float32))
        np.testing.assert_array_equal(found[id]["weights"], np.ones(68))
        np.testing.assert_allclose(found[id]["box"], [x, y, x + width, y + height], rtol=1e-6)


def test_aflw2000s_files_are_refused_by_their_shape(tmp_path, shared_data):
    (tmp_path / "AFW").mkdir()
    for path in (shared_data / "real_samples/aflw2000").iterdir():
        shutil.copy(path, tmp_path / "AFW")
    assert [reason(item) for item in read(tmp_path)] == ["wrong_shape"] * 3
