"""Which files, folders, categories and keypoints of COCO's JSON are read, and what is said of others."""

import json
import sqlite3

import numpy as np
import pytest
from clock_keypoints import CLOCK, category, clock, document, outcomes, read, reader, write
from conversion import convert

from pipelines.readers import coco_database, option_values
from pipelines.readers.coco import Coco
from pipelines.storage import Source
from pipelines.verify import verify
from tfhuber.landmarks import known_sets


def named(*names, count=None):
    """A file whose keypoint number i lies at x = i."""
    keypoints = [number for i in range(count or len(names)) for number in (i, 5, 2)]
    return document(clock(keypoints=keypoints), categories=[category(keypoints=list(names))])


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (named("pivot", "hour", "minute"), [0, 1, 2]),
        (named("minute", "pivot", "second", "hour"), [1, 3, 0]),
        (named("x", "x", "minute", "hour", "pivot"), [4, 3, 2]),
        (named(count=3), [0, 1, 2]),
        (named("1", "2", "3"), [0, 1, 2]),
        (named(0, 1, 2), [0, 1, 2]),
    ],
)
def test_keypoints_become_landmarks_by_their_names_or_else_their_order(tmp_path, content, columns):
    (item,) = read(write(tmp_path, train=content))
    np.testing.assert_array_equal(item.landmarks[:, 0], columns)


@pytest.mark.parametrize(
    "names",
    [("pivot", "hour"), ("a", "b", "c"), ("1", "2"), ("pivot", "hour", "minute", "hour")],
)
def test_keypoints_of_other_names_are_one_line(tmp_path, names):
    write(tmp_path, train=named(*names))
    with pytest.raises(ValueError, match=r"train\.json must name each landmark of 'clock' once"):
        read(tmp_path)


CATEGORIES = [category(), category(id=2, name="watch"), {"id": 3, "name": "cat"}]


def test_categories_of_the_same_keypoints_are_taken_together(tmp_path):
    annotations = [clock(1), clock(2, category_id=2), clock(3, category_id=3)]
    items = read(write(tmp_path, train=document(*annotations, categories=CATEGORIES)))
    assert outcomes(items) == ["good", "good", "other_category"]
    assert [item.people for item in items[:2]] == [2, 2]
    others = ["other_category", "good", "other_category"]
    assert outcomes(read(tmp_path, category=["watch"])) == others
    with pytest.raises(ValueError, match="not 0 that are called 'sundial'"):
        read(tmp_path, category=["watch", "sundial"])


def test_categories_of_other_keypoints_need_a_choice(tmp_path):
    turned = category(id=2, name="watch", keypoints=["minute", "hour", "pivot"])
    other = category(id=3, name="cat", keypoints=["ear"])
    annotations = [clock(1), clock(2, category_id=2)]
    write(tmp_path, train=document(*annotations, categories=[category(), turned, other]))
    with pytest.raises(ValueError, match=r"--category must choose one .*'clock', 'watch', 'cat'"):
        read(tmp_path)
    items = read(tmp_path, category=["clock", "watch"])
    assert [item.landmarks[0].tolist() for item in items] == [[50, 60], [70.5, 60]]


def test_categories_without_keypoints_need_a_choice(tmp_path):
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    write(tmp_path, train=document(clock(), categories=categories))
    with pytest.raises(ValueError, match="--category must choose one category, or several"):
        read(tmp_path)
    assert outcomes(read(tmp_path, category=["a"])) == ["good"]


def test_a_normalizer_that_cannot_be_known_is_refused(tmp_path):
    write(tmp_path, train=document(clock()))
    with pytest.raises(
        ValueError, match=r"normalizer of 'mpii' is not known .* nothing could be scored"
    ):
        reader(tmp_path, "mpii")


def test_the_only_category_needs_no_names(tmp_path):
    write(tmp_path, train=document(clock(), categories=[{"id": 1}]))
    assert outcomes(read(tmp_path)) == ["good"]


# Layouts and options.


def test_the_layouts_splits_are_found(tmp_path):
    one = document(clock())
    write(tmp_path, train=one)
    made = reader(tmp_path)
    assert (made.lists, made.images) == (("annotations/train.json",), "images")
    assert made.validation_fraction == 0.1 and made.photograph("a/b.jpg") == "a/b.jpg"
    for split in ("test", "valid"):
        (tmp_path / f"annotations/{split}.json").write_text(json.dumps(one))
    (tmp_path / "images").rmdir()
    made = reader(tmp_path)
    assert made.lists == tuple(f"annotations/{split}.json" for split in ("train", "valid", "test"))
    assert (made.validation_fraction, made.images) == (0, "")


def test_cocos_own_layout(tmp_path):
    write(tmp_path)
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").mkdir()
        path = tmp_path / f"annotations/person_{split}.json"
        path.write_text(json.dumps(document(clock())))
    annotations = ["train=annotations/person_train.json", "test=annotations/person_val.json"]
    images = ["train=train2017", "test=./val2017/"]
    items = read(tmp_path, annotations=annotations, images=images)
    assert [item.id for item in items] == ["train2017/a.jpg#1", "val2017/a.jpg#1"]
    assert outcomes(items) == ["good", "good"] and items[1].image == "val2017/a.jpg"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"annotations": ["x.json"]}, "--annotations must be SPLIT=NAME with one of train, valid"),
        ({"annotations": ["val=x.json"]}, "--annotations must be SPLIT=NAME .*, got 'val=x.json'"),
        ({"annotations": ["train="]}, "--annotations must be SPLIT=NAME"),
        ({"annotations": ["train=x.json"]}, "x.json is missing in .*bring_your_own_data.md"),
        ({"images": ["photos"]}, "photos is missing in"),
        ({"images": ["../photos"]}, "--images must be a folder below the source"),
        ({"images": ["train=/tmp"]}, "--images must be a folder below the source"),
        ({"images": ["images", "."]}, "--images must be SPLIT=NAME"),
        ({"images": ["valid=images"]}, "SPLIT=FOLDER once for each of train"),
        ({"images": ["train=images", "train=."]}, "SPLIT=FOLDER once for each of train"),
        ({"landmarks": "wrench"}, "no landmark set wrench: .* one of wflw, mpii, 300w_lp, coco"),
    ],
)
def test_a_wrong_option_is_one_line_that_says_what_is_expected(tmp_path, options, message):
    write(tmp_path, train=document(clock()))
    with pytest.raises(ValueError, match=message) as info:
        reader(tmp_path, **options)
    assert "\n" not in str(info.value)


def test_a_directory_without_annotations_or_landmarks_is_told_where_to_read(tmp_path):
    with pytest.raises(ValueError, match=r"has none of annotations/train\.json.*docs/bring_your"):
        reader(tmp_path)
    write(tmp_path, train=document(clock()))
    (tmp_path / "landmarks.json").unlink()
    with pytest.raises(ValueError, match=r"no landmark set .*landmarks\.json.*docs/bring_your"):
        reader(tmp_path)


@pytest.mark.parametrize("is_local", [True, False])
def test_landmarks_are_a_name_or_a_file_anywhere(tmp_path, monkeypatch, is_local):
    monkeypatch.setattr(option_values, "is_local", lambda path: is_local)
    write(tmp_path / "data", train=document(clock()))
    assert reader(tmp_path / "data").landmark_set == known_sets.parse(CLOCK)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(CLOCK | {"name": "other"}), encoding="utf-8-sig")
    assert reader(tmp_path / "data", str(other)).landmark_set.name == "other"
    assert reader(tmp_path / "data", "coco").landmark_set is not None
    other.write_text("{")
    with pytest.raises(ValueError, match=r"other\.json is not JSON"):
        reader(tmp_path / "data", str(other))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not COCO keypoints: the top level is empty"),
        (b"[]", "is not COCO keypoints: the top level is a list"),
        (b"\xff\xd8\xff\xe0", "is not COCO keypoints: the top level is no object"),
        (b'{"annotations": [{"id": 1}', "is not COCO keypoints: expected ',' or ']' in line 1"),
        (b"{}", "is not COCO keypoints: it has no annotations"),
        (b'{"annotations": []}', "is not COCO keypoints: it has no annotations"),
        (b'{"annotations": {"id": 1}}', "is not COCO keypoints: its annotations are no list"),
        (b'{"annotations": [1], "images": 2}', "is not COCO keypoints: its images are no list"),
        (b'{"annotations": [1]}', "is not COCO keypoints: it has no categories"),
    ],
)
def test_a_file_of_another_kind_is_one_line(tmp_path, content, message):
    write(tmp_path, train=content)
    with pytest.raises(ValueError) as info:
        read(tmp_path)
    assert message in str(info.value) and "\n" not in str(info.value)
    assert str(info.value).startswith(str(tmp_path / "annotations/train.json"))


def test_a_byte_order_mark_line_ends_and_keys_in_any_order_are_harmless(tmp_path):
    content = document(clock(1), clock(2))
    plain = read(write(tmp_path / "plain", train=content))
    turned = dict(reversed(content.items()))
    text = json.dumps(turned, indent=1).replace("\n", "\r\n").encode("utf-8-sig")
    for one, two in zip(plain, read(write(tmp_path / "other", train=text)), strict=True):
        assert one.entry == two.entry
        np.testing.assert_array_equal(one.landmarks, two.landmarks)


def test_a_database_that_fails_is_one_line(tmp_path, monkeypatch):
    def is_new(*arguments):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(coco_database.CocoDatabase, "is_new", is_new)
    write(tmp_path, train=document(clock()))
    with pytest.raises(OSError, match=r"disk is full\); TMPDIR can name another directory"):
        read(tmp_path)


def test_nothing_stays_in_the_directory_for_temporary_files(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    source = Source(str(write(tmp_path / "data", train=document(clock(1), clock(2)))))
    for _ in Coco.from_options(source).entries(source):
        assert len(list((tmp_path / "tmp").iterdir())) == 1
        break
    assert not list((tmp_path / "tmp").iterdir())


def test_cocos_own_files_go_through(tmp_path, shared_data):
    options = ["--landmarks", "coco", "--annotations", "test=test_coco.json", "--images", "."]
    source = shared_data / "real_samples/coco"
    manifest, rejects = convert(source, tmp_path / "out", *options, dataset="coco")
    assert manifest["splits"]["test"]["examples"] == 12
    assert [reject["reason"] for reject in rejects] == ["unlabelled"] * 2
    assert known_sets.parse(manifest["landmark_set"]) == known_sets.COCO
    verify(str(tmp_path / "out"))
