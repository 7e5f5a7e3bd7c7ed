"""The stored crop: where its pixels come from, how much it holds, and which images it refuses."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipelines import crops
from pipelines.annotation import Unusable
from pipelines.crops import MARGIN, load_image, store_crop
from tfhuber.geometry import square_around


def blob_image(width, height, centre, sigma):
    """A white Gaussian blob on black; `centre` (x, y) in pixels."""
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    return Image.fromarray(np.uint8(255 * blob + 0.5)).convert("RGB")


def decode(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)), np.float64)


def centroid(pixels):
    weights = np.maximum(pixels.mean(-1) - 8, 0)  # JPEG leaves some noise on black.
    y, x = np.indices(weights.shape)
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


def stored(box, rule="longest", size=64, image_size=(400, 300), **options):
    image = Image.new("RGB", image_size)
    jpeg, to_original = store_crop(image, np.array(box), rule=rule, size=size, **options)
    return decode(jpeg), to_original


# --- where pixels come from


@pytest.mark.parametrize("size", [48, 60, 100, 173, 400])
@pytest.mark.parametrize(
    "box", [(100, 80, 280, 260), (-30.5, 90.25, 200, 330.1), (210, 5, 390, 90)]
)
def test_a_drawn_dot_lands_where_the_map_says(size, box):
    centre = np.array([231.3, 77.6])
    image = blob_image(400, 300, centre, sigma=9)
    jpeg, to_original = store_crop(image, np.array(box), rule="longest", size=size)
    x, y, w = to_original @ [*centroid(decode(jpeg)), 1]
    # An off-by-half error would be at least half a pixel; 8-bit rounding and JPEG cost 0.05.
    np.testing.assert_allclose([x / w, y / w], centre, atol=0.05)


def test_without_reduction_pixels_are_the_original_ones():
    rng = np.random.default_rng(0)
    original = np.uint8(rng.uniform(0, 255, (30, 40, 3)))
    smooth = Image.fromarray(original).resize((400, 300), Image.Resampling.BICUBIC)
    jpeg, to_original = store_crop(
        smooth, np.array([150, 120, 190, 160]), rule="longest", size=64, margin=1.5
    )
    pixels = decode(jpeg)
    (x0, y0), (width, height) = to_original[:2, 2].astype(int), pixels.shape[1::-1]
    np.testing.assert_array_equal(to_original, [[1, 0, x0], [0, 1, y0], [0, 0, 1]])
    expected = np.asarray(smooth)[y0 : y0 + height, x0 : x0 + width]
    assert np.abs(pixels - expected).mean() < 2


@pytest.mark.parametrize("rule", ["longest", "diagonal"])
@pytest.mark.parametrize("size", [20, 64, 200])
def test_the_networks_square_measures_at_most_size_and_is_never_enlarged(rule, size):
    box = np.array([120.0, 100.0, 220.0, 170.0])
    pixels, to_original = stored(box, rule, size)
    side = 2 * square_around(box, rule)[2]
    step = to_original.diagonal()[:2]
    assert np.all(step >= 1)
    assert np.all(side / step <= size)
    # No smaller than asked either: rounding to whole pixels costs less than one over the crop.
    assert np.all(side / step >= min(side, size) * (1 - 1 / min(pixels.shape[:2])))


def test_reduction_filters_out_what_the_crop_cannot_show():
    stripes = np.zeros((300, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    jpeg, _ = store_crop(
        Image.fromarray(stripes), np.array([100, 50, 300, 250]), rule="longest", size=37
    )
    inner = decode(jpeg)[4:-4, 4:-4]
    assert inner.std() < 3 and abs(inner.mean() - 127.5) < 3


# --- how much the crop holds


def rim(pixels, to_original):
    """Edges x0, y0, x1, y1 of the stored crop in the original image's pixel frame."""
    height, width = pixels.shape[:2]
    corners = np.array([[-0.5, -0.5, 1], [width - 0.5, height - 0.5, 1]]) @ to_original.T
    return corners[:, :2].ravel()


@pytest.mark.parametrize("size", [30, 500])
def test_the_region_is_the_square_times_the_margin(size):
    edges = rim(*stored([190, 140, 210, 160], size=size, margin=3))
    one_stored_pixel = max(1, 20 / size)
    wanted = [200 - 30, 150 - 30, 200 + 30, 150 + 30]
    outset = np.array([-1, -1, 1, 1]) * (edges - wanted)
    assert np.all(outset >= one_stored_pixel) and np.all(outset <= one_stored_pixel + 1)


def test_the_region_ends_where_the_image_ends():
    np.testing.assert_allclose(rim(*stored([-50, -20, 150, 400])), [-0.5, -0.5, 399.5, 299.5])


@pytest.mark.parametrize(
    "box", [(500, 10, 600, 90), (-90, 10, -1, 90), (10, 300, 90, 390), (10, -9, 90, -0.5)]
)
def test_a_box_outside_the_image_is_refused(box):
    with pytest.raises(Unusable) as refused:
        stored(box)
    assert refused.value.reason == "box_outside_image"


@pytest.mark.parametrize("box", [(399, 10, 600, 90), (-90, -90, 0, 0), (3, 3, 4, 99_999)])
def test_a_box_that_meets_the_image_in_one_pixel_is_not(box):
    pixels, _ = stored(box)
    assert pixels.size


def test_the_margin_is_enough_for_the_extreme_maps_and_little_more():
    """All corners of the recipe's ranges, and fine grids of the angles; half sides as the unit."""

    def rotation(angle):
        return np.moveaxis(
            np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]),
            (0, 1),
            (-2, -1),
        )

    signs = np.array(list(itertools.product([-1, 1], repeat=2)))
    furthest = 0
    for corner, after, before in itertools.product(signs, signs, signs):
        u = corner + 0.1 * after
        for direction in np.linspace(0, 2 * np.pi, 73):
            p = 0.15 * np.array([np.cos(direction), np.sin(direction)])
            x = u / (1 - p @ u) - 0.1 * before
            for shape, area in signs:
                s1, s2 = 1.2 ** ((area + shape) / 2), 1.2 ** ((area - shape) / 2)
                axes = rotation(np.linspace(0, np.pi, 73))
                stretch = axes @ np.diag([1 / s1, 1 / s2]) @ np.swapaxes(axes, -1, -2)
                turns = rotation(np.radians([-30, -15, 0, 15, 30]))
                furthest = max(furthest, np.abs(stretch[:, None] @ turns @ x).max())
    assert MARGIN - 0.02 < furthest <= MARGIN


# --- which images are taken


def save(folder, name, image, **options):
    image.save(folder / name, **options)
    return name


@pytest.mark.parametrize(
    ("mode", "color", "name", "expected"),
    [
        ("L", 90, "grey.jpg", (90, 90, 90)),
        ("CMYK", (0, 255, 255, 0), "cmyk.jpg", (255, 0, 0)),
        ("P", 1, "palette.png", (10, 200, 30)),
        ("RGBA", (10, 200, 30, 128), "alpha.png", (10, 200, 30)),
        ("LA", (90, 0), "grey_alpha.png", (90, 90, 90)),
        ("1", 1, "bits.png", (255, 255, 255)),
    ],
)
def test_all_kinds_of_pixels_become_rgb(tmp_path, mode, color, name, expected):
    image = Image.new(mode, (24, 16), color)
    if mode == "P":
        image.putpalette([0, 0, 0, 10, 200, 30])
    loaded = load_image(tmp_path, save(tmp_path, name, image))
    assert (loaded.mode, loaded.size) == ("RGB", (24, 16))
    np.testing.assert_allclose(loaded.getpixel((5, 5)), expected, atol=4)


def test_the_orientation_tag_is_ignored_and_the_ending_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # A viewer would turn the picture by 90 degrees.
    name = save(tmp_path, "turned.png", Image.new("RGB", (24, 16)), format="JPEG", exif=exif)
    assert load_image(tmp_path, name).size == (24, 16)


def png_claiming(width, height):
    """A PNG file of a few bytes whose header claims that size."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (10_000, 8_001), (2**31 - 1, 1)])
def test_a_gigantic_image_is_refused_by_its_header(tmp_path, width, height):
    (tmp_path / "bomb.png").write_bytes(png_claiming(width, height))
    with pytest.raises(Unusable) as refused:
        load_image(tmp_path, "bomb.png")
    assert refused.value.reason == "image_too_large"


def test_the_limit_on_pixels_is_the_product(tmp_path, monkeypatch):
    save(tmp_path, "image.png", Image.new("RGB", (20, 10)))
    monkeypatch.setattr(crops, "MAX_PIXELS", 200)
    load_image(tmp_path, "image.png")
    monkeypatch.setattr(crops, "MAX_PIXELS", 199)
    with pytest.raises(Unusable, match="image_too_large"):
        load_image(tmp_path, "image.png")


@pytest.fixture
def folder(tmp_path):
    """An image folder with everything that must not be read, and a file outside it."""
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for name in ("whole.jpg", "whole.png", "../outside.jpg"):
        Image.fromarray(noise).save(images / name)
    for kind in ("jpg", "png"):
        whole = (images / f"whole.{kind}").read_bytes()
        (images / f"truncated.{kind}").write_bytes(whole[: len(whole) // 2])
        (images / f"header.{kind}").write_bytes(whole[:20])
    (images / "empty.jpg").touch()
    (images / "text.jpg").write_text("no image")
    (images / "script.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (images / "folder.jpg").mkdir()
    (images / "link.jpg").symlink_to(images.parent / "outside.jpg")
    (images / "loop.jpg").symlink_to(images / "loop.jpg")
    (images / "inner_link.jpg").symlink_to("whole.jpg")
    Image.new("I;16", (20, 10)).save(images / "deep.png")
    return images


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.jpg", "undecodable_image"),
        ("truncated.png", "undecodable_image"),
        ("header.jpg", "undecodable_image"),
        ("header.png", "undecodable_image"),
        ("empty.jpg", "undecodable_image"),
        ("text.jpg", "undecodable_image"),
        ("script.jpg", "undecodable_image"),
        ("deep.png", "unsupported_pixels"),
        ("absent.jpg", "missing_image"),
        ("folder.jpg", "missing_image"),
        ("", "missing_image"),
        ("nul\0.jpg", "missing_image"),
        ("loop.jpg", "missing_image"),
        ("x" * 5000, "missing_image"),
        ("../outside.jpg", "path_outside_source"),
        ("/etc/hostname", "path_outside_source"),
        ("link.jpg", "path_outside_source"),
    ],
)
def test_images_that_are_refused(folder, name, reason):
    with pytest.raises(Unusable) as refused:
        load_image(folder, name)
    assert refused.value.reason == reason
    assert "\n" not in refused.value.detail


@pytest.mark.parametrize(
    "name", ["whole.jpg", "whole.png", "./../images/whole.jpg", "inner_link.jpg"]
)
def test_images_that_are_taken(folder, name):
    assert load_image(folder, name).size == (64, 64)


def test_the_folder_itself_may_be_a_link(folder):
    link = folder.parent / "elsewhere"
    link.symlink_to(folder)
    assert load_image(link, "whole.jpg").size == (64, 64)
