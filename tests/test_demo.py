"""The demo's driver, run on stub commands that leave what the real ones leave."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

COMMAND = """
import pathlib, sys
with open("calls.txt", "a") as calls:
    print(__spec__.name, *sys.argv[1:], file=calls)
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
"""

SERVER = """
import http.server, os, pathlib, sys
flags = dict(argument.lstrip("-").split("=") for argument in sys.argv[1:])
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        self.send_response(200 if Handler.asked > 2 and self.path.endswith("/metadata") else 404)
        self.end_headers()
assert flags["model_base_path"] == "demo/model/wflw" and flags["model_name"] == "wflw"
pathlib.Path("server.pid").write_text(str(os.getpid()))
http.server.HTTPServer(("127.0.0.1", int(flags["rest_api_port"])), Handler).serve_forever()
"""

PLAIN_FACE = " ".join(["1.5"] * 196 + ["10 20 110 120", "0 0 0 0 0 0", "faces/plain.png"])
HIDDEN_FACE = " ".join(["1.5"] * 196 + ["11 21 111 121", "0 0 0 0 1 0", "faces/hidden.png"])

STUBS = {
    "pipelines/sample_data": f"""
folder = pathlib.Path(arguments["--output"])
folder = folder / "WFLW_annotations/list_98pt_rect_attr_train_test"
folder.mkdir(parents=True)
lines = {[PLAIN_FACE, HIDDEN_FACE]!r}
(folder / "list_98pt_rect_attr_test.txt").write_text("\\n".join(lines))
""",
    "pipelines/make_tfrecords": "",
    "tfhuber/train": 'pathlib.Path(arguments["--run"]).mkdir()',
    "tfhuber/evaluate": """
folder = pathlib.Path(arguments["--run"], "evaluations")
folder.mkdir()
(folder / "test-none-latest.json").write_text('{"nme": 5.123, "coverage_90": 0.9312, "subsets": {}}')
""",
    "tfhuber/export": "",
    "serving/client": """
found = '{"frame": 0, "landmarks": [[3.0, 4.0]], "covariance": [[[9, 0], [0, 16]]]}'
open(sys.argv[-1], "w").write(found if "film" in sys.argv[1] else "a picture")
""",
    "pipelines/sample_film": """
pathlib.Path(sys.argv[2]).touch()
truth = '{"frame": 0, "landmarks": [[0.0, 0.0]], "box": [0, 0, 9, 9]}'
pathlib.Path("demo/film.truth.jsonl").write_text(truth)
""",
    "tfhuber/track": """
found = '{"frame": 0, "track": 1, "landmarks": [[0.0, 1.0]], "covariance": [[[1, 0], [0, 0.1]]]}'
pathlib.Path(sys.argv[3]).write_text(found)
pathlib.Path(sys.argv[-1]).touch()
""",
}


STEPS = [
    *("Draw sample faces", "Convert them to TFRecords", "Train", "Evaluate", "Export", "Serve"),
    *("Predict over REST", "Draw a film, and predict it", "Track"),
]


@pytest.fixture
def project(tmp_path):
    """Make a folder (with a space) of the real driver and stubs of the commands it runs."""
    root = tmp_path / "a project"
    for name, body in {**STUBS, "serving/local_server": SERVER}.items():
        file = root / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(body if name == "serving/local_server" else COMMAND + body)
    (root / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "demo.py", root / "tools")
    return root


def start(project):
    """Start the driver from another folder."""
    command = [sys.executable, project / "tools" / "demo.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "http_proxy": "http://127.0.0.1:9"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=project.parent, env=environment, text=True, **pipes)


def demo(project):
    process = start(project)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


def calls(project):
    lines = (project / "calls.txt").read_text().splitlines()
    return {line.split()[0]: line.split()[1:] for line in reversed(lines)}  # the first of each


def server_stopped(project):
    with pytest.raises(ProcessLookupError):
        os.kill(int((project / "server.pid").read_text()), 0)
    return True


def test_runs_every_command_and_ends_with_what_was_measured_and_the_picture(project):
    code, stdout, stderr = demo(project)
    assert (code, stderr) == (0, "")
    *times, _, measured, film, picture, tracked = stdout.splitlines()[-15:]
    assert [re.sub(r" {2,}\d+ s$", "", line) for line in times if line] == [*STEPS, "in all"]
    assert measured == "NME 5.12 %, 90 % ellipses hold 93.1 % of the labels"
    predicted = "as predicted 5.00 px (90 % ellipses hold 100.0 %)"
    assert film == f"Film's RMSE: {predicted}, tracked 1.00 px (90 % ellipses hold 0.0 %)"
    assert tracked == f"Film: {project / 'demo' / 'tracked.mp4'}"
    assert picture == f"Picture: {project / 'demo' / 'overlay.png'}"
    assert (project / "demo" / "overlay.png").read_text() == "a picture"
    assert set(calls(project)) == {name.replace("/", ".") for name in STUBS}
    train = " ".join(calls(project)["tfhuber.train"])
    assert train == "--config configs/demo.json --data demo/data --run demo/run"
    assert server_stopped(project)


def test_predicts_on_a_partly_hidden_face(project):
    demo(project)
    image, box, *_ = calls(project)["serving.client"]
    assert image == "demo/sample/WFLW_images/faces/hidden.png"
    assert box == "--box=11,21,111,121"


def test_prints_each_command_as_it_can_be_typed(project):
    _, stdout, _ = demo(project)
    commands = [line for line in stdout.splitlines() if line.startswith("$ ")]
    assert len(commands) == 10
    python = shlex.quote(os.path.relpath(sys.executable, project))
    assert f"$ {python} -m tfhuber.evaluate --run demo/run" in commands


def test_starts_anew_and_leaves_what_is_not_its_own(project):
    demo(project)
    (project / "demo" / "run" / "old").touch()
    (project / "demo" / "notes.txt").touch()
    assert demo(project)[0] == 0
    assert not (project / "demo" / "run" / "old").exists()
    assert (project / "demo" / "notes.txt").exists()


@pytest.mark.parametrize(
    ("module", "step"),
    [("tfhuber/train", "step 3, 'Train'"), ("serving/client", "step 7, 'Predict over REST'")],
)
def test_a_failing_step_is_named(project, module, step):
    (project / f"{module}.py").write_text("import sys; sys.exit(3)")
    code, _, stderr = demo(project)
    assert code == 2
    (line,) = stderr.splitlines()
    assert line.startswith(f"error: {step}, failed: exit code 3 from ")
    assert module.replace("/", ".") in line
    assert module != "serving/client" or server_stopped(project)


def test_a_server_that_stops_is_named_with_its_last_words(project):
    (project / "serving" / "local_server.py").write_text('raise SystemExit("error: no model")')
    code, _, stderr = demo(project)
    assert code == 2
    (line,) = stderr.splitlines()
    assert "step 6, 'Serve', failed: the server stopped with exit code 1" in line
    assert line.endswith("see demo/server.log: error: no model")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_stops_the_server(project, number, code):
    client = "import pathlib, time; pathlib.Path('waiting').touch(); time.sleep(60)"
    (project / "serving" / "client.py").write_text(client)
    process = start(project)
    deadline = time.monotonic() + 30
    while not (project / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == code
    assert server_stopped(project)
