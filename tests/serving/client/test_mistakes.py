"""What people get wrong with the client: places, names, numbers; and videos that end too early."""

import os
import shutil
import socket
import threading

import numpy as np
import pytest
from scripted_server import METADATA, noise, run_client

from serving.client import Client
from serving.client.sources import find_images


@pytest.fixture
def photo(tmp_path):
    return noise(tmp_path / "photos" / "a.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos/a.png", "--output=photos/a.png"], "a.png would be written over, it is read too"),
        (["photos/a.png", "--json=photos/a.png"], "would be written over"),
        (["photos/a.png", "--json=b.csv", "--boxes=b.csv"], "b.csv would be written over"),
        (["photos/a.png", "--output=x.png", "--json=x.png"], "it is another result's place"),
        (["photos/a.png", "--output=x.gif", "--json=x.json"], r"x\.gif must end in \.png, \.jpg"),
        (["photos", "--boxes=b.csv", "--csv=b.csv"], "b.csv would be written over, it is read too"),
        (["photos", "--csv=x", "--jsonl=x"], "it is another result's place"),
        (["photos", "--boxes=b.csv.tmp", "--csv=b.csv"], r"b\.csv\.tmp would be written over"),
        (["photos/a.png.tmp", "--output=photos/a.png"], r"a\.png\.tmp would be written over"),
        (["photos", "--overlay=x.png"], "is to be a folder; for one picture there is --output"),
        (["photos", "--jsonl=x", "--batch=257"], "--batch must be from 1 to 256, got 257"),
        (["photos/a.png", "--json=x", "--parallel=0"], "--parallel must be from 1 to 64, got 0"),
        (["nothing", "--jsonl=x"], "nothing: there is no such file or folder"),
        (["photos", "nothing.jpg", "--jsonl=x"], "nothing.jpg: there is no such file or folder"),
    ],
)
def test_it_is_said_before_anything_is_written(
    url, photo, tmp_path, monkeypatch, arguments, message
):
    (tmp_path / "b.csv").write_text("a.png,10,0,110,100\n")
    for path in (tmp_path / "b.csv", photo):
        shutil.copy(path, path.with_name(path.name + ".tmp"))
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message):
        run_client(monkeypatch, *arguments, "--url", url)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_devices_may_take_several_results(url, photo, monkeypatch, capsys):
    arguments = ["--jsonl=/dev/null", "--csv=/dev/null", "--url", url]
    assert run_client(monkeypatch, photo.parent, *arguments) == 0
    assert "1 of 1 images" in capsys.readouterr().err


def test_pictures_further_down_are_hinted_at(tmp_path):
    noise(tmp_path / "photos" / "below" / "a.png")
    with pytest.raises(
        ValueError, match=r"file is there, but folders, which --recursive looks into"
    ):
        find_images([tmp_path / "photos"], recursive=False)
    (tmp_path / "photos" / "below" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"file is there$"):
        find_images([tmp_path / "photos"], recursive=True)


def test_boxes_of_no_picture_are_counted(url, photo, tmp_path, monkeypatch, capsys):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(
        "name,x_min,y_min,x_max,y_max\na.png,0,0,9,9\nother/b.png,0,0,9,9\nc,1,1,2,2\n"
    )
    arguments = [photo.parent, "--url", url, "--boxes", boxes, "--jsonl", tmp_path / "x.jsonl"]
    assert run_client(monkeypatch, *arguments) == 0
    said = "note: 2 of the boxes in --boxes belong to none of the images, the first to other/b.png"
    assert said in capsys.readouterr().err


def test_the_reference_is_not_that_of_fused_covariances(url, photo, tmp_path, monkeypatch, capsys):
    arguments = [photo.parent, "--url", url, "--jsonl", tmp_path / "x.jsonl"]
    run_client(monkeypatch, *arguments)
    assert "of landmarks are beyond" in capsys.readouterr().out
    run_client(monkeypatch, *arguments, "--tta")
    assert "of landmarks are beyond" not in capsys.readouterr().out


def test_a_model_that_saw_no_mirror_images_has_no_tta(url, photo, tmp_path, monkeypatch):
    monkeypatch.setitem(METADATA, "tta", False)
    for arguments in ([photo, "--json"], [photo.parent, "--jsonl"]):
        arguments += [tmp_path / "x.json", "--url", url]
        with pytest.raises(ValueError, match="needs a model that was trained on mirror images too"):
            run_client(monkeypatch, *arguments, "--tta")
        assert not (tmp_path / "x.json").exists()
        assert run_client(monkeypatch, *arguments) == 0
        (tmp_path / "x.json").unlink()


@pytest.mark.parametrize(
    "images", [["photo.jpg"], b"\xff\xd8\xff", [np.zeros((3, 3, 3), np.uint8)]]
)
def test_images_must_be_files_as_bytes(images, url):
    with Client(url) as client, pytest.raises(ValueError, match="a list of JPEG or PNG files"):
        client.predict(images)


def test_a_port_that_speaks_something_else_is_no_missing_server():
    """As a gRPC port does, which begins with a frame of HTTP/2."""

    def answer():
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)
            connection.sendall(bytes.fromhex("00001804000000000000") + b"\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            Client(address, retries=0) as client,
            pytest.raises(ConnectionError, match=r"does not speak HTTP .* with --grpc"),
        ):
            client.predict([b"x"])
        thread.join()


def test_pipes_and_loops_in_a_folder_do_no_harm(photo, url, monkeypatch, capsys):
    """Nobody fills the pipe, and the link leads to itself."""
    os.mkfifo(photo.parent / "b.jpg")
    (photo.parent / "c.jpg").symlink_to("c.jpg")
    lines = photo.parent.parent / "x.jsonl"
    assert run_client(monkeypatch, photo.parent, "--url", url, "--jsonl", lines) == 0
    assert len(lines.read_text().splitlines()) == 1
    assert "left out 2 files that are no pictures" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--csv", "--jsonl", "--overlay"])
def test_results_for_many_do_not_go_with_those_for_one(flag, photo, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_client(monkeypatch, photo, "--output", "x.png", flag, "y")
    assert "don't go with --jsonl" in capsys.readouterr().err


def test_a_field_without_end_is_a_fault_of_its_line(photo, monkeypatch, tmp_path):
    (tmp_path / "boxes.csv").write_text("a.png,1,2,3,4\n" + "x" * 200_000 + ",1,2,3,4\n")
    with pytest.raises(ValueError, match=r"boxes\.csv, line 2: field larger"):
        run_client(
            monkeypatch, photo, "--boxes", tmp_path / "boxes.csv", "--csv", tmp_path / "x.csv"
        )
