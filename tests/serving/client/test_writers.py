"""The client's results in their files: whole lines kept, other files whole or absent, and pipes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_server import FakeVersions, local_server, running, wait_for
from PIL import Image
from scripted_server import FullModel, noise, read_lines, run_client

from serving.client import ServerError
from serving.client.batches import Answer
from serving.client.sources import Picture
from serving.client.writers import JsonLines

ROOT = Path(__file__).resolve().parents[3]
BOX = "--box=10,0,110,100"


@pytest.fixture
def folder(tmp_path):
    """Three pictures."""
    folder = tmp_path / "photos"
    for i, name in enumerate(["C.JPG", "a.png", "b.jpg"]):
        noise(folder / name, seed=i)
    return folder


def files_of(folder: Path) -> list[str]:
    """What is in it, at any depth, without the pictures."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in found if not name.startswith("photos"))


@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk_keeps_whole_lines(earlier, url, folder, tmp_path, monkeypatch, full_disk):
    lines = tmp_path / "out" / "x.jsonl"
    run_client(monkeypatch, folder, "--url", url, "--jsonl", lines)
    expected = lines.read_text().splitlines()
    if not earlier:
        lines.unlink()
    size = sum(len(line) + 1 for line in expected[:2]) + 10
    arguments = [folder, "--url", url, "--jsonl", lines, "--csv", tmp_path / "out" / "x.csv"]
    with full_disk(size), pytest.raises(OSError, match=r"too large: '.*/x\.jsonl'") as caught:
        run_client(monkeypatch, *arguments)
    part = tmp_path / "out" / ("x.jsonl.part" if earlier else "x.jsonl")
    assert caught.value.__notes__ == [f"{part} holds the 2 results until then"]
    assert part.read_text().splitlines() == expected[:2]
    assert files_of(tmp_path / "out") == ["x.jsonl"] + ["x.jsonl.part"] * earlier


@pytest.mark.parametrize(
    ("flag", "name", "blamed", "size"),
    [
        ("--jsonl", "x.jsonl", "x.jsonl", 200),
        ("--csv", "x.csv", "x.csv", 200),
        ("--overlay", "drawn", "drawn/C.JPG", 1000),
    ],
)
def test_a_full_disk_is_told_of_and_leaves_nothing_half(
    flag, name, blamed, size, url, folder, tmp_path, monkeypatch, full_disk
):
    path = tmp_path / "out" / name
    with full_disk(size), pytest.raises(OSError, match=rf"too large: '.*/{blamed}'$"):
        run_client(monkeypatch, folder, "--url", url, flag, path)
    assert files_of(tmp_path / "out") in ([], ["drawn"])


def test_a_file_that_cannot_be_renamed_into_place_is_said_at_once(
    url, folder, tmp_path, monkeypatch
):
    """A folder has the name, which the rename at the end would find out."""
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"Is a directory: '.*/x\.csv'"):
        run_client(monkeypatch, folder, "--url", url, "--csv", tmp_path / "x.csv")
    assert files_of(tmp_path) == ["x.csv"]


@pytest.mark.parametrize("place", ["-", "/dev/stdout"])
def test_lines_may_go_to_a_pipe_or_where_it_leads(place, url, folder, tmp_path):
    command = [sys.executable, "-m", "serving.client", folder, "--url", url, "--jsonl", place]
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert piped.returncode == 0, piped.stderr
    assert [json.loads(line)["source"] for line in piped.stdout.splitlines()] == [
        "C.JPG",
        "a.png",
        "b.jpg",
    ]
    assert "3 of 3 images" in piped.stderr
    log = tmp_path / "log"
    log.write_text("earlier\n")
    with log.open("a") as stdout:
        subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=subprocess.DEVNULL, check=True)
    assert log.read_text() == "earlier\n" + piped.stdout
    assert Path("/dev/stdout").is_symlink() and not Path("/dev/stdout.tmp").exists()


def test_one_pictures_numbers_may_go_to_a_pipe(url, folder):
    command = [
        sys.executable,
        "-m",
        "serving.client",
        folder / "b.jpg",
        "--url",
        url,
        "--json",
        "-",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert set(json.loads(result.stdout)) == {"names", "landmarks", "covariance"}
    assert "wrote /dev/stdout" in result.stderr


def test_a_server_that_goes_away_leaves_the_lines_until_then(folder, tmp_path, monkeypatch):
    """JSON lines are kept, a table that would look whole is not."""
    model = FullModel()
    run = model.run

    def fail_later(signature, inputs, **options):
        if any(box[0] == 5 for box in inputs.get("box", ())):
            from serving.errors import RequestError

            raise RequestError("gone", status=404)
        return run(signature, inputs, **options)

    model.run = fail_later
    (tmp_path / "boxes.csv").write_text("C.JPG,1,2,30,40\na.png,1,2,30,40\nb.jpg,5,6,30,40\n")
    lines, rows = tmp_path / "x.jsonl", tmp_path / "x.csv"
    flags = ["--boxes", tmp_path / "boxes.csv", BOX, "--batch", 1, "--parallel", 1]
    with running(local_server(FakeVersions(model=model))) as http:
        arguments = [folder, "--url", http.base_url, "--jsonl", lines, "--csv", rows, *flags]
        with pytest.raises(ServerError, match="404: gone") as caught:
            run_client(monkeypatch, *arguments)
    assert caught.value.__notes__ == [f"{lines} holds the 2 results until then"]
    assert [line["source"] for line in read_lines(lines)] == ["C.JPG", "a.png"]
    assert not rows.exists() and not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_keeps_the_lines_and_what_was_there(number, status, tmp_path):
    """In a process of its own, as a user interrupts it."""
    for i in range(40):
        noise(tmp_path / "photos" / f"{i:02}.jpg")
    model, lines = FullModel(), tmp_path / "x.jsonl"
    part = lines
    if number == signal.SIGTERM:
        lines.write_text("earlier")
        part = tmp_path / "x.jsonl.part"
    model.delay = 0.1
    with running(local_server(FakeVersions(model=model))) as http:
        flags = ["--url", str(http.base_url), "--jsonl", str(lines), "--batch", "1"]
        command = [sys.executable, "-m", "serving.client", str(tmp_path / "photos"), *flags]
        process = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL
        )
        aside = tmp_path / "x.jsonl.tmp"
        wait_for(lambda: process.poll() is not None or (aside.exists() and aside.stat().st_size))
        os.kill(process.pid, number)
        _, stderr = process.communicate(timeout=30)
    last = stderr.strip().splitlines()[-1]
    assert process.returncode == status and last.startswith("interrupted; ")
    count = len(read_lines(part))
    assert 0 < count < 40 and f"{part} holds the {count} results until then" in last
    assert not aside.exists() and (part is lines or lines.read_text() == "earlier")


def test_a_name_that_is_no_text_is_written_as_one(url, tmp_path, monkeypatch):
    path = noise(tmp_path / "a.jpg").rename(tmp_path / os.fsdecode(b"n\xff.jpg"))
    lines, rows = tmp_path / "x.jsonl", tmp_path / "x.csv"
    arguments = [path.parent, "--url", url, "--jsonl", lines, "--csv", rows]
    assert run_client(monkeypatch, *arguments, "--overlay", tmp_path / "drawn") == 0
    assert [line["source"] for line in read_lines(lines)] == [r"n\udcff.jpg"]
    assert rows.read_text().splitlines()[1].startswith(r"n\udcff.jpg,")
    assert os.listdir(os.fsencode(tmp_path / "drawn")) == [b"n\xff.jpg"]


def test_a_name_may_be_as_long_as_the_system_allows(url, tmp_path, monkeypatch):
    path = noise(tmp_path / "a.jpg").rename(tmp_path / ("n" * 251 + ".jpg"))
    arguments = [path.parent, "--url", url, "--overlay", tmp_path / "drawn"]
    assert run_client(monkeypatch, *arguments) == 0
    assert os.listdir(tmp_path / "drawn") == [path.name]


def test_what_cannot_be_drawn_on_keeps_its_landmarks(url, tmp_path, monkeypatch, capsys):
    """A picture's pixels are damaged, which the server's decoder would put up with."""
    noise(tmp_path / "photos" / "a.jpg"), noise(tmp_path / "photos" / "b.jpg")
    damaged = tmp_path / "photos" / "a.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    lines = tmp_path / "x.jsonl"
    flags = ["--url", url, "--jsonl", lines, "--overlay", tmp_path / "drawn"]
    assert run_client(monkeypatch, tmp_path / "photos", *flags) == 1
    assert all("landmarks" in line for line in read_lines(lines))
    assert "failed: a.jpg: it cannot be drawn on: " in capsys.readouterr().err
    assert os.listdir(tmp_path / "drawn") == ["b.jpg"]


def test_a_narrow_picture_is_not_enlarged_beyond_measure(url, tmp_path, monkeypatch):
    noise(tmp_path / "a.png", size=(3, 1200))
    arguments = [tmp_path, "--url", url, "--overlay", tmp_path / "drawn"]
    assert run_client(monkeypatch, *arguments) == 0
    with Image.open(tmp_path / "drawn" / "a.png") as drawn:
        assert drawn.size == (5, 1920)


def test_each_interrupted_run_has_a_part_of_its_own(url, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("earlier")
    answer = Answer(Picture("a"), error="none")
    for name in ("x.jsonl.part", "x.jsonl.part2", "x.jsonl.part3"):
        with pytest.raises(KeyboardInterrupt), JsonLines(path) as lines:
            lines.write(answer)
            raise KeyboardInterrupt
        assert len(read_lines(tmp_path / name)) == 1
    assert path.read_text() == "earlier" and len(os.listdir(tmp_path)) == 4


def test_what_a_name_aside_leads_to_is_not_written_to(url, folder, tmp_path, monkeypatch):
    rows = tmp_path / "x.csv"
    (tmp_path / "x.csv.tmp").symlink_to(noise(tmp_path / "other.jpg"))
    before = (tmp_path / "other.jpg").read_bytes()
    assert run_client(monkeypatch, folder, "--url", url, "--csv", rows) == 0
    assert (tmp_path / "other.jpg").read_bytes() == before
    assert rows.is_file() and not rows.is_symlink()
