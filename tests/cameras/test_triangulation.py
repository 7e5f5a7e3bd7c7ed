"""Points are where the likelihood is largest, ellipsoids hold the truth, outlying cameras count little."""

import numpy as np
import pytest
from rigs import rig, seen_by
from scipy import optimize

from tfhuber.cameras.triangulation import triangulate
from tfhuber.drawing.ellipses import kappa

TRUTH = np.random.default_rng(1).uniform(-0.8, 0.8, (400, 3))


def energy(cameras, places, covariances, delta, point):
    total = 0.0
    for camera, z, matrix in zip(cameras, places, covariances, strict=True):
        if np.isnan(z).any():
            continue
        error = camera.project(point)[0] - z
        r = np.sqrt(kappa("huber", delta) * error @ np.linalg.solve(matrix, error))
        total += r * r / 2 if r < delta else delta * (r - delta / 2)
    return total


@pytest.mark.parametrize("delta", [1.0, 100.0])
def test_points_are_where_scipys_minimum_is(delta):
    cameras = rig()
    places, covariances = seen_by(cameras, TRUTH[:12], 3.0)
    places[1, 3] += [60, -40]  # a camera that contradicts
    places[2, 5] = np.nan
    found = triangulate(cameras, places, covariances, delta)
    for n in range(12):
        here = cameras, places[:, n], covariances[:, n], delta
        lowest = min(
            optimize.minimize(
                lambda x, here=here: energy(*here, x),
                start,
                method="Nelder-Mead",
                options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 4000},
            ).fun
            for start in (found.place[n], TRUTH[n])
        )
        assert energy(*here, found.place[n]) <= lowest + 1e-7 * (1 + lowest)


def test_for_gaussians_it_is_least_squares_with_its_covariance():
    cameras = rig()
    places, covariances = seen_by(cameras, TRUTH[:1])
    found = triangulate(cameras, places, covariances, 1e3)
    roots = np.linalg.inv(np.linalg.cholesky(covariances[:, 0]))

    def residuals(x):
        return np.concatenate(
            [
                r @ (c.project(x)[0] - z)
                for r, c, z in zip(roots, cameras, places[:, 0], strict=True)
            ]
        )

    expected = optimize.least_squares(residuals, TRUTH[0], xtol=1e-15, ftol=1e-15, gtol=1e-15)
    np.testing.assert_allclose(found.place[0], expected.x, atol=1e-9)
    np.testing.assert_allclose(
        found.covariance[0], np.linalg.inv(expected.jac.T @ expected.jac), rtol=1e-4
    )


def test_ellipsoids_hold_what_they_say():
    """Of 4,000 points 88 to 92 % lie within the ellipsoid of 90 % (deviation of the share: 0.5 %)."""
    cameras, truth = rig(), np.random.default_rng(2).uniform(-0.8, 0.8, (4000, 3))
    places, covariances = seen_by(cameras, truth, 1.0, seed=3)
    found = triangulate(cameras, places, covariances, 1e3)
    error = found.place - truth
    square = np.einsum("ni,nij,nj->n", error, np.linalg.inv(found.covariance), error)
    assert 0.88 < (square < 6.2514).mean() < 0.92


def test_a_camera_that_contradicts_counts_little_by_itself():
    cameras = rig(4)
    places, covariances = seen_by(cameras, TRUTH)
    alone = triangulate(cameras, places, covariances)
    places[1] += [80.0, 50.0]
    found = triangulate(cameras, places, covariances)
    assert (found.counts[:, 1] > 0.1).mean() < 0.01 and np.delete(found.counts, 1, 1).mean() > 0.8
    gauss = triangulate(cameras, places, covariances, 1e3)
    error = [np.median(np.linalg.norm(p.place - TRUTH, axis=1)) for p in (alone, found, gauss)]
    assert error[1] < 3 * error[0] and error[2] > 8 * error[0]


def test_what_fewer_than_two_cameras_see_is_not_known():
    cameras = rig()
    places, covariances = seen_by(cameras, TRUTH[:3])
    places[:2, 0] = np.nan
    covariances[:, 1] = -np.eye(2)
    found = triangulate(cameras, places, covariances)
    assert np.isnan(found.place[:2]).all() and np.isnan(found.covariance[:2]).all()
    assert (found.counts[:2] == 0).all() and np.isfinite(found.place[2]).all()


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"places must be \[3 cameras"):
        triangulate(rig(), np.zeros((2, 4, 2)), np.zeros((2, 4, 2, 2)))
    with pytest.raises(ValueError, match="covariances must be"):
        triangulate(rig(), np.zeros((3, 4, 2)), np.zeros((3, 4, 2)))
