"""How many processors there are to use, on systems that can and cannot tell which are ours."""

import os

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
