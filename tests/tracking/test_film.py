"""Whole films and live ones: objects kept apart, lost and found, and cuts noticed."""

import numpy as np
import pytest
from films import film, rms

from tfhuber.tracking.cuts import find_cuts
from tfhuber.tracking.film import Settings, frame_times, track_film, track_shots
from tfhuber.tracking.filtering import Measurements
from tfhuber.tracking.lines import Frame, Sighting
from tfhuber.tracking.live import LiveFilm

FRAMES, K = 160, 6
SHAPE = 40 * np.stack([np.cos(np.arange(K)), np.sin(np.arange(K))], -1)


def objects(starts, seed=0):
    """Truth and measurements of rigid objects of K landmarks that go slowly from these places."""
    films = []
    for i, start in enumerate(starts):
        path, *_ = film(FRAMES, 1, process=0.02, seed=seed + i)
        offset = np.array(start) - 200 + SHAPE
        _, _, noisy, covariances = film(FRAMES, K, process=1e-9, share=0.5, seed=seed + 100 + i)
        still = film(FRAMES, K, process=1e-9, share=0.5, seed=seed + 100 + i)[0]
        films.append((path + offset, path + offset + noisy - still, covariances))
    return films


def frames_of(films, shown=lambda i, t: True, seed=0):
    rng = np.random.default_rng(seed)
    frames = []
    for t in range(FRAMES):
        seen = [Sighting(f[1][t], f[2][t]) for i, f in enumerate(films) if shown(i, t)]
        rng.shuffle(seen)
        frames.append(Frame("a.mp4", t, t / 30, True, seen))
    return frames


def test_two_objects_keep_their_numbers_while_one_is_hidden():
    films = objects([(200, 200), (420, 220)])
    frames = frames_of(films, lambda i, t: i == 0 or not 60 <= t < 85)
    tracks = track_film(frames, Settings())
    assert [(track.first, len(track.boxes), track.cuts) for track in tracks] == [
        (0, FRAMES, [])
    ] * 2
    for track in tracks:
        errors = [rms(track.track.place, truth) for truth, _, _ in films]
        assert min(errors) < 4 and max(errors) > 100
    growth = [
        t.track.place_covariance[72, 0, 0, 0] / t.track.place_covariance[40, 0, 0, 0]
        for t in tracks
    ]
    assert max(growth) > 1.5


def test_objects_whose_ways_cross_keep_their_numbers():
    films = objects([(200, 200), (600, 210)])
    for sign, (truth, places, _) in zip((1, -1), films, strict=True):
        way = sign * 2.5 * np.arange(FRAMES)[:, None, None] * np.array([1, 0])
        truth += way
        places += way
    tracks = track_film(frames_of(films), Settings())
    assert [(t.first, len(t.boxes)) for t in tracks] == [(0, FRAMES)] * 2
    for track in tracks:
        assert min(rms(track.track.place, truth) for truth, _, _ in films) < 4


def test_an_object_that_is_lost_for_long_is_another():
    films = objects([(200, 200), (420, 220)])
    frames = frames_of(films, lambda i, t: i == 0 or not 40 <= t < 110)
    tracks = track_film(frames, Settings(patience=30))
    assert sorted((t.first, len(t.boxes)) for t in tracks) == [(0, 40), (0, FRAMES), (110, 50)]


def test_one_that_appears_where_none_was_is_not_the_one_that_has_gone():
    films = objects([(200, 200), (420, 220), (300, 520)])
    frames = frames_of(films, lambda i, t: i == 1 or (t < 60) == (i == 0))
    tracks = track_film(frames, Settings())
    assert sorted((t.first, len(t.boxes)) for t in tracks) == [(0, 60), (0, FRAMES), (60, 100)]


def test_a_live_film_gives_the_same_numbers():
    films = objects([(200, 200), (420, 220)])
    live = LiveFilm(Settings())
    errors = {}
    for t in range(FRAMES):
        for i, (truth, places, covariances) in enumerate(films):
            frame = Frame("a.mp4", t, t / 30, True, [Sighting(places[t], covariances[t])])
            (seen,) = live.see(frame)
            errors.setdefault((i, seen.number), []).append(rms(seen.estimate.place, truth[t]))
    assert set(errors) == {(0, 1), (1, 2)}
    assert all(np.mean(values[80:]) < 4 for values in errors.values())
    assert live.rate == pytest.approx(30)


def test_a_live_film_says_where_a_lost_object_should_be_and_follows_a_cut():
    ((truth, places, covariances),) = objects([(200, 200)])
    live = LiveFilm(Settings())
    spread = []
    for t in range(FRAMES):
        hidden = 50 <= t < 60
        shift = 300.0 * (t >= 100)
        seen = [] if hidden else [Sighting(places[t] + shift, covariances[t])]
        (found,) = live.see(Frame("a.mp4", t, None, True, seen))
        spread.append(found.estimate.place_covariance[0, 0, 0])
        if t > 105:
            assert rms(found.estimate.place, truth[t] + shift) < 12
    assert (np.diff(spread[49:60]) > 0).all() and spread[70] < spread[59]
    assert live.rate is None


def test_cuts_are_found_and_wrong_frames_are_none():
    ((truth, places, covariances),) = objects([(200, 200)])
    places[70:] += [150.0, -60.0]
    places[120] += 200.0  # one wrong frame
    measured = Measurements.of(places, covariances)
    assert find_cuts(measured) == [70]
    track, _, cuts = track_shots(measured, Settings())
    assert cuts == [70]
    truth[70:] += [150.0, -60.0]
    assert rms(track.place[60:80], truth[60:80]) < 5


def test_a_film_without_cuts_has_none_however_fast_it_is():
    places = np.linspace(0, 90, 60)[:, None, None] ** 1.5 + SHAPE
    covariances = np.broadcast_to(0.01 * np.eye(2), (60, K, 2, 2))
    assert find_cuts(Measurements.of(places, covariances)) == []
    assert find_cuts(Measurements.of(places[:1], covariances[:1])) == []


@pytest.mark.parametrize("smooths", [True, False])
def test_one_frame_is_a_track(smooths):
    ((_, places, covariances),) = objects([(200, 200)])
    frames = [Frame("a.jpg", 0, None, False, [Sighting(places[0], covariances[0])])]
    (track,) = track_film(frames, Settings(smooths=smooths))
    np.testing.assert_allclose(track.track.place[0], places[0], atol=0.01)
    np.testing.assert_allclose(
        track.track.place_covariance[0], covariances[0], rtol=0.02, atol=0.02
    )


def test_a_landmark_that_is_never_seen_is_not_made_up():
    ((_, places, covariances),) = objects([(200, 200)])
    places[:, 2] = np.nan
    frames = [
        Frame("a.mp4", t, None, True, [Sighting(places[t], covariances[t])]) for t in range(40)
    ]
    (found,) = track_film(frames, Settings())
    assert np.isnan(found.track.place[:, 2]).all() and np.isfinite(found.track.place[:, 1]).all()


def test_times_are_seconds_where_they_ascend():
    def frames(seconds, numbers=(0, 1, 2, 4)):
        return [Frame("a", n, s, True) for n, s in zip(numbers, seconds, strict=True)]

    times, rate = frame_times(frames((1.0, 1.04, 1.08, 1.16)))
    np.testing.assert_allclose(times, [0, 1, 2, 4])
    assert rate == pytest.approx(25)
    exact = 1 / 30
    times, _ = frame_times([Frame("a", n, round(n * exact, 4), True) for n in range(300)])
    assert set(np.diff(times).tolist()) == {1.0}
    for seconds in ((1.0, 1.04, 1.02, 1.16), (1.0, None, 1.1, 1.2)):
        times, rate = frame_times(frames(seconds))
        assert times.tolist() == [0, 1, 2, 4] and rate is None
