"""The client with videos that are rare: other colours, times that repeat, nothing to decode, odd names."""

import os
from fractions import Fraction

import numpy as np
import pytest
from scripted_server import read_lines, run_client
from video_files import make_video, read_video, with_cover

from serving.client.boxes import Boxes
from serving.client.sources import Video

av = pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")

PATCHES = [(200, 60, 40), (20, 240, 250), (5, 5, 5), (250, 250, 250)]
CENTRES = [(32, 40), (32, 120), (96, 40), (96, 120)]  # (y, x) of them, far from what is drawn


def patches(size=(160, 128)):
    """Four colours, the darkest and the brightest among them."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for colour, (y, x) in zip(PATCHES, CENTRES, strict=True):
        pixels[y - 32 : y + 32, x - 40 : x + 40] = colour
    return pixels


def write(path, codec, kind, full=None, count=3, times=None, ticks=25, **settings):
    """A video of `patches`; `times` are in 1 / `ticks` seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 25)
        stream.width, stream.height, stream.pix_fmt = 160, 128, kind
        stream.codec_context.time_base = Fraction(1, ticks)
        if full is not None:
            stream.codec_context.color_range = full
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        frame = av.VideoFrame.from_ndarray(patches(), format="rgb24")
        frame = frame.reformat(format=kind, dst_color_range=full)
        if full is not None:
            frame.color_range = full
        for i in range(count):
            frame.pts, frame.time_base = times[i] if times else i, Fraction(1, ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "kind", "full"),
    [
        ("a.mp4", "libx264", "yuv420p", 1),
        ("a.mp4", "libx264", "yuv420p", 2),
        ("a.avi", "mjpeg", "yuvj420p", 2),
        ("a.mp4", "libx264rgb", "rgb24", None),
        ("a.mov", "png", "rgb24", None),
    ],
)
def test_bright_stays_bright_and_dark_dark(name, codec, kind, full, url, tmp_path, monkeypatch):
    """As a player sees it: brightness in all of a byte, or colours as RGB, become a video's own."""
    source, overlay = write(tmp_path / name, codec, kind, full), tmp_path / "drawn.mp4"
    (tmp_path / "boxes.csv").write_text("0,2,2,9,9\n1,2,2,9,9\n")  # the last frame is not drawn on
    flags = ["--boxes", tmp_path / "boxes.csv", "--url", url, "--overlay", overlay]
    assert run_client(monkeypatch, source, *flags) == 1
    frames, _, stream = read_video(overlay)
    assert stream.codec_context.color_range in (0, 1) and stream.codec_context.colorspace != 0
    assert len(frames) == 3
    for frame in frames:
        for colour, (y, x) in zip(PATCHES, CENTRES, strict=True):
            assert np.abs(frame[y, x].astype(int) - colour).max() <= 9, (colour, frame[y, x])


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 1, 1, 1, 2, 3], [0, 1, 1, 1, 2, 3]),  # more frames than there are times
        ([100, 140, 3000, 0, 100, 300], [100, 140, 3000, 3040, 3140, 3340]),  # joined recordings
        ([80, 120, 160, 40, 80, 120], [80, 120, 160, 200, 240, 280]),  # joined short ones
    ],
)
def test_times_that_repeat_or_go_back_go_on(times, expected, url, tmp_path, monkeypatch):
    source, overlay = write(tmp_path / "a.mp4", "libx264", "yuv420p", count=6), tmp_path / "b.mp4"
    # Few formats can hold such times, so they are put in when they are read.
    found = Video._decoded

    def decoded(self, *arguments):
        for frame, time in zip(found(self, *arguments), times, strict=True):
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            yield frame

    monkeypatch.setattr(Video, "_decoded", decoded)
    assert run_client(monkeypatch, source, "--url", url, "--overlay", overlay) == 0
    _, seconds, _ = read_video(overlay)
    np.testing.assert_allclose(np.diff(seconds), np.diff(expected) / 1000, atol=1e-4)


def test_the_shape_of_pixels_is_kept(url, tmp_path, monkeypatch):
    shape = {"sample_aspect_ratio": Fraction(4, 3)}
    source = write(tmp_path / "a.mp4", "libx264", "yuv420p", **shape)
    overlay = tmp_path / "b.mp4"
    assert run_client(monkeypatch, source, "--url", url, "--overlay", overlay) == 0
    assert read_video(overlay)[2].sample_aspect_ratio == Fraction(4, 3)


def test_an_odd_side_is_cut_and_nothing_moves(url, tmp_path, monkeypatch):
    """Stripes of a pixel's width: what is scaled is grey."""
    source, overlay = tmp_path / "a.mkv", tmp_path / "b.mp4"
    stripes = np.zeros((61, 81, 3), np.uint8)
    stripes[:, ::2] = 255
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", 25)
        stream.width, stream.height, stream.pix_fmt = 81, 61, "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stripes, format="rgb24")))
        container.mux(stream.encode(None))
    arguments = [source, "--box=0,0,9,9", "--url", url, "--overlay", overlay]
    assert run_client(monkeypatch, *arguments) == 0
    (frame,) = read_video(overlay)[0]
    difference = np.abs(frame[:20, 50:].astype(int) - stripes[:20, 50:80])  # nothing is drawn there
    assert difference.max() <= 20


def test_frames_none_of_which_can_be_decoded_are_each_an_error(url, tmp_path, monkeypatch, capsys):
    source, lines = make_video(tmp_path / "a.mp4", count=6), tmp_path / "x.jsonl"
    data = bytearray(source.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - start)
    source.write_bytes(data)
    flags = ["--url", url, "--jsonl", lines, "--overlay", tmp_path / "b.mp4"]
    assert run_client(monkeypatch, source, *flags) == 1
    assert all("cannot be decoded" in line["error"] for line in read_lines(lines))
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "x.jsonl"]
    assert f"wrote {lines}\n" in capsys.readouterr().out


def test_colours_that_cannot_be_turned_into_rgb_are_each_an_error(url, tmp_path, monkeypatch):
    source, lines = tmp_path / "a.mp4", tmp_path / "x.jsonl"
    write(source, "libx264", "yuv420p", colorspace=8)  # YCgCo
    assert run_client(monkeypatch, source, "--url", url, "--jsonl", lines) == 1
    found = read_lines(lines)
    assert len(found) == 3 and all("turned into a JPEG" in line["error"] for line in found)


def test_a_colon_in_a_name_is_no_protocol(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "take:1.mp4", count=2)
    arguments = ["take:1.mp4", "--url", url, "--overlay", "out:1.mp4"]
    assert run_client(monkeypatch, *arguments) == 0
    assert len(read_video(tmp_path / "out:1.mp4")[0]) == 2


def test_a_cover_is_not_the_film(tmp_path):
    plain = make_video(tmp_path / "plain.mp4", count=7)
    path = with_cover(plain, tmp_path / "cover.mp4")
    with av.open(str(path)) as container:
        assert [stream.width for stream in container.streams.video] == [300, 160]
    film, video = Video(plain, Boxes()), Video(path, Boxes())
    assert (video.size, video.rate, video.count) == ((160, 120), film.rate, 7)
    for one, two in zip(film, video, strict=True):
        assert one.seconds == two.seconds
        np.testing.assert_array_equal(one.pixels(), two.pixels())


def test_a_cover_alone_is_no_film(tmp_path, monkeypatch):
    path = with_cover(make_video(tmp_path / "plain.mp4", count=2), tmp_path / "cover.mp4")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"trak", b"free"))
    with pytest.raises(ValueError, match="no moving pictures, only sound and a cover"):
        Video(path, Boxes())


@pytest.mark.parametrize("suffix", [".3gp", ".MTS", ".m2ts", ".ts"])
def test_videos_of_phones_and_cameras_are_videos(url, tmp_path, monkeypatch, suffix):
    path = make_video(tmp_path / f"a{suffix}", count=12)
    arguments = ["--jsonl", str(tmp_path / "a.jsonl"), "--url", url]
    assert run_client(monkeypatch, path, *arguments) == 0
    assert [line["frame"] for line in read_lines(tmp_path / "a.jsonl")] == list(range(12))
