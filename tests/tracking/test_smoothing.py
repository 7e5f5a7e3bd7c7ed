"""The smoother against one dense Gaussian system, and against films whose truth is known."""

import time

import numpy as np
import pytest
from films import coverage, film, rms
from scipy import linalg

from tfhuber.tracking import smoothing
from tfhuber.tracking.filtering import Filter, Measurements
from tfhuber.tracking.law import huber_law
from tfhuber.tracking.motion import Motion
from tfhuber.tracking.smoothing import filtered, smooth

GAUSS = huber_law(1e3, 2)


def parameters(landmarks, process=0.05, share=0.8, time=30.0, order=1):
    usual = np.ones(landmarks)
    return Motion(process * usual, share * usual, time * usual, order)


def dense(measured, motion, k, speed):
    """Mean and covariance of all states of a landmark, from the joint precision of all frames.

    Written anew: transitions and noise by the exponential of the continuous system (Van Loan 1978).
    """
    d, order = measured.dimensions, motion.order
    m = order + 2
    drift = np.zeros((m, m))
    drift[range(order), range(1, order + 1)] = 1
    drift[-1, -1] = -1 / motion.time[k]
    diffusion = np.zeros((m, m))
    diffusion[order, order] = motion.process[k]
    diffusion[-1, -1] = 2 / motion.time[k]
    frames, n = len(measured.times), m * d
    precision, pull = np.zeros((frames * n, frames * n)), np.zeros(frames * n)
    first, matrix = (values[k] for values in measured.first_seen())
    prior = np.concatenate(
        [np.full(d, 1 / (1e4 * np.trace(matrix))), np.full(order * d, speed**-2), np.ones(d)]
    )
    precision[:n, :n] += np.diag(prior)
    pull[:d] += prior[:d] * first
    for t, step in enumerate(np.diff(measured.times)):
        block = linalg.expm(np.block([[-drift, diffusion], [np.zeros((m, m)), drift.T]]) * step)
        move = block[m:, m:].T
        inverse = np.kron(np.linalg.inv(move @ block[:m, m:]), np.eye(d))
        move = np.kron(move, np.eye(d))
        both = slice(t * n, (t + 2) * n)
        links = np.concatenate([-move, np.eye(n)], axis=1)
        precision[both, both] += links.T @ inverse @ links
    for t in range(frames):
        if measured.seen[t, k]:
            covariance = measured.covariance[t, k]
            looks = np.zeros((d, n))
            looks[:, :d] = np.eye(d)
            looks[:, -d:] = linalg.sqrtm(covariance).real * np.sqrt(motion.share[k])
            weight = np.linalg.inv((1 - motion.share[k]) * covariance)
            here = slice(t * n, (t + 1) * n)
            precision[here, here] += looks.T @ weight @ looks
            pull[here] += looks.T @ weight @ measured.place[t, k]
    covariance = np.linalg.inv(precision)
    return (covariance @ pull).reshape(frames, n), covariance.reshape(frames, n, frames, n)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("d", [2, 3])
def test_it_is_the_solution_of_the_dense_system(order, d):
    """With frames missing, landmarks not seen, and several lengths of steps."""
    rng = np.random.default_rng(order)
    frames, landmarks = 24, 3
    places = np.cumsum(rng.normal(0, 2, (frames, landmarks, d)), 0)
    half = rng.normal(0, 1, (frames, landmarks, d, d))
    covariances = half @ half.mT + 0.2 * np.eye(d)
    places[5:9, 1] = np.nan
    covariances[12, 2] = -1
    times = np.cumsum(rng.choice([1.0, 1.0, 2.0, 4.5], frames))
    measured = Measurements.of(places, covariances, times)
    motion = Motion(
        np.array([0.05, 0.4, 2.0]), np.array([0.8, 0.1, 0.6]), np.array([30.0, 3.0, 9.0]), order
    )
    track = smooth(measured, motion, huber_law(1e3, d))
    forward = filtered(measured, motion, huber_law(1e3, d))
    for k in range(landmarks):
        mean, covariance = dense(measured, motion, k, smoothing.typical_speed(measured))
        for t in range(frames):
            here = covariance[t, :, t]
            np.testing.assert_allclose(track.place[t, k], mean[t, :d], atol=1e-5)
            np.testing.assert_allclose(track.velocity[t, k], mean[t, d : 2 * d], atol=1e-5)
            np.testing.assert_allclose(
                track.place_covariance[t, k], here[:d, :d], rtol=1e-5, atol=1e-6
            )
            np.testing.assert_allclose(
                track.velocity_covariance[t, k], here[d : 2 * d, d : 2 * d], rtol=1e-5, atol=1e-6
            )
        np.testing.assert_allclose(forward.place[-1, k], track.place[-1, k], atol=1e-9)


def test_a_film_in_parts_is_the_same(monkeypatch):
    _, _, places, covariances = film(300, 2, hidden=0.1)
    measured = Measurements.of(places, covariances)
    whole = smooth(measured, parameters(2), huber_law(2.0, 2))
    monkeypatch.setattr(smoothing, "_MOST_NUMBERS", 36 * 2 * 70)
    done = []
    parts = smooth(measured, parameters(2), huber_law(2.0, 2), done.append)
    assert sum(done) == 300 and max(done) <= 32
    for name, values in vars(whole).items():
        np.testing.assert_allclose(getattr(parts, name), values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.8, 0.97])
def test_ellipses_hold_what_they_say_and_smoothing_helps(share):
    """Of 24 landmarks in 1,500 frames 88 to 92 % are in their ellipses of 90 %, filtered or smoothed."""
    truth, velocity, places, covariances = film(1500, 24, share=share, hidden=0.2)
    measured = Measurements.of(places, covariances)
    motion = parameters(24, share=share)
    forward, both = (run(measured, motion, huber_law(2.0, 2)) for run in (filtered, smooth))
    for track in (forward, both):
        assert 0.88 < coverage(track.place, track.place_covariance, truth) < 0.92
    assert 0.88 < coverage(both.velocity, both.velocity_covariance, velocity) < 0.92
    errors = [rms(places, truth), rms(forward.place, truth), rms(both.place, truth)]
    assert errors[2] < 0.9 * errors[1] < 0.8 * errors[0]


def test_a_filter_that_ignores_the_bias_is_too_sure():
    """What the split is for: as white noise, the same R gives ellipses of 90 % that hold far fewer."""
    truth, _, places, covariances = film(1500, 8, share=0.9)
    measured = Measurements.of(places, covariances)
    white = smooth(measured, parameters(8, share=0.0), GAUSS)
    assert coverage(white.place, white.place_covariance, truth) < 0.6


def test_a_wrong_prediction_pulls_little():
    truth, _, places, covariances = film(200, 4, share=0.5)
    places[100] += 400.0
    measured = Measurements.of(places, covariances)
    robust, gauss = (
        smooth(measured, parameters(4, share=0.5), law) for law in (huber_law(2.0, 2), GAUSS)
    )
    near = slice(90, 110)
    assert rms(robust.place[near], truth[near]) < 3.5 < 15 < rms(gauss.place[near], truth[near])


def test_a_landmark_that_is_not_seen_keeps_its_speed_and_its_doubt_grows():
    truth = 3.0 * np.arange(60)[:, None, None] * np.ones((1, 1, 2))
    places = truth.copy()
    places[30:] = np.nan
    covariances = np.broadcast_to(0.01 * np.eye(2), (60, 1, 2, 2))
    track = smooth(Measurements.of(places, covariances), parameters(1, 1e-6), GAUSS)
    np.testing.assert_allclose(track.place[59], truth[59], atol=0.5)
    assert (np.diff(track.place_covariance[30:, 0, 0, 0]) > 0).all()


def test_shapes_and_times_are_checked():
    with pytest.raises(ValueError, match=r"landmarks must be \[T, K, 2 or 3\], got \[3, 2\]"):
        Measurements.of(np.zeros((3, 2)), np.zeros((3, 2, 2)))
    with pytest.raises(ValueError, match=r"covariance must be \[3, 1, 2, 2\]"):
        Measurements.of(np.zeros((3, 1, 2)), np.zeros((3, 1, 2)))
    with pytest.raises(ValueError, match="times must be 3 ascending"):
        Measurements.of(np.zeros((3, 1, 2)), np.ones((3, 1, 2, 2)), np.array([0, 2, 2]))


@pytest.mark.slow
def test_10_000_frames_of_98_landmarks_take_seconds():
    """2 seconds on a core of its own; with a margin, as others may use it too."""
    _, _, places, covariances = film(10_000, 98)
    measured = Measurements.of(places, covariances)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        smooth(measured, parameters(98), huber_law(2.0, 2))
        seconds.append(time.process_time() - start)
    assert min(seconds) < 4


def test_the_filter_keeps_no_more_than_it_needs():
    kalman = Filter(parameters(2), GAUSS, 2)
    for step in np.linspace(1, 2, 300):
        kalman.step(float(step))
    assert len(kalman._steps) <= 101
