"""The reader of WFLW's lists: what a line becomes, and which lines it refuses and why."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from official_layouts import WFLW_LISTS, face, real_faces, write_wflw
from reader_outcomes import Annotation, read_all

from pipelines.readers.annotation import Reject
from pipelines.readers.wflw import Wflw


def changed(index, value):
    fields = face()
    fields[index] = value
    return fields


def read(directory):
    return read_all(Wflw(), directory)


def test_a_line_becomes_an_annotation(tmp_path):
    fields = face()
    (item,) = read(write_wflw(tmp_path, [fields]))
    assert isinstance(item, Annotation)
    assert (item.id, item.split, item.image) == ("0--Parade/a.jpg#1", "train", "0--Parade/a.jpg")
    assert (item.source, item.position) == (f"{WFLW_LISTS}/list_98pt_rect_attr_train.txt", "line 1")
    expected = np.array(fields[:196], float).reshape(98, 2)
    np.testing.assert_array_equal(item.landmarks, expected)
    np.testing.assert_array_equal(item.weights, np.ones(98))
    np.testing.assert_array_equal(item.box, [40, 30, 140, 150])
    assert item.attributes == (0, 1, 0, 0, 1, 0)
    between_eyes = expected[60] - expected[72]
    assert item.normalizer == pytest.approx(np.hypot(*between_eyes), rel=1e-12)


def test_splits_and_order_are_the_lists_own(tmp_path):
    train = [face("b.jpg"), face("a.jpg"), face("b.jpg", seed=1)]
    items = read(write_wflw(tmp_path, train, [face("c.jpg")]))
    assert [item.id for item in items] == ["b.jpg#1", "a.jpg#2", "b.jpg#3", "c.jpg#1"]
    assert [item.split for item in items] == ["train"] * 3 + ["test"]


@pytest.mark.parametrize("options", [{"newline": "\r\n"}, {"encoding": "utf-8-sig"}])
def test_line_ends_byte_order_mark_and_blank_lines_are_harmless(tmp_path, options):
    lines = [face(), "", face(seed=1), "  \t"]
    plain = read(write_wflw(tmp_path / "plain", lines))
    other = read(write_wflw(tmp_path / "other", lines, **options))
    assert [item.id for item in other] == ["0--Parade/a.jpg#1", "0--Parade/a.jpg#3"]
    for one, two in zip(plain, other, strict=True):
        np.testing.assert_array_equal(one.landmarks, two.landmarks)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (face()[:-1], "wrong_field_count"),
        ([*face(), "0"], "wrong_field_count"),
        (face()[:100], "wrong_field_count"),
        ("garbage", "wrong_field_count"),
        (changed(17, "12,5"), "not_a_number"),
        (changed(198, "x"), "not_a_number"),
        (changed(0, "nan"), "non_finite_landmark"),
        (changed(195, "-inf"), "non_finite_landmark"),
        (changed(4, "1e9"), "absurd_landmark"),
        (changed(196, "nan"), "non_finite_box"),
        (changed(198, "1e308"), "absurd_box"),
        (changed(198, "40"), "empty_box"),
        (changed(199, "-150"), "empty_box"),
        (changed(201, "2"), "bad_attribute"),
        (changed(205, "0.5"), "bad_attribute"),
        (changed(202, "nan"), "bad_attribute"),
        (["0"] * 196 + face()[196:], "degenerate_landmarks"),
    ],
)
def test_a_damaged_line_is_refused_and_nothing_else(tmp_path, line, reason):
    before, damaged, after = read(write_wflw(tmp_path, [face(), line, face(seed=2)]))
    assert isinstance(before, Annotation) and isinstance(after, Annotation)
    assert isinstance(damaged, Reject)
    assert (damaged.reason, damaged.split, damaged.position) == (reason, "train", "line 2")
    assert damaged.id.endswith("#2") and damaged.detail


def test_bytes_that_are_no_text_are_refused(tmp_path):
    write_wflw(tmp_path, [face()])
    path = tmp_path / WFLW_LISTS / "list_98pt_rect_attr_test.txt"
    path.write_bytes(b"\xff\xfe\x00\x01 \x80\n" + " ".join(face()).encode() + b"\n")
    assert [type(item) for item in read(tmp_path)] == [Annotation, Reject, Annotation]


field = st.one_of(
    st.floats(allow_nan=True).map(str),
    st.integers().map(str),
    st.text(st.characters(exclude_categories=["Z", "Cc", "Cs"]), min_size=1),
)


@given(st.dictionaries(st.integers(0, 206), field), st.integers(190, 220))
def test_any_line_gives_one_item(tmp_path_factory, changes, count):
    fields = [changes.get(i, value) for i, value in enumerate([*face(), *["0"] * 20])][:count]
    items = read(write_wflw(tmp_path_factory.mktemp("any"), [fields, face(seed=3)]))
    assert len(items) == 2 and isinstance(items[1], Annotation)
    if isinstance(items[0], Annotation):
        assert len(fields) == 207 and np.all(np.isfinite(items[0].landmarks))
        assert np.all(items[0].box[2:] - items[0].box[:2] >= 1) and items[0].normalizer > 0


@pytest.mark.parametrize("missing", ["WFLW_images", f"{WFLW_LISTS}/list_98pt_rect_attr_test.txt"])
def test_a_wrong_directory_gives_one_line_that_says_what_to_do(tmp_path, missing):
    write_wflw(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    command = [sys.executable, "-m", "pipelines.make_tfrecords", "--dataset", "wflw"]
    command += ["--source", str(tmp_path), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error:") and "Traceback" not in done.stderr
    for part in (str(tmp_path), missing, "https://wywu.github.io/projects/LAB/WFLW.html"):
        assert part in error
    assert not (tmp_path / "out").exists()


def test_real_faces_come_back_as_they_were(tmp_path, shared_data):
    faces = list(real_faces(shared_data))
    lines = [
        [*(repr(p) for p in points.ravel().tolist()), *map(repr, box), *"000000", name]
        for name, points, box in faces
    ]
    items = read(write_wflw(tmp_path, test=lines))
    assert len(items) == len(faces) == 4
    for item, (name, points, box) in zip(items, faces, strict=True):
        assert item.image == name
        np.testing.assert_array_equal(item.landmarks, points)
        np.testing.assert_array_equal(item.box, box)
