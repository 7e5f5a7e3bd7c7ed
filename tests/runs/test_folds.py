"""Folds: each photograph is left out once, with all that is on it, and nothing is lost or changed."""

import json

import numpy as np
import pytest

from tfhuber.data import records
from tfhuber.data.photographs import photograph_name
from tfhuber.data.tfrecord import read_records
from tfhuber.runs.folds import HELD, Folds, make_fold, read_folds, units


def read(directory, split):
    manifest = records.read_manifest(directory)
    found = {}
    for path in records.shard_paths(directory, manifest, split):
        with open(path, "rb") as file:
            for record in read_records(file):
                found[records.decode(record)["id"].decode()] = record
    assert len(found) == manifest["splits"][split]["examples"]
    return found


def test_every_example_is_left_out_once_and_kept_as_it_was(face_records, tmp_path):
    whole, held = read(face_records, "train"), {}
    for i in range(3):
        make_fold(tmp_path / str(i), face_records, "train", i, 3, "photograph")
        kept, left = (read(tmp_path / str(i), split) for split in ("train", HELD))
        assert kept | left == whole and not kept.keys() & left.keys()
        photographs = [{photograph_name(id) for id in part} for part in (kept, left)]
        assert not photographs[0] & photographs[1]
        assert len(left) == pytest.approx(len(whole) / 3, abs=0.15 * len(whole))
        held |= left
    assert held == whole
    before = (tmp_path / "0" / "manifest.json").stat().st_mtime_ns
    make_fold(tmp_path / "0", face_records, "train", 0, 3, "photograph")
    assert (tmp_path / "0" / "manifest.json").stat().st_mtime_ns == before


def test_folders_stay_together():
    ids = [f"labeled-data/film{i % 4}/img{i}.png#0" for i in range(40)]
    found = units(ids, "folder", 4)
    assert sorted(found) == [f"labeled-data/film{i}" for i in range(4)]
    assert sorted(found.values()) == [0, 1, 2, 3]
    assert found == units(ids[::-1], "folder", 4)
    counts = np.bincount(list(units(ids, "photograph", 7).values()))
    assert counts.sum() == 40 and np.ptp(counts) <= 1
    with pytest.raises(ValueError, match="4 folders, fewer than 5 folds; divide by photograph"):
        units(ids, "folder", 5)


def test_the_list_comes_back_while_the_data_are_the_same(face_records, tmp_path):
    sha256 = records.read_manifest(face_records)["sha256"]
    directories = (tmp_path / "fold-0", tmp_path / "fold-1")
    made = Folds(face_records, "train", sha256, directories)
    made.write(tmp_path)
    assert read_folds(tmp_path) == made
    Folds(face_records, "train", "other", directories).write(tmp_path)
    with pytest.raises(ValueError, match="has changed since"):
        read_folds(tmp_path)


def test_folds_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no folds\.json.* makes them, or goes on"):
        read_folds(tmp_path)
    (tmp_path / "folds.json").write_text(json.dumps({"data": "x"}))
    with pytest.raises(ValueError, match="damaged"):
        read_folds(tmp_path)
