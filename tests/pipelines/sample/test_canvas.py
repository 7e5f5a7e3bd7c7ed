"""Drawn faces and figures: landmarks are where the ink is, left is left, blots and haze measure right."""

import numpy as np
import pytest

from pipelines.sample.canvas import Canvas, Haze, Occluder, depth_behind, smooth_curve
from pipelines.sample.face_shape import FaceShape
from pipelines.sample.faces import Head, draw_faces
from pipelines.sample.figures import draw_figures

TRAIN, TEST = 60, 24


def test_landmarks_are_mostly_inside_and_left_is_left():
    for index in range(30):
        image, faces = draw_faces(np.random.default_rng(index))
        for face in faces:
            points = face.landmarks
            assert np.all((points > -0.5) & (points < np.array(image.size) - 0.5))
            assert points[60, 0] < points[64, 0] < points[68, 0] < points[72, 0]
            assert points[0, 0] < points[16, 0] < points[32, 0]
            assert points[96, 0] < points[97, 0]
            assert points[51, 1] < points[57, 1] < points[79, 1] < points[85, 1] < points[16, 1]
    inside = []
    for index in range(60):
        image, (figure,) = draw_figures(np.random.default_rng(index))
        joints = figure.landmarks
        inside.append((joints > -0.5) & (joints < np.array(image.size) - 0.5))
        assert joints[12, 0] < joints[13, 0] and joints[2, 0] < joints[3, 0]
        assert joints[9, 1] < joints[8, 1] < joints[7, 1] < joints[6, 1]
    assert 0.97 < np.mean(inside) < 1.0


def test_jaw_halves_are_evenly_spaced():
    shape = FaceShape(np.random.default_rng(3), np.array([120.0, 120.0]), 50.0)
    steps = np.linalg.norm(np.diff(shape.landmarks[:33], axis=0), axis=1)
    for half in (steps[:16], steps[16:]):
        np.testing.assert_allclose(half, half.mean(), rtol=0.01)


def test_mirroring_a_face_swaps_its_sides():
    """With nothing turned and the gaze straight, x -> -x maps landmark i to its mirror partner."""
    shape = FaceShape(np.random.default_rng(0), np.array([100.0, 100.0]), 50.0)
    shape.yaw = shape.pitch = shape.roll = shape.gaze = 0.0
    points = shape.place() - [100.0, 0.0]
    partner = [*range(32, -1, -1), 46, 45, 44, 43, 42, 50, 49, 48, 47, 37, 36, 35, 34, 33, 41, 40]
    partner += [39, 38, 51, 52, 53, 54, 59, 58, 57, 56, 55, 72, 71, 70, 69, 68, 75, 74, 73, 64, 63]
    partner += [62, 61, 60, 67, 66, 65, 82, 81, 80, 79, 78, 77, 76, 87, 86, 85, 84, 83, 92, 91, 90]
    partner += [89, 88, 95, 94, 93, 97, 96]
    np.testing.assert_allclose(points[partner] * [-1.0, 1.0], points, atol=1e-2)


def test_pupils_are_drawn_where_the_labels_are():
    """The middle of the darkest disc in each wide open eye is within a third of a pixel."""
    errors = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        canvas = Canvas(300, 300)
        head = Head(rng, np.array([150.0, 140.0]), 90.0)
        head.lids = 1.3
        head.landmarks = head.place()
        head.paint(canvas, rng, 0.0)
        dark = 255.0 - np.asarray(canvas.finish().convert("L"), float)
        for pupil in head.landmarks[96:]:
            x, y = np.round(pupil).astype(int)
            rows, columns = np.mgrid[y - 6 : y + 7, x - 6 : x + 7]
            weight = np.clip(dark[y - 6 : y + 7, x - 6 : x + 7] - 215.0, 0.0, None)
            weight[np.hypot(rows - pupil[1], columns - pupil[0]) > 6] = 0.0
            middle = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
            errors.append(middle - pupil)
    assert np.abs(np.mean(errors, axis=0)).max() < 0.15
    assert np.linalg.norm(errors, axis=1).max() < 0.34


def test_a_drawn_disc_and_its_coordinates_agree():
    canvas = Canvas(41, 31)
    canvas.ellipse((20.25, 14.5), 6.0, (255, 255, 255))
    weight = np.asarray(canvas.finish().convert("L"), float)
    rows, columns = np.mgrid[:31, :41]
    middle = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
    np.testing.assert_allclose(middle, [20.25, 14.5], atol=0.1)


def test_smooth_curve_passes_through_its_points():
    points = np.random.default_rng(0).normal(size=(7, 2))
    np.testing.assert_allclose(smooth_curve(points, steps=4)[::4], points)
    closed = smooth_curve(points, closed=True, steps=4)
    np.testing.assert_allclose(closed[::4], points)
    assert len(closed) == 28


def test_depth_is_the_distance_to_the_occluders_edge():
    bar = Occluder(np.array([[0.0, 0.0, 10.0, 0.0, 3.0]]), (0, 0, 0))
    ball = Occluder(np.array([[5.0, 0.0, 5.0, 0.0, 5.0]]), (0, 0, 0))
    points = np.array([[5.0, 1.0], [12.0, 0.0], [20.0, 0.0]])
    np.testing.assert_allclose(depth_behind([bar], points), [2.0, 1.0, 0.0])
    np.testing.assert_allclose(depth_behind([bar, ball], points), [4.0, 1.0, 0.0])
    np.testing.assert_allclose(depth_behind([], points), 0.0)


def test_haze_takes_contrast_as_it_adds_noise():
    image, _ = draw_faces(np.random.default_rng(0))
    levels = [Haze(level, (224, 224, 224)) for level in (0.0, 0.5, 1.0)]
    contrast = [np.asarray(haze.apply(image, 100.0), float).std() for haze in levels]
    assert contrast[0] > 1.3 * contrast[1] > 1.3 * 1.3 * contrast[2]
    assert [haze.factor for haze in levels] == pytest.approx([1.0, 4.5**0.5, 4.5])
