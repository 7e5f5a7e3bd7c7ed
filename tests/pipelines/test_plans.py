"""Which training images are held out: a part by name, those of a list, or none."""

import shutil

import pytest
from conversion import convert, faces, photograph
from official_layouts import image, person, write_mpii
from pose_projects import write_dlc

from pipelines.plans import some_photographs
from pipelines.readers.annotation import Entry
from pipelines.verify import verify
from tfhuber.data import records
from tfhuber.data.tfrecord import read_records


def crowd(directory, images=60):
    """Two people on each of so many training images."""
    names = [f"{i:09d}.jpg" for i in range(images)]
    write_mpii(directory, *(image(person(), person(), name=name) for name in names))
    for name in names:
        photograph(directory / "images" / name, size=(60, 50))
    return names


def split_images(output, splits=("train", "valid")):
    """The names of the images of each split's examples."""
    found, manifest = {split: set() for split in splits}, records.read_manifest(output)
    for split, images in found.items():
        for path in records.shard_paths(output, manifest, split):
            with open(path, "rb") as file:
                ids = [records.decode(record)["id"].decode() for record in read_records(file)]
            images.update(id.split("#")[0] for id in ids)
    return found


def test_a_part_of_the_images_is_held_out_by_name(tmp_path):
    names = crowd(tmp_path / "source")
    options = ["--validation-fraction", "0.25"]
    manifest, _ = convert(tmp_path / "source", tmp_path / "out", *options, dataset="mpii")
    split = split_images(tmp_path / "out")
    assert split["train"] | split["valid"] == set(names)
    assert not split["train"] & split["valid"]
    # 60 names, each held out with chance 0.25: 15 +- 3.4, so that 4 to 26 is over 3 sigma.
    assert 4 <= len(split["valid"]) <= 26
    assert manifest["splits"]["valid"]["examples"] == 2 * len(split["valid"])
    # Which images are held out doesn't depend on what else there is.
    (tmp_path / "source/mpii_human_pose_v1_u12_1.mat").unlink()
    shutil.move(tmp_path / "source/images", tmp_path / "images")
    (tmp_path / "source").rmdir()
    write_mpii(tmp_path / "source", *(image(person(), name=name) for name in names[::2]))
    shutil.copytree(tmp_path / "images", tmp_path / "source/images", dirs_exist_ok=True)
    convert(tmp_path / "source", tmp_path / "half", *options, dataset="mpii")
    assert split_images(tmp_path / "half")["valid"] == split["valid"] & set(names[::2])


def test_a_list_of_images_is_held_out(tmp_path):
    names = crowd(tmp_path / "source", images=4)
    listed = tmp_path / "valid.txt"
    # As Tompson's list has it, one line a person; some are not in this data set.
    listed.write_text(f"{names[2]}\r\n{names[2]}\r\n{names[0]}\r\nelsewhere.jpg\r\n", newline="")
    convert(
        tmp_path / "source", tmp_path / "out", "--validation-images", str(listed), dataset="mpii"
    )
    split = split_images(tmp_path / "out")
    assert split == {"train": {names[1], names[3]}, "valid": {names[0], names[2]}}


@pytest.mark.parametrize("split", ["official", "deploy"])
def test_nothing_is_held_out_on_request(tmp_path, split):
    bare = {name: person()[name] for name in ("scale", "objpos")}
    names = [f"{i}.jpg" for i in range(12)]
    entries = [image(person(), name=name) for name in names]
    write_mpii(tmp_path / "source", *entries, image(bare, name="test.jpg", train=0))
    for name in (*names, "test.jpg"):
        photograph(tmp_path / "source/images" / name, size=(60, 50))
    manifest, _ = convert(tmp_path / "source", tmp_path / "out", "--split", split, dataset="mpii")
    assert manifest["splits"].keys() == {"train", "test"}
    assert manifest["splits"]["train"]["examples"] == 12
    assert manifest["splits"]["test"]["examples"] == (split == "deploy")
    verify(str(tmp_path / "out"))


def test_a_list_that_names_no_image_is_an_error(tmp_path):
    faces(tmp_path / "source")
    (tmp_path / "valid.txt").write_text("elsewhere.jpg\n")
    with pytest.raises(ValueError, match=r"valid\.txt names no training image"):
        convert(
            tmp_path / "source",
            tmp_path / "out",
            "--validation-images",
            str(tmp_path / "valid.txt"),
        )
    assert not (tmp_path / "out").exists()


def test_tompsons_split_asks_for_its_list(tmp_path):
    crowd(tmp_path / "source", images=2)
    with pytest.raises(ValueError, match=r"--validation-images FILE .*pose-hg-train"):
        convert(tmp_path / "source", tmp_path / "out", "--split", "tompson", dataset="mpii")


@pytest.mark.parametrize("options", [[], ["--validation-fraction", "0.000001"]])
def test_of_few_photographs_one_is_held_out(tmp_path, options):
    names = crowd(tmp_path / "source", images=3)  # None of which is in the hashed tenth.
    convert(tmp_path / "source", tmp_path / "out", *options, dataset="mpii")
    split = split_images(tmp_path / "out")
    assert len(split["valid"]) == 1 and split["train"] == set(names) - split["valid"]
    convert(tmp_path / "source", tmp_path / "half", "--validation-fraction", "0.5", dataset="mpii")
    assert split["valid"] <= split_images(tmp_path / "half")["valid"]
    verify(str(tmp_path / "out"))


@pytest.mark.parametrize(("images", "missing"), [(1, False), (3, True)])
def test_where_nothing_can_be_held_out_the_option_is_named(tmp_path, capsys, images, missing):
    names = crowd(tmp_path / "source", images)
    if missing:  # The one that is held out.
        convert(tmp_path / "source", tmp_path / "first", dataset="mpii")
        (held_out,) = split_images(tmp_path / "first")["valid"]
        (tmp_path / "source/images" / held_out).unlink()
    capsys.readouterr()
    manifest, _ = convert(tmp_path / "source", tmp_path / "out", dataset="mpii")
    assert manifest["splits"]["train"]["examples"] == 2 * (len(names) - missing)
    assert "note: no example is held out" in capsys.readouterr().out


def test_where_nothing_is_to_be_held_out_nothing_is_said(tmp_path, capsys):
    crowd(tmp_path / "source", images=3)
    options = ["--validation-fraction", "0"]
    manifest, _ = convert(tmp_path / "source", tmp_path / "out", *options, dataset="mpii")
    assert manifest["splits"].keys() == {"train"} and "held out" not in capsys.readouterr().out


class Folders:
    """A reader whose photographs are folders."""

    def photograph(self, image):
        return image.partition("/")[0]


def test_whole_videos_are_held_out_until_the_fraction_is_reached():
    def held_out(counts, fraction):
        entries = [
            Entry(f"{video}/{i}", "train", f"{video}/{i}", "list", "1", None)
            for video, count in counts.items()
            for i in range(count)
        ]
        test = some_photographs(entries, Folders(), fraction)
        return {video: test(video) for video in counts}

    many = held_out({f"v{i}": 10 for i in range(40)}, 0.1)
    assert sum(many.values()) == 4
    assert held_out({"a": 5, "b": 100, "c": 100}, 0.1) == {"a": True, "b": False, "c": False}
    assert sum(held_out({"a": 50, "b": 50}, 1.0).values()) == 1
    assert not any(held_out({"a": 50}, 0.5).values())


def test_a_part_is_held_out_to_calibrate_and_the_rest_stays_as_it_was(tmp_path):
    names = crowd(tmp_path / "source")
    options = ["--validation-fraction", "0.2"]
    without, _ = convert(tmp_path / "source", tmp_path / "without", *options, dataset="mpii")
    options += ["--calibration-fraction", "0.25"]
    manifest, _ = convert(tmp_path / "source", tmp_path / "out", *options, dataset="mpii")
    before = split_images(tmp_path / "without")
    found = split_images(tmp_path / "out", ("train", "valid", "calibration"))
    assert found["valid"] == before["valid"]
    assert found["train"] | found["calibration"] == before["train"]
    assert not found["train"] & found["calibration"]
    # Some 48 names, each with chance 0.25: 12 +- 3, so that 3 to 21 is 3 sigma.
    assert 3 <= len(found["calibration"]) <= 21
    assert manifest["splits"]["calibration"]["examples"] == 2 * len(found["calibration"])
    assert manifest["parameters"]["calibration_fraction"] == 0.25
    assert "calibration_fraction" not in without["parameters"]
    assert list(manifest["splits"]) == ["train", "valid", "calibration"]
    verified = verify(str(tmp_path / "out"))
    assert sum(split["examples"] for split in verified.values()) == 2 * len(names)


def test_a_listed_photograph_validates_and_does_not_calibrate(tmp_path):
    names = crowd(tmp_path / "source", images=12)
    listed = tmp_path / "valid.txt"
    listed.write_text("\n".join(names[:6]))
    options = ["--validation-images", str(listed), "--calibration-fraction", "0.9"]
    convert(tmp_path / "source", tmp_path / "out", *options, dataset="mpii")
    assert split_images(tmp_path / "out", ("valid",))["valid"] == set(names[:6])


@pytest.mark.parametrize("fraction", ["-0.1", "0.95", "nan"])
def test_what_is_no_part_to_calibrate_with_is_refused(tmp_path, fraction):
    with pytest.raises(ValueError, match=r"--calibration-fraction must be between 0 and 0\.9"):
        convert(tmp_path, tmp_path / "out", "--calibration-fraction", fraction)


def test_whole_videos_calibrate_and_none_of_those_that_validate(tmp_path):
    write_dlc(tmp_path / "source", videos="abcdefgh", frames=2)
    options = ["--validation-fraction", "0.25", "--calibration-fraction", "0.3"]
    convert(tmp_path / "source", tmp_path / "out", *options, dataset="dlc")
    found = split_images(tmp_path / "out", ("train", "valid", "calibration"))
    videos = {split: {image.split("/")[-2] for image in images} for split, images in found.items()}
    # Two of eight validate, and of the other six 0.3, which is nearest to two, calibrate.
    assert [len(videos[split]) for split in ("train", "valid", "calibration")] == [4, 2, 2]
    assert len(set.union(*videos.values())) == 8
