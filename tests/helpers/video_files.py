"""Videos of plain frames, written and read for the tests of the client."""

from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")

COLOURS = [(200, 60, 40), (40, 180, 60), (60, 80, 220), (128, 128, 128), (220, 200, 40)]


def make_video(path, count=24, size=(160, 120), rate=Fraction(30000, 1001), times=None):
    """Writes a video whose frames have one colour each; `times` are in ticks of 1 / 1000 seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "10"}
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(count):
            pixels = np.full((size[1], size[0], 3), COLOURS[i % len(COLOURS)], np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = times[i] if times else i
            frame.time_base = Fraction(1, 1000) if times else 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_video(path):
    """Frames as [H, W, 3] and their times, and the rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return [f.to_ndarray(format="rgb24") for f in frames], [f.time for f in frames], stream
