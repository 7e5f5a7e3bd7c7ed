"""The reader of Lightning Pose's layout: files of labels, views, and which frames are of one video."""

import numpy as np
import pytest
from conversion import photograph
from pose_projects import points, table, write_table
from reader_outcomes import Annotation, read_all

from pipelines.readers.lightning_pose import LightningPose
from pipelines.storage import Source

PARTS = ("paw1LH", "paw2RH", "nose", "tail")


def project(root, files):
    """Writes files of frames, given by name; returns the points by path."""
    placed = {}
    for name, paths in files.items():
        rows = [(path, points(len(placed) + index)) for index, path in enumerate(paths)]
        placed |= dict(rows)
        write_table(root / name, table(rows, PARTS))
        for path in paths:
            photograph(root / path)
    return placed


def reader(root, **options):
    return LightningPose.from_options(Source(str(root)), **options)


def test_frames_become_annotations(tmp_path):
    placed = project(
        tmp_path / "mouse", {"CollectedData.csv": ["labeled-data/1.png", "labeled-data/2.png"]}
    )
    found = reader(tmp_path / "mouse")
    assert found.landmark_set.name == "mouse" and found.landmark_set.names == PARTS
    assert found.landmark_set.mirror == (1, 0, 2, 3) and found.landmark_set.edges == ()
    items = read_all(found, tmp_path / "mouse")
    assert {item.image: item.landmarks.tolist() for item in items} == {
        path: place.tolist() for path, place in placed.items()
    }
    assert not found.by_video and any("of one video" in line for line in found.remarks)
    assert found.validation_fraction == 0.1


def test_folders_are_videos(tmp_path):
    paths = [f"labeled-data/{video}/{frame}.png" for video in "ab" for frame in (1, 2)]
    project(tmp_path, {"CollectedData.csv": paths})
    found = reader(tmp_path)
    assert found.by_video and found.photograph("labeled-data/a/1.png") == "labeled-data/a"
    assert not reader(tmp_path, split_by="frame").by_video


@pytest.mark.parametrize(
    ("files", "paths"),
    [
        (("top.csv", "bot.csv"), "labeled-data/s{}_{}/img.png"),
        (("CollectedData_top.csv", "CollectedData_bot.csv"), "labeled-data/s{}-{}/img.png"),
        (("CollectedData_top.csv", "CollectedData_bot.csv"), "{1}/s{0}/img.png"),
    ],
)
def test_views_of_a_moment_are_not_divided(tmp_path, files, paths):
    views = [file.removeprefix("CollectedData_").removesuffix(".csv") for file in files]
    named = {
        file: [paths.format(session, view) for session in (1, 2)]
        for file, view in zip(files, views, strict=True)
    }
    placed = project(tmp_path, named)
    found = reader(tmp_path)
    items = read_all(found, tmp_path)
    assert len(items) == 4 and all(isinstance(item, Annotation) for item in items)
    for item in items:
        np.testing.assert_array_equal(item.landmarks, placed[item.image])
    assert found.by_video
    for one in (found, reader(tmp_path, split_by="frame")):
        for session in (1, 2):
            same = {one.photograph(paths.format(session, view)) for view in views}
            assert len(same) == 1
        both = {one.photograph(paths.format(session, views[0])) for session in (1, 2)}
        assert len(both) == 2


def test_labels_of_new_videos_are_the_test_split(tmp_path):
    project(tmp_path, {"CollectedData.csv": ["a/1.png"], "CollectedData_new.csv": ["b/1.png"]})
    project(tmp_path, {"predictions.csv": ["a/1.png"]})
    found = reader(tmp_path)
    assert [item.split for item in read_all(found, tmp_path)] == ["test", "train"][::-1]
    assert found.validation_fraction == 0
    found = reader(tmp_path, annotations=["train=CollectedData_new.csv"])
    assert [item.image for item in read_all(found, tmp_path)] == ["b/1.png"]


def test_errors_of_one_line(tmp_path):
    with pytest.raises(ValueError, match="no CSV file with labels"):
        reader(tmp_path)
    with pytest.raises(ValueError, match=r"absent\.csv is missing"):
        reader(tmp_path, annotations=["train=absent.csv"])
    text = table([("a.png", points(1))], ("nose", "tail"), individuals=["m1", "m2"])
    write_table(tmp_path / "CollectedData.csv", text)
    with pytest.raises(ValueError, match="several individuals"):
        reader(tmp_path)


def test_the_real_frames(shared_data):
    root = shared_data / "animals/lightning_pose_mirror_mouse"
    items = read_all(reader(root), root)
    assert len(items) == 90 and all(isinstance(item, Annotation) for item in items)
    np.testing.assert_array_equal(items[0].landmarks[0], [77.25, 36.25])
    assert items[0].weights.sum() == 15
