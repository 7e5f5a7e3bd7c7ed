"""One device, two devices and two processes train alike; each example is seen once.

Devices are fixed once TensorFlow has started, so every strategy runs in processes of its own.
"""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tfhuber.training import strategy as distribution

ROOT = Path(__file__).resolve().parents[2]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _workers(count: int) -> list[dict]:
    """Return the environments of that many workers on this machine."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in _free_ports(count)]}
    return [
        {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})}
        for i in range(count)
    ]


def _run_together(commands: list[list[str]], environments: list[dict]) -> list[str]:
    """Run processes at the same time, and return what each printed."""
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command, environment in zip(commands, environments, strict=True)
    ]
    try:
        printed = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, printed, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [output for output, _ in printed]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return what `distributed_training.py` left, by strategy; a list of one for each process."""
    folder = tmp_path_factory.mktemp("distributed")
    modes = ["one_device", "mirrored", "multi_worker", "multi_worker"]
    outputs = [folder / f"{i}.npz" for i in range(4)]
    script = str(ROOT / "tests" / "helpers" / "distributed_training.py")
    commands = [[script, mode, str(path)] for mode, path in zip(modes, outputs, strict=True)]
    _run_together(commands, [{}, {}, *_workers(2)])
    one, two, *workers = [dict(np.load(path)) for path in outputs]
    return {"one_device": [one], "mirrored": [two], "multi_worker": workers}


@pytest.mark.parametrize("mode", ["mirrored", "multi_worker"])
def test_losses_norms_and_weights_are_those_of_one_device(trained, mode):
    """In float64: six steps of 4 and 3 examples, clipped, decayed and averaged, with batch normalisation.

    The statistics of one device are about the mean, those of several E[x^2] - E[x]^2, and Adam divides
    by the root of squares: 1e-10 is rounding.
    """
    one = trained["one_device"][0]
    assert one["gradient_norm"].min() < 1.0 < one["gradient_norm"].max()
    for process in trained[mode]:
        assert set(process) == set(one)
        assert sum("moving" in name for name in one) == 8
        for name in set(one) - {"ids", "parts"}:
            np.testing.assert_allclose(process[name], one[name], 1e-10, 1e-10, err_msg=name)


@pytest.mark.parametrize("mode", ["mirrored", "multi_worker"])
def test_every_example_of_a_batch_is_seen_once(trained, mode):
    ids = np.concatenate([process["ids"] for process in trained[mode]], axis=1)
    np.testing.assert_array_equal(ids, trained["one_device"][0]["ids"])
    assert [n for process in trained[mode] for n in process["parts"]] == [4, 3]


@pytest.mark.slow
def test_two_workers_train_a_run_as_one_device_does(tiny_config, tmp_path):
    """ResNet-18 in float32 from the command line, batches of 7: every number of metrics.json to 1 %."""
    values = tiny_config.model_dump(mode="json")
    values["train"] |= {"batch_size": 7, "epochs": 1, "learning_rate": [[0, 1e-5]]}
    path = tmp_path / "c.json"
    path.write_text(json.dumps(values))
    command = ["-m", "tfhuber.train", "--config", str(path), "--run"]
    _run_together([[*command, str(tmp_path / "one")]], [{}])
    several = [*command, str(tmp_path / "two"), "--set", "train.distribution=multi_worker"]
    chief, other = _run_together([several] * 2, _workers(2))
    assert "NME" in chief and not other
    one, two = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("one", "two"))
    for name in ("nme", "loss", "nll", "coverage_90"):
        assert two[name] == pytest.approx(one[name], rel=0.01), name
    # The chief's alone: the mark of its start, and all else.
    assert len(list((tmp_path / "two" / "logs").iterdir())) == 2


@pytest.mark.parametrize("error", [tf.errors.UnavailableError, tf.errors.AbortedError])
def test_a_lost_worker_is_said_in_one_line(error):
    with (
        pytest.raises(ConnectionError, match=r"another worker .* was lost; .* same command"),
        distribution.lost_workers_named(),
    ):
        raise error(None, None, "Graph execution error:\n\nmany lines")


def test_a_batch_smaller_than_the_devices_is_refused(monkeypatch):
    strategy = tf.distribute.get_strategy()
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 4)
    with pytest.raises(ValueError, match="batch_size = 3 is less than one example for each of 4"):
        distribution.distribute(lambda: None, 3, strategy)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "got 'none'"),
        ("", "got 'none'"),
        ("{", "got '{'"),
        ("[]", r"got '\[\]'"),
        ("null", "got 'null'"),
        ({"cluster": {"worker": ["a:1"]}}, "got"),
        (
            {"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}},
            "list of host:port",
        ),
        (
            {"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}},
            "list of host:port",
        ),
        ({"cluster": {"worker": [["a:1"]]}, "task": {"type": "worker", "index": 0}}, "host:port"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}, "from 0"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}, "from 0"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "x"}}, "got"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}, "got"),
        ({"cluster": {"worker": ["a:1"] * 2}, "task": {"type": "worker", "index": 0}}, "twice"),
        ({"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}, "chief and worker"),
        (
            {"cluster": {"chief": ["a:1", "a:2"]}, "task": {"type": "chief", "index": 0}},
            "there is one chief",
        ),
    ],
)
def test_a_tf_config_that_is_none_is_named_in_one_line(text, fault, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(ValueError, match=r"multi_worker.* needs .*TF_CONFIG") as caught:
        distribution.strategy_for("multi_worker")
    assert "\n" not in str(caught.value)
    assert re.search(fault, str(caught.value))


@pytest.mark.parametrize(
    ("jobs", "chiefs"),
    [({"worker": 3}, [("worker", 0)]), ({"chief": 1, "worker": 2}, [("chief", 0)])],
)
def test_one_process_is_the_chief(jobs, chiefs):
    spec = tf.train.ClusterSpec({job: [f"{job}:{i}" for i in range(n)] for job, n in jobs.items()})
    found = []
    for job, count in jobs.items():
        for index in range(count):
            resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
                spec, task_type=job, task_id=index
            )
            if distribution.is_chief(SimpleNamespace(cluster_resolver=resolver)):
                found.append((job, index))
    assert found == chiefs
    assert distribution.is_chief(tf.distribute.get_strategy())
