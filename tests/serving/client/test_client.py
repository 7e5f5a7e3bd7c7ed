"""The client: what it asks, how it reads and draws the answer, what it says when it cannot."""

import base64
import io
import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from fake_server import COUNT, FakeModel, FakeVersions, local_server, running
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from serving.client import Client, ServerError
from serving.client import __main__ as client_module

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def url():
    with running(local_server(FakeVersions())) as http:
        yield str(http.base_url)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.effect_noise((320, 240), 60).convert("RGB").save(path, quality=95)
    return path


def answering(response: Response):
    """A server that answers every request alike."""

    async def endpoint(_):
        return response

    return running(Starlette(routes=[Route("/{path:path}", endpoint, methods=["POST"])]))


def run(monkeypatch, capsys, *arguments):
    """Runs the command in this process; returns its lines on stdout, or raises what it raises."""
    monkeypatch.setattr(sys, "argv", ["client", *map(str, arguments)])
    client_module.main()
    return capsys.readouterr().out.splitlines()


# --- the library


def test_a_signature_is_asked_for_by_name(url):
    with Client(url) as client, pytest.raises(ServerError, match='name: "tta" not found'):
        client.predict([b"\xff\xd8"], signature="tta")


def test_predictions_are_arrays(url):
    boxes = [[1.5, 2, 30, 40], [0, 0, 0, 0]]
    with Client(url, "wflw") as client:
        found = client.predict([b"one", b""], boxes)
    assert {name: (array.dtype.name, array.shape) for name, array in found.items()} == {
        "landmarks": ("float32", (2, COUNT, 2)),
        "covariance": ("float32", (2, COUNT, 2, 2)),
        "valid": ("bool", (2,)),
    }
    np.testing.assert_array_equal(found["landmarks"][0, :2], [[1.5, 2], [2.5, 3]])
    np.testing.assert_array_equal(found["landmarks"][1, 0], [0, 0])
    assert found["valid"].tolist() == [True, False]


def test_bytes_and_boxes_reach_the_server_unchanged(monkeypatch):
    asked = []
    run_fake = FakeModel.run

    def spy(self, signature, inputs, **options):
        asked.append(inputs)
        return run_fake(self, signature, inputs, **options)

    monkeypatch.setattr(FakeModel, "run", spy)
    data, box = bytes(range(256)), np.float32([0.1, -3.25, 1e3, 77.7])
    app = local_server(FakeVersions("mine"))
    with running(app) as http, Client(f"{http.base_url}/", "mine") as client:
        client.predict([data], box[None])
        client.predict([data])
    assert asked[0]["image_bytes"].tolist() == [data]
    np.testing.assert_array_equal(asked[0]["box"], box[None], strict=True)
    np.testing.assert_array_equal(asked[1]["box"], np.zeros((1, 4), np.float32), strict=True)


def test_what_is_not_finite_comes_through(url):
    """The format writes NaN, which JSON proper doesn't have."""
    with Client(url, "wflw") as client:
        found = client.predict([b"x"], [[np.nan, np.inf, 1, 1]])
    assert (
        np.isnan(found["landmarks"][0, :, 0]).all() and np.isinf(found["landmarks"][0, :, 1]).all()
    )


@pytest.mark.parametrize("boxes", [[1, 2, 3, 4], [[1, 2, 3]], np.zeros((2, 4))])
def test_boxes_of_another_shape_are_refused(boxes):
    with Client() as client, pytest.raises(ValueError, match=r"boxes must be \[1, 4\]"):
        client.predict([b"x"], boxes)


def test_the_servers_own_words(url):
    message = r"404: Servable not found for request: Latest\(pose\)"
    with Client(url, "pose") as client, pytest.raises(ServerError, match=message) as caught:
        client.predict([b"x"])
    assert caught.value.status == 404


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with Client(url, "pose") as client, pytest.raises(ConnectionError) as caught:
        client.predict([b"x"])
    message = str(caught.value)
    assert f"no server at {url}" in message
    assert "python -m serving.local_server --model_name=pose --model_base_path=DIR" in message
    assert f"--rest_api_port={port}" in message


def test_no_answer_in_time():
    model = FakeModel()
    model.delay = 1.0
    with running(local_server(FakeVersions(model=model))) as http:
        client = Client(str(http.base_url), timeout=0.2)
        with client, pytest.raises(TimeoutError, match="no answer from"):
            client.predict([b"x"])


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (PlainTextResponse("down for lunch", 503), "answered 503: Service Unavailable"),
        (PlainTextResponse("<html>", 200), "answered 200: "),
        (JSONResponse([1], 200), "answered 200: "),
        (JSONResponse({"error": "one bad\nday"}, 500), "answered 500: one bad"),
        (JSONResponse({"predictions": [1]}), "but not with landmarks, covariance and valid"),
        (JSONResponse({"predictions": [{"landmarks": [[1], [1, 2]]}]}), "but not with landmarks"),
        (JSONResponse({"predictions": [{"landmarks": []}, 1]}), "but not with landmarks"),
        (JSONResponse({"predictions": {"landmarks": []}}), "an answer without predictions"),
        (PlainTextResponse("[" * 100_000), "answered 200: an answer without predictions"),
        (JSONResponse({"predictions": []}), "but not with landmarks"),
        (
            JSONResponse({"predictions": [{"landmarks": 1, "covariance": 2, "valid": True}]}),
            "but not with landmarks",
        ),
    ],
)
def test_answers_that_are_no_prediction(response, message):
    with (
        answering(response) as http,
        Client(str(http.base_url)) as client,
        pytest.raises(ServerError, match=message),
    ):
        client.predict([b"x"])


@pytest.mark.parametrize("url", ["localhost:8501", "ftp://x", "http://", "http://x:port", ""])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ValueError, match="is no URL"):
        Client(url)


# --- the command


def test_a_picture_and_numbers_are_written(url, photo, tmp_path, monkeypatch, capsys):
    picture, numbers = tmp_path / "overlay.png", tmp_path / "found.json"
    arguments = [photo, "--box", "20,10,220,210", "--url", url]
    (line,) = run(monkeypatch, capsys, *arguments, "--output", picture, "--json", numbers)
    assert line.startswith("98 landmarks, median standard deviation 1.00 pixels; wrote ")
    assert str(picture) in line and str(numbers) in line

    document = json.loads(numbers.read_text())
    assert document.keys() == {"landmarks", "covariance", "names"}
    np.testing.assert_array_equal(document["landmarks"], 20 + np.arange(98)[:, None] + [0, -10])
    np.testing.assert_array_equal(document["covariance"], np.tile(np.eye(2), (98, 1, 1)))
    assert len(document["names"]) == 98 == len(set(document["names"]))

    drawn = Image.open(picture)
    photograph = Image.open(photo).convert("RGB").resize(drawn.size, Image.Resampling.BILINEAR)
    colourful = np.ptp(np.asarray(drawn.convert("RGB"), int), -1) - np.ptp(
        np.asarray(photograph, int), -1
    )
    scale = drawn.width / 320
    for x, y in [(20, 10), (60, 50), (110, 100)]:
        x, y = round((x + 0.5) * scale), round((y + 0.5) * scale)
        assert colourful[y - 4 : y + 5, x - 4 : x + 5].max() > 60, "no landmark is drawn here"


def test_a_photograph_with_exif_orientation_is_drawn_as_stored(url, tmp_path, monkeypatch, capsys):
    path, picture = tmp_path / "turned.jpg", tmp_path / "overlay.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 150)).save(path, exif=exif)
    monkeypatch.setattr(sys, "argv", ["client", str(path), "--url", url, "--output", str(picture)])
    client_module.main()
    assert "EXIF orientation 6" in capsys.readouterr().err
    width, height = Image.open(picture).size
    assert width == 2 * height


def test_a_png_in_another_mode(url, tmp_path, monkeypatch, capsys):
    path, picture = tmp_path / "grey.png", tmp_path / "overlay.png"
    Image.new("LA", (200, 200)).save(path)
    run(monkeypatch, capsys, path, "--url", url, "--output", picture)
    assert Image.open(picture).mode == "RGB"


def encoded(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "flags", "message"),
    [
        ("absent.jpg", None, [], "No such file or directory: '.*absent.jpg'"),
        ("text.jpg", b"hello", [], "text.jpg is not an image that can be read$"),
        ("empty.jpg", b"", [], "empty.jpg is not an image that can be read"),
        ("half.jpg", encoded("JPEG")[:300], [], "half.jpg is not an image that can be read"),
        ("x.webp", encoded("WEBP"), [], "x.webp is a WEBP file; the model reads JPEG and PNG"),
        ("x.png", encoded("PNG"), ["--box", "1,2,3"], "--box must be four numbers"),
        (
            "x.png",
            encoded("PNG"),
            ["--box", "50,0,60,9"],
            "is outside the image, which has 20 x 20",
        ),
        ("x.png", encoded("PNG"), ["--model", "x"], r"404: Servable not found .*Latest\(x\)"),
        ("x.png", encoded("PNG"), ["--output", "overlay.xyz"], "must end in .png, .jpg or .jpeg"),
    ],
    ids=["absent", "text", "empty", "half", "format", "box", "outside", "model", "suffix"],
)
def test_what_is_wrong_is_said(url, tmp_path, monkeypatch, capsys, name, data, flags, message):
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises((ValueError, OSError), match=message):
        run(monkeypatch, capsys, path, "--url", url, "--output", tmp_path / "o.png", *flags)
    assert not (tmp_path / "o.png").exists()


def test_an_image_that_the_server_cannot_decode(photo, tmp_path, monkeypatch, capsys):
    row = {
        "landmarks": np.zeros((COUNT, 2)).tolist(),
        "covariance": np.zeros((COUNT, 2, 2)).tolist(),
        "valid": False,
    }
    with answering(JSONResponse({"predictions": [row]})) as http:
        arguments = [photo, "--url", http.base_url, "--output", tmp_path / "o.png"]
        with pytest.raises(ValueError, match=r"the server could not decode .*photo\.jpg"):
            run(monkeypatch, capsys, *arguments)


def test_nothing_to_write_is_an_error(photo, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, capsys, photo)
    assert "nothing to write: give --output, --json or both" in capsys.readouterr().err


def test_an_error_is_one_line_and_tensorflow_stays_away(photo, tmp_path):
    """In a process of its own, as a user runs it, against a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        "import sys, runpy\n"
        "try:\n    runpy.run_module('serving.client', run_name='__main__')\n"
        "finally:\n    assert not {'tensorflow', 'matplotlib'} & sys.modules.keys()"
    )
    flags = [str(photo), "--url", f"http://127.0.0.1:{port}", "--output", str(tmp_path / "o.png")]
    command = [sys.executable, "-c", code, *flags]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: no server at http://127.0.0.1:{port}")


def test_what_the_readme_shows_for_curl(url):
    """The body of the README's example, with rows."""
    body = {
        "instances": [
            {
                "image_bytes": {"b64": base64.b64encode(encoded("JPEG")).decode()},
                "box": [0, 0, 0, 0],
            }
        ]
    }
    (prediction,) = httpx.post(f"{url}/v1/models/wflw:predict", json=body).json()["predictions"]
    assert prediction.keys() == {"landmarks", "covariance", "valid"}
