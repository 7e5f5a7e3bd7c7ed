"""The contact sheet: what is drawn lands where the labels are, and the choice is the seed's alone."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import toy_filesystem
from conversion import convert, faces
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor, ImageFont

from pipelines import contact_sheet as module
from pipelines.contact_sheet import BOX, GAP, HEADER, LEFT, MIDDLE, RIGHT, SQUARE, TILE
from pipelines.contact_sheet import write_contact_sheet as write
from tfhuber.data import records
from tfhuber.data.tfrecord import frame
from tfhuber.landmarks.known_sets import WFLW, LandmarkSet, describe

KITE = LandmarkSet(
    name="kite",
    names=("a", "b", "top", "c", "d"),
    mirror=(1, 0, 2, 4, 3),
    edges=((0, 2), (1, 2)),
    metric="nme",
    square="longest",
)
# Of the whole data set: a lies left of b, but d left of c.
MEANS = {"a": -0.5, "b": 0.5, "top": 0.0, "c": 0.2, "d": 0.1}
GREY = (120, 120, 120)


def jpeg(colour=GREY, size=(64, 32)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def example(id="a.jpg#1", **changes):
    """An example of kites: the crop shows the original's pixels from (100, 50) on, 2 in each of its own."""
    values = {
        "image": jpeg(),
        "landmarks": [(120, 90), (190, 90), (150, 60), (140, 100), (0, 0)],
        "weights": [1, 1, 1, 1, 0],
        "box": [110, 55, 200, 105],
        "crop_to_original": [[2, 0, 100.5], [0, 2, 50.5], [0, 0, 1]],
        "normalizer": 1,
        "attributes": [],
        "image_size": (300, 200),
        "people": 1,
    }
    return records.encode(id=id, **values | changes)


def data_set(directory, **shards):
    """Writes shards and returns what of the manifest is needed; a shard `train_0` is of split train."""
    directory.mkdir()
    landmarks = {name: {"mean": [mean, 0.0]} for name, mean in MEANS.items()}
    splits = {}
    for name, contents in shards.items():
        (directory / name).write_bytes(b"".join(map(frame, contents)))
        split = splits.setdefault(
            name.split("_")[0], {"examples": 0, "landmarks": landmarks, "shards": []}
        )
        split["examples"] += len(contents)
        split["shards"].append({"name": name, "examples": len(contents)})
    return {"landmark_set": describe(KITE), "splits": splits}


def draw(directory, manifest, **options):
    """The sheet's pixels [height, width, 3]."""
    path = directory.with_suffix(".png")
    assert write(str(directory), manifest, str(path), **options)
    with Image.open(path) as image:
        assert image.mode == "RGB" and image.format == "PNG"
        return np.asarray(image).astype(int)


def place(x, y):
    """Where a point of the original image of `example` is on a sheet with one tile."""
    # Edges of pixels: 2 original ones are one stored, and 64 stored ones fill the tile's 256; half of
    # what the 32 rows leave free is above them.
    column, row = (x + 0.5 - 100) / 2 * 4, (y + 0.5 - 50) / 2 * 4 + (TILE - 128) / 2
    return GAP + int(column), HEADER + int(row)


def colour_at(sheet, x, y):
    column, row = place(x, y)
    return sheet[row, column]


def has_line(sheet, x, y, colour):
    """Whether a line, perhaps divided between two pixels, passes the point."""
    column, row = place(x, y)
    around = sheet[row - 1 : row + 2, column - 1 : column + 2]
    return np.abs(around - ImageColor.getrgb(colour)).max(-1).min() < 100


def is_colour(found, wanted):
    return np.abs(found - ImageColor.getrgb(wanted)).max() < 12


def test_dots_land_on_their_landmarks(tmp_path):
    sheet = draw(tmp_path / "data", data_set(tmp_path / "data", train=[example()]))
    assert is_colour(colour_at(sheet, 120, 90), LEFT)
    assert is_colour(colour_at(sheet, 190, 90), RIGHT)
    assert is_colour(colour_at(sheet, 150, 60), MIDDLE)
    assert is_colour(colour_at(sheet, 140, 100), RIGHT)
    # Halfway from `a` to `top`, and where nothing is.
    assert has_line(sheet, 135, 75, MIDDLE)
    assert np.abs(colour_at(sheet, 160, 90) - GREY).max() < 5


@pytest.mark.parametrize("x", [120, 130.25, 141.5, 150.75, 170])
@pytest.mark.parametrize("y", [60, 81.5, 95])
def test_dots_are_centred_to_half_a_pixel(tmp_path, x, y):
    points = np.zeros((5, 2))
    points[2] = x, y
    lonely = example(landmarks=points, weights=[0, 0, 1, 0, 0])
    sheet = draw(tmp_path / "data", data_set(tmp_path / "data", train=[lonely]))
    tile = sheet[HEADER : HEADER + TILE, GAP : GAP + TILE]
    # The box and the square are yellow and green: not as blue as the dot.
    rows, columns = np.nonzero(tile[..., 2] > 200)
    wanted = (x + 0.5 - 100) * 2 - 0.5, (y + 0.5 - 50) * 2 - 0.5 + 64
    np.testing.assert_allclose((columns.mean(), rows.mean()), wanted, atol=0.5)


def test_the_box_and_the_square(tmp_path):
    nothing = example(landmarks=np.zeros((5, 2)), weights=np.zeros(5))
    sheet = draw(tmp_path / "data", data_set(tmp_path / "data", train=[nothing]))
    # The square of a box of 90 x 50 around (155, 80) shares its sides, and begins at y = 35.
    for x, y in ((110, 80), (200, 75), (155, 35), (120, 35)):
        assert has_line(sheet, x, y, SQUARE)
    for x, y in ((120, 55), (180, 105)):
        assert has_line(sheet, x, y, BOX) and not has_line(sheet, x, y + 5, BOX)


def test_sides_are_those_of_the_names_before_the_means():
    named = LandmarkSet(
        name="person",
        names=("right_eye", "left_eye", "nose", "p", "q"),
        mirror=(1, 0, 2, 4, 3),
        edges=(),
        metric="nme",
        square="longest",
    )
    means = dict(zip(named.names, (-0.4, 0.4, 0.0, 0.3, -0.3), strict=True))
    few = {name: {"mean": [-mean, 0.0]} for name, mean in means.items()}
    many = {name: {"mean": [mean, 0.0]} for name, mean in means.items()}
    splits = {
        "train": {"examples": 3, "landmarks": few},
        "test": {"examples": 9, "landmarks": many},
    }
    found = module._colours(named, {"splits": splits})
    assert found == [RIGHT, LEFT, MIDDLE, RIGHT, LEFT]


def test_faces_have_two_sides(tmp_path):
    manifest, _ = convert(faces(tmp_path / "source"), tmp_path / "data")
    colours = module._colours(WFLW, manifest)
    for k, other in enumerate(WFLW.mirror):
        assert {colours[k], colours[other]} == ({MIDDLE} if k == other else {LEFT, RIGHT})
    for k, name in enumerate(WFLW.names):
        assert colours[k] == {"left": LEFT, "right": RIGHT}.get(name.split("_")[0], colours[k])
    # The conversion has made a sheet of its own.
    with Image.open(tmp_path / "data" / module.CONTACT_SHEET) as sheet:
        assert sheet.size == (GAP + 4 * (TILE + GAP), HEADER + 3 * (TILE + GAP + 17))


# --- which examples


def shades(directory, **counts):
    """A data set whose examples are told apart by their greys: 10, 20, 30, ... in order."""
    greys = iter(range(10, 250, 10))
    nothing = {"landmarks": np.zeros((5, 2)), "weights": np.zeros(5)}
    return data_set(
        directory,
        **{
            name: [example(f"#{i}", image=jpeg((next(greys),) * 3), **nothing) for i in range(n)]
            for name, n in counts.items()
        },
    )


def shown(sheet):
    """The greys of a sheet's tiles, in order."""
    found = []
    for top in range(HEADER, len(sheet) - TILE, TILE + GAP + 17):
        for left in range(GAP, sheet.shape[1] - TILE, TILE + GAP):
            tile = sheet[top : top + TILE, left : left + TILE]
            red, green, blue = tile[TILE // 2, TILE // 2 - 20]
            if red == green == blue:  # Not the empty end of the last row.
                found.append(round(red, -1))
    return found


def test_examples_are_counted_over_all_shards(tmp_path):
    manifest = shades(tmp_path / "data", train_0=4, train_1=3, test_0=5)
    for seed in range(4):
        wanted = sorted(random.Random(seed).sample(range(12), 5))
        found = shown(draw(tmp_path / "data", manifest, count=5, seed=seed))
        assert found == [10 * (index + 1) for index in wanted]
    assert shown(draw(tmp_path / "data", manifest)) == list(range(10, 121, 10))
    assert shown(draw(tmp_path / "data", manifest, split="train", count=400)) == [
        *range(10, 71, 10)
    ]
    assert shown(draw(tmp_path / "data", manifest, split="test")) == list(range(80, 121, 10))


def test_only_the_chosen_examples_shards_are_read(tmp_path):
    manifest = shades(tmp_path / "data", train_0=4, train_1=4, train_2=4)
    (index,) = random.Random(0).sample(range(12), 1)
    for name in {"train_0", "train_1", "train_2"} - {f"train_{index // 4}"}:
        (tmp_path / "data" / name).unlink()
    assert shown(draw(tmp_path / "data", manifest, count=1)) == [10 * (index + 1)]


def test_the_same_data_set_has_the_same_sheet(tmp_path):
    manifest = data_set(tmp_path / "data", train=[example(f"#{i}") for i in range(9)])
    paths = [tmp_path / name for name in ("one.png", "two.png", "other.png")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        write(str(tmp_path / "data"), manifest, str(path), count=3, seed=seed)
    one, two, other = (path.read_bytes() for path in paths)
    assert one == two != other


def test_nothing_is_written_of_nothing(tmp_path):
    manifest = data_set(tmp_path / "data", train=[], test=[example()])
    manifest["splits"]["test"]["shards"] = []
    assert not write(str(tmp_path / "data"), manifest, str(tmp_path / "sheet.png"))
    assert not (tmp_path / "sheet.png").exists()


# --- odd examples and wrong arguments


@pytest.mark.parametrize("id", ["日本/ñ.jpg#1", "a\nb\x00\x1b", "x" * 70_000, "\U0001f600" * 99])
def test_odd_ids_have_captions(tmp_path, id):
    draw(tmp_path / "data", data_set(tmp_path / "data", train=[example(id)]))


@given(st.text(max_size=300))
def test_captions_fit_their_tile(text):
    font = ImageFont.load_default(module.TEXT)
    short = module._shortened(text, font)
    assert short.isascii() and short.isprintable() and font.getlength(short) <= TILE
    whole = ascii(text)[1:-1]
    start, dots, end = short.partition("...") if short != whole else (short, "", "")
    assert whole.startswith(start) and whole.endswith(end) and (dots or short == whole)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (700, 500)])
def test_crops_of_any_shape(tmp_path, size):
    odd = example(image=jpeg(size=size), landmarks=np.full((5, 2), 99_999), weights=np.ones(5))
    sheet = draw(tmp_path / "data", data_set(tmp_path / "data", train=[odd]))
    middle = (TILE - 1) // 2
    assert np.abs(sheet[HEADER + middle, GAP + middle] - GREY).max() < 5


def test_wrong_arguments_are_named(tmp_path):
    directory, manifest = tmp_path / "data", data_set(tmp_path / "data", train=[example()])
    for count in (0, 401):
        with pytest.raises(ValueError, match=f"count must be from 1 to 400, got {count}"):
            draw(directory, manifest, count=count)
    with pytest.raises(ValueError, match="split must be one of train, got 'valid'"):
        draw(directory, manifest, split="valid")
    (directory / "train").write_bytes((directory / "train").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data/train: record 1 is cut short"):
        draw(directory, manifest)


def test_the_command(tmp_path, capsys, monkeypatch):
    convert(faces(tmp_path / "source"), tmp_path / "data")
    data, output = str(tmp_path / "data"), tmp_path / "new" / "sheet.png"
    module.main([data, "--output", str(output), "--split", "test", "--count", "2", "--seed", "3"])
    assert capsys.readouterr().out.splitlines()[-1] == str(output)
    with Image.open(output) as image:
        assert image.size == (GAP + 2 * (TILE + GAP), HEADER + TILE + GAP + 17)
    for arguments, message in (
        ([data, "--output", "sheet.jpg"], r"--output must end in \.png"),
        ([str(tmp_path), "--output", str(output)], "holds no manifest"),
        ([data, "--output", str(output), "--split", "valid"], "split must be one of train, test"),
        ([data, "--output", str(output), "--count", "0"], "count must be from 1"),
    ):
        with pytest.raises(ValueError, match=message):
            module.main(arguments)

    (tmp_path / "store").mkdir()
    monkeypatch.setenv(toy_filesystem.DIRECTORY, str(tmp_path / "store"))
    toy_filesystem.upload(Path(data), "toy://bucket/faces")
    module.main(["toy://bucket/faces", "--output", "toy://bucket/sheet.png"])
    toy_filesystem.download("toy://bucket", tmp_path / "all")
    ours = (tmp_path / "data" / module.CONTACT_SHEET).read_bytes()
    assert (tmp_path / "all" / "sheet.png").read_bytes() == ours
