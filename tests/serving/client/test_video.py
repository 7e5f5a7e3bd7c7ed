"""The client with videos: landmarks of every frame, and an overlay with the frames at their times."""

import sys
from fractions import Fraction

import numpy as np
import pytest
from fake_server import COUNT
from scripted_server import read_lines, run_client
from video_files import COLOURS, make_video, read_video

from serving.client.boxes import Boxes
from serving.client.sources import Video, check_av

av = pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")


def test_the_frames_of_a_video(tmp_path):
    video = Video(make_video(tmp_path / "clip.mp4"), Boxes(np.arange(4.0)))
    assert (video.count, video.size, video.rate) == (24, (160, 120), Fraction(30000, 1001))
    frames = list(video)
    assert [frame.number for frame in frames] == list(range(24))
    np.testing.assert_allclose([f.seconds for f in frames], np.arange(24) * 1001 / 30000, atol=1e-4)
    assert frames[0].file()[0].startswith(b"\xff\xd8\xff")
    assert frames[0].box.tolist() == [0, 1, 2, 3]
    for i, frame in enumerate(frames):
        pixels = frame.pixels()
        assert pixels.shape == (120, 160, 3)
        assert np.abs(pixels.astype(int) - COLOURS[i % 5]).max() <= 6


@pytest.mark.parametrize("batch", [1, 5])
def test_an_overlay_has_the_frames_at_their_times(url, tmp_path, monkeypatch, capsys, batch):
    source, overlay = make_video(tmp_path / "clip.mp4"), tmp_path / "drawn.mp4"
    lines = tmp_path / "found.jsonl"
    arguments = [source, "--box=20,60,120,120", "--url", url, "--batch", batch]
    assert run_client(monkeypatch, *arguments, "--overlay", overlay, "--jsonl", lines) == 0

    original, times, _ = read_video(source)
    drawn, drawn_times, stream = read_video(overlay)
    assert stream.average_rate == Fraction(30000, 1001)
    np.testing.assert_allclose(drawn_times, times, atol=1e-4)
    for before, after in zip(original, drawn, strict=True):
        difference = np.abs(after.astype(int) - before).max(-1)
        assert difference[:30].max() <= 12, "far from the landmarks nothing changes"
        for x in (40, 60):
            drawn_here = difference[x + 38 : x + 43, x - 2 : x + 3].max()
            assert drawn_here > 40, "a landmark is drawn at (x, x + 40)"

    found = read_lines(lines)
    assert [line["frame"] for line in found] == list(range(24))
    np.testing.assert_allclose([line["seconds"] for line in found], times)
    assert all(line["source"] == str(source) for line in found)
    np.testing.assert_array_equal(found[7]["landmarks"], [[20 + k, 60 + k] for k in range(COUNT)])
    captured = capsys.readouterr()
    assert captured.out.startswith("24 of 24 frames in ")


@pytest.mark.parametrize(("size", "threads"), [((160, 120), 1), ((1280, 832), 0)])
def test_large_frames_are_shared_among_threads(size, threads, url, tmp_path, monkeypatch):
    source, overlay = make_video(tmp_path / "clip.mp4", count=7, size=size), tmp_path / "drawn.mp4"
    assert Video(source, Boxes()).threads == threads
    assert run_client(monkeypatch, source, "--url", url, "--overlay", overlay) == 0
    for before, after in zip(read_video(source)[0], read_video(overlay)[0], strict=True):
        assert np.median(np.abs(after.astype(int) - before)) < 5


def test_a_full_disk_leaves_no_half_video(url, tmp_path, monkeypatch, full_disk):
    source, overlay = make_video(tmp_path / "clip.mp4"), tmp_path / "out" / "drawn.mp4"
    fault = r"drawn\.mp4 cannot be written: File too large"
    with full_disk(1000), pytest.raises(ValueError, match=fault):
        run_client(monkeypatch, source, "--url", url, "--overlay", overlay)
    assert not list(overlay.parent.iterdir())


def test_times_that_are_not_equal_are_kept(url, tmp_path, monkeypatch):
    times = [0, 40, 90, 200, 210, 400]
    source = make_video(tmp_path / "clip.mkv", count=6, times=times)
    overlay = tmp_path / "drawn.mp4"
    assert run_client(monkeypatch, source, "--url", url, "--overlay", overlay) == 0
    np.testing.assert_allclose(read_video(overlay)[1], np.array(times) / 1000, atol=2e-3)


def test_boxes_of_frames_and_frames_as_pictures(url, tmp_path, monkeypatch):
    source, folder = make_video(tmp_path / "clip.mp4", count=4), tmp_path / "frames"
    boxes, lines = tmp_path / "boxes.csv", tmp_path / "x.jsonl"
    boxes.write_text("frame,x0,y0,x1,y1\n0,1,2,30,40\n1,3,4,30,40\n3,5,6,30,40\n")
    arguments = [source, "--url", url, "--boxes", boxes, "--jsonl", lines, "--overlay", folder]
    assert run_client(monkeypatch, *arguments) == 1
    found = read_lines(lines)
    assert [line.get("landmarks", [None])[0] for line in found] == [[1, 2], [3, 4], None, [5, 6]]
    assert "no box for 2" in found[2]["error"]
    names = ["frame_000000.jpg", "frame_000001.jpg", "frame_000003.jpg"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_frame_without_landmarks_stays_in_the_overlay(url, tmp_path, monkeypatch):
    source, overlay = make_video(tmp_path / "clip.mp4", count=4), tmp_path / "drawn.mp4"
    (tmp_path / "boxes.csv").write_text("0,1,2,30,40\n")
    arguments = [source, "--url", url, "--boxes", tmp_path / "boxes.csv", "--overlay", overlay]
    assert run_client(monkeypatch, *arguments) == 1
    original, drawn = read_video(source)[0], read_video(overlay)[0]
    assert len(drawn) == 4 and np.abs(drawn[2].astype(int) - original[2]).max() <= 8


def test_sides_that_are_odd_lose_a_pixel(url, tmp_path, monkeypatch):
    path, overlay = tmp_path / "clip.mkv", tmp_path / "drawn.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", 25)
        stream.width, stream.height, stream.pix_fmt = 81, 61, "bgr0"
        for _ in range(3):
            pixels = np.full((61, 81, 3), COLOURS[0], np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    assert run_client(monkeypatch, path, "--url", url, "--overlay", overlay) == 0
    frames = read_video(overlay)[0]
    assert len(frames) == 3 and frames[0].shape == (60, 80, 3)
    assert np.abs(frames[0][50, 70].astype(int) - COLOURS[0]).max() <= 6


def test_a_video_that_is_cut_off_gives_what_there_is(url, tmp_path, monkeypatch):
    whole = make_video(tmp_path / "whole.mkv", count=200).read_bytes()
    path, lines = tmp_path / "clip.mkv", tmp_path / "x.jsonl"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert run_client(monkeypatch, path, "--url", url, "--jsonl", lines) in (0, 1)
    assert 60 < sum("landmarks" in line for line in read_lines(lines)) < 200


def test_damage_in_the_middle_is_not_the_end(url, tmp_path, monkeypatch):
    path, lines = tmp_path / "clip.mp4", tmp_path / "x.jsonl"
    data = bytearray(make_video(path, count=100).read_bytes())
    start = data.index(b"mdat") + 4
    for offset in range(start + 2000, start + 2400):
        data[offset] ^= 0x5A
    path.write_bytes(data)
    assert run_client(monkeypatch, path, "--url", url, "--jsonl", lines) in (0, 1)
    found = read_lines(lines)
    assert [line["frame"] for line in found] == list(range(len(found)))
    assert sum("landmarks" in line for line in found) > 30


def test_what_is_no_video_is_said(url, tmp_path, monkeypatch):
    cases = {
        "text.mp4": (b"hello", "not a video that can be read"),
        "empty.mov": (b"", "not a video"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=message):
            run_client(monkeypatch, tmp_path / name, "--url", url, "--jsonl", tmp_path / "x.jsonl")
    with pytest.raises(OSError, match="No such file"):
        run_client(monkeypatch, tmp_path / "none.mp4", "--url", url, "--csv", tmp_path / "x.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.mov", "text.mp4"]


def test_an_overlay_is_mp4_and_not_the_video_itself(url, tmp_path, monkeypatch):
    source = make_video(tmp_path / "clip.mp4", count=2)
    before = source.read_bytes()
    for overlay, message in [("x.mkv", r"must end in \.mp4"), ("clip.mp4", "written over")]:
        with pytest.raises(ValueError, match=message):
            run_client(monkeypatch, source, "--url", url, "--overlay", tmp_path / overlay)
    assert source.read_bytes() == before


def test_without_pyav_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="pip install av"):
        run_client(monkeypatch, tmp_path / "clip.mp4", "--jsonl", tmp_path / "x.jsonl")
    with pytest.raises(ValueError, match="videos need PyAV"):
        check_av()


def test_colours_survive_the_way_through(url, tmp_path, monkeypatch):
    """Numbers that mean the colours of high definition must go on to mean those."""
    path, overlay = tmp_path / "clip.mp4", tmp_path / "drawn.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.colorspace = 1  # BT.709
        for i in range(5):
            pixels = np.full((240, 320, 3), COLOURS[i], np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert run_client(monkeypatch, path, "--box=0,0,9,9", "--url", url, "--overlay", overlay) == 0
    before, after = (
        [frame.to_ndarray(format="yuv420p") for frame in av.open(str(each)).decode(video=0)]
        for each in (path, overlay)
    )
    for a, b in zip(before, after, strict=True):
        # Of all three planes, in the same encoding.
        assert np.median(np.abs(a.astype(int) - b)) <= 2


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_video_that_ends_too_early_is_said_to(url, tmp_path, monkeypatch, capsys, name):
    """The index comes first, so that what is there can be read."""
    path, lines = tmp_path / name, tmp_path / "x.jsonl"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for _ in range(100):
            pixels = rng.integers(0, 256, (120, 160, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    arguments = [path, "--box=20,60,120,120", "--url", url, "--jsonl", lines]
    assert run_client(monkeypatch, *arguments) == 0
    assert len(read_lines(lines)) == 100 and "cut short" not in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run_client(monkeypatch, *arguments) == 1
    promise = "4.0 seconds long, 100 frames," if name.endswith("mp4") else "4.0 seconds long"
    assert f"{path} says that it is {promise} but ends after" in capsys.readouterr().err
    assert 10 < len(read_lines(lines)) < 80
