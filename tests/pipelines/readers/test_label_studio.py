"""The reader of Label Studio's JSON: whose keypoints are whose, and where the pictures are."""

import json

import numpy as np
import pytest
import sleap_io
from conversion import convert, photograph
from pose_projects import points
from reader_outcomes import read_all
from video_files import make_video

from pipelines.readers.annotation import Reject
from pipelines.readers.label_studio import LabelStudio
from pipelines.storage import Source

SIZE = {"original_width": 200, "original_height": 100, "image_rotation": 0}


def keypoint(label, x, y, id, **more):
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [label]}
    return {"type": "keypointlabels", "id": id, "value": value, **SIZE, **more}


def rectangle(x, y, width, height, id, **more):
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    value |= {"rectanglelabels": ["mouse"], **more}
    return {"type": "rectanglelabels", "id": id, "value": value, **SIZE}


def task(*result, image="/data/upload/1/0a1b2c3d-a.png", **more):
    return {"data": {"image": image}, "annotations": [{"result": list(result)}], **more}


def read(root, *tasks):
    root.mkdir(exist_ok=True)
    (root / "export.json").write_text(json.dumps(tasks), encoding="utf-8-sig")
    return read_all(LabelStudio.from_options(Source(str(root))), root)


def test_percent_become_pixels_with_centres_at_integers(tmp_path):
    """A pixel's centre lies half a pixel from its edge, where 0 % is."""
    (item,) = read(tmp_path, task(keypoint("tail", 50, 50, "a"), keypoint("nose", 0.25, 99.5, "b")))
    np.testing.assert_allclose(item.landmarks, [[0, 99], [99.5, 49.5]])
    assert item.size == (200, 100) and item.weights.tolist() == [1, 1]


def test_a_rectangle_is_the_box_of_the_points_that_belong_to_it(tmp_path):
    result = [
        rectangle(10, 10, 30, 60, "r1"),
        rectangle(50, 10, 30, 60, "r2"),
        keypoint("nose", 60, 20, "k1"),
        keypoint("nose", 70, 30, "k2", parentID="r1"),
        keypoint("tail", 5, 5, "k3"),
        {"type": "relation", "from_id": "k3", "to_id": "r2", "direction": "right"},
    ]
    first, second = read(tmp_path, task(*result))
    assert [first.id, second.id] == ["/data/upload/1/0a1b2c3d-a.png#0", f"{second.image}#1"]
    np.testing.assert_allclose(first.box, [19.5, 9.5, 79.5, 69.5])
    np.testing.assert_allclose(first.landmarks, [[139.5, 29.5], [0, 0]])
    np.testing.assert_allclose(second.landmarks, [[119.5, 19.5], [9.5, 4.5]])
    assert first.people == 2


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/1/0a1b2c3d-a.png",
        "/data/local-files/?d=mine/photos/a.png",
        "http://localhost:8080/data/upload/1/0a1b2c3d-a.png",
        "s3://bucket/photos/a.png",
        "photos%2Fa.png",
    ],
)
def test_pictures_are_found_below_the_source(tmp_path, image):
    source = tmp_path / "source"
    photograph(source / "photos/a.png" if "photos" in image else source / "a.png", size=(200, 100))
    tasks = [task(keypoint("nose", 50, 50, "a"), keypoint("tail", 80, 80, "b"), image=image)]
    (item,) = read(source, *tasks)
    assert item.image == ("photos/a.png" if "photos" in image else "a.png")
    manifest, rejects = convert(source, tmp_path / "out", dataset="labelstudio")
    assert not rejects and manifest["splits"]["train"]["examples"] == 1


@pytest.mark.parametrize(
    ("result", "reason", "detail"),
    [
        ([], "unlabelled", ""),
        (
            [keypoint("nose", 1, 2, "a"), keypoint("nose", 3, 4, "b")],
            "malformed_annotation",
            "twice",
        ),
        ([keypoint("nose", "1", 2, "a")], "malformed_annotation", "no numbers"),
        ([keypoint("nose", 1, 2, "a", image_rotation=90)], "malformed_annotation", "turned by 90"),
        ([keypoint("nose", 1, 2, "a", original_width=None)], "malformed_annotation", "original"),
    ],
)
def test_a_task_that_cannot_be_used_is_a_reject(tmp_path, result, reason, detail):
    good = task(keypoint("nose", 50, 50, "a"), keypoint("tail", 60, 60, "b"), image="b.png")
    bad, _ = read(tmp_path, task(*result), good)
    assert isinstance(bad, Reject) and (bad.reason, bad.position) == (reason, "[1]")
    assert detail in bad.detail


def test_cancelled_annotations_do_not_count(tmp_path):
    wanted = task(keypoint("nose", 50, 50, "a"), keypoint("tail", 60, 60, "b"))
    cancelled = {"was_cancelled": True, "result": [keypoint("nose", 1, 1, "c")]}
    wanted["annotations"].insert(0, cancelled)
    (item,) = read(tmp_path, wanted)
    np.testing.assert_allclose(item.landmarks[0], [99.5, 49.5])


def test_what_sleap_io_has_written_comes_back_as_it_was(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    video = sleap_io.load_video(str(make_video(source / "a.mp4", count=3)))
    bones = sleap_io.Skeleton(nodes=["nose", "earL", "earR", "tail"])
    place = points(1, size=(160, 120))
    frame = sleap_io.LabeledFrame(video, 1, [sleap_io.Instance.from_numpy(place, bones)])
    sleap_io.save_labelstudio(sleap_io.Labels([frame]), str(source / "labels.json"))
    found = LabelStudio.from_options(Source(str(source)))
    (item,) = read_all(found, source)
    names = [found.landmark_set.names.index(name) for name in ("nose", "earL", "earR", "tail")]
    np.testing.assert_allclose(item.landmarks[names], place, atol=1e-4)
    assert item.image == "a.mp4#000001" and item.notes == ("box_from_points",)
    _, rejects = convert(source, tmp_path / "out", dataset="labelstudio")
    assert not rejects


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no \.json file"),
        ("{}", "no list of tasks"),
        ("[1]", "no list of tasks"),
        ("[", "no export JSON"),
        ('[{"nose": [{"x": 1}]}]', "not as JSON-MIN"),
    ],
)
def test_errors_of_one_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        LabelStudio.from_options(Source(str(tmp_path)))
