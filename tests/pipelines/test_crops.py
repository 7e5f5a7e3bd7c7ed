"""The stored crop: where its pixels come from, and how much it holds."""

import io
import itertools

import numpy as np
import pytest
from hostile_images import encoded, smooth
from PIL import Image

from pipelines.crops import MARGIN, store_crop
from pipelines.errors import Unusable
from pipelines.source_image import SourceImage
from tfhuber.geometry.box_square import region_around


def source(image):
    """The image as a file that keeps its pixels."""
    return SourceImage(encoded(image, "PNG"))


def blob_image(width, height, centre, sigma):
    """A white Gaussian blob on black; `centre` (x, y) in pixels."""
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    return source(Image.fromarray(np.uint8(255 * blob + 0.5)))


def decode(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)), np.float64)


def centroid(pixels):
    weights = np.maximum(pixels.mean(-1) - 8, 0)  # JPEG leaves some noise on black.
    y, x = np.indices(weights.shape)
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


def stored(box, rule="longest", size=64, image_size=(400, 300), **options):
    image = source(Image.new("RGB", image_size))
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
    original = smooth((400, 300))
    jpeg, to_original = store_crop(
        source(original), np.array([150, 120, 190, 160]), rule="longest", size=64, margin=1.5
    )
    pixels = decode(jpeg)
    (x0, y0), (width, height) = to_original[:2, 2].astype(int), pixels.shape[1::-1]
    np.testing.assert_array_equal(to_original, [[1, 0, x0], [0, 1, y0], [0, 0, 1]])
    expected = np.asarray(original)[y0 : y0 + height, x0 : x0 + width]
    assert np.abs(pixels - expected).mean() < 2


@pytest.mark.parametrize("rule", ["longest", "diagonal", "stretch"])
@pytest.mark.parametrize("size", [20, 64, 200])
def test_the_networks_region_measures_at_most_size_and_is_never_enlarged(rule, size):
    box = np.array([120.0, 100.0, 220.0, 170.0])
    pixels, to_original = stored(box, rule, size)
    side = 2 * min(region_around(box, rule)[2:])
    step = to_original.diagonal()[:2]
    assert np.all(step >= 1)
    assert np.all(side / step <= size)
    # No smaller than asked either: rounding to whole pixels costs less than one over the crop.
    assert np.all(side / step >= min(side, size) * (1 - 1 / min(pixels.shape[:2])))


def test_reduction_filters_out_what_the_crop_cannot_show():
    stripes = np.zeros((300, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    jpeg, _ = store_crop(
        source(Image.fromarray(stripes)), np.array([100, 50, 300, 250]), rule="longest", size=37
    )
    inner = decode(jpeg)[4:-4, 4:-4]
    assert inner.std() < 3 and abs(inner.mean() - 127.5) < 3


@pytest.mark.parametrize("size", [20, 500])
@pytest.mark.parametrize("box", [(300, 200, 390, 280), (0, 0, 1600, 1200)])
def test_how_the_image_is_decoded_leaves_no_trace(size, box):
    """In part or whole, from a JPEG or its pixels, with or without a comment: the same bytes."""
    image = smooth((1600, 1200))
    jpegs = [encoded(image, "JPEG"), encoded(image, "JPEG", comment=b"x" * 999)]
    whole = Image.open(io.BytesIO(jpegs[0]))
    images = [*map(SourceImage, jpegs), SourceImage(jpegs[0]), source(whole)]
    images[2].region(0, 0, 1600, 1200)
    crops = {store_crop(each, np.array(box), rule="longest", size=size)[0] for each in images}
    assert len(crops) == 1


@pytest.mark.parametrize("size", [20, 500])
def test_only_the_region_is_asked_for(size):
    class Asked(SourceImage):
        def region(self, *box):
            self.box = box
            return super().region(*box)

    image = Asked(encoded(smooth((400, 300)), "PNG"))
    pixels, to_original = store_crop(
        image, np.array([190, 140, 210, 160]), rule="longest", size=size
    )
    np.testing.assert_allclose(np.array(image.box) - 0.5, rim(decode(pixels), to_original))


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
