"""Which landmark set predictions have that don't name theirs."""

import json

import pytest

from tfhuber.landmarks import known_sets
from tfhuber.landmarks.chosen import chosen


def test_by_number_by_name_and_from_a_file(tmp_path):
    assert chosen(None, 98) is known_sets.WFLW and chosen(None, 3) is None
    assert chosen("mpii", 16) is known_sets.MPII
    path = tmp_path / "hand.json"
    path.write_text(json.dumps({"name": "hand", "landmarks": ["pivot", "tip"]}))
    assert chosen(str(path), 2).names == ("pivot", "tip")


def test_another_number_and_no_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="wflw has 98 landmarks, the lines have 4"):
        chosen("wflw", 4)
    with pytest.raises(OSError, match="nowhere"):
        chosen(str(tmp_path / "nowhere.json"), 4)
