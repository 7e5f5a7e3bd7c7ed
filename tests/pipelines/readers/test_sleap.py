"""The reader of SLEAP's projects, which `sleap-io` writes here: frames inside, in videos, in pictures."""

import io
import sys

import numpy as np
import pytest
import sleap_io
from conversion import convert, photograph
from PIL import Image
from pose_projects import points
from reader_outcomes import read_all
from video_files import make_video

from pipelines.readers.sleap import Sleap
from pipelines.readers.video_frames import tail_in
from pipelines.storage import Source

NODES = ["nose", "earL", "earR", "tail"]


def skeleton(nodes=tuple(NODES), symmetries=(("earL", "earR"),)):
    edges = [("nose", "earL"), ("nose", "earR")]
    return sleap_io.Skeleton(
        nodes=list(nodes), edges=edges, symmetries=list(symmetries), name="mouse"
    )


def pictures(root, count=3):
    for index in range(count):
        photograph(root / "frames" / f"{index}.png", seed=index)
    return sleap_io.Video([str(root / "frames" / f"{index}.png") for index in range(count)])


def labelled(video, places, bones=None):
    """Labels of frames of a video, each with several instances."""
    bones = bones or skeleton()
    return sleap_io.Labels(
        [
            sleap_io.LabeledFrame(
                video, index, [sleap_io.Instance.from_numpy(each, bones) for each in instances]
            )
            for index, instances in places.items()
        ]
    )


def reader(root, **options):
    return Sleap.from_options(Source(str(root)), **options)


def test_pictures_beside_a_project_are_found_on_any_machine(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    missing = points(1)
    missing[2] = np.nan
    labels = labelled(pictures(tmp_path / "elsewhere"), {0: [missing], 2: [points(2), points(3)]})
    labels.save(str(tmp_path / "elsewhere" / "labels.slp"), verbose=False)
    (tmp_path / "elsewhere").rename(tmp_path / "here")
    found = reader(tmp_path / "here")
    assert found.landmark_set.names == tuple(NODES) and found.landmark_set.name == "mouse"
    assert found.landmark_set.edges == ((0, 1), (0, 2)) and found.landmark_set.mirror == (
        0,
        2,
        1,
        3,
    )
    items = read_all(found, tmp_path / "here")
    assert [item.id for item in items] == ["frames/0.png", "frames/2.png#0", "frames/2.png#1"]
    np.testing.assert_array_equal(items[0].weights, [1, 1, 0, 1])
    np.testing.assert_array_equal(items[2].landmarks, points(3))
    manifest, rejects = convert(tmp_path / "here", tmp_path / "out", dataset="sleap")
    assert not rejects
    assert sum(split["examples"] for split in manifest["splits"].values()) == 3


def test_frames_inside_a_package_are_the_pictures_they_were(tmp_path):
    labels = labelled(pictures(tmp_path), {0: [points(1)], 2: [points(2)]})
    (tmp_path / "packed").mkdir()
    labels.save(str(tmp_path / "packed/labels.pkg.slp"), embed=True, verbose=False)
    source = Source(str(tmp_path / "packed"))
    found = reader(tmp_path / "packed")
    entries = list(found.entries(source))
    assert [entry.image for entry in entries] == [
        "labels.pkg.slp#0/000000",
        "labels.pkg.slp#0/000002",
    ]
    for entry, index in zip(entries, (0, 2), strict=True):
        assert found.makes(entry.image)
        with Image.open(io.BytesIO(found.picture(entry.image, source))) as picture:
            expected = np.array(Image.open(tmp_path / "frames" / f"{index}.png"))
            np.testing.assert_array_equal(np.array(picture), expected)
    manifest, rejects = convert(tmp_path / "packed", tmp_path / "out", dataset="sleap")
    assert not rejects
    assert sum(split["examples"] for split in manifest["splits"].values()) == 2


def test_frames_of_videos_are_decoded_and_the_videos_not_divided(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    frames, videos = [], []
    for name in ("a", "b"):
        path = make_video(source / f"{name}.mp4", count=4)
        videos.append(sleap_io.load_video(str(path)))
        bones = frames[0].instances[0].skeleton if frames else skeleton()
        frames += labelled(videos[-1], {1: [points(1, size=(160, 120))]}, bones).labeled_frames
    sleap_io.Labels(frames, videos=videos).save(str(source / "labels.slp"), verbose=False)
    found = reader(source)
    assert found.by_video
    entries = list(found.entries(Source(str(source))))
    assert [entry.image for entry in entries] == ["a.mp4#000001", "b.mp4#000001"]
    assert found.photograph(entries[0].image) == "a.mp4"
    manifest, rejects = convert(source, tmp_path / "out", "--box", "frame", dataset="sleap")
    assert not rejects
    assert {name: split["examples"] for name, split in manifest["splits"].items()} == {
        "train": 1,
        "valid": 1,
    }


def test_what_cannot_be_read_is_a_reject(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    video = sleap_io.load_video(str(make_video(source / "a.mp4", count=4)))
    bones = skeleton()
    frames = labelled(
        video, {0: [points(1, size=(160, 120))], 77: [points(2)]}, bones
    ).labeled_frames
    outside = tmp_path / "secret.mp4"
    make_video(outside, count=2)
    away = sleap_io.load_video(str(outside))
    frames += labelled(away, {0: [points(3)]}, bones).labeled_frames
    labels = sleap_io.Labels(frames, videos=[video, away])
    labels.save(str(source / "labels.slp"), verbose=False)
    _, rejects = convert(source, tmp_path / "out", "--split", "official", dataset="sleap")
    assert [(each["image"].rpartition("/")[2], each["reason"]) for each in rejects] == [
        ("a.mp4#000077", "unreadable_image"),
        ("secret.mp4#000000", "path_outside_source"),
    ]


def test_predictions_are_no_labels(tmp_path):
    bones = skeleton()
    labels = labelled(pictures(tmp_path), {0: [points(1)]}, bones)
    predicted = sleap_io.PredictedInstance.from_numpy(points(2), bones, np.ones(4), score=1.0)
    labels.append(sleap_io.LabeledFrame(labels.video, 1, [predicted]))
    labels.save(str(tmp_path / "labels.slp"), verbose=False)
    assert [item.id for item in read_all(reader(tmp_path), tmp_path)] == ["frames/0.png"]


def test_errors_of_one_line(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"no \.slp file"):
        reader(tmp_path)
    (tmp_path / "a.slp").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"a\.slp is no SLEAP project"):
        reader(tmp_path)
    (tmp_path / "b.slp").write_bytes(b"")
    with pytest.raises(ValueError, match=r"several \.slp files, a\.slp, b\.slp; .*--annotations"):
        reader(tmp_path)
    monkeypatch.setitem(sys.modules, "sleap_io", None)
    with pytest.raises(ValueError, match=r"needs sleap-io: pip install -e '\.\[formats\]'"):
        reader(tmp_path, annotations=["train=a.slp"])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (r"C:\mice\videos\a.mp4", "videos/a.mp4"),
        ("/home/me/videos/a.mp4", "videos/a.mp4"),
        ("videos/a.mp4", "videos/a.mp4"),
        ("/else/b.mp4", "b.mp4"),
        ("/else/c.mp4", "/else/c.mp4"),
        ("../videos/a.mp4", "../videos/a.mp4"),
    ],
)
def test_the_longest_end_of_a_path_is_found(path, expected):
    assert tail_in(path, {"videos/a.mp4", "a.mp4", "b.mp4"}.__contains__) == expected
