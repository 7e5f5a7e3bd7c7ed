"""Files of what is in doubt, read back by the readers that turn such files into data sets."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from pycocotools.coco import COCO

from pipelines.readers.pose_csv import read_pose_table
from pipelines.storage import Source
from tfhuber.audit.label_files import write_coco, write_dlc
from tfhuber.audit.run_audit import Suspect
from tfhuber.data import records
from tfhuber.data.split import open_split, stored_examples
from tfhuber.evaluation.predictions import collect
from tfhuber.runs.load import load_run, read_config

FOUND = [
    Suspect(5, "points", 7, 9.0),
    Suspect(2, "left-right", None, 4.0),
    Suspect(5, "points", 1, 3.0),
]


@pytest.fixture(scope="module")
def seen(tiny_run):
    predictor, config = load_run(tiny_run), read_config(tiny_run)
    split = open_split(config.data.directory, config.data.train_split)
    found = collect(predictor, split)
    found.weights[5, 3] = 0
    return split, found


def test_coco_reads_the_labels_and_the_doubt(seen, tmp_path, capsys):
    split, found = seen
    write_coco(tmp_path / "suspects.json", FOUND, found, split)
    coco = COCO(str(tmp_path / "suspects.json"))
    first, second = coco.loadAnns([1, 2])
    names = split.landmark_set.names
    assert first["doubt"] == [names[7], names[1]] and first["score"] == 9
    assert second["doubt"] == ["left-right"]
    (image,) = coco.loadImgs(first["image_id"])
    assert f"{image['file_name']}#".encode() == found.id[5][: len(image["file_name"]) + 1]
    keypoints = np.reshape(first["keypoints"], (-1, 3))
    assert keypoints[3].tolist() == [0, 0, 0] and first["num_keypoints"] == len(names) - 1
    np.testing.assert_allclose(np.delete(keypoints[:, :2] - found.truth[5], 3, 0), 0, atol=6e-3)
    x, y, width, height = first["bbox"]
    inside = (found.truth[5].mean(0) > (x, y)) & (found.truth[5].mean(0) < (x + width, y + height))
    assert inside.all() and image["width"] > width * 0.5
    (category,) = coco.loadCats([1])
    assert category["keypoints"] == list(names)
    assert np.min(category["skeleton"]) == 1  # COCO counts from 1


def test_deeplabcut_frames_have_their_csv_and_others_none(seen, tmp_path):
    split, found = seen
    path = tmp_path / "CollectedData_audit.csv"
    assert not write_dlc(path, FOUND, found, split) and not path.exists()
    # As `--dataset dlc` names them, below `labeled-data`.
    ids = [f"film/img{i}.png".encode() for i in range(len(found.id))]
    frames = dataclasses.replace(found, id=np.array(ids, object))
    manifest = records.read_manifest(split.directory)
    manifest["parameters"]["dataset"] = "dlc"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    project = dataclasses.replace(split, directory=tmp_path)
    assert write_dlc(path, FOUND, frames, project)
    table = read_pose_table(Source(str(tmp_path)), path.name, "audit")
    rows = {image: parts for _, image, animals in table.frames() for parts in animals.values()}
    assert list(rows) == ["labeled-data/film/img5.png", "labeled-data/film/img2.png"]
    points, names = rows["labeled-data/film/img5.png"], split.landmark_set.names
    np.testing.assert_allclose(points[names[7]], found.truth[5, 7], atol=6e-4)
    assert names[3] not in points or np.isnan(points[names[3]]).all()
    two = np.array([id.replace(b"img2", b"img5") for id in ids], object)  # animals in one frame
    path.unlink()
    assert not write_dlc(path, FOUND, dataclasses.replace(found, id=two), project)
    assert not path.exists()


def test_a_real_project_gets_its_own_rows_back(shared_records, shared_data, tmp_path):
    """Of DeepLabCut's own example: frame and labels are those of its CSV, to what float32 holds."""
    output, *_ = shared_records("animals/deeplabcut_reaching", "dlc")
    split = open_split(output, "train")
    stored = [tf.nest.map_structure(lambda v: v.numpy(), e) for e in stored_examples(split)]
    found = SimpleNamespace(
        id=np.array([each["id"] for each in stored], object),
        truth=np.stack([each["landmarks"] for each in stored]),
        weights=np.stack([each["weights"] for each in stored]),
    )
    path = tmp_path / "CollectedData_audit.csv"
    doubted = [Suspect(5, "points", 1, 9.0), Suspect(2, "left-right", None, 4.0)]
    assert write_dlc(path, doubted, found, split)
    ours = read_pose_table(Source(str(tmp_path)), path.name, "audit")
    source = Source(str(shared_data / "animals/deeplabcut_reaching"))
    name = "labeled-data/reachingvideo1/CollectedData_Mackenzie.csv"
    theirs = {image: animals for _, image, animals in read_pose_table(source, name).frames()}
    rows = list(ours.frames())
    assert len(rows) == 2
    for _, image, animals in rows:
        for animal, parts in animals.items():
            for part, point in parts.items():
                np.testing.assert_allclose(point, theirs[image][animal][part], atol=2e-3)


def test_the_file_is_json_of_what_is_there_alone(seen, tmp_path):
    split, found = seen
    write_coco(Path(tmp_path) / "one.json", FOUND[1:2], found, split)
    document = json.loads((tmp_path / "one.json").read_text())
    assert len(document["images"]) == len(document["annotations"]) == 1
