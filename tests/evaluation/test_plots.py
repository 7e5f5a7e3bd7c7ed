"""Plots show the numbers that they are given."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_rgb
from PIL import Image

from tfhuber.evaluation import plots
from tfhuber.evaluation.reliability import CalibrationCurve

CURVE = CalibrationCurve(np.array([1.0, 3.0]), np.array([2.0, 4.0]), np.array([5, 4]))


def circles(radii, densities):
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    return plots.Contours("c", np.array(radii)[:, None, None] * circle, np.array(densities))


def collections(axes, kind):
    return [artist for artist in axes.collections if type(artist) is kind]


def test_contours_share_one_scale_of_lengths_and_of_shades():
    figure = plots.contour_figure([circles([1, 2], [-1.0, -2.0]), circles([5, 9], [-2.0, -5.0])])
    first, second = figure.axes[:2]
    assert first.get_xlim() == second.get_xlim() == first.get_ylim() == second.get_ylim()
    assert first.get_xlim()[1] > 9
    (left,), (right,) = (collections(axes, PolyCollection) for axes in (first, second))
    for axes, (large, small) in ((left, (2, 1)), (right, (9, 5))):
        outlines = [path.vertices for path in axes.get_paths()]
        np.testing.assert_allclose(np.linalg.norm(outlines[0], axis=1), large)
        np.testing.assert_allclose(np.linalg.norm(outlines[1], axis=1), small)
    # Equal densities look alike in both panels, and denser is darker.
    (left_outer, left_inner), (right_outer, right_inner) = (
        c.get_facecolor()[:, :3] for c in (left, right)
    )
    np.testing.assert_allclose(left_outer, right_inner)
    assert left_inner.sum() < left_outer.sum() < right_outer.sum()
    np.testing.assert_allclose(left_inner, to_rgb(plots.SHADES[-1]), atol=1e-6)
    np.testing.assert_allclose(right_outer, to_rgb(plots.SHADES[0]), atol=1e-6)


def test_calibration_shows_bins_beside_the_identity():
    figure = plots.calibration_figure({"50 epochs": CURVE, "200 epochs": CURVE}, "% of it")
    assert [axes.get_title() for axes in figure.axes] == ["50 epochs", "200 epochs"]
    for axes in figure.axes:
        (line,) = axes.lines
        assert to_rgb(line.get_color()) == to_rgb(plots.RED)
        np.testing.assert_array_equal(*line.get_data())
        (crosses,) = collections(axes, PathCollection)
        np.testing.assert_array_equal(crosses.get_offsets(), [[2, 1], [4, 3]])
        np.testing.assert_allclose(crosses.get_edgecolor()[0, :3], to_rgb(plots.BLUE))
        assert axes.get_xlabel() == "empirical error (% of it)"
        assert axes.texts[0].get_text() == "slope 0.690\n2 bins of 4 to 5"
    assert figure.axes[0].get_ylabel() == "expected error (% of it)"


def test_calibration_of_one_bin_says_so():
    curve = CalibrationCurve(np.ones(1), np.ones(1), np.array([1176]))
    (axes,) = plots.calibration_figure({"": curve}, "").axes
    assert axes.texts[0].get_text() == "slope 1.000\n1 bin of 1,176"


def test_landmarks_have_bars_of_actual_and_crosses_of_expected_errors():
    expected, actual = np.array([1.0, 2.5, np.nan]), np.array([2.0, 2.0, np.nan])
    (axes,) = plots.landmark_figure(("nose", "chin", "ear"), expected, actual, "% of it").axes
    assert [bar.get_height() for bar in axes.patches[:2]] == [2.0, 2.0]
    (crosses,) = collections(axes, PathCollection)
    np.testing.assert_array_equal(crosses.get_offsets()[:2], [[0, 1.0], [1, 2.5]])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["nose", "chin", "ear"]
    assert axes.get_title() == "% of it"
    many = plots.landmark_figure(["x"] * 98, np.ones(98), np.ones(98), "% of it").axes[0]
    assert many.get_xlabel() == "landmark"


def test_a_rendered_figure_is_what_is_saved(tmp_path):
    figure = plots.calibration_figure({"title": CURVE}, "a unit so long that it outgrows the axes")
    plots.save_figure(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        saved = np.asarray(image.convert("RGB"))
    found = plots.rendered(figure, dpi=200)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, saved)


def test_examples_have_red_means_and_green_ellipses_of_one_standard_deviation():
    image = np.full((60, 80, 3), 128, np.uint8)
    landmarks = np.array([[20.0, 30.0], [60.0, 10.0]])
    covariance = np.array([np.diag([9.0, 25.0]), np.diag([4.0, 4.0])])
    examples = [plots.Example(word, image, landmarks, covariance) for word in ("one", "two")]
    figure = plots.example_figure(examples, edges=[(0, 1)])
    for axes, word in zip(figure.axes, ("one", "two"), strict=True):
        assert axes.get_xlabel() == word
        assert axes.get_xlim() == (-0.5, 79.5) and axes.get_ylim() == (59.5, -0.5)
        (ellipses,) = collections(axes, PolyCollection)
        np.testing.assert_allclose(ellipses.get_edgecolor()[0, :3], to_rgb(plots.GREEN))
        reach = [
            np.abs(path.vertices - landmarks[k]).max(0)
            for k, path in enumerate(ellipses.get_paths())
        ]
        np.testing.assert_allclose(reach, [[3, 5], [2, 2]], rtol=2e-3)
        (dots,) = collections(axes, PathCollection)
        np.testing.assert_array_equal(dots.get_offsets(), landmarks)
        np.testing.assert_allclose(dots.get_facecolor()[0, :3], to_rgb(plots.RED))
        (lines,) = collections(axes, LineCollection)
        np.testing.assert_array_equal(lines.get_segments(), [landmarks])


@pytest.mark.parametrize(
    "name, start", [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml")]
)
def test_figures_are_saved_by_suffix(tmp_path, name, start):
    path = tmp_path / "deep" / "down" / name
    plots.save_figure(plots.calibration_figure({"title": CURVE}, "%"), path)
    assert path.read_bytes().startswith(start)
    if name == "a.png":
        with Image.open(path) as image:
            assert min(image.size) > 600


def test_figures_are_not_saved_under_other_names(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.pdf, \.png or \.svg, got '.*a\.gif'"):
        plots.save_figure(plots.calibration_figure({"title": CURVE}, "%"), tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())
