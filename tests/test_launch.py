"""Workers on one machine: each finds the others; one that fails has all start again; signals pass."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfhuber import launch

ROOT = Path(__file__).resolve().parent.parent


def _command(script: str) -> list[str]:
    return [sys.executable, "-c", "import json, os, sys, time\n" + script]


def _index() -> str:
    return "json.loads(os.environ['TF_CONFIG'])['task']['index']"


def test_every_worker_has_its_own_place_in_one_cluster():
    environments = launch.worker_environments(2)
    configs = [json.loads(e["TF_CONFIG"]) for e in environments]
    assert [c["task"] for c in configs] == [{"type": "worker", "index": i} for i in range(2)]
    assert configs[0]["cluster"] == configs[1]["cluster"]
    assert len(set(configs[0]["cluster"]["worker"])) == 2
    assert all("CUDA_VISIBLE_DEVICES" not in e for e in environments)


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """Make this a machine with so many GPUs, of which CUDA_VISIBLE_DEVICES names some."""

    def make(count, visible=None, in_proc=0):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        lines = "".join(f"GPU {i}: H200 (UUID: GPU-{i}a)\\n  MIG 1g\\n" for i in range(count))
        script = f"#!/bin/sh\nprintf '{lines}'\n" if count else "#!/bin/sh\nexit 9\n"
        smi = tmp_path / "bin" / "nvidia-smi"
        smi.parent.mkdir(exist_ok=True)
        smi.write_text(script)
        smi.chmod(0o755)
        monkeypatch.setenv("PATH", f"{smi.parent}{os.pathsep}{os.environ['PATH']}")
        for i in range(in_proc):
            (tmp_path / f"driver/nvidia/gpus/0000:0{i}").mkdir(parents=True)
        return launch.visible_gpus(tmp_path)

    return make


@pytest.mark.parametrize(
    ("machine", "found"),
    [
        ({"count": 0}, []),
        ({"count": 3}, ["0", "1", "2"]),
        ({"count": 0, "in_proc": 2}, ["0", "1"]),
        ({"count": 8, "visible": "4, 5,6"}, ["4", "5", "6"]),
        ({"count": 8, "visible": "GPU-1a,GPU-7a"}, ["GPU-1a", "GPU-7a"]),
        ({"count": 8, "visible": "3,-1,4"}, ["3"]),
        ({"count": 8, "visible": ""}, []),
    ],
    ids=str,
)
def test_gpus_are_counted_without_tensorflow(gpus, machine, found):
    assert gpus(**machine) == found


def test_every_worker_sees_its_own_gpus(gpus, capfd):
    gpus(5)
    script = f"print({_index()}, os.environ['CUDA_VISIBLE_DEVICES'])"
    assert launch.launch(_command(script), 2, 0) == 0
    lines = sorted(capfd.readouterr().out.splitlines())
    assert lines[:2] == ["[0] 0 0,2", "[1] 1 1,3"]
    assert lines[2].startswith("[launch] GPUs that are left idle") and lines[2].endswith(": 4")


def test_fewer_gpus_than_workers_are_one_line(gpus):
    gpus(8, visible="4,5")
    with pytest.raises(
        ValueError, match=r"--workers 3 needs 3 GPUs, one each, but there are 2 \(4, 5\)"
    ):
        launch.launch(_command("open('never', 'w')"), 3, 0)
    gpus(8, visible="-1")
    script = "assert os.environ['CUDA_VISIBLE_DEVICES'] == '-1'"
    assert launch.launch(_command(script), 3, 0) == 0


def test_output_is_prefixed_and_success_is_0(capfd):
    script = f"print('here', {_index()}); sys.stderr.write('10 %\\r20 %\\n')"
    assert launch.launch(_command(script), 2, 0) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == [
        "[0] 20 %",
        "[0] here 0",
        "[1] 20 %",
        "[1] here 1",
    ]


def test_all_start_again_when_one_is_lost(tmp_path, capfd):
    """Worker 1 kills itself in the first two rounds; worker 0 waits and is stopped."""
    script = f"""
rounds = len(os.listdir({str(tmp_path)!r}))
time.sleep(0.5)
if {_index()} == 1:
    open(os.path.join({str(tmp_path)!r}, str(rounds)), 'w').close()
    if rounds < 2:
        os.kill(os.getpid(), 9)
elif rounds < 2:
    time.sleep(60)
"""
    start = time.monotonic()
    assert launch.launch(_command(script), 2, 2) == 0
    assert time.monotonic() - start < 30 and len(list(tmp_path.iterdir())) == 3
    assert capfd.readouterr().out.count("starting all again") == 2


@pytest.mark.parametrize(("status", "rounds"), [(1, 3), (2, 1), (130, 1), (143, 1)])
def test_it_gives_up(tmp_path, status, rounds):
    """After the last restart; and at once, when the command itself is wrong or was asked to end."""
    script = f"open({str(tmp_path)!r} + f'/{{time.time_ns()}}', 'w'); sys.exit({status})"
    assert launch.launch(_command(script), 1, 2) == status
    assert len(list(tmp_path.iterdir())) == rounds


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_workers_and_end_the_launcher(tmp_path, number):
    (tmp_path / "worker.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "assert sys.argv[1:] == ['--x']\n"
        "def end(n, _):\n"
        "    pathlib.Path(f'ended{os.getpid()}').write_text(str(int(n)))\n"
        "    sys.exit(0)\n"
        f"signal.signal({int(number)}, end)\n"
        "pathlib.Path(f'started{os.getpid()}').touch()\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-m", "tfhuber.launch", "--workers", "2", "--", "worker", "--x"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("started*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert [p.read_text() for p in tmp_path.glob("ended*")] == [str(int(number))] * 2


def test_wrong_numbers_are_one_line():
    command = [sys.executable, "-m", "tfhuber.launch", "--workers", "0", "tfhuber.train"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: --workers must be 1 or more")


@pytest.mark.slow
def test_a_training_whose_workers_are_ended_and_lost_ends_with_the_same_weights(
    tiny_config, tmp_path
):
    """Worker 1 is asked to end and, the second time, killed: all is that of an undisturbed run."""
    values = tiny_config.model_dump(mode="json")
    values["train"] |= {
        "batch_size": 7,
        "epochs": 2,
        "evaluation_epochs": 2,
        "checkpoint_minutes": 0.001,
        "distribution": "multi_worker",
    }
    path = tmp_path / "c.json"
    path.write_text(json.dumps(values))

    def newest(name):
        steps = [int(p.stem[5:]) for p in (tmp_path / name).glob("latest/ckpt-*.index")]
        return max(steps, default=0)

    def run(name, blow=None, after=0, *changes):
        command = [sys.executable, "-m", "tfhuber.launch", "--workers", "2", "--", "tfhuber.train"]
        command += ["--config", str(path), "--run", str(tmp_path / name), *changes]
        launcher = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        while blow and newest(name) <= after:
            assert launcher.poll() is None
            time.sleep(0.01)
        if blow:
            children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text()
            os.kill(int(children.split()[-1]), blow)
        printed = launcher.communicate(timeout=900)[0]
        return launcher.returncode, printed

    status, printed = run("disturbed", signal.SIGTERM, after=2)
    stopped = newest("disturbed")
    # The chief, which was not asked, stops after the same step and saves it.
    for worker in range(2):
        assert (
            f"[{worker}] interrupted; step {stopped} is saved in {tmp_path}/disturbed;" in printed
        )
    assert status == 143 and "starting all again" not in printed and stopped < 12
    status, printed = run("disturbed", signal.SIGKILL, after=stopped)
    assert status == 0 and printed.count("starting all again") == 1
    status, printed = run("quiet", None, 0, "--set", "train.checkpoint_minutes=10")
    assert status == 0 and "starting all again" not in printed

    final = []
    for name in ("quiet", "disturbed"):
        reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(tmp_path / name / "latest"))
        keys = [k for k in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in k]
        final.append({k: reader.get_tensor(k) for k in keys if not k.startswith("save_counter")})
    assert set(final[0]) == set(final[1]) and len(final[0]) > 100
    for key, value in final[0].items():
        np.testing.assert_array_equal(final[1][key], value, err_msg=key)
