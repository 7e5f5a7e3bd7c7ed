"""The reader of CVAT's COCO export: the skeleton of its category, and its subsets."""

import json

import numpy as np
import pytest
from conversion import convert, photograph
from reader_outcomes import read_all

from pipelines.readers.cvat import read_cvat
from pipelines.storage import Source

NAMES = ["nose", "left_ear", "right_ear"]
KEYPOINTS = [20, 30, 2, 60, 40, 2, 90, 80, 1]


def export(root, subsets=("default",), **category):
    """Writes the export of a task with an annotated picture for each subset."""
    chosen = {
        "id": 2,
        "name": "mouse",
        "keypoints": NAMES,
        "skeleton": [[1, 2], [1, 3]],
        **category,
    }
    for subset in subsets:
        photograph(root / "images" / subset / "frame_000000.png")
        content = {
            "images": [{"id": 1, "file_name": "frame_000000.png", "width": 200, "height": 180}],
            "annotations": [
                {
                    "id": 1,
                    "image_id": 1,
                    "category_id": 2,
                    "keypoints": KEYPOINTS,
                    "bbox": [10, 20, 100, 90],
                }
            ],
            "categories": [{"id": 1, "name": "cage", "keypoints": [], "skeleton": []}, chosen],
        }
        path = root / "annotations" / f"person_keypoints_{subset}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return root


def test_the_categorys_skeleton_becomes_the_landmark_set(tmp_path):
    found = read_cvat(Source(str(export(tmp_path))))
    assert found.landmark_set.name == "mouse" and found.landmark_set.names == tuple(NAMES)
    assert found.landmark_set.edges == ((0, 1), (0, 2)) and found.landmark_set.mirror == (0, 2, 1)
    assert any("left_ear - right_ear" in line for line in found.remarks)
    (item,) = read_all(found, tmp_path)
    np.testing.assert_array_equal(item.landmarks, [[20, 30], [60, 40], [90, 80]])
    np.testing.assert_array_equal(item.box, [10, 20, 110, 110])


def test_subsets_become_splits(tmp_path, capsys):
    export(tmp_path / "source", ("Train", "Validation"))
    manifest, rejects = convert(tmp_path / "source", tmp_path / "out", dataset="cvat")
    assert not rejects
    assert {name: split["examples"] for name, split in manifest["splits"].items()} == {
        "train": 1,
        "valid": 1,
    }
    assert "mirror pairs: left_ear - right_ear" in capsys.readouterr().out


def test_errors_of_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"no annotations/person_keypoints_SUBSET\.json; export"):
        read_cvat(Source(str(tmp_path)))
    with pytest.raises(ValueError, match="the subset 'mice'; say what its split is"):
        read_cvat(Source(str(export(tmp_path / "a", ("mice",)))))
    found = read_cvat(
        Source(str(tmp_path / "a")), annotations=["train=annotations/person_keypoints_mice.json"]
    )
    assert len(read_all(found, tmp_path / "a")) == 1
    with pytest.raises(ValueError, match="no category of any name with keypoints"):
        read_cvat(Source(str(export(tmp_path / "b", keypoints=[]))))
