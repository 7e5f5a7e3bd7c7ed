"""Quick drawing: what is drawn lands where it should, looks as `draw_overlay` has it, and is quick."""

import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tfhuber.drawing.ellipses import radius_for
from tfhuber.drawing.fast_overlay import Painter
from tfhuber.drawing.overlay import draw_overlay
from tfhuber.landmarks.known_sets import WFLW

TILTED = np.array([[[400.0, 150.0], [150.0, 100.0]]])


def grey(width=200, height=100):
    return np.full((height, width, 3), 128, np.uint8)


def blurred(values):
    """Means over 5 x 5 pixels: what is a fraction of a pixel aside, or smoother, is the same."""
    return np.lib.stride_tricks.sliding_window_view(values, (5, 5), axis=(0, 1)).mean((-2, -1))


def drawn_at(pixels):
    """Where [H, W] a grey picture is no longer grey."""
    return np.abs(pixels.astype(int) - 128).max(-1) > 8


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_an_ellipse_has_its_place_and_its_axes(scale):
    pixels = grey(round(200 * scale), round(100 * scale))
    Painter().paint(pixels, [[120, 40]], TILTED, scale=scale)
    rows, columns = np.nonzero(drawn_at(pixels))
    # The outline's extreme points are one standard deviation of x or y times the radius away,
    # and the pen reaches about two pixels to either side.
    radius = radius_for(0.9)
    for found, centre, variance in ((columns, 120, 400), (rows, 40, 100)):
        first, last = (centre + 0.5 + side * radius * np.sqrt(variance) for side in (-1, 1))
        assert found.min() == pytest.approx(scale * first - 0.5, abs=2.5)
        assert found.max() == pytest.approx(scale * last - 0.5, abs=2.5)
        middle = (found.min() + found.max()) / 2
        assert middle == pytest.approx(scale * (centre + 0.5) - 0.5, abs=0.51)


def test_pictures_look_as_those_drawn_slowly():
    """98 landmarks: the mean absolute difference of the two drawings is small next to what is drawn."""
    rng = np.random.default_rng(0)
    angles = np.arange(98) / 98 * 2 * np.pi
    points = np.array([320, 240]) + 150 * np.stack([np.cos(angles), np.sin(angles)], -1)
    points += rng.normal(0, 10, (98, 2))
    root = rng.normal(0, 4, (98, 2, 2))
    covariance = root @ root.swapaxes(1, 2)
    photo = Image.fromarray(grey(640, 480))
    box = [100, 50, 500, 400]
    slow = draw_overlay(
        photo, points, covariance, edges=WFLW.edges, box=box, legend=False, min_side=480
    )
    quick = grey(640, 480)
    Painter(WFLW.edges).paint(quick, points, covariance, box=box)
    quick, slow = (blurred(np.asarray(picture) - 128.0) for picture in (quick, slow))
    ink, difference = np.abs(slow).mean(), np.abs(quick - slow).mean()
    assert ink > 1 and difference < 0.45 * ink


def test_what_cannot_be_drawn_is_left_out():
    points = np.array([[np.nan, 3], [1e9, 5], [50, 50], [150, 50]])
    covariance = np.tile(np.eye(2), (4, 1, 1))
    covariance[2] = np.nan  # a grey dot
    pixels = grey()
    with np.errstate(all="raise"):
        Painter([(0, 1), (2, 3), (3, 9)]).paint(pixels, points, covariance)
    assert drawn_at(pixels)[48:53, 40:60].any() and drawn_at(pixels)[48:53, 145:156].any()
    nothing = grey()
    Painter().paint(nothing, np.zeros((0, 2)), np.zeros((0, 2, 2)))
    assert not drawn_at(nothing).any()


@pytest.mark.parametrize("variance", [0.0, -1e-3, 1e-12, 1e12])
def test_extreme_covariances_are_survived(variance):
    pixels = grey()
    Painter().paint(pixels, [[100, 50]], variance * np.eye(2)[None], box=[-1e9, 0, 1e9, np.nan])
    assert drawn_at(pixels)[45:56, 95:106].any()


def test_a_certain_landmark_is_teal_and_an_uncertain_one_red():
    pixels = grey(400, 100)
    points = [[50, 50], [350, 50]]
    Painter().paint(pixels, points, np.array([0.1, 900.0])[:, None, None] * np.eye(2))
    certain, uncertain = pixels[50, 50, :3].astype(int), pixels[50, 350, :3].astype(int)
    assert certain[1] > certain[0] + 100 and uncertain[0] > uncertain[1] + 100


def test_threads_do_not_disturb_each_other():
    painter, wanted = Painter(), {}
    cases = {(x, size): grey(*size) for x in (20, 60) for size in ((100, 80), (160, 90))}
    for (x, size), pixels in cases.items():
        wanted[x, size] = pixels.copy()
        Painter().paint(wanted[x, size], [[x, 40]], np.eye(2)[None])

    def work(x, size):
        for _ in range(50):
            pixels = grey(*size)
            painter.paint(pixels, [[x, 40]], np.eye(2)[None])
            same.append(np.array_equal(pixels, wanted[x, size]))

    same: list[bool] = []
    threads = [threading.Thread(target=work, args=case) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(same) == 200 and all(same)


def test_a_frame_takes_milliseconds():
    """98 landmarks on 640 x 480 pixels, about 1 ms of processor time; 10 at most, the best of 20."""
    angles = np.arange(98) / 98 * 2 * np.pi
    points = np.array([320, 240]) + 100 * np.stack([np.cos(angles), np.sin(angles)], -1)
    painter, pixels, times = Painter(WFLW.edges), grey(640, 480), []
    for _ in range(20):
        started = time.thread_time()
        painter.paint(pixels, points, np.tile(16 * np.eye(2), (98, 1, 1)))
        times.append(time.thread_time() - started)
    assert min(times) < 0.01


def test_rows_may_have_gaps_which_are_left_alone():
    wide = np.full((100, 230, 3), 128, np.uint8)
    Painter([(0, 1)]).paint(
        wide[:, :200], [[190, 50], [20, 50]], 100 * np.eye(2)[None].repeat(2, 0)
    )
    whole = grey()
    Painter([(0, 1)]).paint(whole, [[190, 50], [20, 50]], 100 * np.eye(2)[None].repeat(2, 0))
    assert np.array_equal(wide[:, :200], whole) and drawn_at(whole)[:, -1].any()
    assert (wide[:, 200:] == 128).all()


def test_without_opencv_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match="needs OpenCV: pip install opencv-python-headless"):
        Painter()
