"""TensorFlow Serving itself, as the deployment files start it: signatures, bad input, clients, a canary.

One server for all tests, in this order: the last ones change what is loaded, and end it.
"""

import base64
import io
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from demo_browser import Visit, chromium
from fake_server import running, save_toy, wait_for
from PIL import Image
from real_server import ROOT, SERVING, compose_flags, tf_serving
from scripted_server import read_lines, run_client
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from serving.client import Client, ServerError
from tfhuber.saved_model import session

GUIDE = (ROOT / "docs/serving.md").read_text()
BOX = [49.0, 60.0, 191.0, 217.0]
SIGNATURES = ("serving_default", "tta")


@pytest.fixture(scope="module")
def config(exported, tmp_path_factory):
    """The shipped `models.config`, in a folder of its own, with two versions where it says."""
    folder = tmp_path_factory.mktemp("deployed")
    models = folder / "models/wflw"
    shutil.copytree(exported / "1", models / "1", copy_function=os.link)
    save_toy(models / "2")
    text = (SERVING / "models.config").read_text()
    assert '"/models/wflw"' in text
    (folder / "models.config").write_text(text.replace('"/models/wflw"', f'"{models}"'))
    return folder / "models.config"


@pytest.fixture(scope="module")
def server(config):
    """A server with the flags of the compose file, but for paths and for how often it looks."""
    command = compose_flags(
        model_config_file=str(config),
        model_config_file_poll_wait_seconds="1",
        monitoring_config_file=str(SERVING / "monitoring.config"),
    )
    ready = "/v1/models/wflw/labels/stable/metadata"
    folder = config.parent
    with tf_serving(folder, *command, "--rest_api_enable_cors_support=true", ready=ready) as found:
        yield found


@pytest.fixture(scope="module")
def model(exported):
    """The same model in a session of this process."""
    return session.SavedModel(exported / "1")


@pytest.fixture(scope="module")
def expected(model):
    """What it answers to files and boxes."""

    def run(files, boxes, signature="serving_default"):
        rows = {"image_bytes": np.array(files, object), "box": np.array(boxes, np.float32)}
        return model.run(signature, rows)

    return run


@pytest.fixture(scope="module")
def pictures(faces):
    return [path.read_bytes() for path in sorted((faces / "WFLW_images").rglob("*.jpg"))[:4]]


def encoded(data: bytes) -> dict:
    return {"b64": base64.b64encode(data).decode()}


def by_columns(rows: list[dict]) -> dict:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def check(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-4)


# --- answers


def test_nothing_answers_before_a_model_is_loaded_and_warm(server):
    assert server.before == {"refused"}
    assert re.search(r"Number of warmup records read: \d", server.log())
    assert server.log().index("warmup records read") < server.log().index("Exporting HTTP/REST")


def test_a_model_without_a_version_keeps_all_from_being_answered(tmp_path):
    save_toy(tmp_path / "good/1")
    (tmp_path / "empty").mkdir()
    models = [
        f'config {{ name: "{name}" base_path: "{tmp_path / name}" model_platform: "tensorflow" }}'
        for name in ("good", "empty")
    ]
    config = tmp_path / "models.config"
    config.write_text(f"model_config_list {{ {' '.join(models)} }}")
    with tf_serving(tmp_path, f"--model_config_file={config}", ready=None) as server:
        wait_for(lambda: "Successfully loaded servable version {name: good" in server.log())
        wait_for(lambda: server.log().count("No versions of servable empty found") > 1)
        with pytest.raises(httpx.ConnectError):
            server.http.get("/v1/models/good")


@pytest.mark.parametrize("signature", SIGNATURES)
def test_images_and_boxes_by_rows_and_by_columns(server, expected, pictures, signature):
    boxes = [BOX, [0, 0, 0, 0], [-30, 40, 60, 400], BOX]
    answer = expected(pictures, boxes, signature)
    files = [encoded(picture) for picture in pictures]
    rows = [{"image_bytes": file, "box": box} for file, box in zip(files, boxes, strict=True)]
    status, found = server.ask({"signature_name": signature, "instances": rows})
    assert status == 200
    check(by_columns(found["predictions"]), answer)
    columns = {"image_bytes": files, "box": boxes}
    status, found = server.ask({"signature_name": signature, "inputs": columns})
    assert status == 200
    check(found["outputs"], answer)


def test_crops_and_metadata(server, model):
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    tensor = model.run("tensor", {"image": crops})
    metadata = model.run("metadata", {"query": np.array([b""], object)})
    rows = [{"image": crop} for crop in crops.tolist()]
    _, found = server.ask({"signature_name": "tensor", "instances": rows})
    check(by_columns(found["predictions"]), tensor)
    _, found = server.ask({"signature_name": "metadata", "instances": [""]})
    assert found["predictions"][0].encode() == metadata["json"][0]


def test_what_a_row_holds_fails_that_row_alone(server, pictures):
    files = [pictures[0], b"", b"junk", pictures[0][:500], *[pictures[0]] * 5]
    boxes = [BOX] * 4 + [[5, 5, 5, 9], [9, 9, 5, 5], [1e30, 0, 1e31, 5], [-900, 0, -800, 5], BOX]
    rows = [{"image_bytes": encoded(f), "box": box} for f, box in zip(files, boxes, strict=True)]
    status, found = server.ask({"instances": rows})
    assert status == 200
    assert [row["valid"] for row in found["predictions"]] == [True] + [False] * 7 + [True]
    # One picture in two rows: where a row stands may decide the last bit of a sum.
    first, last = (found["predictions"][i]["landmarks"] for i in (0, 8))
    np.testing.assert_allclose(first, last, rtol=1e-6)


def grey(side=32, channels=1):
    return np.zeros((1, side, side, channels), int).tolist()


IMAGE = {"b64": ""}
REFUSED = {
    "three_numbers": ({"instances": [{"image_bytes": IMAGE, "box": [0, 0, 0]}]}, "[1,3]"),
    "five_numbers": ({"instances": [{"image_bytes": IMAGE, "box": [0] * 5}]}, "[1,5]"),
    "one_box_for_two": (
        {"inputs": {"image_bytes": [IMAGE] * 2, "box": [[0] * 4]}},
        "each image file needs a box",
    ),
    "two_boxes_for_one": (
        {"inputs": {"image_bytes": [IMAGE], "box": [[0] * 4] * 2}},
        "each image file needs a box",
    ),
    "files_in_a_list": ({"inputs": {"image_bytes": [[IMAGE]], "box": [[0] * 4]}}, "[1,1]"),
    "no_rows": ({"instances": []}, "No values"),
    "no_columns": ({"inputs": {"image_bytes": [], "box": []}}, "[0]"),
    "small_crops": ({"signature_name": "tensor", "inputs": grey(30, 3)}, "[1,30,30,3]"),
    "large_crops": ({"signature_name": "tensor", "inputs": grey(60, 3)}, "[1,60,60,3]"),
    "grey_crops": ({"signature_name": "tensor", "inputs": grey()}, "[1,32,32,1]"),
    "transparent_crops": ({"signature_name": "tensor", "inputs": grey(channels=4)}, "[1,32,32,4]"),
    "one_crop_alone": ({"signature_name": "tensor", "inputs": grey(channels=3)[0]}, "[32,32,3]"),
    "no_crops": ({"signature_name": "tensor", "inputs": []}, "[0]"),
    "nested_query": ({"signature_name": "metadata", "inputs": [["a"]]}, "[1,1]"),
    "too_many": ({"signature_name": "metadata", "inputs": ["a"] * 257}, "at most 256 images"),
    "unknown_signature": ({"signature_name": "median", "instances": [1]}, '"median" not found'),
    "other_name": ({"instances": [{"image": IMAGE, "box": [0] * 4}]}, "image"),
    "words_in_a_box": ({"instances": [{"image_bytes": IMAGE, "box": ["a"] * 4}]}, "box"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_requests_that_are_refused(server, case):
    """The graph refuses wrong shapes: the server compares none with what is declared."""
    body, message = REFUSED[case]
    status, answer = server.ask(body)
    assert status == 400
    assert message in answer["error"]


def test_paths(server):
    statuses = {
        "/v1/models/wflw": 200,
        "/v1/models/wflw/labels/canary/metadata": 200,
        "/v1/models/wflw/versions/2/metadata": 404,  # there, and not listed
        "/v1/models/wflw/labels/gone/metadata": 400,
        "/v1/models/other": 404,
        "/v1/models/wflw/": 400,
        "/": 404,
    }
    assert {path: server.http.get(path).status_code for path in statuses} == statuses


# --- who asks


def test_the_client_over_a_folder(server, expected, shared_data, tmp_path, monkeypatch):
    """On photographs."""
    photographs = sorted((shared_data / "faces_wflw_layout/WFLW_images").rglob("*.jpg"))[:12]
    if not photographs:
        pytest.skip(f"no photographs of faces in {shared_data}")
    folder = tmp_path / "photographs"
    folder.mkdir()
    for path in photographs:
        (folder / f"{path.parent.name}_{path.name}").symlink_to(path)
    (folder / "junk.jpg").write_bytes(b"junk")
    lines = tmp_path / "found.jsonl"
    options = ["--url", server.url, "--label", "stable", "--batch", 5, "--jsonl", lines]
    assert run_client(monkeypatch, folder, *options) == 1  # for the junk
    found = {Path(line["source"]).name: line for line in read_lines(lines)}
    assert "error" in found.pop("junk.jpg")
    assert len(found) == len(photographs)
    files = [(folder / name).read_bytes() for name in found]
    answer = expected(files, np.zeros((len(files), 4)))
    for name in ("landmarks", "covariance", "precision_factor"):
        values = np.array([line[name] for line in found.values()])
        np.testing.assert_allclose(values, answer[name], rtol=1e-4, atol=1e-3)


def test_the_client_with_a_video(server, tmp_path, monkeypatch):
    video_files = pytest.importorskip("video_files")
    source, lines = video_files.make_video(tmp_path / "clip.mp4"), tmp_path / "found.jsonl"
    options = ["--box=20,30,140,110", "--url", server.url, "--jsonl", lines]
    assert run_client(monkeypatch, source, *options) == 0
    found = read_lines(lines)
    assert [line["frame"] for line in found] == list(range(24))
    assert all(np.isfinite(line["landmarks"]).all() for line in found)
    # Of one colour each, five colours in turn.
    np.testing.assert_allclose(found[0]["landmarks"], found[5]["landmarks"], atol=3)


def test_the_client_refuses_what_could_hurt_others(server, pictures):
    with Client(server.url, "wflw", label="canary") as client:
        assert client.metadata()["landmark_set"]["name"] == "wflw"
        with pytest.raises(ValueError, match="at least one, got none"):
            client.predict([], np.zeros((0, 4)))
        with pytest.raises(ValueError, match=r"boxes must be \[1, 4\]"):
            client.predict(pictures[:1], [[0, 0, 0]])
        with pytest.raises(ServerError, match="median"):
            client.predict(pictures[:1], signature="median")


def test_the_page_in_a_browser(server, expected, pictures):
    """From another origin, as the guide says."""
    page = Starlette(routes=[Mount("/", StaticFiles(directory=SERVING / "demo", html=True))])
    with running(page) as origin, chromium() as browser:
        address = f"{origin.base_url}/?url={server.url}&model=wflw&version=stable"
        visit = Visit(browser.new_context(), address)
        visit.choose(pictures[0])
        found = visit.download()
        assert visit.complaints == []
    width, height = Image.open(io.BytesIO(pictures[0])).size
    assert (found["picture"]["width"], found["picture"]["height"]) == (width, height)
    check(found["outputs"], expected(pictures[:1], [found["box"]]))


# --- operation


def test_metrics_have_the_names_and_kinds_of_the_guide(server):
    text = server.http.get("/monitoring/prometheus/metrics").text
    kinds = dict(re.findall(r"^# TYPE (:tensorflow:\S+) (\w+)$", text, re.MULTILINE))
    table = GUIDE[GUIDE.index("## Monitoring") :]
    rows = re.findall(r"^\| `(:tensorflow:\S+)` \| (\w+) \| (`.*?`) \|", table, re.MULTILINE)
    assert len(rows) == 6
    for name, kind, labels in rows:
        assert kinds[name] == kind, name
        suffix = "_count" if kind == "histogram" else ""
        sample = re.search(rf"^{re.escape(name + suffix)}{{(.*?)}}", text, re.MULTILINE)
        assert re.findall(r"(\w+)=", sample[1]) == re.findall(r"\w+", labels)
    for name in set(re.findall(r"(:tensorflow:[\w:]+?)(?:_bucket|_sum|_count)?(?=[{\[])", table)):
        assert name in kinds or f"{name}_count" in kinds, f"alerts use {name}"


def version_of(server, label: str) -> str:
    answer = server.http.get(f"/v1/models/wflw/labels/{label}/metadata").json()
    return answer["model_spec"]["version"]


def test_a_version_and_its_label_in_one_edit_are_refused_together(server, config):
    before = config.read_text()
    config.write_text(before.replace("versions: 1", "versions: 2").replace("value: 1", "value: 2"))
    wait_for(lambda: "Request to assign label to version 2" in server.log())
    time.sleep(1.5)  # it has been read again
    assert server.http.get("/v1/models/wflw/versions/2/metadata").status_code == 404
    assert version_of(server, "stable") == version_of(server, "canary") == "1"
    config.write_text(before)
    time.sleep(1.5)


def test_the_steps_of_a_canary(server, config, pictures):
    """The guide's own commands; requests for `stable` are answered all the time."""
    edits = re.findall(r"^ {4}sed -i '(.*)' \$CONFIG", GUIDE, re.MULTILINE)
    load, canary, everyone, back, unload = [
        lambda edit=edit: os.spawnlp(os.P_WAIT, "sed", "sed", "-i", edit, str(config))
        for edit in edits
    ]
    row = {"instances": [{"image_bytes": encoded(pictures[0]), "box": BOX}]}
    statuses, done = [], threading.Event()

    def keep_asking():
        with httpx.Client(base_url=server.url, timeout=60) as http:
            while not done.is_set():
                path = "/v1/models/wflw/labels/stable:predict"
                statuses.append(http.post(path, json=row).status_code)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        load()
        server.wait_for("/v1/models/wflw/versions/2/metadata")
        assert version_of(server, "canary") == "1"
        canary()
        wait_for(lambda: version_of(server, "canary") == "2")
        assert version_of(server, "stable") == "1"
        everyone()
        wait_for(lambda: version_of(server, "stable") == "2")
        back()
        wait_for(lambda: version_of(server, "stable") == "1")
        everyone()
        wait_for(lambda: version_of(server, "stable") == "2")
        unload()
        gone = "/v1/models/wflw/versions/1/metadata"
        wait_for(lambda: server.http.get(gone).status_code == 404)
    finally:
        done.set()
        asking.join()
    assert version_of(server, "stable") == version_of(server, "canary") == "2"
    assert len(statuses) > 10 and set(statuses) == {200}


def test_sigterm_ends_it_at_once(server, pictures):
    """Whoever is being answered is cut off; the guide and `preStop` say so."""
    files = [encoded(pictures[0])] * 200
    body = {"inputs": {"image_bytes": files, "box": [BOX] * 200}}
    found = []

    def ask():
        try:
            found.append(server.ask(body)[0])
        except httpx.HTTPError as error:
            found.append(type(error))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.1)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == -signal.SIGTERM
    asking.join()
    assert found[0] in (200, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
