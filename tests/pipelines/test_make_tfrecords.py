"""The conversion as a whole: exact counts, damage that costs only itself, whole output or none."""

import shutil

import clock_keypoints
import numpy as np
import pytest
import tensorflow as tf
from conversion import arguments, contents, convert, damaged_faces, faces, photograph, run
from official_layouts import (
    EMPTY,
    WFLW_LISTS,
    face,
    image,
    person,
    points,
    real_faces,
    real_people,
    write_mpii,
    write_wflw,
)
from PIL import Image

from pipelines import make_tfrecords
from pipelines.verify import verify
from tfhuber.data import records
from tfhuber.landmarks import known_sets


def examples(output, split, landmark_set=known_sets.WFLW):
    paths = records.shard_paths(output, records.read_manifest(output), split)
    for serialized in tf.data.TFRecordDataset(paths):
        yield {k: v.numpy() for k, v in records.parse(serialized, landmark_set).items()}


def ids(output, split, landmark_set=known_sets.WFLW):
    return [example["id"].decode() for example in examples(output, split, landmark_set)]


# --- what is written


def test_faces_become_examples_in_the_lists_order(tmp_path, capsys):
    source = faces(tmp_path / "source")
    manifest, rejects = convert(source, tmp_path / "out", "--shard-examples", "4")
    assert rejects == []
    assert known_sets.parse(manifest["landmark_set"]) == known_sets.WFLW
    assert manifest["parameters"]["size"] == 32 and manifest["versions"].keys() >= {"tfhuber"}
    shards = ["train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord"]
    train, test = manifest["splits"]["train"], manifest["splits"]["test"]
    assert (train["examples"], train["rejects"], train["rejects_by_reason"]) == (6, 0, {})
    assert [(shard["name"], shard["examples"]) for shard in train["shards"]] == [
        *zip(shards, (4, 2), strict=True)
    ]
    assert (test["examples"], test["shards"][0]["name"]) == (3, "test-00000-of-00001.tfrecord")
    wanted = {*shards, "test-00000-of-00001.tfrecord"}
    wanted |= {"manifest.json", "rejects.jsonl", "contact_sheet.png"}
    assert contents(tmp_path / "out").keys() == wanted
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}
    assert ids(tmp_path / "out", "train") == [
        f"0--Parade/train_{i // 2}.jpg#{i + 1}" for i in range(6)
    ]
    table = capsys.readouterr().out.splitlines()
    assert [line.split() for line in table[1:3]] == [["train", "6", "0"], ["test", "3", "0"]]
    assert str(tmp_path / "out") in table[3] and "rejects.jsonl" in table[3]


def test_an_example_holds_the_crop_and_the_original_labels(tmp_path):
    source = faces(tmp_path / "source", train=1)
    convert(source, tmp_path / "out")
    (example,) = examples(tmp_path / "out", "train")
    fields = face(seed=0)
    labels = np.array(fields[:196], np.float32).reshape(98, 2)
    np.testing.assert_array_equal(example["landmarks"], labels)
    np.testing.assert_array_equal(example["weights"], np.ones(98))
    np.testing.assert_array_equal(example["box"], [40, 30, 140, 150])
    np.testing.assert_array_equal(example["attributes"], [0, 1, 0, 0, 1, 0])
    assert example["normalizer"] == pytest.approx(np.hypot(*(labels[60] - labels[72])), rel=1e-6)
    # The crop's pixels are the image's, at the places that the map says.
    crop = tf.io.decode_jpeg(example["image"], dct_method="INTEGER_ACCURATE").numpy()
    y, x = np.mgrid[4 : crop.shape[0] - 4 : 5, 4 : crop.shape[1] - 4 : 5]
    grid = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    x_original, y_original, _ = example["crop_to_original"] @ grid
    with Image.open(source / "WFLW_images/0--Parade/train_0.jpg") as original:
        pixels = np.asarray(original, float)
    expected = pixels[y_original.round().astype(int), x_original.round().astype(int)]
    difference = np.abs(crop[y.ravel(), x.ravel()] - expected)
    assert difference.mean() < 6 < pixels.std() / 5


def test_the_same_input_gives_the_same_bytes(tmp_path):
    source = faces(tmp_path / "source")
    for name in ("one", "two"):
        convert(source, tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


# --- damage


def test_each_kind_of_damage_is_named_and_costs_only_itself(tmp_path):
    reasons = damaged_faces(tmp_path / "source")
    manifest, rejects = convert(tmp_path / "source", tmp_path / "out", "--shard-examples", "5")
    assert [reject["reason"] for reject in rejects] == reasons
    # Damaged lines are the even ones, good ones the odd.
    assert [r["position"] for r in rejects] == [f"line {2 * i + 2}" for i in range(len(reasons))]
    assert {r["source"] for r in rejects} == {f"{WFLW_LISTS}/list_98pt_rect_attr_train.txt"}
    assert all(reject["detail"] and reject["split"] == "train" for reject in rejects)
    assert ids(tmp_path / "out", "train") == [
        f"good.jpg#{2 * i + 1}" for i in range(len(reasons) + 1)
    ]
    split = manifest["splits"]["train"]
    assert (split["examples"], split["rejects"]) == (len(reasons) + 1, len(reasons))
    assert split["rejects_by_reason"] == {r: reasons.count(r) for r in sorted(set(reasons))}
    assert manifest["splits"]["test"]["examples"] == 1


def test_people_without_labels_or_with_bad_ones_are_counted(tmp_path):
    bare = {name: person()[name] for name in ("scale", "objpos")}
    write_mpii(
        tmp_path / "source",
        image(person(), person(annopoints=EMPTY), name="a.jpg"),
        image(person(), name="absent.jpg"),
        image(person(x1=EMPTY, annopoints=points({3: (70, 80)})), name="b.jpg"),
        image(bare, name="c.jpg", train=0),
        image(name="d.jpg", train=0),
    )
    for name in ("a.jpg", "b.jpg"):
        photograph(tmp_path / "source/images" / name)
    manifest, rejects = convert(
        tmp_path / "source", tmp_path / "out", "--validation-fraction", "0", dataset="mpii"
    )
    assert [(r["id"], r["split"], r["reason"]) for r in rejects] == [
        ("a.jpg#2", "train", "unlabelled"),
        ("absent.jpg#1", "train", "missing_image"),
        ("c.jpg#1", "test", "unlabelled"),
        ("d.jpg#0", "test", "no_people"),
    ]
    splits = manifest["splits"]
    assert (splits["train"]["examples"], splits["train"]["rejects"]) == (2, 2)
    assert (splits["test"]["examples"], splits["test"]["rejects"]) == (0, 2)
    first, second = examples(tmp_path / "out", "train", known_sets.MPII)
    assert (first["weights"].sum(), second["weights"].sum()) == (16, 1)
    assert (first["normalizer"], second["normalizer"]) == (pytest.approx(30), 0)


def test_nothing_usable_is_an_error_and_the_reasons_are_kept(tmp_path):
    source, output = tmp_path / "source", tmp_path / "out"
    write_wflw(source, [face("absent.jpg")], ["garbage"])
    with pytest.raises(ValueError, match=r"nothing could be used; (\S+) says why") as error:
        convert(source, output)
    rejects = tmp_path / ".out.partial/data/rejects.jsonl"
    assert str(rejects) in str(error.value) and not output.exists()
    assert len(rejects.read_text().splitlines()) == 2
    photograph(source / "WFLW_images/absent.jpg")  # Mended, it goes on.
    manifest, _ = convert(source, output)
    assert manifest["splits"]["train"]["examples"] == 1


# --- output whole or absent


def test_a_data_set_is_replaced_on_request_only(tmp_path):
    source, output = faces(tmp_path / "source"), tmp_path / "out"
    output.mkdir()  # An empty directory may be there.
    convert(source, output)
    before = contents(output)
    with pytest.raises(ValueError, match="already holds a converted data set; --overwrite"):
        convert(source, output, "--shard-examples", "2")
    assert contents(output) == before
    manifest, _ = convert(source, output, "--shard-examples", "2", "--overwrite")
    assert len(manifest["splits"]["train"]["shards"]) == 3
    assert sum(name.startswith("train") for name in contents(output)) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_other_peoples_files_are_never_replaced(tmp_path, overwrite):
    source = faces(tmp_path / "source")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("precious")
    for output in (tmp_path / "thesis", tmp_path / "thesis/chapter.txt"):
        with pytest.raises(ValueError, match="does not hold a converted data set; choose another"):
            convert(source, output, *overwrite)
    assert (tmp_path / "thesis/chapter.txt").read_text() == "precious"


@pytest.mark.parametrize("other", ["src", "thesis.txt"])
def test_a_data_set_with_something_else_in_it_is_not_replaced(tmp_path, other):
    source, output = faces(tmp_path / "source"), tmp_path / "out"
    convert(source, output)
    (output / other).mkdir()
    with pytest.raises(ValueError, match=f"is not replaced: '{other}' in it is no part of"):
        convert(source, output, "--overwrite")
    assert (output / other).is_dir()


@pytest.mark.parametrize("output", ["source", "."])
def test_the_source_is_never_replaced(tmp_path, output):
    source = faces(tmp_path / "source")
    with pytest.raises(ValueError, match="must not be the source, nor hold it"):
        convert(source, tmp_path / output, "--overwrite")
    assert (source / "WFLW_images").is_dir()


@pytest.mark.parametrize("put", ["link", "notes.txt"])
def test_somebody_elses_hidden_directory_is_left_alone(tmp_path, put):
    source, aside = faces(tmp_path / "source"), tmp_path / ".out.partial"
    (tmp_path / "precious/replaced").mkdir(parents=True)
    if put == "link":
        aside.symlink_to(tmp_path / "precious")
    else:
        aside.mkdir()
        (aside / put).write_text("precious")
    with pytest.raises(ValueError, match=r"\.out\.partial is in the way"):
        convert(source, tmp_path / "out")
    assert (tmp_path / "precious/replaced").is_dir()
    assert put == "link" or (aside / put).read_text() == "precious"


def test_a_failed_run_leaves_what_was_there(tmp_path, monkeypatch):
    source, output = faces(tmp_path / "source"), tmp_path / "out"
    convert(source, output)
    before = contents(output)

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(records, "manifest_text", fail)
    with pytest.raises(OSError, match="no space left") as error:
        convert(source, output, "--overwrite")
    assert "keeps what is done" in error.value.__notes__[0]
    assert contents(output) == before
    monkeypatch.undo()
    convert(source, output, "--overwrite")
    assert contents(output) == before
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}


# --- one line for what the user can mend


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "3"], "--size must be between 16 and 4096, got 3"),
        (["--margin", "0.5"], "--margin must be between 1 and 100, got 0.5"),
        (["--margin", "nan"], "--margin must be between 1 and 100, got nan"),
        (["--quality", "0"], "--quality must be"),
        (["--shard-examples", "0"], "--shard-examples must be"),
        (["--processes", "-1"], "--processes must be"),
        (["--validation-fraction", "1.5"], "--validation-fraction must be"),
        (["--validation-images", "/nowhere.txt"], "/nowhere.txt"),
        (["--split", "tompson"], "--split tompson belongs to --dataset mpii, not wflw"),
        (["--split", "official", "--validation-fraction", "0.5"], "holds nothing out"),
        (["--validation-images", ""], "--validation-images must not be empty"),
        (["--runner", "os.path"], "--runner os.path: "),
        (["--landmarks", "x.json"], "--landmarks belongs to --dataset coco, cvat, dlc"),
        (["--sizes", "64"], "'--sizes' is no option of this command, nor of Beam"),
        (["stray"], "'stray' is no option"),
        (["--direct_num_workers", "two"], "direct_num_workers: invalid int value"),
        (["--runner", "NoRunner"], "norunner"),
    ],
)
def test_nonsense_is_one_line_and_leaves_nothing(tmp_path, options, message):
    source = faces(tmp_path / "source")
    with pytest.raises((ValueError, OSError)) as error:
        convert(source, tmp_path / "out", *options)
    assert message.lower() in str(error.value).lower()
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_missing_source_is_one_line_on_stderr(tmp_path):
    code, out, err = run(*arguments(tmp_path / "nowhere", tmp_path / "out"))
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {tmp_path}/nowhere does not have WFLW's layout")
    assert "Traceback" not in err


# --- real photographs


def test_real_faces_go_through(tmp_path, shared_data):
    found = list(real_faces(shared_data))
    lines = [
        [*map(repr, labels.ravel().tolist()), *map(repr, box), *"000000", name]
        for name, labels, box in found
    ]
    write_wflw(tmp_path / "source", test=lines)
    for name in {name for name, _, _ in found}:
        shutil.copy(shared_data / "real_samples/wflw" / name, tmp_path / "source/WFLW_images")
    manifest, rejects = convert(tmp_path / "source", tmp_path / "out")
    assert (manifest["splits"]["test"]["examples"], rejects) == (4, [])
    for example, (_, labels, _) in zip(examples(tmp_path / "out", "test"), found, strict=True):
        np.testing.assert_allclose(example["landmarks"], labels, rtol=1e-6)
        check_labels_lie_in_the_crop(example)


def test_real_people_go_through(tmp_path, shared_data):
    samples, entries = zip(*real_people(shared_data), strict=True)
    write_mpii(tmp_path / "source", *entries)
    for sample in samples:
        shutil.copy(shared_data / "real_samples/mpii" / sample["image"], tmp_path / "source/images")
    listed = shared_data / "real_samples/mpii/tompson_valid_images.txt"
    manifest, rejects = convert(
        tmp_path / "source", tmp_path / "out", "--validation-images", str(listed), dataset="mpii"
    )
    assert (manifest["splits"]["valid"]["examples"], rejects) == (5, [])
    found = examples(tmp_path / "out", "valid", known_sets.MPII)
    for example, sample in zip(found, samples, strict=True):
        labelled = example["weights"] == 1
        np.testing.assert_array_equal(labelled, sample["joints_vis"])
        expected = np.array(sample["joints"])[labelled]
        np.testing.assert_allclose(example["landmarks"][labelled], expected, rtol=1e-6)
        check_labels_lie_in_the_crop(example)


def check_labels_lie_in_the_crop(example):
    height, width, _ = tf.io.decode_jpeg(example["image"]).shape
    labelled = example["landmarks"][example["weights"] == 1]
    homogeneous = np.column_stack([labelled, np.ones(len(labelled))])
    inside = homogeneous @ np.linalg.inv(example["crop_to_original"]).T
    assert np.all(inside[:, :2] > -0.5) and np.all(inside[:, :2] < (width - 0.5, height - 0.5))


@pytest.mark.slow
def test_the_shared_data_sets_go_through(shared_records):
    faces, manifest, rejects = shared_records("faces_wflw_layout", "wflw")
    verify(str(faces))
    counts = {name: split["examples"] for name, split in manifest["splits"].items()}
    assert (counts, rejects) == ({"train": 700, "test": 170}, [])
    bodies, manifest, rejects = shared_records("bodies_mpii_layout", "mpii")
    verify(str(bodies))
    splits = manifest["splits"]
    assert splits["train"]["examples"] + splits["valid"]["examples"] == 2000
    assert splits["valid"]["examples"] == pytest.approx(200, abs=40)
    # 200 test people without labels, two of them on images that list nobody; 40 bystanders.
    assert splits["test"]["rejects_by_reason"] == {"no_people": 2, "unlabelled": 198}
    assert {r["reason"] for r in rejects if r["split"] != "test"} == {"unlabelled"}
    assert len(rejects) == 240


def test_left_and_right_that_a_mirror_image_leaves_alone_are_named(tmp_path, capsys):
    described = {"name": "clock", "landmarks": ["pivot", "left", "right"]}
    category = clock_keypoints.category(keypoints=["pivot", "left", "right"])
    document = clock_keypoints.document(
        clock_keypoints.clock(), images=[clock_keypoints.photo()], categories=[category]
    )
    source = clock_keypoints.write(tmp_path / "source", described, train=document)
    Image.new("RGB", (200, 180), "grey").save(source / "images/a.jpg")
    folders = ["--source", str(source), "--output", str(tmp_path / "out")]
    make_tfrecords.main(["--dataset", "coco", *folders, "--validation-fraction", "0"])
    assert "note: left - right keep their places in mirror images" in capsys.readouterr().out
