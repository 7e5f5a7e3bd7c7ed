"""The reader of COCO keypoints: what an annotation becomes, and which ones it refuses and why."""

import copy
import json
import tracemalloc

import numpy as np
import pytest
from clock_keypoints import CLOCK, POINTS, category, clock, document, outcomes, photo, read, write
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_outcomes import Annotation

from pipelines.readers.annotation import Reject
from pipelines.readers.coco import Coco
from pipelines.storage import Source


def test_an_annotation_becomes_labels(tmp_path):
    flags = {"night": True, "other": "x"}
    write(tmp_path, train=document(clock(7, keypoints=[*POINTS[:6], 9, 9, 0], attributes=flags)))
    (item,) = read(tmp_path)
    assert isinstance(item, Annotation)
    assert (item.id, item.split, item.image) == ("a.jpg#7", "train", "a.jpg")
    assert (item.source, item.position) == ("annotations/train.json", "annotations[1]")
    np.testing.assert_array_equal(item.landmarks, [[50, 60], [50, 40], [0, 0]])
    np.testing.assert_array_equal(item.weights, [1, 1, 0])
    np.testing.assert_array_equal(item.box, [40, 30, 80, 80])
    assert (item.attributes, item.people, item.normalizer) == ((0, 1), 1, 0)


def test_the_normalizer_is_the_landmark_sets(tmp_path):
    write(tmp_path, train=document(clock()))
    assert read(tmp_path)[0].normalizer == pytest.approx(20.5)
    described = CLOCK | {"normalizer": "box"}
    (tmp_path / "landmarks.json").write_text(json.dumps(described))
    assert read(tmp_path)[0].normalizer == pytest.approx(np.sqrt(40 * 50))


def test_boxes_of_an_image_are_neighbours_in_the_images_order(tmp_path):
    images = [photo(5, "e.jpg"), photo("x", "d.jpg"), photo(1, "a.jpg"), photo(9, "none.jpg")]
    where = [1, "x", 5, 77, "x", 1, 5]
    annotations = [clock(10 - i, image_id=image) for i, image in enumerate(where)]
    annotations[4]["iscrowd"] = 1
    items = read(write(tmp_path, train=document(*annotations, images=images)))
    assert [item.id for item in items] == [
        *("e.jpg#8", "e.jpg#4", "d.jpg#9", "d.jpg#6", "a.jpg#10", "a.jpg#5", "#7")
    ]
    assert [item.position for item in items][:3] == [f"annotations[{i}]" for i in (3, 7, 2)]
    assert [item.people for item in items if isinstance(item, Annotation)] == [2, 2, 1, 2, 2]


def test_an_image_has_as_many_people_as_annotations_of_the_category(tmp_path):
    annotations = [clock(1), clock(2, category_id=2), clock(3), clock(3), clock(4, image_id=2)]
    categories = [category(), {"id": 2, "name": "cat"}]
    items = read(write(tmp_path, train=document(*annotations, categories=categories)))
    assert [item.people for item in items if isinstance(item, Annotation)] == [2, 2, 1]


REJECTS = [
    ([1, 2], "malformed_annotation"),
    (None, "malformed_annotation"),
    (clock(keypoints="12"), "malformed_annotation"),
    (clock(keypoints={"pivot": 1}), "malformed_annotation"),
    (clock(keypoints=[POINTS]), "malformed_annotation"),
    (clock(id=100), "duplicate_id"),
    (clock(image_id=77), "no_image_entry"),
    (clock(image_id=...), "no_image_entry"),
    (clock(image_id=[1]), "no_image_entry"),
    (clock(image_id=3), "no_image_entry"),
    (clock(image_id=4), "no_image_entry"),
    (clock(image_id=5), "duplicate_image"),
    (clock(category_id=2), "other_category"),
    (clock(category_id=..., keypoints=...), "other_category"),
    (clock(iscrowd=1, keypoints=...), "crowd"),
    (clock(iscrowd=True), "crowd"),
    (clock(keypoints=POINTS[:6]), "wrong_keypoint_count"),
    (clock(keypoints=[*POINTS, 1]), "wrong_keypoint_count"),
    (clock(keypoints=[0] * 30_003), "wrong_keypoint_count"),
    (clock(keypoints=...), "unlabelled"),
    (clock(keypoints=None), "unlabelled"),
    (clock(keypoints=[]), "unlabelled"),
    (clock(keypoints=[0] * 9), "unlabelled"),
    (clock(keypoints=[5, 5, 0] * 3, bbox=...), "unlabelled"),
    (clock(keypoints=[None] * 9), "unlabelled"),
    (clock(keypoints=[5, 5, 2, *[0] * 6], bbox=...), "no_box"),
    (clock(attributes={"broken": 2}), "bad_attribute"),
    (clock(attributes={"night": "yes"}), "bad_attribute"),
]


def test_a_damaged_annotation_is_refused_and_nothing_else(tmp_path):
    images = [photo(), photo(2, "b.jpg"), photo(3, ""), photo(4, 12), photo(5), photo(5, "b.jpg")]
    images += [photo(), 12, {"id": 6}, {"file_name": "c.jpg"}]
    annotations = [clock(100)]
    for i, (damaged, _) in enumerate(REJECTS):
        if isinstance(damaged, dict) and damaged.get("id") == 1 and damaged["id"] is not True:
            damaged = damaged | {"id": 1000 + i}
        annotations += [damaged, clock(2000 + i)]
    content = document(*annotations, images=images, categories=[category(), {"id": 2}, 3, {}])
    items = read(write(tmp_path, train=content))
    by_position = {item.position: item for item in items}
    assert len(by_position) == len(items) == len(annotations)
    found = outcomes(by_position[f"annotations[{i + 1}]"] for i in range(len(annotations)))
    assert found[1::2] == [reason for _, reason in REJECTS]
    assert found[::2] == ["good"] * (len(REJECTS) + 1)
    for item in items:
        if isinstance(item, Reject):
            assert item.detail and len(item.detail) < 300 and "\n" not in item.detail


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("point", "label"),
    [
        *(([70.5, 60, visibility], [70.5, 60]) for visibility in (0.69, 1, 2, 2.0, 3, True, "2")),
        *(([70.5, 60, visibility], None) for visibility in (0, 0.0, False, -1, None, NAN, "x")),
        *(([x, 60, 2], None) for x in (None, NAN, -INFINITY, 10**400, 1e6, "", "NaN")),
        ([70.5, None, 1], None),
        (["70.5", 60, 1], [70.5, 60]),
    ],
)
def test_an_odd_number_costs_a_point_at_most(tmp_path, point, label):
    (item,) = read(write(tmp_path, train=document(clock(keypoints=[*POINTS[:6], *point]))))
    np.testing.assert_array_equal(item.landmarks, [[50, 60], [50, 40], label or [0, 0]])
    np.testing.assert_array_equal(item.weights, [1, 1, label is not None])
    unlabelled = point[2] in (0, -1)
    assert item.notes == (() if label or unlabelled else ("lost_points",))


@pytest.mark.parametrize(
    "bbox",
    [
        *(..., None, [], {}, "box", [1, 2, 3], [1, 2, None, 4], [0, 0, 0, 0], [40, 30, 40, 0.0]),
        *([40, 30, 0.5, 50], [40, 30, 40, -4], [1, 2, NAN, 4], [1, 2, 3, 10**400], [1, 2, 3, 1e7]),
        [1e308, 2, 1e308, 4],
    ],
)
def test_where_there_is_no_usable_box_that_of_the_points_stands_for_it(tmp_path, bbox):
    content = document(clock(bbox=bbox), clock(2, bbox=["40", 30, 40.0, 50]))
    odd, sound = read(write(tmp_path, train=content))
    # Points are from (50, 40) to (70.5, 60); the margin is 0.15 times 20.5.
    np.testing.assert_allclose(odd.box, [46.925, 36.925, 73.575, 63.075])
    assert (odd.notes, sound.notes) == (("box_from_points",), ())
    np.testing.assert_array_equal(sound.box, [40, 30, 80, 80])


def test_the_box_of_level_points_has_a_height_and_an_unlabelled_point_is_not_in_it(tmp_path):
    level = [50, 60, 2, 0, 0, 0, 150, 60, 2]
    (item,) = read(write(tmp_path, train=document(clock(keypoints=level, bbox=[50, 60, 100, 0]))))
    np.testing.assert_allclose(item.box, [35, 45, 165, 75])


def test_an_image_listed_twice_under_one_name_is_one_image(tmp_path):
    items = read(write(tmp_path, train=document(clock(), images=[photo(), photo(width=3)])))
    assert outcomes(items) == ["good"]


@pytest.mark.parametrize("id", [..., None, 1.5, True, [1], "x" * 5000, 0])
def test_without_ids_the_position_is_the_id(tmp_path, id):
    points = [[x, *POINTS[1:]] for x in (50, 51, 52)]
    items = read(write(tmp_path, train=document(*(clock(id, keypoints=each) for each in points))))
    ids = ["a.jpg#0" if id == 0 and id is not False else "a.jpg#annotations[1]"]
    assert [i.id for i in items] == [*ids, "a.jpg#annotations[2]", "a.jpg#annotations[3]"]
    assert [i.notes for i in items][1:] == [("position_as_id",)] * 2
    assert [i.landmarks[0, 0] for i in items] == [50, 51, 52]


def test_only_the_same_annotation_is_a_duplicate(tmp_path):
    annotations = [clock(7), clock(7), clock(7, image_id=2), clock(7.0), clock(7, bbox=None)]
    items = read(write(tmp_path, train=document(*annotations)))
    assert outcomes(items) == ["good", "duplicate_id", "duplicate_id", "good", "good"]
    assert [item.id for item in items][3:] == ["a.jpg#annotations[5]", "b.jpg#annotations[3]"]


@pytest.mark.parametrize("other", [1.0, "1"])
def test_a_whole_number_is_an_id_however_it_is_written(tmp_path, other):
    one = document(clock(category_id=other, image_id=other))
    two = document(clock(), images=[photo(other)], categories=[category(id=other)])
    for name, content in (("one", one), ("two", two)):
        (item,) = read(write(tmp_path / name, train=content))
        assert (item.id, item.people) == ("a.jpg#1", 1)


def test_a_number_and_a_text_are_two_ids_where_both_are_there(tmp_path):
    images = [photo(1, "number.jpg"), photo("1", "text.jpg"), photo('"', "quote.jpg")]
    annotations = [clock(i, image_id=image) for i, image in enumerate((1, "1", '"', "01"))]
    items = read(write(tmp_path, train=document(*annotations, images=images)))
    assert [item.image for item in items] == ["number.jpg", "text.jpg", "quote.jpg", ""]


def test_ids_are_numbers_or_texts(tmp_path):
    annotations = [clock(1), clock("1"), clock('é"'), clock("\ud800"), clock(-(10**30))]
    items = read(write(tmp_path, train=document(*annotations)))
    assert outcomes(items) == ["good"] * 5
    expected = ["a.jpg#1", 'a.jpg#"1"', 'a.jpg#"é\\""', 'a.jpg#"?"', f"a.jpg#-1{'0' * 30}"]
    assert [item.id for item in items] == expected


def test_no_surrogate_and_no_nul_of_a_name_stops_anything(tmp_path):
    images = [photo(1, "\udc80\ud83d\ude00.jpg"), photo(2, "\0.jpg")]
    items = read(write(tmp_path, train=document(clock(1), clock(2, image_id=2), images=images)))
    assert [item.image for item in items] == ["?😀.jpg", "\0.jpg"]


def test_an_annotation_in_two_files_is_used_once(tmp_path):
    train, test = document(clock(1), clock(2)), document(clock(2), clock(3), clock(1, image_id=2))
    items = read(write(tmp_path, train=train, test=test))
    assert outcomes(items) == ["good", "good", "duplicate_id", "good", "good"]
    assert items[2].id == "a.jpg#2" and items[2].split == "test"


# Any values at all, and any number of them.

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
texts = st.text(st.characters(), max_size=5) | st.sampled_from(["\ud800", "../b.jpg"])


@st.composite
def damage(draw):
    """A sound document, some of whose fields or elements are anything, and the id of a sound clock."""
    sound = document(clock(1), clock(2), clock(3), images=[photo(), photo(2, "b.jpg")])
    content = copy.deepcopy(sound) | {"annotations": list(sound["annotations"])}
    for _ in range(draw(st.integers(1, 3))):
        part, item = draw(st.sampled_from([("images", 1), ("annotations", 1), ("categories", 0)]))
        if draw(st.booleans()) and isinstance(content[part][item], dict):
            key = draw(st.sampled_from([*content[part][item], "attributes"]))
            content[part][item] = content[part][item] | {key: draw(values | texts)}
        else:
            content[part][item] = draw(values)
    return content


@settings(max_examples=300)
@given(damage())
def test_any_values_give_entries_or_one_line(tmp_path_factory, content):
    directory = write(tmp_path_factory.mktemp("any"), train=json.dumps(content).encode())
    try:
        items = read(directory)
    except ValueError as error:
        assert "categor" in str(error) or "must name each landmark" in str(error)
        assert str(directory) in str(error) and len(str(error).splitlines()) == 1
        return
    assert len(items) == 3
    if content["categories"] == [category()] and content["images"][1] == photo(2, "b.jpg"):
        assert {"a.jpg#1", "a.jpg#3"} <= {i.id for i in items if isinstance(i, Annotation)}
    for item in items:
        assert item.image.encode() is not None and item.id.encode() is not None
        if isinstance(item, Annotation):
            assert np.all(np.isfinite(item.landmarks)) and np.all(np.isfinite(item.box))
            assert np.isfinite(item.normalizer) and item.people >= 1


def peak(directory, count):
    """The Python memory that listing so many annotations takes; SQLite's own is bounded by a pragma."""
    annotations = [clock(i, image_id=i % (count // 2)) for i in range(count)]
    images = [photo(i, f"{i}.jpg") for i in range(count // 2)]
    source = Source(str(write(directory, train=document(*annotations, images=images))))
    made = Coco.from_options(source)
    tracemalloc.start()
    try:
        assert sum(1 for _ in made.entries(source)) == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_data_set(tmp_path):
    few, many = peak(tmp_path / "few", 2_000), peak(tmp_path / "many", 20_000)
    assert many < 1.3 * few < 2**25


# Real files.


@pytest.mark.parametrize(
    ("folder", "file", "name", "unlabelled"),
    [
        ("coco", "test_coco.json", "coco", 2),
        ("coco", "test_coco_wholebody.json", "coco", 2),
        ("wflw", "test_wflw.json", "wflw", 0),
        ("300wlp", "test_300wlp.json", "300w_lp", 0),
    ],
)
def test_real_files_give_what_json_says(shared_data, folder, file, name, unlabelled):
    directory = shared_data / "real_samples" / folder
    content = json.loads((directory / file).read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    theirs = {f"{names[a['image_id']]}#{a['id']}": a for a in content["annotations"]}
    items = read(directory, name, [f"test={file}"])
    assert [item.id for item in items if isinstance(item, Reject)] == [
        id for id, a in theirs.items() if not a["num_keypoints"]
    ]
    assert outcomes(items).count("unlabelled") == unlabelled
    assert len(items) == len(theirs) and {item.split for item in items} == {"test"}
    for item in items:
        a = theirs[item.id]
        if isinstance(item, Annotation):
            keypoints = np.array(a["keypoints"], float).reshape(-1, 3)
            labelled = keypoints[:, 2] > 0
            np.testing.assert_array_equal(item.weights, labelled)
            np.testing.assert_array_equal(item.landmarks[labelled], keypoints[labelled, :2])
            assert not item.landmarks[~labelled].any()
            x, y, width, height = a["bbox"]
            np.testing.assert_array_equal(item.box, [x, y, x + width, y + height])
            assert (directory / item.image).is_file() and item.normalizer > 0
            same_image = [b for b in content["annotations"] if b["image_id"] == a["image_id"]]
            assert item.people == len(same_image)


def test_real_files_that_are_no_keypoints_say_so(shared_data):
    directory = shared_data / "real_samples/coco"
    with pytest.raises(ValueError, match=r"is not COCO keypoints: the top level is a list$"):
        read(directory, "coco", ["test=test_coco_det_AP_H_56.json"])
    items = read(directory, "coco", ["test=test_keypoint_partition_metric.json"])
    assert outcomes(items) == ["wrong_keypoint_count"] * 14
