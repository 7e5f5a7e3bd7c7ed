"""Calibrations of Anipose, OpenCV and COLMAP give the same cameras; what is wrong with one is named."""

import numpy as np
import pytest
from anipose_files import rows, write_anipose
from rigs import rig

from tfhuber.cameras.calibration_files import read_cameras

POINTS = np.random.default_rng(0).uniform(-1, 1, (20, 3))


def assert_same(found, expected):
    assert [camera.name for camera in found] == [camera.name for camera in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.project(POINTS)[0], other.project(POINTS)[0], atol=1e-6)


def test_anipose(tmp_path):
    pytest.importorskip("cv2")
    assert_same(read_cameras([write_anipose(tmp_path / "calibration.toml", rig())]), rig())


def test_opencvs_own_files(tmp_path):
    """Files that OpenCV's FileStorage writes, one a camera."""
    cv2 = pytest.importorskip("cv2")
    cameras, paths = rig(4)[:3], []
    for camera in cameras:
        paths.append(tmp_path / f"{camera.name}.yaml")
        storage = cv2.FileStorage(str(paths[-1]), cv2.FILE_STORAGE_WRITE)
        storage.write("camera_matrix", camera.matrix)
        storage.write("distortion_coefficients", camera.distortion[None])
        storage.write("rvec", cv2.Rodrigues(camera.rotation)[0])
        storage.write("tvec", camera.translation[:, None])
        storage.release()
    assert_same(read_cameras(paths), cameras)
    for path in paths:  # as OpenCV wrote them before its version 5
        path.write_text("%YAML:1.0\n" + path.read_text().partition("\n")[2])
    assert_same(read_cameras(paths), cameras)


def test_one_yaml_with_all_cameras(tmp_path):
    cameras = rig(4)[:3]
    path = tmp_path / "rig.yml"
    path.write_text(
        "".join(
            f"{c.name}:\n  K: {rows(c.matrix)}\n  D: {rows(c.distortion)}\n  R: {rows(c.rotation)}\n"
            f"  T: {rows(c.translation)}\n"
            for c in cameras
        )
    )
    assert_same(read_cameras([path]), cameras)


def test_colmap(tmp_path):
    """COLMAP's pixels have their centres at halves; quaternions by SciPy, scalar first."""
    from scipy.spatial.transform import Rotation

    lenses, images = ["# Camera list"], ["# Image list"]
    for i, camera in enumerate(rig(), start=1):
        (fx, _, cx), (_, fy, cy), _ = camera.matrix
        model = "OPENCV_FISHEYE" if camera.is_fisheye else "FULL_OPENCV"
        numbers = [fx, fy, cx + 0.5, cy + 0.5, *camera.distortion]
        lenses.append(f"{i} {model} 640 480 {' '.join(map(repr, map(float, numbers)))}")
        x, y, z, w = Rotation.from_matrix(camera.rotation).as_quat()
        pose = [w, x, y, z, *camera.translation]
        text = " ".join(map(repr, map(float, pose)))
        images += [f"{i} {text} {i} {camera.name}.png", "" if i == 2 else "12.5 3.5 -1"]
    (tmp_path / "cameras.txt").write_text("\n".join(lenses) + "\n")
    (tmp_path / "images.txt").write_text("\n".join(images) + "\n")
    assert_same(read_cameras([tmp_path]), rig())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.toml", "[cam_0\n", "is not TOML"),
        ("c.toml", "[cam_0]\nname='a'\n", r"\[cam_0\] has no camera_matrix"),
        ("c.toml", "", "0 cameras; two at least"),
        ("c.yaml", "%YAML:1.0\n---\na: 3\n", "has no camera"),
        ("c.yaml", "a: [", "is not OpenCV's YAML"),
        ("c.yaml", "K: [[1,0,0],[0,1,0],[0,0,1]]\n", "has no rvec; is it calibrated with its pose"),
        ("c.yaml", "K: [1, 2]\nR: [0,0,0]\nT: [0,0,0]\n", "must be 3 x 3, it has 2 numbers"),
        ("c.yaml", f"K: {[1.0] * 9}\nR: {[1.0] * 9}\nT: [0,0,0]\n", "not at right angles"),
        ("c.yaml", f"K: {[1.0] * 9}\nR: [0, .nan, 0]\nT: [0,0,0]\n", "R must be finite"),
        (
            "c.yaml",
            f"K: {[1.0] * 9}\nR: [0,0,0]\nT: [0,0,0]\nD: {[0.1] * 12}\n",
            "of which 8 are known",
        ),
        ("c.json", "{}", "a calibration is Anipose's"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_cameras([path])


def test_colmap_names_the_line(tmp_path):
    (tmp_path / "cameras.txt").write_text("1 THIN_PRISM 10 10 1 2 3\n")
    (tmp_path / "images.txt").write_text("")
    with pytest.raises(ValueError, match=r"cameras.txt, line 1: no camera of a model"):
        read_cameras([tmp_path])
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 10 10 1 2 3\n")
    with pytest.raises(ValueError, match=r"line 1: PINHOLE has 4 parameters, got 3"):
        read_cameras([tmp_path])
