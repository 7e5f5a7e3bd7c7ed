"""How many processors there are to use, on systems that can and cannot tell which are ours."""

import os
import subprocess
import sys

import pytest

from tfhuber.console.cpus import available_cpus


@pytest.mark.parametrize(("everything", "expected"), [(6, 6), (None, 1)])
def test_where_only_all_processors_are_known_they_count(monkeypatch, everything, expected):
    """As on macOS, whose `os` has no `sched_getaffinity`."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: everything)
    assert available_cpus() == expected


def test_a_process_that_is_kept_to_some_processors_counts_these(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 7}, raising=False)
    assert available_cpus() == 3


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, "1 True"), ("0", "0 False"), ("1", "1 True"), ("true", "true True")],
)
def test_onednn_is_on_unless_the_user_says_otherwise(before, after):
    program = (
        "import os, sys, tfhuber; from tfhuber.console.cpus import uses_onednn; "
        "assert 'tensorflow' not in sys.modules; "
        "print(os.environ['TF_ENABLE_ONEDNN_OPTS'], uses_onednn())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {} if before is None else {"TF_ENABLE_ONEDNN_OPTS": before}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == after


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("4", "4")])
def test_openblas_has_one_thread_unless_the_user_says_otherwise(before, after):
    program = "import os, tfhuber; print(os.environ['OPENBLAS_NUM_THREADS'])"
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    environment |= {} if before is None else {"OPENBLAS_NUM_THREADS": before}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == after
