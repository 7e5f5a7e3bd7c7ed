"""Which of a directory's entries are versions of a model, and which is the newest."""

import pytest

from serving.local_server.versions import ModelVersions
from tfhuber.saved_model import export, versions

# A name that `int` reads or `str.isdigit` accepts, and TensorFlow Serving does not take for a version.
NO_VERSIONS = ("²", "३", "-1", "+2", "1_0", "1.5", "v2", " 3", ".export-11", str(2**63))


@pytest.fixture
def base(tmp_path):
    """A directory with two versions, and much that is none."""
    for name in ("2", "0010", *NO_VERSIONS):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_bytes(b"")
    (tmp_path / "99").write_text("a file, no directory")
    return tmp_path


def test_versions_are_directories_with_a_number_for_a_name(base):
    assert versions.numbered(base) == {2: base / "2", 10: base / "0010"}


def test_the_newest_version_is_found(base):
    assert versions.find_version(base) == base / "0010"
    assert versions.find_version(base / "2") == base / "2"
    (base / "11").mkdir()  # without a model
    assert versions.find_version(str(base)) == base / "0010"


def test_whoever_looks_for_versions_sees_the_same_ones(base, tmp_path_factory):
    """The server serves the newest that `find_version` finds, and an export becomes the next."""
    served = ModelVersions("any", base)
    served.poll()
    assert [status.version for status in served.statuses()] == [10]
    made = tmp_path_factory.mktemp("made")
    (made / "model").mkdir()
    assert export._publish(made / "model", base) == base / "11"


def test_no_model(tmp_path):
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=r"holds no exported model; make one with .*export"):
            versions.find_version(directory)
    (tmp_path / "²").mkdir()
    (tmp_path / "²" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match="holds no exported model"):
        versions.find_version(tmp_path)
