"""The check of a converted data set: it passes what was written, and names any damage."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toy_filesystem
from conversion import ROOT, convert, faces
from forged_datasets import (
    edit_lines,
    edit_manifest,
    fault,
    flip,
    forge,
    read_shard,
    replace_file,
    second_record,
    values_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from official_layouts import WFLW_LISTS, face

from pipelines import verify as module
from pipelines.verify import verify
from tfhuber.data import records
from tfhuber.data.tfrecord import frame

FIRST, SECOND = "train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord"
TEST, REJECTS, SHEET = "test-00000-of-00001.tfrecord", "rejects.jsonl", "contact_sheet.png"
SUMMARY = {
    "train": {"examples": 6, "rejects": 2, "shards": 2},
    "test": {"examples": 3, "rejects": 0, "shards": 1},
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A data set of 4 + 2 + 3 examples in three shards, and two rejects."""
    directory = tmp_path_factory.mktemp("verify")
    source = faces(directory / "source")
    with (source / WFLW_LISTS / "list_98pt_rect_attr_train.txt").open("a") as file:
        file.write("no face\n" + " ".join(face("absent.jpg")) + "\n")
    convert(source, directory / "data", "--shard-examples", "4")
    return directory / "data"


@pytest.fixture
def data(sound, tmp_path):
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(sound, tmp_path / "data"))


# --- what is sound


def test_what_was_written_is_sound(sound, capsys):
    found = verify(str(sound))
    sizes = {
        "train": sum((sound / name).stat().st_size for name in (FIRST, SECOND)),
        "test": (sound / TEST).stat().st_size,
    }
    assert found == {name: SUMMARY[name] | {"bytes": sizes[name]} for name in SUMMARY}
    assert "9/9" in capsys.readouterr().err


def test_a_contact_sheet_is_no_part_of_it(data):
    (data / SHEET).unlink(missing_ok=True)
    verify(str(data))


def test_object_stores_are_read_too(data, tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    monkeypatch.setenv(toy_filesystem.DIRECTORY, str(tmp_path / "store"))
    toy_filesystem.upload(data, "toy://bucket/faces")
    assert verify("toy://bucket/faces")["test"]["examples"] == 3
    flip(data, SECOND, 3)
    toy_filesystem.upload(data, "toy://bucket/faces")
    with pytest.raises(ValueError, match=f"^toy://bucket/faces/{SECOND}: record 1: "):
        verify("toy://bucket/faces")
    with pytest.raises(ValueError, match="holds no manifest"):
        verify("toy://bucket/absent")


# --- shards


@pytest.mark.parametrize(
    "offset, what",
    [
        (0, "length"),
        (7, "length"),
        (9, "length"),
        (12, "content"),
        (500, "content"),
        (-1, "content"),
    ],
)
def test_a_flipped_bit_of_a_record(data, offset, what):
    start, size = second_record(data, SECOND)
    flip(data, SECOND, start + (offset if offset >= 0 else 12 + size + 4 + offset))
    assert fault(data) == f"{SECOND}: record 2: the checksum of its {what} is wrong"


def test_a_shard_cut_short(data):
    path = data / FIRST
    path.write_bytes(path.read_bytes()[:-1])
    assert fault(data) == f"{FIRST}: record 4 is cut short"


def test_a_shard_without_its_last_record(data):
    whole = (data / FIRST).stat().st_size
    content = b"".join(map(frame, read_shard(data, FIRST)[:-1]))
    (data / FIRST).write_bytes(content)
    assert fault(data) == f"{FIRST}: it has 3 examples, the manifest says 4"
    edit_manifest(data, lambda m: m["splits"]["train"]["shards"][0].update(examples=3))
    assert fault(data) == f"{FIRST}: it has {len(content)} bytes, the manifest says {whole}"


def test_an_appended_record(data):
    with (data / TEST).open("ab") as file:
        file.write(frame(read_shard(data, FIRST)[0]))
    assert fault(data) == f"{TEST}: it has 4 examples, the manifest says 3"


def test_records_in_another_order(data):
    contents = read_shard(data, SECOND)
    (data / SECOND).write_bytes(b"".join(map(frame, reversed(contents))))
    assert re.fullmatch(
        f"{SECOND}: its CRC32C is [0-9a-f]{{8}}, the manifest says [0-9a-f]{{8}}", fault(data)
    )


def test_swapped_shards(data):
    aside = data.with_name("aside")
    (data / FIRST).rename(aside)
    (data / SECOND).rename(data / FIRST)
    aside.rename(data / SECOND)
    assert fault(data) == f"{FIRST}: it has 2 examples, the manifest says 4"


@pytest.mark.parametrize("name", [FIRST, TEST, REJECTS])
def test_a_missing_file(data, name):
    (data / name).unlink()
    assert fault(data) == f"{name} is missing"


@pytest.mark.parametrize("name", ["train-00002-of-00003.tfrecord", "notes.txt", ".hidden"])
def test_a_file_too_many(data, name):
    (data / name).write_bytes(b"")
    assert fault(data) == f"{name} is not in the manifest"


def test_a_folder_in_a_shards_place(data):
    (data / TEST).unlink()
    (data / TEST).mkdir()
    with pytest.raises(OSError, match=TEST):
        verify(str(data))


# --- examples


def one_is_nan(values):
    values["landmarks"][77] = np.nan
    return values["landmarks"]


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("landmarks", one_is_nan, "landmarks is not finite"),
        ("landmarks", lambda values: values["landmarks"][:-2], "landmarks has 194 values instead"),
        ("image", lambda values: values["image"][:-100], "image does not decode: "),
        ("image_size", lambda values: values["image_size"] // 2, "crop_to_original leaves the "),
    ],
)
def test_an_example_that_is_damaged_under_good_checksums(data, name, change, message):
    forge(data, TEST, 3, **{name: change(values_of(data, TEST, 3))})
    assert fault(data).startswith(f"{TEST}: record 3: {message}")


def test_a_record_that_is_no_example(data):
    replace_file(data, TEST, frame(b"no example"))
    assert fault(data).startswith(f"{TEST}: record 1: it is no tf.train.Example")


def test_an_id_that_is_there_twice(data):
    id = values_of(data, FIRST, 2)["id"]
    forge(data, TEST, 3, id=id.decode())  # In another split's list it is another line.
    verify(str(data))
    forge(data, SECOND, 1, id=id.decode())
    assert fault(data) == f"{SECOND}: record 1 has the id {id} of record 2 of {FIRST}"


def test_two_ids_with_one_hash_are_not_the_same(data, monkeypatch):
    monkeypatch.setattr(module, "_hash", lambda _, id: len(id))
    verify(str(data))


# --- the manifest


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda m: m["splits"]["train"].update(examples=7),
            "splits.train.examples is 7, by the records it is 6",
        ),
        (
            lambda m: m["splits"]["train"]["shards"][1].update(examples=1),
            f"{SECOND}: it has 2 examples, the manifest says 1",
        ),
        (
            lambda m: m["splits"]["test"]["landmarks"]["jaw_3"].update(labelled=2),
            "splits.test.landmarks.jaw_3.labelled is 2, by the records it is 3",
        ),
        (
            lambda m: m["splits"]["test"]["landmarks"].pop("jaw_3"),
            "splits.test.landmarks.jaw_3 is None, by the records it is {'labelled'",
        ),
        (
            lambda m: m["splits"]["train"]["image_sizes"].update({"64-127": 1}),
            "splits.train.image_sizes.64-127 is 1, by the records it is None",
        ),
        (
            lambda m: m["splits"]["train"].update(rejects=3),
            "splits.train.rejects is 3, by the rejects.jsonl it is 2",
        ),
        (lambda m: m.update(landmark_set={}), "landmark_set: "),
        (lambda m: m["landmark_set"].update(square="longest"), "parameters.rule is "),
    ],
)
def test_a_manifest_that_says_something_else(data, change, message):
    edit_manifest(data, change)
    assert fault(data).removeprefix("manifest.json: ").startswith(message)


def test_a_moment_that_is_not_the_records(data):
    for moment in ("covariance", "mean"):

        def change(manifest, moment=moment):
            values = manifest["splits"]["train"]["landmarks"]["jaw_3"][moment]
            values[1] = (np.array(values[1]) + 1e-6).tolist()

        edit_manifest(data, change)
        wanted = f"manifest.json: splits.train.landmarks.jaw_3.{moment}.1"
        assert fault(data).startswith(wanted)


def test_no_data_set(tmp_path):
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=f"^{directory} holds no manifest.json"):
            verify(str(directory))
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        verify(str(tmp_path), 0)


# --- rejects


def test_rejects_that_were_changed(data):
    content = (data / REJECTS).read_bytes()
    (data / REJECTS).write_bytes(content.replace(b"absent", b"hidden"))
    assert fault(data).startswith(f"{REJECTS}: its CRC32C is ")
    (data / REJECTS).write_bytes(content[: content.index(b"\n") + 1])
    assert fault(data).startswith(f"{REJECTS}: it has ")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda lines: lines[:1], "manifest.json: splits.train.rejects is 2, by the rejects.jsonl"),
        (
            lambda lines: [lines[0], lines[1].replace(b'"missing_image"', b'"no_image"')],
            "manifest.json: splits.train.rejects_by_reason.missing_image is 1",
        ),
        (
            lambda lines: [lines[0].replace(b'"split": "train"', b'"split": "test"'), lines[1]],
            "manifest.json: splits.train.rejects is 2, by the rejects.jsonl it is 1",
        ),
        (
            lambda lines: [lines[0], lines[1].replace(b'"train"', b'"valid"')],
            f"{REJECTS}: line 2 is no reject of these splits",
        ),
        (
            lambda lines: [lines[0].replace(b'"detail"', b'"remark"'), lines[1]],
            f"{REJECTS}: line 1 is no reject",
        ),
        (lambda lines: [*lines, b"\n"], f"{REJECTS}: line 3 is no reject"),
        (lambda lines: [*lines, b"[" * 100_000], f"{REJECTS}: line 3 is no reject"),
        (lambda lines: [lines[0], lines[1][:-9]], f"{REJECTS}: line 2 is no reject"),
    ],
)
def test_rejects_that_are_not_the_manifests(data, change, message):
    edit_lines(data, REJECTS, change)
    assert fault(data).startswith(message)


# --- any byte, and several processes


@given(st.sampled_from([FIRST, SECOND, TEST, REJECTS]), st.floats(0, 1), st.integers(1, 255))
@settings(max_examples=60)
def test_no_byte_can_change(sound, name, place, mask):
    content = (sound / name).read_bytes()
    try:
        flip(sound, name, int(place * (len(content) - 1)), mask)
        assert fault(sound).startswith(name)
    finally:
        (sound / name).write_bytes(content)


@given(st.floats(0, 1), st.integers(1, 255))
@settings(max_examples=60)
def test_no_byte_of_the_manifest_can_change(sound, place, mask):
    content = (sound / records.MANIFEST).read_bytes()
    try:
        flip(sound, records.MANIFEST, int(place * (len(content) - 1)), mask)
        fault(sound)
    finally:
        (sound / records.MANIFEST).write_bytes(content)


def test_processes_find_the_same_first_fault(data):
    assert verify(str(data), 2) == verify(str(data))
    forge(data, TEST, 1, people=0)
    forge(data, SECOND, 2, people=0)
    assert fault(data, 2) == fault(data) == f"{SECOND}: record 2: people must be at least 1"


# --- the command


def run(*arguments):
    command = [sys.executable, "-m", "pipelines.verify", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_command(data):
    done = run(data, "--processes", "2")
    assert done.returncode == 0, done.stderr
    header, train, test, verdict = done.stdout.splitlines()
    assert header.split() == ["split", "examples", "rejects", "shards", "bytes"]
    assert train.split()[:4] == ["train", "6", "2", "2"] and test.split()[:2] == ["test", "3"]
    assert verdict == f"{data}: everything is as the manifest says"

    flip(data, TEST, 20)
    done = run(data)
    assert (done.returncode, done.stdout) == (2, "")
    wanted = f"error: {data / TEST}: record 1: the checksum of its content is wrong"
    assert done.stderr.splitlines()[-1] == wanted and "Traceback" not in done.stderr

    done = run(data / "absent")
    assert done.returncode == 2 and done.stderr.startswith(f"error: {data / 'absent'} holds no ")
    assert done.stderr.count("\n") == 1


def test_the_modules_do_without_tensorflow():
    program = (
        "import sys, pipelines.verify, pipelines.contact_sheet; assert 'keras' not in sys.modules"
    )
    program += "; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
