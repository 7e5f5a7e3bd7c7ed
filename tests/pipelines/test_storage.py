"""A source's files, on the local disk and in an object store: what is read, and what never is."""

import hashlib
import os
from pathlib import Path

import pytest
import toy_filesystem
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipelines import storage
from pipelines.errors import Unusable
from pipelines.storage import Source, create, is_local, open_file

FILES = {
    "list.txt": b"whole.jpg\r\n",
    "outside.jpg": b"secret",
    "images/whole.jpg": b"x" * 1000,
    "images/deep/er/a.jpg": b"deep",
    "images/..dots.jpg": b"dots",
    "images/back\\slash.jpg": b"backslash",
    "images/ümläut 雪.jpg": b"unicode",
    "images/[1]*?.jpg": b"glob",
    "images/packed.gz": b"no gzip",
    "images/empty.jpg": b"",
}
# Where names in a folder are a matter of links.
LOCAL_ONLY = {"link.jpg": "../outside.jpg", "loop.jpg": "loop.jpg", "inner_link.jpg": "whole.jpg"}


@pytest.fixture
def local(tmp_path) -> Source:
    """The files above on the disk, with links, a pipe and a folder that looks like an image."""
    root = tmp_path / "source"
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name, target in LOCAL_ONLY.items():
        (root / "images" / name).symlink_to(target)
    (root / "images" / "out").symlink_to("..")
    (root / "images" / "device.jpg").symlink_to("/dev/zero")
    (root / "images" / "folder.jpg").mkdir()
    os.mkfifo(root / "images" / "pipe.jpg")
    return Source(str(root))


@pytest.fixture
def remote(tmp_path, monkeypatch) -> Source:
    """The files above in the toy object store."""
    store = tmp_path / "store"
    store.mkdir()
    monkeypatch.setenv(toy_filesystem.DIRECTORY, str(store))
    toy_filesystem.opened.clear()
    for name, content in FILES.items():
        with create(f"toy://bucket/data/{name}") as file:
            file.write(content)
    return Source("toy://bucket/data")


@pytest.fixture(params=["local", "remote"])
def source(request) -> Source:
    return request.getfixturevalue(request.param)


def refusal(source, name, most=1000):
    with pytest.raises(Unusable) as refused:
        source.read(name, "image", most, "images")
    assert "\n" not in refused.value.detail
    return refused.value.reason


# --- what is read


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("images/")])
def test_files_below_the_folder_are_read_as_they_are(source, path):
    name = path.removeprefix("images/")
    assert source.read(name, "image", 1000, "images") == FILES[path]


@pytest.mark.parametrize(
    "name", ["./whole.jpg", "deep/../whole.jpg", "deep//er/../../whole.jpg", "deep/er/./a.jpg"]
)
def test_a_name_may_take_detours_within_the_folder(source, name):
    assert source.read(name, "image", 1000, "images") in FILES.values()


@pytest.mark.parametrize("folder", ["", "images"])
def test_the_folder_may_be_the_source_itself(source, folder):
    name = "whole.jpg" if folder else "images/whole.jpg"
    assert source.read(name, "image", 1000, folder) == FILES["images/whole.jpg"]


def test_a_relative_path_is_a_local_one(local, monkeypatch):
    monkeypatch.chdir(Path(local.root).parent)
    assert Source("source").read("whole.jpg", "image", 1000, "images") == FILES["images/whole.jpg"]
    assert is_local("source") and is_local("/a/b") and is_local("C:\\a") and is_local("a:b/c")
    assert not is_local("gs://a/b") and not is_local("toy://a")


def test_links_within_the_folder_are_followed_and_the_folder_itself_may_be_one(local, tmp_path):
    assert local.read("inner_link.jpg", "image", 1000, "images") == FILES["images/whole.jpg"]
    (tmp_path / "elsewhere").symlink_to(local.root)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pictures").symlink_to(Path(local.root, "images"))
    for root, folder in ((tmp_path / "elsewhere", "images"), (tmp_path / "other", "pictures")):
        source = Source(str(root))
        assert source.read("whole.jpg", "image", 1000, folder) == FILES["images/whole.jpg"]
        with pytest.raises(Unusable, match="path_outside_source"):
            source.read("link.jpg", "image", 1000, folder)


# --- what is not


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("absent.jpg", "missing_image"),
        ("deep", "missing_image"),
        ("deep/er/a.jpg/b.jpg", "missing_image"),
        ("", "missing_image"),
        (".", "missing_image"),
        ("*.jpg", "missing_image"),
        ("nul\0.jpg", "missing_image"),
        ("x" * 5000, "missing_image"),
        ("x/" * 5000, "missing_image"),
        ("whole.jpg\n", "missing_image"),
        ("deep\\..\\whole.jpg", "missing_image"),
        ("%2e%2e/outside.jpg", "missing_image"),
        ("../outside.jpg", "path_outside_source"),
        ("..", "path_outside_source"),
        ("deep/../../outside.jpg", "path_outside_source"),
        ("../images_of_others/a.jpg", "path_outside_source"),
        ("/etc/hostname", "path_outside_source"),
        ("//etc/hostname", "path_outside_source"),
    ],
)
def test_names_that_are_refused(source, name, expected):
    assert refusal(source, name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("link.jpg", "path_outside_source"),
        ("out/outside.jpg", "path_outside_source"),
        ("device.jpg", "path_outside_source"),
        ("loop.jpg", "missing_image"),
        ("folder.jpg", "missing_image"),
        ("pipe.jpg", "missing_image"),  # Which would otherwise wait for somebody to write into it.
    ],
)
def test_links_devices_and_pipes_are_refused(local, name, expected):
    assert refusal(local, name) == expected


@pytest.mark.parametrize("name", ["toy://bucket/data/outside.jpg", "gs://other/a.jpg"])
def test_urls_are_no_names(remote, name):
    assert refusal(remote, name) == "path_outside_source"


def test_a_file_that_cannot_be_read(local, remote, monkeypatch):
    """On a local disk it is the file's fault; elsewhere the connection's, and the runner tries again."""

    def refuse(path):
        raise PermissionError(f"Permission denied:\n{path}")

    monkeypatch.setattr(storage, "open_file", refuse)
    assert refusal(local, "whole.jpg") == "unreadable_image"
    with pytest.raises(PermissionError):
        remote.read("whole.jpg", "image", 1000, "images")


def test_a_large_file_is_refused(source):
    assert len(source.read("whole.jpg", "image", 1000, "images")) == 1000
    assert refusal(source, "whole.jpg", most=999) == "image_too_large"


def test_a_file_without_end_is_read_no_further_than_allowed(local):
    with open(Path(local.root, "images", "sparse.jpg"), "wb") as file:
        file.truncate(1 << 40)
    assert refusal(local, "sparse.jpg") == "image_too_large"


def test_reasons_say_what_the_file_was_for(source):
    with pytest.raises(Unusable) as refused:
        source.read("absent.mat", "labels", 1000)
    assert refused.value.reason == "missing_labels"
    with pytest.raises(Unusable, match="labels_too_large"):
        source.read("images/whole.jpg", "labels", 9)


# --- the lists, which are trusted


def test_has_finds_files_and_folders(source):
    for name in ("list.txt", "images", "images/deep", "images/whole.jpg"):
        assert source.has(name), name
    for name in ("list", "imag", "images/whole", "absent/file.txt"):
        assert not source.has(name), name


def test_names_of_a_folder_are_those_of_its_files(source):
    found = set(source.names("images"))
    assert {"whole.jpg", "..dots.jpg", "ümläut 雪.jpg", "[1]*?.jpg"} <= found
    assert not {"a.jpg", "er/a.jpg", "list.txt"} & found
    assert list(source.names("absent")) == []


def test_lists_are_opened_and_their_checksum_told(source):
    with source.open("list.txt") as file:
        assert file.read() == FILES["list.txt"]
    assert source.sha256("list.txt") == hashlib.sha256(FILES["list.txt"]).hexdigest()


def test_an_object_appears_when_it_is_complete(remote):
    path = remote.path("new.txt")
    with create(path) as file:
        file.write(b"first")
        assert not remote.has("new.txt")
    with create(path) as file:
        file.write(b"second")
        with open_file(path) as old:
            assert old.read() == b"first"
    with open_file(path) as new:
        assert new.read() == b"second"


def test_each_file_is_opened_once(remote):
    remote.read("whole.jpg", "image", 1000, "images")
    refusal(remote, "../outside.jpg")
    refusal(remote, "absent.jpg")
    assert toy_filesystem.opened == {"toy://bucket/data/images/whole.jpg": 1}


def test_the_toy_store_moves_and_copies_like_the_real_ones(remote, local, tmp_path):
    toy_filesystem.upload(Path(local.root, "images", "deep"), "toy://other/deep")
    names = [f"toy://other/{name}" for name in ("deep/er/a.jpg", "b", "c", "absent")]
    FileSystems.copy(names[:1], names[1:2])
    FileSystems.rename(names[1:2], names[2:3])
    with pytest.raises(BeamIOError):
        FileSystems.rename(names[3:], names[1:2])
    toy_filesystem.download("toy://other", tmp_path / "back")
    found = {str(path.relative_to(tmp_path / "back")) for path in (tmp_path / "back").rglob("*")}
    assert found == {"deep", "deep/er", "deep/er/a.jpg", "c"}
    FileSystems.delete(["toy://other/deep"])
    (match,) = FileSystems.match(["toy://other/**"])
    assert [(each.path, each.size_in_bytes) for each in match.metadata_list] == [(names[2], 4)]


@pytest.mark.parametrize("name", ["deep\\er\\a.jpg", "images/deep/er/A.JPG", "U\u0308mläut 雪.jpg"])
def test_other_notations_are_found_in_both(local, remote, name):
    content = {local.read(name, "image", 10, "images"), remote.read(name, "image", 10, "images")}
    assert content <= {b"deep", b"unicode"} and len(content) == 1
