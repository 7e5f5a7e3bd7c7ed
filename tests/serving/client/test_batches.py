"""The client with many pictures: folders, boxes, what is written, and what goes wrong on the way."""

import csv
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fake_server import COUNT, FakeModel, FakeVersions, local_server, running, wait_for
from PIL import Image
from scripted_server import noise, read_lines, run_client

from serving.client import Client, ServerError
from serving.client.batches import predict_in_batches
from serving.client.boxes import Boxes
from serving.client.sources import ImageFiles, Picture, find_images

ROOT = Path(__file__).resolve().parents[3]
BOX = "--box=10,0,110,100"


@pytest.fixture
def folder(tmp_path):
    """Five pictures, one of them damaged beyond its head, another a text, and what is no picture."""
    folder = tmp_path / "photos"
    for i, name in enumerate(["b.jpg", "a.png", "C.JPG", "sub/d.jpeg"]):
        noise(folder / name, seed=i)
    (folder / "e.jpg").write_text("hello")
    (folder / "notes.txt").write_text("no picture")
    return folder


# --- sources


def test_a_folders_pictures_are_sorted_and_others_named(folder):
    found, others = find_images([folder], recursive=False)
    assert list(found) == ["C.JPG", "a.png", "b.jpg", "e.jpg"]
    assert [path.name for path in others] == ["notes.txt"]
    found, _ = find_images([folder], recursive=True)
    assert list(found) == ["C.JPG", "a.png", "b.jpg", "e.jpg", "sub/d.jpeg"]


def test_what_is_hidden_is_none_of_them(folder):
    for name in ("._a.png", ".cache/x.jpg"):
        noise(folder / name)
    found, others = find_images([folder], recursive=True)
    assert len(found) == 5 and len(others) == 1
    found, _ = find_images([folder / "._a.png"], recursive=False)
    assert len(found) == 1, "by its name it is taken"


def test_files_keep_the_order_in_which_they_are_given(folder):
    paths = [folder / "b.jpg", folder / "a.png", folder / "notes.txt"]
    found, others = find_images(paths, recursive=False)
    assert list(found.values()) == paths and not others


def test_two_pictures_of_one_name_are_refused(folder, tmp_path):
    noise(tmp_path / "other" / "b.jpg")
    with pytest.raises(ValueError, match=r"have the same name, b\.jpg"):
        find_images([folder, tmp_path / "other"], recursive=False)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no \.jpg, \.jpeg or \.png file is there"):
        find_images([tmp_path], recursive=True)


def test_pictures_carry_what_is_known_of_them(folder):
    found, _ = find_images([folder], recursive=False)
    box = np.arange(4.0)
    pictures = list(ImageFiles(found, Boxes(None, {"C.JPG": box, "a.png": box, "e.jpg": box})))
    assert [p.source for p in pictures] == ["C.JPG", "a.png", "b.jpg", "e.jpg"]
    assert pictures[0].box is box and pictures[0].size == (120, 100)
    assert pictures[0].file()[0] == (folder / "C.JPG").read_bytes()
    assert pictures[1].pixels().shape == (100, 120, 3)
    assert "no box for b.jpg" in pictures[2].error
    assert "e.jpg is not an image that can be read" in pictures[3].error


# --- asking


def pictures_of(count):
    """Pictures without a file, whose answers are told apart by their boxes."""

    class Made(Picture):
        def file(self, square=None):
            return self.source.encode(), (0, 0)

    boxes = (np.array([i, 0, i + 9, 9.0]) for i in range(count))
    return [Made(f"good {i}", box=box, size=(640, 480)) for i, box in enumerate(boxes)]


@pytest.mark.parametrize(("batch", "parallel"), [(1, 1), (3, 2), (7, 5), (256, 64)])
def test_answers_come_in_order_and_are_the_right_ones(url, batch, parallel):
    with Client(url) as client:
        answers = list(predict_in_batches(client, pictures_of(20), batch=batch, parallel=parallel))
    assert [answer.landmarks[0, 0] for answer in answers] == list(range(20))
    assert [answer.picture.source for answer in answers] == [f"good {i}" for i in range(20)]
    assert all(answer.optional["precision_factor"].shape == (COUNT, 2, 2) for answer in answers)


def test_the_bad_ones_among_many_are_found(url):
    pictures = pictures_of(20)
    pictures[3].source, pictures[11].source, pictures[12].source = "refuse me", "invalid", "invalid"
    pictures[5].error, pictures[12].size = "unreadable", (12, 480)
    with Client(url) as client:
        answers = list(predict_in_batches(client, pictures, batch=8))
    errors = {i: answer.error for i, answer in enumerate(answers) if answer.error}
    assert errors.keys() == {3, 5, 11, 12}
    assert "answered 400: cannot be decoded" in errors[3] and errors[5] == "unreadable"
    assert "could not decode it, or its box" in errors[11]
    assert errors[12] == "its box 12,0,21,9 is outside of it: it has 12 x 480 pixels"
    assert all(answers[i].landmarks[0, 0] == i for i in {*range(20)} - {3, 5, 11, 12})


def test_memory_is_bounded_however_many_there_are():
    """Read at most as far ahead as the requests under way, and one."""
    release, started = threading.Event(), []

    class Slow:
        def predict(self, images, boxes, signature):
            started.append(len(images))
            release.wait(30)
            count = len(images)
            return {
                "valid": np.ones(count, bool),
                "landmarks": np.zeros((count, 1, 2)),
                "covariance": np.zeros((count, 1, 2, 2)),
            }

    read = []

    def endless():
        for picture in pictures_of(10_000):
            read.append(picture)
            yield picture

    answers = predict_in_batches(Slow(), endless(), batch=4, parallel=3)
    thread = threading.Thread(target=next, args=(answers,))
    thread.start()
    wait_for(lambda: len(started) == 3)
    time.sleep(0.3)
    assert len(started) == 3 and len(read) <= 4 * 4 + 1
    release.set()
    thread.join()
    answers.close()


def test_large_pictures_share_no_request():
    sizes = []

    class Sizes:
        def predict(self, images, boxes, signature):
            sizes.append(len(images))
            raise ServerError("enough", 404)

    pictures = pictures_of(8)
    for picture in pictures:
        picture.weight = 20 * 2**20
    with pytest.raises(ServerError):
        list(predict_in_batches(Sizes(), pictures, batch=8, parallel=1))
    assert sizes[0] == 2


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"batch": 0}, "batch must be from 1 to 256, got 0"),
        ({"batch": 257}, "batch must be from 1 to 256"),
        ({"parallel": 0}, "parallel must be from 1 to 64"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    with Client() as client, pytest.raises(ValueError, match=message):
        list(predict_in_batches(client, [], **option))


# --- the command


def test_a_folder_becomes_lines_rows_and_pictures(url, folder, tmp_path, monkeypatch, capsys):
    lines, rows, drawn = tmp_path / "out" / "x.jsonl", tmp_path / "x.csv", tmp_path / "drawn"
    arguments = [folder, "--recursive", BOX, "--url", url, "--batch", 2]
    results = ["--jsonl", lines, "--csv", rows, "--overlay", drawn]
    assert run_client(monkeypatch, *arguments, *results) == 1  # e.jpg is a text

    found = read_lines(lines)
    names = ["C.JPG", "a.png", "b.jpg", "e.jpg", "sub/d.jpeg"]
    assert [line["source"] for line in found] == names
    assert found[3].keys() == {"source", "box", "error"}
    assert "is not an image that can be read" in found[3]["error"]
    good = [line for line in found if "error" not in line]
    for line in good:
        assert line["box"] == [10, 0, 110, 100]
        np.testing.assert_array_equal(line["landmarks"], [[10 + k, k] for k in range(COUNT)])
        np.testing.assert_array_equal(line["covariance"], np.tile(np.eye(2), (COUNT, 1, 1)))
        assert np.shape(line["precision_factor"]) == (COUNT, 2, 2)

    table = list(csv.DictReader(rows.open(newline="")))
    assert len(table) == 4 * COUNT
    assert [row["source"] for row in table[::COUNT]] == [line["source"] for line in good]
    assert table[COUNT - 1] == {
        "source": "C.JPG",
        "frame": "",
        "landmark": "97",
        "name": "point 97",
        "x": "107",
        "y": "97",
        "sxx": "1",
        "sxy": "0",
        "syy": "1",
    }

    # A picture under each name, of the kind that it has, enlarged, since these are small.
    written = sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.*"))
    assert written == sorted(line["source"] for line in good)
    with Image.open(drawn / "a.png") as picture:
        assert picture.format == "PNG" and picture.size == (576, 480)
    with Image.open(drawn / "sub/d.jpeg") as picture:
        assert picture.format == "JPEG"
    assert not list(tmp_path.rglob("*.tmp"))

    captured = capsys.readouterr()
    summary, drift = captured.out.splitlines()
    assert summary.startswith("4 of 5 images in ") and f"wrote {lines} and {rows}" in summary
    assert "median standard deviation 1.00 pixels" in summary
    # 1 pixel in a box of 100 x 100 is 0.01: between the two quantiles of 0.005 and 0.02.
    assert drift == "0 % of landmarks are beyond the model's 95 % reference; 5 % expected"
    notes = captured.err.splitlines()
    assert any(line.startswith("note: left out 1 file") and "notes.txt" in line for line in notes)
    assert any(line.startswith("failed: e.jpg: ") for line in notes)


def test_a_calibrated_model_says_what_it_does_not_know(tmp_path, monkeypatch, capsys):
    class Calibrated(FakeModel):
        """Half of the landmarks are reliable; boxes that begin at 5 hold nothing that it knows."""

        def run(self, signature, inputs, *, timeout_ms):
            found = super().run(signature, inputs, timeout_ms=timeout_ms)
            reliable = np.tile(np.arange(COUNT) % 2 == 0, (len(found["valid"]), 1))
            return {
                **found,
                "reliable": reliable,
                "in_distribution": np.asarray(inputs["box"][:, 0] != 5),
            }

    for name in ("a.jpg", "b.jpg", "c.jpg"):
        noise(tmp_path / name)
    boxes, lines, numbers = (tmp_path / name for name in ("boxes.csv", "found.jsonl", "one.json"))
    boxes.write_text("a.jpg,0,0,20,20\nb.jpg,5,0,20,20\nc.jpg,1,0,20,20\n")
    with running(local_server(FakeVersions(model=Calibrated()))) as http:
        server = ["--url", str(http.base_url)]
        arguments = [tmp_path, *server, "--boxes", boxes, "--jsonl", lines]
        assert run_client(monkeypatch, *arguments) == 0
        said = capsys.readouterr().out
        one = [tmp_path / "b.jpg", "--box", "5,0,20,20", *server, "--json", numbers]
        assert run_client(monkeypatch, *one) == 0
    assert "50 % of landmarks reliable" in said
    assert "note: 1 of them are like nothing that the model knows" in said
    rows = {row["source"]: row for row in read_lines(lines)}
    assert [rows[name]["in_distribution"] for name in ("a.jpg", "b.jpg")] == [True, False]
    assert rows["c.jpg"]["reliable"][:3] == [True, False, True]
    said = capsys.readouterr().out
    assert f"{-(-COUNT // 2)} of them reliable" in said and "is it what --box says?" in said
    document = json.loads(numbers.read_text())
    assert document["in_distribution"] is False and sum(document["reliable"]) == -(-COUNT // 2)


def test_numbers_are_the_same_float32_again(tmp_path, monkeypatch):
    class Odd(FakeModel):
        def run(self, signature, inputs, *, timeout_ms):
            found = super().run(signature, inputs, timeout_ms=timeout_ms)
            random = np.random.default_rng(0)
            landmarks = random.normal(0, 1e3, found["landmarks"].shape).astype(np.float32)
            matrices = random.lognormal(0, 9, found["covariance"].shape).astype(np.float32)
            return {**found, "landmarks": landmarks, "covariance": matrices}

    path, lines, rows = noise(tmp_path / "a.jpg"), tmp_path / "a.jsonl", tmp_path / "a.csv"
    with running(local_server(FakeVersions(model=Odd()))) as http:
        url = str(http.base_url)
        assert run_client(monkeypatch, path, "--url", url, "--jsonl", lines, "--csv", rows) == 0
        with Client(url) as client:
            found = client.predict([path.read_bytes()])
    (line,) = read_lines(lines)
    for name in ("landmarks", "covariance"):
        np.testing.assert_array_equal(np.float32(line[name]), found[name][0])
    columns = np.loadtxt(rows, np.float32, delimiter=",", skiprows=1, usecols=range(4, 9))
    np.testing.assert_array_equal(columns[:, :2], found["landmarks"][0])
    np.testing.assert_array_equal(
        columns[:, 2:], found["covariance"][0].reshape(-1, 4)[:, [0, 1, 3]]
    )


@pytest.mark.parametrize("name", ['a, "b"\nc.jpg', "a\nb.jpg", "a\rb.jpg"])
def test_names_with_commas_and_lines_stay_one_field(name, url, tmp_path, monkeypatch):
    path, rows = noise(tmp_path / name), tmp_path / "x.csv"
    assert run_client(monkeypatch, path, "--url", url, "--csv", rows) == 0
    table = list(csv.DictReader(rows.open(newline="")))
    assert len(table) == COUNT and {row["source"] for row in table} == {str(path)}


def test_a_box_for_each_picture(url, folder, tmp_path, monkeypatch):
    boxes, lines = tmp_path / "boxes.csv", tmp_path / "x.jsonl"
    boxes.write_text("a.png,1,2,30,40\nb.jpg,5,6,30,40\n")
    arguments = [folder, "--boxes", boxes, "--url", url, "--jsonl", lines]
    assert run_client(monkeypatch, *arguments) == 1
    found = {line["source"]: line for line in read_lines(lines)}
    assert found["a.png"]["landmarks"][0] == [1, 2] and found["b.jpg"]["landmarks"][0] == [5, 6]
    assert "no box for C.JPG" in found["C.JPG"]["error"]
    # What was written is a file of boxes itself; with --box for the others none is missing.
    kept = tmp_path / "kept.jsonl"
    kept.write_text("".join(json.dumps(found[name]) + "\n" for name in ("a.png", "b.jpg")))
    (folder / "e.jpg").unlink()
    arguments = [folder, "--boxes", kept, BOX, "--url", url, "--jsonl", lines]
    assert run_client(monkeypatch, *arguments) == 0
    found = {line["source"]: line for line in read_lines(lines)}
    assert found["a.png"]["box"] == [1, 2, 30, 40] and found["C.JPG"]["box"] == [10, 0, 110, 100]


def test_pictures_that_viewers_turn_are_counted(url, tmp_path, monkeypatch, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (300, 150)).save(tmp_path / name, exif=exif)
    arguments = [tmp_path, "--url", url, "--overlay", tmp_path / "drawn"]
    assert run_client(monkeypatch, *arguments) == 0
    assert "asked to turn 2 of the images" in capsys.readouterr().err
    width, height = Image.open(tmp_path / "drawn/a.jpg").size
    assert width == 2 * height


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jsonl", "{}/x.jsonl", "--boxes", "{}/none.csv"], "No such file"),
        (["--jsonl", "{}/photos/a.png"], "would be written over"),
        (["--overlay", "{}/photos"], "would be written over"),
        (["--overlay", "{}/x.mp4"], "pictures are drawn into a folder"),
        (["--jsonl", "{}/x.jsonl", "--batch", "0"], "batch must be from 1"),
        (["--jsonl", "{}/x.jsonl", "--model", "pose"], "404: Servable not found"),
        (["--jsonl", "{}/x.jsonl", "--version", "9"], "404: Servable not found"),
        (["--jsonl", "{}/x.jsonl", "--box", "1,2"], "--box must be four numbers"),
        (["{}/clip.mp4", "--jsonl", "{}/x.jsonl"], "a video must be the only source, got 2"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    url, folder, tmp_path, monkeypatch, arguments, message
):
    arguments = [argument.replace("{}", str(tmp_path)) for argument in arguments]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises((ValueError, OSError), match=message):
        run_client(monkeypatch, "--url", url, folder, *arguments)
    assert not (tmp_path / "x.jsonl").exists() and not list(tmp_path.glob("*.tmp"))
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("flags", [["--output", "o.png"], ["--json", "o.json"]])
def test_one_pictures_results_are_not_for_many(folder, monkeypatch, capsys, flags):
    with pytest.raises(SystemExit, match="2"):
        run_client(monkeypatch, folder, *flags)
    assert "are for one picture" in capsys.readouterr().err


def test_a_signature_that_the_model_lacks_is_no_pictures_fault(folder, tmp_path, monkeypatch):
    with running(local_server(FakeVersions())) as http:
        arguments = [folder, "--url", str(http.base_url), "--jsonl", tmp_path / "x.jsonl", "--tta"]
        with pytest.raises(ServerError, match='"tta" not found'):
            run_client(monkeypatch, *arguments)
    assert not (tmp_path / "x.jsonl").exists()
