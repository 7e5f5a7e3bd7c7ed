"""The pictures: ellipses hold what they promise, and what is drawn lands where it should."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tfhuber.drawing import overlay
from tfhuber.drawing.ellipses import radius_for
from tfhuber.landmarks.known_sets import WFLW

TILTED = np.array([[[400.0, 150.0], [150.0, 100.0]]])


def grey(width=200, height=100):
    return Image.new("RGB", (width, height), (128, 128, 128))


def differs(picture, background):
    """Where [height, width] a picture differs visibly from its background."""
    difference = np.asarray(picture, float) - np.asarray(background, float)
    return np.abs(difference).max(axis=-1) > 8


@pytest.mark.parametrize("size", [(200, 100), (100, 333), (900, 700), (4000, 3000)])
def test_dot_lands_on_its_landmark(size):
    image = grey(*size)
    landmarks = np.array([[0.2, 0.3], [0.7, 0.6]]) * size
    # A standard deviation of a tenth of the landmarks' extent is more than the reddest one.
    deviation = 0.1 * np.hypot(*(landmarks[1] - landmarks[0]))
    covariance = np.tile(np.eye(2) * deviation**2, (2, 1, 1))
    picture = overlay.draw_overlay(image, landmarks, covariance, legend=False)
    factor = picture.width / size[0]
    for x, y in factor * (landmarks + 0.5) - 0.5:
        red, green, blue = picture.getpixel((round(x), round(y)))
        assert red > 200 and red > 2 * green and red > 2 * blue


def test_ellipse_has_its_size_in_the_picture():
    image = grey()
    picture = overlay.draw_overlay(image, [[100.0, 50.0]], TILTED / 4, legend=False)
    factor = picture.width / image.width
    changed = differs(picture, image.resize(picture.size))
    rows, columns = changed.any(axis=1).nonzero()[0], changed.any(axis=0).nonzero()[0]
    # Standard deviations of 10 and 5 pixels; the outline's width and its antialiasing add a little.
    widths = np.array([np.ptp(columns), np.ptp(rows)]) / factor
    np.testing.assert_allclose(widths, 2 * radius_for(0.9) * np.array([10, 5]), atol=1.5)
    centre = np.array([columns.mean(), rows.mean()])
    np.testing.assert_allclose((centre + 0.5) / factor - 0.5, [100, 50], atol=0.5)


def test_ellipses_are_those_of_the_probability_and_family():
    def changed(**options):
        picture = overlay.draw_overlay(
            grey(), [[100.0, 50.0]], TILTED / 8, min_side=100, legend=False, **options
        )
        return differs(picture, grey()).sum()

    assert changed(probability=0.5) < changed(probability=0.9) < changed(probability=0.99)
    assert changed(delta=0.1, probability=0.99) > changed(delta=10.0, probability=0.99)
    assert changed(family="laplace", probability=0.99) > changed(family="gauss", probability=0.99)


def test_colours_go_from_teal_to_red():
    landmarks = [[40.0, 30.0], [160.0, 70.0]]
    covariance = np.eye(2) * np.array([0.2, 15.0])[:, None, None] ** 2
    picture = overlay.draw_overlay(grey(), landmarks, covariance, legend=False)
    factor = picture.width / 200
    certain, uncertain = (
        picture.getpixel((round(factor * (x + 0.5)), round(factor * (y + 0.5))))
        for x, y in landmarks
    )
    assert certain[1] > 1.5 * certain[0]
    assert uncertain[0] > 1.5 * uncertain[1]


@pytest.mark.parametrize(
    "size, expected",
    [
        ((64, 64), (640, 640)),
        ((800, 700), (800, 700)),
        ((6000, 4000), (1600, 1067)),
        ((3000, 3), (1600, 2)),
    ],
)
def test_size_of_the_picture(size, expected):
    image = grey(*size)
    picture = overlay.draw_overlay(image, [[1.0, 1.0]], TILTED)
    assert picture.size == expected
    assert image.size == size


def test_box_edges_truth_and_legend_are_drawn_where_they_belong():
    landmarks = np.array([[20.0, 50.0], [180.0, 50.0]])
    tiny = np.tile(np.eye(2) * 0.01, (2, 1, 1))

    def changed(**options):
        picture = overlay.draw_overlay(
            grey(), landmarks, tiny, **{"legend": False, "min_side": 100, **options}
        )
        return differs(picture, grey(*picture.size))

    plain = changed()
    assert not plain[50, 100] and changed(edges=[(0, 1)])[50, 100]
    boxed = changed(box=(10, 10, 190, 90))
    assert boxed[10, 100] and boxed[90, 100] and boxed[30, 10] and boxed[30, 190]
    assert not boxed[30, 100]
    assert not plain[20, 100] and changed(truth=[[100.0, 20.0], [np.nan, 5.0]])[20, 100]
    legend = changed(legend=True, min_side=640)  # 1280 x 640, and 200 x 70 in the corner
    assert legend[-70:, 20:200].mean() > 0.7
    assert not legend[:500, 640].any()


def test_degenerate_input_is_drawn_without_complaint():
    landmarks = np.array(
        [
            [50.0, 50.0],
            [np.nan, 1.0],
            [np.inf, 1.0],
            [60.0, 50.0],
            [70.0, 50.0],
            [1e30, 0.0],
            [80.0, 50.0],
        ]
    )
    covariance = np.tile(np.eye(2), (7, 1, 1))
    covariance[3] = np.nan
    covariance[4] *= 1e36
    covariance[6] = [[1.0, 5.0], [5.0, 1.0]]
    edges = [(0, 1), (0, 3), (5, 4)]
    picture = overlay.draw_overlay(
        grey(), landmarks, covariance, edges=edges, box=(-1e12, 1, 1e12, 2), truth=landmarks * 1e20
    )
    assert picture.mode == "RGB"
    overlay.draw_overlay(grey(), landmarks[1:3], covariance[1:3])
    overlay.draw_overlay(grey(), np.zeros((3, 2)), np.zeros((3, 2, 2)))
    overlay.draw_overlay(grey(), np.zeros((0, 2)), np.zeros((0, 2, 2)))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_images_of_every_mode(mode):
    image = Image.new(mode, (40, 40))
    assert overlay.draw_overlay(image, [[20.0, 20.0]], TILTED).mode == "RGB"


@pytest.mark.parametrize(
    "landmarks, covariance, message",
    [
        (
            np.zeros((3, 3)),
            np.zeros((3, 2, 2)),
            r"landmarks must be \[landmarks, 2\], got \(3, 3\)",
        ),
        (np.zeros((3, 2)), np.zeros((4, 2, 2)), r"covariance must be \(3, 2, 2\), got \(4, 2, 2\)"),
    ],
)
def test_overlay_refuses_shapes(landmarks, covariance, message):
    with pytest.raises(ValueError, match=message):
        overlay.draw_overlay(grey(), landmarks, covariance)


def test_large_photograph_with_98_landmarks():
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(1000, 3000, size=(98, 2))
    picture = overlay.draw_overlay(
        grey(6000, 4000), landmarks, np.tile(TILTED, (98, 1, 1)), edges=WFLW.edges, truth=landmarks
    )
    assert picture.size == (1600, 1067)


def test_sheet_holds_every_picture_and_its_words():
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    wide, tall = (Image.new("RGB", size, "red") for size in ((80, 40), (40, 80)))
    blue = Image.new("RGB", (500, 500), "blue")
    rows = {"best": [(wide, "1.0 %"), (blue, "2.0 %")], "worst": [(tall, "30.0 %")]}
    sheet = overlay.evaluation_sheet(rows, tile=120)
    pixels = np.asarray(sheet).reshape(-1, 3)
    assert (pixels == colours["blue"]).all(axis=1).sum() == 120 * 120
    # Each red picture is fitted into the tile: half of it, up to a row where it is resampled.
    assert (pixels == colours["red"]).all(axis=1).sum() == pytest.approx(120 * 120, rel=0.05)
    bare = overlay.evaluation_sheet({"": [(wide, ""), (blue, "")], " ": [(tall, "")]}, tile=120)
    assert bare.size == sheet.size
    dark, dark_bare = ((np.asarray(picture.convert("L")) < 60).sum() for picture in (sheet, bare))
    assert dark > dark_bare + 100  # the words
    assert overlay.evaluation_sheet(rows, tile=120, title="Faces").height > sheet.height


@pytest.mark.parametrize("rows", [{}, {"best": []}])
def test_sheet_without_pictures_is_refused(rows):
    with pytest.raises(ValueError, match="at least one picture"):
        overlay.evaluation_sheet(rows)


@pytest.mark.parametrize("name, kind", [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG")])
def test_images_are_saved_by_suffix(tmp_path, name, kind):
    image = grey()
    ImageDraw.Draw(image).rectangle((20, 20, 80, 80), fill=(200, 30, 30))
    path = tmp_path / "deep" / "down" / name
    overlay.save_image(image, path)
    loaded = Image.open(io.BytesIO(path.read_bytes()))
    assert loaded.format == kind
    np.testing.assert_allclose(loaded.getpixel((50, 50)), (200, 30, 30), atol=4)


def test_images_are_not_saved_under_other_names(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.png, \.jpg or \.jpeg, got '.*a\.gif'"):
        overlay.save_image(grey(), tmp_path / "a.gif")
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        overlay.save_image(grey(), tmp_path / "file" / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_full_disk_leaves_no_half_picture(name, tmp_path, full_disk):
    overlay.save_image(grey(), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    with full_disk(len(whole) // 2), pytest.raises(OSError, match=rf"too large: '.*/{name}'"):
        overlay.save_image(grey(), tmp_path / name)
    assert (tmp_path / name).read_bytes() == whole and len(list(tmp_path.iterdir())) == 1


def test_real_face(shared_data):
    folder = shared_data / "faces_wflw_layout"
    lists = folder / "WFLW_annotations/list_98pt_rect_attr_train_test"
    words = (lists / "list_98pt_rect_attr_test.txt").read_text().split("\n", 1)[0].split()
    landmarks = np.array(words[:196], float).reshape(98, 2)
    with Image.open(folder / "WFLW_images" / words[-1]) as image:
        picture = overlay.draw_overlay(
            image, landmarks, np.tile(np.eye(2) * 4, (98, 1, 1)), edges=WFLW.edges
        )
        changed = differs(
            picture, image.convert("RGB").resize(picture.size, Image.Resampling.LANCZOS)
        )
    where = np.rint(picture.width / image.width * (landmarks + 0.5) - 0.5).astype(int)
    assert changed[where[:, 1], where[:, 0]].all()
