"""Labels of a picture that is turned by EXIF, or of another size: right, counted, or refused."""

import io
import json

import numpy as np
import pytest
from clock_keypoints import clock, document, photo, write
from conversion import convert
from PIL import Image, ImageOps

from pipelines.make_tfrecords import main
from pipelines.source_image import SourceImage, UprightImage
from pipelines.verify import verify
from tfhuber.data import records
from tfhuber.data.tfrecord import read_records

POINTS = [(60, 50), (90, 40), (100, 120)]
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
# What stores a picture so that the orientation turns it upright.
STORES = {
    **{1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180},
    **{4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE},
    **{6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270},
}


def upright(size=(160, 200)):
    """The picture as it is seen, with a dot at each point."""
    pixels = np.full((size[1], size[0], 3), 96, np.uint8)
    for (x, y), colour in zip(POINTS, COLOURS, strict=True):
        pixels[y - 4 : y + 5, x - 4 : x + 5] = colour
    return Image.fromarray(pixels)


def stored(orientation, picture=None, form="JPEG"):
    picture, exif, file = picture or upright(), Image.Exif(), io.BytesIO()
    if STORES[orientation] is not None:
        picture = picture.transpose(STORES[orientation])
    exif[0x0112] = orientation
    picture.save(file, form, exif=exif.tobytes(), quality=98, subsampling=0)
    return file.getvalue()


def source(directory, content, said, scale=1.0, **changes):
    """A clock whose three points are the dots, on a picture of which the JSON says that size."""
    keypoints = [
        n for x, y in POINTS for n in ((x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5, 2)
    ]
    size = {} if said is None else {"width": said[0], "height": said[1]}
    image = {"id": 1, "file_name": "a.jpg", **size}
    fields = {"keypoints": keypoints, "bbox": [30 * scale, 20 * scale, 100 * scale, 130 * scale]}
    write(directory, train=document(clock(**fields | changes), images=[image]))
    (directory / "images/a.jpg").write_bytes(content)
    return directory


def example(output):
    (path,) = records.shard_paths(output, records.read_manifest(output), "train")
    with open(path, "rb") as file:
        return [records.decode(record) for record in read_records(file)]


def colours_at_labels(found):
    """The pixels of the stored crop where the labels say that the dots are."""
    crop = np.asarray(Image.open(io.BytesIO(found["image"])).convert("RGB")).astype(int)
    to_crop = np.linalg.inv(found["crop_to_original"].reshape(3, 3))
    points = np.c_[found["landmarks"].reshape(-1, 2), np.ones(3)] @ to_crop.T
    return [crop[y, x] for x, y in np.rint(points[:, :2]).astype(int)]


def converted(directory, *options):
    options = ("--validation-fraction", "0", "--size", "512", *options)
    manifest, rejects = convert(directory / "in", directory / "out", *options, dataset="coco")
    verify(str(directory / "out"))
    (found,) = example(directory / "out")
    for colour, wanted in zip(colours_at_labels(found), COLOURS, strict=True):
        np.testing.assert_allclose(colour, wanted, atol=40)
    return found, manifest["splits"]["train"].get("notes"), rejects


@pytest.mark.parametrize("orientation", STORES)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_region_is_that_of_the_picture_as_it_is_shown(orientation, form):
    data = stored(orientation, form=form)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB"))
    image = UprightImage(SourceImage(data))
    assert image.size == shown.size == (160, 200)
    for box in ((0, 0, 160, 200), (10, 20, 41, 90), (159, 0, 160, 1)):
        np.testing.assert_array_equal(image.region(*box), shown.crop(box))


@pytest.mark.parametrize(
    ("orientation", "said"),
    [*((o, (160, 200)) for o in STORES), (6, None), (3, None), (8, (80, 100))],
)
def test_the_option_turns_pictures_that_were_labelled_upright(tmp_path, orientation, said):
    scale = 0.5 if said == (80, 100) else 1.0
    source(tmp_path / "in", stored(orientation), said, scale)
    found, notes, rejects = converted(tmp_path, "--apply-exif")
    np.testing.assert_allclose(found["landmarks"], np.ravel(POINTS), atol=1e-4)
    assert tuple(found["image_size"]) == (160, 200) and not rejects
    wanted = {"turned": 1} if orientation > 1 else {}
    assert notes == ((wanted | ({"scaled": 1} if scale < 1 else {})) or None)


@pytest.mark.parametrize(
    ("orientation", "said"), [(5, (160, 200)), (6, (160, 200)), (8, (80, 100))]
)
def test_without_the_option_nothing_is_learnt_beside_the_point(tmp_path, orientation, said):
    source(tmp_path / "in", stored(orientation), said)
    with pytest.raises(ValueError, match=r"nothing could be used.*turned_by_exif.*--apply-exif"):
        convert(tmp_path / "in", tmp_path / "out", dataset="coco")


def test_some_that_are_left_out_are_said_with_the_option(tmp_path, capsys):
    made = source(tmp_path / "in", stored(6), (160, 200))
    (made / "images/b.jpg").write_bytes(stored(1))
    images = [photo(width=160, height=200), photo(2, "b.jpg", width=160, height=200)]
    content = document(clock(1), clock(2, image_id=2), images=images)
    made.joinpath("annotations/train.json").write_text(json.dumps(content))
    manifest, _ = convert(made, tmp_path / "out", "--validation-fraction", "0", dataset="coco")
    assert manifest["splits"]["train"]["rejects_by_reason"] == {"turned_by_exif": 1}
    assert "note: 1 annotations were left out" in capsys.readouterr().out


@pytest.mark.parametrize(("orientation", "said"), [(3, (160, 200)), (6, None)])
def test_what_no_size_can_tell_is_said(tmp_path, capsys, orientation, said):
    source(tmp_path / "in", stored(orientation), said)
    manifest, _ = convert(tmp_path / "in", tmp_path / "out", dataset="coco")
    assert manifest["splits"]["train"]["notes"] == {"exif_ignored": 1}
    assert "note: 1 annotations are on photographs that EXIF" in capsys.readouterr().out


def test_labels_in_the_pixels_as_stored_stay_right(tmp_path):
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    upright().save(file, "JPEG", exif=exif.tobytes(), quality=98, subsampling=0)
    source(tmp_path / "in", file.getvalue(), (160, 200))
    _, notes, _ = converted(tmp_path)
    assert notes == {"exif_ignored": 1}


def test_the_option_holds_against_a_size_that_a_tool_has_not_turned(tmp_path, capsys):
    source(tmp_path / "in", stored(6), (200, 160))
    _, notes, _ = converted(tmp_path, "--apply-exif")
    assert notes == {"turned": 1, "turned_against_size": 1}
    assert "size before turning" in capsys.readouterr().out


@pytest.mark.parametrize(("said", "scale"), [((320, 400), 2.0), ((53, 67), 1 / 3), ((161, 201), 1)])
def test_labels_of_another_scale_are_scaled(tmp_path, capsys, said, scale):
    source(tmp_path / "in", stored(1), said, scale)
    found, notes, _ = converted(tmp_path)
    np.testing.assert_allclose(found["landmarks"], np.ravel(POINTS), atol=1)
    np.testing.assert_allclose(found["normalizer"], np.hypot(40, 70), rtol=0.01)
    assert notes == {"scaled": 1}
    assert "note: 1 annotations were made on pictures of another size" in capsys.readouterr().out


@pytest.mark.parametrize("said", [(200, 160), (160, 160), (160, 210), (20, 25)])
def test_a_size_that_fits_in_no_way_is_a_reject(tmp_path, said):
    source(tmp_path / "in", stored(1), said)  # (20, 25) would fit, but its points do not fit it.
    with pytest.raises(ValueError, match=r"nothing could be used.*wrong_image_size"):
        convert(tmp_path / "in", tmp_path / "out", dataset="coco")


@pytest.mark.parametrize("said", [(0, 0), (None, 200), (-160, 200), (160.5, 200), ("x", "y")])
def test_a_size_that_is_none_says_nothing(tmp_path, said):
    source(tmp_path / "in", stored(1), said)
    _, notes, rejects = converted(tmp_path)
    assert notes is None and rejects == []


def test_damaged_exif_is_no_orientation():
    data = stored(6).replace(b"II*\0", b"IIx\0").replace(b"MM\0*", b"MM\0x")
    assert SourceImage(data).orientation == 1


def test_the_option_is_cocos():
    paths = ["--source", "a", "--output", "b"]
    with pytest.raises(
        ValueError, match="--apply-exif belongs to --dataset coco or cvat, not wflw"
    ):
        main(["--dataset", "wflw", *paths, "--apply-exif"])


def test_an_image_listed_with_two_sizes_has_the_first(tmp_path):
    made = source(tmp_path / "in", stored(1), (160, 200))
    images = [photo(width=160, height=200), photo(width=3, height=3)]
    content = document(clock(), images=images)
    made.joinpath("annotations/train.json").write_text(json.dumps(content))
    convert(made, tmp_path / "out", "--validation-fraction", "0", dataset="coco")
    assert len(example(tmp_path / "out")) == 1
