"""Names of files as other systems write them: found if they can mean one file only, and never outside."""

import os
import unicodedata

import pytest
from clock_keypoints import clock, document, photo, write
from conversion import convert

from pipelines.errors import Unusable
from pipelines.storage import Source

COMPOSED = unicodedata.normalize("NFC", "Grüße/müde.jpg")
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


def found(directory, files, name, folder="images"):
    """The file of these, below the source, that a name below the folder means; else why there is none."""
    for file in files:
        path = directory / "source" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    (directory / "source/images").mkdir(parents=True, exist_ok=True)
    try:
        return Source(str(directory / "source")).read(name, "image", 1000, folder).decode()
    except Unusable as unusable:
        return unusable.reason


@pytest.mark.parametrize(
    ("files", "name", "wanted"),
    [
        (["images/a.jpg"], "images\\a.jpg", 0),
        (["images/b/a.jpg"], "b\\a.jpg", 0),
        (["images/b/a.jpg"], ".\\b\\\\a.jpg", 0),
        (["images/a.jpg"], "images/a.jpg", 0),
        (["images/b/a.jpg"], "data/images/b/a.jpg", 0),
        (["images/a.jpg"], "C:\\Users\\me\\images\\a.jpg", 0),
        (["images/b/a.jpg"], "b/b/a.jpg", 0),
        (["images/b/c/a.jpg"], "b/c/b\\c/a.jpg", 0),
        (["images/A.JPG"], "a.jpg", 0),
        (["images/Shed/a.jpg"], "IMAGES\\shed\\A.jpg", 0),
        ([f"images/{COMPOSED}"], DECOMPOSED, 0),
        ([f"images/{DECOMPOSED}"], COMPOSED.upper(), 0),
        # What is there as it is written comes first, and then what differs least.
        (["images/a.jpg", "images/images/a.jpg"], "images/a.jpg", 1),
        (["images/a.jpg", "images/images/a.jpg"], "images\\a.jpg", 1),
        (["images/b\\a.jpg", "images/b/a.jpg"], "b\\a.jpg", 0),
        (["images/A.jpg", "images/a.JPG", "images/b.jpg"], "A.jpg", 0),
    ],
)
def test_a_name_that_means_one_file_is_found(tmp_path, files, name, wanted):
    assert found(tmp_path, files, name) == files[wanted]


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["images/A.jpg", "images/a.JPG"], "a.jpg"),
        (["images/b/A.jpg", "images/B/A.jpg"], "b/a.jpg"),
        (["images/b/b/a.jpg", "images/images/b/a.jpg"], "images/b/b/a.jpg"),
        (["images/a.jpg"], "b/a.jpg"),  # Nothing says that it is not another a.jpg.
        (["images/b/a.jpg"], "a.jpg"),
        (["images/a.jpg"], "images"),
        (["images/a.jpg"], "\\"),
        (["images/a.jpg"], "x\\" * 2000 + "a.jpg"),
    ],
)
def test_a_name_that_means_several_files_or_none_is_missing(tmp_path, files, name):
    assert found(tmp_path, files, name) == "missing_image"


@pytest.mark.parametrize(
    "name", ["..\\a.jpg", "b\\..\\..\\a.jpg", "images\\..\\..\\a.jpg", "\\a.jpg", "../A.jpg"]
)
def test_no_other_notation_leaves_the_source(tmp_path, name):
    assert found(tmp_path, ["a.jpg"], name) in ("missing_image", "path_outside_source")


def test_no_link_leaves_the_source(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.jpg").write_text("secret")
    (tmp_path / "source/images").mkdir(parents=True)
    (tmp_path / "source/images/Album").symlink_to(tmp_path / "outside")
    (tmp_path / "source/images/B.jpg").symlink_to(tmp_path / "outside/a.jpg")
    for name in ("album/a.jpg", "images\\Album\\a.jpg", "b.jpg"):
        assert found(tmp_path, [], name) == "path_outside_source"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
def test_a_folder_that_cannot_be_listed_has_no_files(tmp_path):
    (tmp_path / "source/images").mkdir(parents=True)
    (tmp_path / "source/images").chmod(0o100)
    assert found(tmp_path, [], "a.jpg") == "missing_image"


def test_where_all_are_missing_the_last_line_names_one_and_what_to_try(tmp_path):
    write(tmp_path / "in", train=document(clock(), images=[photo(name="2024\\a.jpg")]))
    with pytest.raises(ValueError) as error:
        convert(tmp_path / "in", tmp_path / "out", dataset="coco")
    line = str(error.value).splitlines()[0]
    assert (
        r"1 of 1 are missing_image, first annotations[1] of annotations/train.json: '2024" in line
    )
    assert line.endswith(
        "no file of images; --images FOLDER names the folder in which file names begin"
    )
