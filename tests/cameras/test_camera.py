"""A camera's pixels are OpenCV's, its derivatives those of differences."""

import numpy as np
import pytest
from rigs import rig

from tfhuber.cameras.camera import rotation_of

POINTS = np.random.default_rng(0).uniform(-1, 1, (50, 3))


@pytest.mark.parametrize("camera", rig(), ids=lambda c: c.name)
def test_pixels_are_opencvs(camera):
    cv2 = pytest.importorskip("cv2")
    vector, _ = cv2.Rodrigues(camera.rotation)
    if camera.is_fisheye:
        expected, _ = cv2.fisheye.projectPoints(
            POINTS[:, None], vector, camera.translation, camera.matrix, camera.distortion
        )
    else:
        expected, _ = cv2.projectPoints(
            POINTS, vector, camera.translation, camera.matrix, camera.distortion
        )
    np.testing.assert_allclose(camera.project(POINTS)[0], expected[:, 0], atol=1e-8)


@pytest.mark.parametrize("camera", rig(), ids=lambda c: c.name)
def test_derivatives_are_those_of_differences(camera):
    _, slopes = camera.project(POINTS)
    step = 1e-6
    for axis in range(3):
        move = step * np.eye(3)[axis]
        difference = (
            (camera.project(POINTS + move)[0] - camera.project(POINTS - move)[0]) / 2 / step
        )
        np.testing.assert_allclose(slopes[..., axis], difference, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("camera", rig(), ids=lambda c: c.name)
def test_a_pixel_leads_back_to_its_ray(camera):
    pixels, _ = camera.project(POINTS)
    local = POINTS @ camera.rotation.T + camera.translation
    np.testing.assert_allclose(camera.to_plane(pixels), local[:, :2] / local[:, 2:], atol=1e-9)


def test_behind_a_camera_there_is_no_pixel():
    camera = rig()[0]
    behind = camera.centre - camera.rotation[2]
    assert np.isnan(camera.project(behind)[0]).all()


def test_the_rotation_of_a_vector_is_opencvs():
    cv2 = pytest.importorskip("cv2")
    for vector in ([0.3, -1.2, 0.5], [1e-9, 0, 0], [0, 0, 0], [0, np.pi, 0]):
        expected, _ = cv2.Rodrigues(np.array(vector, float))
        np.testing.assert_allclose(rotation_of(np.array(vector, float)), expected, atol=1e-12)
