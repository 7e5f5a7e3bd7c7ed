"""Drawn faces in 300W-LP's layout: WFLW's points among its 68, the truth of each pose, the views."""

import io

import numpy as np
import pytest
from conversion import convert
from PIL import Image, ImageDraw
from scipy.io import loadmat

from pipelines.sample.face_shape import FaceShape
from pipelines.sample.face_views import FROM_WFLW, face_views
from pipelines.sample.faces import Face
from pipelines.sample_data import read_truth, write_sample_data
from tfhuber.data import records
from tfhuber.data.tfrecord import read_records
from tfhuber.landmarks import known_sets


def test_points_shared_with_wflw_have_the_same_mirror_partners():
    """WFLW's permutation is the published one; ours is its restriction to 68 points."""
    ours, theirs = known_sets.LP300W, known_sets.WFLW
    assert [FROM_WFLW[i] for i in ours.mirror] == [theirs.mirror[i] for i in FROM_WFLW]
    parts = [name.rstrip("0123456789") for name in ours.names]
    assert parts == [theirs.names[i].rstrip("0123456789") for i in FROM_WFLW]
    grouped = np.concatenate(list(ours.groups.values()))
    assert sorted(grouped) == list(range(68))


def test_a_mirrored_drawn_face_agrees_with_the_mirror_permutation():
    shape = FaceShape(np.random.default_rng(0), np.array([100.0, 100.0]), 50.0)
    shape.yaw = shape.pitch = shape.roll = shape.gaze = 0.0
    points = shape.place()[list(FROM_WFLW)] - [100.0, 0.0]
    mirrored = points * [-1.0, 1.0]
    np.testing.assert_allclose(mirrored[list(known_sets.LP300W.mirror)], points, atol=1e-2)
    assert points[36, 0] < points[39, 0] < points[42, 0] < points[45, 0]
    assert points[27, 1] < points[30, 1] < points[33, 1] < points[51, 1] < points[8, 1]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    directory = tmp_path_factory.mktemp("drawn") / "source"
    counts = write_sample_data("300w_lp", directory, train=30, test=6, seed=1, processes=1)
    return directory, counts


def test_drawn_faces_convert_and_their_ids_are_the_truths(drawn, tmp_path):
    directory, counts = drawn
    truth = read_truth(directory, "train") | read_truth(directory, "test")
    manifest, rejects = convert(directory, tmp_path / "out", dataset="300w_lp")
    assert rejects == [] and len(truth) == sum(counts.values())
    assert {"train", "valid"} == manifest["splits"].keys()
    whitened = []
    for path in (tmp_path / "out").glob("*.tfrecord"):
        for example in map(records.decode, read_records(io.BytesIO(path.read_bytes()))):
            exact, covariance = truth.pop(example["id"].decode())
            root = np.linalg.cholesky(covariance)
            noise = example["landmarks"].reshape(68, 2) - exact
            whitened.append(np.linalg.solve(root, noise[..., None])[..., 0])
    assert truth == {}
    # Two poses share their noise, so that half of the points count; fourth moment as in
    # test_sample_data.
    whitened = np.concatenate(whitened)
    second = whitened.T @ whitened / len(whitened)
    assert len(whitened) > 4000
    np.testing.assert_allclose(second, np.eye(2), atol=6 * np.sqrt(2 * 4.4 / len(whitened)))


def test_drawn_files_have_the_official_ones_form(drawn):
    directory, _ = drawn
    turned = 0
    for path in directory.glob("*/*.jpg"):
        with Image.open(path) as image:
            assert image.size == (450, 450) and image.mode == "RGB"
        own = loadmat(directory / f"landmarks/{path.parent.name}/{path.stem}_pts.mat")["pts_2d"]
        old = loadmat(path.with_suffix(".mat"))["pt2d"]
        assert own.shape == (68, 2) and old.shape == (2, 68)
        if path.stem.endswith("_1"):
            turned += 1
            assert np.abs(own - old.T).max() > 10
            assert np.ptp(own[:, 0]) == pytest.approx(0.7 * np.ptp(old[0]))
        else:
            np.testing.assert_array_equal(own, old.T)
    assert turned >= 36


def test_a_dot_in_the_drawing_is_where_the_view_says():
    """Dots of 7 pixels at points of the jaw; their middles within a quarter of a pixel."""
    image = Image.new("RGB", (260, 240), "black")
    spots = np.full((98, 2), 120.0)
    spots[[0, 16, 32]] = (80, 90), (130, 170), (185, 100)
    pen = ImageDraw.Draw(image)
    for x, y in spots[[0, 16, 32]]:
        pen.rectangle((x - 3, y - 3, x + 3, y + 3), fill="white")
    face = Face(spots, np.tile(np.eye(2), (98, 1, 1)), (70, 80, 190, 180), (0,) * 6)
    views = list(face_views(image, [face], [spots + 2.0]))
    assert [view.suffix for _, view, _ in views] == ["1_0", "1_1"]
    for picture, view, labels in views:
        bright = np.asarray(picture.convert("L"), float)
        for x, y in view.landmarks[[0, 8, 16]]:
            rows, columns = np.mgrid[int(y) - 14 : int(y) + 16, int(x) - 14 : int(x) + 16]
            weight = bright[rows, columns]
            middle = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
            np.testing.assert_allclose(middle, (x, y), atol=0.25)
        # 450 x 0.4 pixels for a box of 120: 1.5 times as large, and the turned pose 0.7 as wide.
        width = 1.0 if view.is_photograph else 0.7
        scales = 1.5 * np.array([width, 1.0])
        np.testing.assert_allclose(labels - view.landmarks, np.tile(2 * scales, (68, 1)))
        np.testing.assert_allclose(view.covariance[5], np.diag(scales**2))
