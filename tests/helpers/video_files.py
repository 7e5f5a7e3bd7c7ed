"""Videos of plain frames, written and read for the tests of the client."""

import io
import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

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


def with_cover(path, output):
    """Writes an MP4 anew with a picture that becomes its first video stream, as programs for tags do."""
    data, picture = path.read_bytes(), io.BytesIO()
    Image.new("RGB", (300, 300), "orange").save(picture, "JPEG")
    covr = _atom(b"covr", _atom(b"data", struct.pack(">II", 13, 0) + picture.getvalue()))
    handler = _atom(b"hdlr", b"\0" * 8 + b"mdirappl" + b"\0" * 9)
    tags = _atom(b"udta", _atom(b"meta", b"\0" * 4 + handler + _atom(b"ilst", covr)))
    at = data.rindex(b"moov") - 4
    end = at + struct.unpack_from(">I", data, at)[0]
    header = at + 8 + struct.unpack_from(">I", data, at + 8)[0]
    moov = data[header:end]
    if (old := moov.rfind(b"udta")) > 0:  # What the muxer wrote of its own.
        moov = moov[: old - 4]
    output.write_bytes(data[:at] + _atom(b"moov", data[at + 8 : header] + tags + moov) + data[end:])
    return output


def _atom(name, body):
    return struct.pack(">I", 8 + len(body)) + name + body
