"""What commands load: TensorFlow takes seconds, so one that needs none must load none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tfhuber.console.lazy import lazy_module

ROOT = Path(__file__).resolve().parents[1]
HELP = [
    *(
        "tfhuber." + name
        for name in ("train", "calibrate", "evaluate", "export", "predict", "reproduce", "figures")
    ),
    *(
        "tfhuber." + name
        for name in (
            "compare",
            "seeds",
            "launch",
            "graph_lint",
            "doctor",
            "config",
            "track",
            "triangulate",
        )
    ),
    *("pipelines." + name for name in ("make_tfrecords", "predict", "verify", "sample_data")),
    "serving.client",  # the local server, which ends its process by itself, has its own test
]
WITHOUT_TENSORFLOW = [
    *([module, "--help"] for module in HELP),
    ["tfhuber.config", "configs/wflw.json"],
    ["tfhuber.reproduce", "table2", "--dry-run"],
]
PROGRAM = """
import json, runpy, sys
loaded = {}
for command in json.loads(sys.argv[1]):
    sys.argv[:] = command
    try:
        runpy.run_module(command[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code, (command, end.code)
    loaded[" ".join(command)] = [m for m in ("tensorflow", "keras") if m in sys.modules]
print(json.dumps(loaded), file=sys.stderr)
"""


def test_commands_that_need_no_tensorflow_load_none():
    command = [sys.executable, "-c", PROGRAM, json.dumps(WITHOUT_TENSORFLOW)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stderr.splitlines()[-1])
    assert loaded == {" ".join(command): [] for command in WITHOUT_TENSORFLOW}


def test_a_beam_worker_loads_no_tensorflow():
    program = (
        "import sys, pipelines.worker, pipelines.shards; sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_a_lazy_module_is_imported_when_a_name_in_it_is_used(tmp_path, monkeypatch):
    (tmp_path / "heavy_thing.py").write_text("weight = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    heavy = lazy_module("heavy_thing")
    assert "heavy_thing" not in sys.modules
    assert heavy.weight == 3
    monkeypatch.setattr(heavy, "weight", 5)
    assert sys.modules["heavy_thing"].weight == 5
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = heavy.no_such_name
