"""The benchmark of tracks: its films are what they say, and the methods of others are right."""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks import simulated_films, tracking

COMMAND = [sys.executable, "-m", "benchmarks.tracking"]


@pytest.fixture(scope="module")
def film():
    return simulated_films.draw_film(np.random.default_rng(0), 3000)


def test_errors_have_the_predicted_covariance_and_a_bias_that_persists(film):
    """Of 60,000 landmarks: unit variance to 5 %, neighbours correlate by 0.9 exp(-1 / 20)."""
    error = film.places - film.truth
    white = np.linalg.solve(np.linalg.cholesky(film.covariance), error[..., None])[..., 0]
    assert np.square(white).mean() == pytest.approx(1, rel=0.05)
    assert (white[1:] * white[:-1]).mean() == pytest.approx(0.9 * np.exp(-1 / 20), abs=0.05)
    assert 0.05 < film.hidden.mean() < 0.3
    deviation = np.sqrt(np.trace(film.covariance, axis1=2, axis2=3))
    assert np.median(deviation[film.hidden]) > 6 * np.median(deviation[~film.hidden])


def test_the_motion_has_the_deviation_that_is_asked_for():
    for is_smooth in (False, True):
        course = simulated_films.wander(np.random.default_rng(1), (20_000,), 3.0, 10.0, is_smooth)
        assert course.std() == pytest.approx(3, rel=0.05)
        assert np.corrcoef(course[1:], course[:-1])[0, 1] > 0.95


def test_the_other_filters_leave_a_still_point_still_and_follow_a_step():
    places = np.zeros((60, 2, 2))
    places[30:] = 10.0
    found = tracking.one_euro(places, 0.2, 0.0)
    assert (found[:30] == 0).all() and 9.9 < found[-1, 0, 0] < 10
    covariance = np.broadcast_to(np.eye(2), (60, 2, 2, 2))
    film = simulated_films.Film(places, places, covariance, np.zeros((60, 2), bool))
    smoothed = tracking.random_walk(film, 1.0)
    assert smoothed[29, 0, 0] + smoothed[30, 0, 0] == pytest.approx(
        10, abs=1e-6
    )  # as far before as after


def test_linear_and_ransac_find_exact_points_and_ransac_leaves_a_wrong_camera_out():
    cameras, truth = tracking.rig(), np.random.default_rng(2).uniform(-0.5, 0.5, (50, 3))
    places = np.stack([camera.project(truth)[0] for camera in cameras])
    np.testing.assert_allclose(tracking.linear(cameras, places), truth, atol=1e-6)
    places[1] += [90.0, 70.0]
    found = np.linalg.norm(tracking.ransac(cameras, places) - truth, axis=1)
    assert (
        np.median(found)
        < 1e-6
        < np.median(np.linalg.norm(tracking.linear(cameras, places) - truth, axis=1))
    )


def test_bad_options_are_refused_in_one_line():
    result = subprocess.run([*COMMAND, "--films", "0"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "error: --films must be at least 1, got 0\n"


@pytest.mark.slow
def test_it_runs_and_ours_is_the_best():
    result = subprocess.run(
        [*COMMAND, "--films", "2", "--frames", "300"], capture_output=True, text=True
    )
    rows = [
        line.rsplit(maxsplit=4) for line in result.stdout.splitlines() if line.startswith("ours")
    ]
    assert float(rows[1][1]) < 6 and "below the best constant R" in result.stdout
