"""Source images: regions have a full decode's pixels, at a fraction of its cost; bad files are told."""

import contextlib
import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hostile_images import encoded, harmless_images, hostile_images, png, smooth, with_field
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from pipelines import source_image
from pipelines.errors import Unusable
from pipelines.source_image import SourceImage

ROOT = Path(__file__).resolve().parents[2]
HOSTILE, HARMLESS = hostile_images(), harmless_images()


def rough(width, height, seed=0):
    """A picture that decoders which interpolate or round differently show differently."""
    noise = np.random.default_rng(seed).integers(-30, 30, (height, width, 3))
    return Image.fromarray(np.uint8(np.clip(np.asarray(smooth((width, height))) + noise, 0, 255)))


def sampled(factors, size):
    """A JPEG whose luminance has those sampling factors, of which Pillow writes only the usual."""
    count = (factors >> 4) * (factors & 15)
    jpeg = encoded(rough(*size), "JPEG", subsampling={1: 0, 2: 1, 4: 2}[count])
    # As many blocks in as many units, in another arrangement: a picture of patches, but a valid one.
    return with_field(jpeg, jpeg.find(b"\xff\xc0") + 11, "B", factors)


def jpegs(width, height):
    picture = rough(width, height)
    options = {
        "4:4:4": {"subsampling": 0},
        "4:2:2": {"subsampling": 1},
        "4:2:0": {"subsampling": 2, "quality": 30},
        "optimized": {"optimize": True, "quality": 95},
        "restarts": {"restart_marker_blocks": 3},
        "rgb": {"keep_rgb": True},
        "commented": {"comment": b"\xff\xda\xff\xd9" * 9},
    }
    return {name: encoded(picture, "JPEG", **some) for name, some in options.items()} | {
        "grey": encoded(picture.convert("L"), "JPEG")
    }


JPEGS = (
    {f"{kind} {size}": data for size in [(97, 61), (64, 80)] for kind, data in jpegs(*size).items()}
    | {f"{factors:x}": sampled(factors, (64, 64)) for factors in (0x12, 0x41, 0x14)}
    | {"one column": encoded(rough(1, 70), "JPEG"), "one row": encoded(rough(70, 1), "JPEG")}
)


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def reason(data, box=(0, 0, 1, 1)):
    with pytest.raises(Unusable) as refused:
        SourceImage(data).region(*box)
    assert "\n" not in refused.value.detail and " 0x" not in refused.value.detail
    return refused.value.reason


@st.composite
def regions(draw, size):
    x0, y0 = (draw(st.integers(0, length - 1)) for length in size)
    return x0, y0, draw(st.integers(x0 + 1, size[0])), draw(st.integers(y0 + 1, size[1]))


@pytest.fixture
def small_parts(monkeypatch):
    """Lets images of any size be decoded in parts; returns the list of the boxes that are."""
    calls, part_of_jpeg = [], source_image._part_of_jpeg

    def spy(data, box):
        calls.append(box)
        return part_of_jpeg(data, box)

    monkeypatch.setattr(source_image, "_WORTHWHILE", 0)
    monkeypatch.setattr(source_image, "_part_of_jpeg", spy)
    return calls


# --- the same pixels as of a full decode


def test_any_region_of_any_jpeg_has_a_full_decodes_pixels(small_parts):
    @given(st.data())
    def check(data):
        jpeg = JPEGS[data.draw(st.sampled_from(sorted(JPEGS)))]
        image = SourceImage(jpeg)
        x0, y0, x1, y1 = box = data.draw(regions(image.size))
        region = image.region(*box)
        assert region.mode == "RGB"
        np.testing.assert_array_equal(region, decoded(jpeg)[y0:y1, x0:x1])

    check()
    assert len(small_parts) > 30


@pytest.mark.parametrize("kind", JPEGS)
def test_corners_and_single_pixels(small_parts, kind):
    whole = decoded(JPEGS[kind])
    height, width = whole.shape[:2]
    for x in {0, 7, 8, 15, 16, 31, width - 1}:
        for y in {0, 7, 8, 15, 16, 33, height - 1}:
            if x < width and y < height:
                region = SourceImage(JPEGS[kind]).region(x, y, x + 1, y + 1)
                np.testing.assert_array_equal(region, whole[y : y + 1, x : x + 1])
    assert len(small_parts) > 6


@pytest.mark.parametrize("name", HARMLESS)
def test_oddities_are_taken(name):
    whole = decoded(HARMLESS[name])
    image = SourceImage(HARMLESS[name])
    assert image.size == whole.shape[1::-1]
    np.testing.assert_array_equal(image.region(0, 0, *image.size), whole)
    np.testing.assert_array_equal(image.region(20, 10, 40, 31), whole[10:31, 20:40])
    np.testing.assert_array_equal(
        SourceImage(HARMLESS[name]).region(20, 10, 40, 31), whole[10:31, 20:40]
    )


def test_the_first_of_several_pictures_counts():
    for name in ("several.jpg", "animated.webp"):
        difference = np.asarray(SourceImage(HARMLESS[name]).region(0, 0, 200, 180)) - 1.0 * (
            np.asarray(smooth())
        )
        assert np.abs(difference).mean() < 4


@pytest.mark.parametrize(
    ("mode", "color", "kind", "expected"),
    [
        ("L", 90, "JPEG", (90, 90, 90)),
        ("CMYK", (0, 255, 255, 0), "JPEG", (255, 0, 0)),
        ("P", 1, "PNG", (10, 200, 30)),
        ("RGBA", (10, 200, 30, 128), "PNG", (10, 200, 30)),
        ("LA", (90, 0), "PNG", (90, 90, 90)),
        ("1", 1, "PNG", (255, 255, 255)),
    ],
)
def test_all_kinds_of_pixels_become_rgb(mode, color, kind, expected):
    image = Image.new(mode, (24, 16), color)
    if mode == "P":
        image.putpalette([0, 0, 0, 10, 200, 30])
    region = SourceImage(encoded(image, kind)).region(3, 3, 9, 8)
    assert (region.mode, region.size) == ("RGB", (6, 5))
    np.testing.assert_allclose(region.getpixel((2, 2)), expected, atol=4)


@pytest.mark.parametrize(
    "box", [(-1, 0, 5, 5), (0, 0, 201, 5), (0, 0, 5, 181), (5, 0, 5, 5), (0, 9, 5, 3)]
)
def test_a_region_must_be_a_part_of_the_image(box):
    with pytest.raises(ValueError, match=r"must be a part of the 200 x 180 image"):
        SourceImage(encoded(smooth(), "JPEG")).region(*box)


# --- no more is decoded than is needed


def test_boxes_that_need_more_than_one_pass_share_the_whole_image(small_parts):
    data = JPEGS["4:2:0 (97, 61)"]
    image, whole = SourceImage(data), decoded(data)
    boxes = [(10, 0, 40, 20), (0, 10, 50, 40), (3, 5, 30, 50), (0, 0, 10, 1)]
    for x0, y0, x1, y1 in boxes:
        np.testing.assert_array_equal(image.region(x0, y0, x1, y1), whole[y0:y1, x0:x1])
    # 20 + 40 of the 61 rows; the next box wants 50, and then the last one need not be decoded.
    assert small_parts == boxes[:2]


@pytest.mark.parametrize("box", [(0, 0, 97, 31), (0, 0, 60, 61), (0, 0, 97, 61)])
def test_the_better_part_of_an_image_is_decoded_whole(small_parts, box):
    SourceImage(JPEGS["4:2:0 (97, 61)"]).region(*box)
    assert small_parts == []


@pytest.mark.parametrize(
    "data",
    [
        encoded(rough(97, 61), "JPEG", progressive=True),
        encoded(rough(97, 61).convert("CMYK"), "JPEG"),
        encoded(rough(97, 61), "PNG"),
        encoded(rough(97, 61), "TIFF", compression="jpeg"),
        encoded(rough(97, 61), "JPEG")[:-2],
    ],
    ids=["progressive", "cmyk", "png", "tiff", "truncated"],
)
def test_the_other_decoder_gets_nothing_but_plain_whole_jpegs(small_parts, data):
    with contextlib.suppress(Unusable):
        SourceImage(data).region(0, 0, 9, 9)
    assert small_parts == []


def test_the_first_of_several_pictures_is_decoded_in_parts_too(small_parts):
    SourceImage(HARMLESS["several.jpg"]).region(3, 4, 50, 60)
    assert small_parts == [(3, 4, 50, 60)]


def test_only_large_images_are_decoded_in_parts(small_parts, monkeypatch):
    monkeypatch.setattr(source_image, "_WORTHWHILE", 64 * 80 + 1)
    SourceImage(JPEGS["4:2:0 (64, 80)"]).region(0, 0, 9, 9)
    assert small_parts == []
    SourceImage(JPEGS["4:2:0 (97, 61)"]).region(0, 0, 9, 9)
    assert small_parts == [(0, 0, 9, 9)]


# The kernel's mark of this program alone: getrusage's may be that of the process that started it.
MEASURE = """
import re, sys, time
from pipelines.source_image import SourceImage
from pipelines.errors import Unusable

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

path, *box = sys.argv[1:]
data = open(path, "rb").read()
before, start = peak(), time.process_time()
try:
    SourceImage(data).region(*map(int, box))
except Unusable:
    pass
print(peak() - before, time.process_time() - start)
"""


def cost(path, *box):
    """Growth of peak memory in MB and seconds of a core, in a process of its own."""
    command = [sys.executable, "-c", MEASURE, str(path), *map(str, box)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(map(float, process.stdout.split()))


def test_a_small_region_of_a_large_jpeg_costs_little(tmp_path):
    path = tmp_path / "large.jpg"
    smooth((8000, 8000)).save(path)
    whole, _ = cost(path, 0, 0, 8000, 8000)
    near_the_top, _ = cost(path, 5000, 200, 5200, 400)
    near_the_end, _ = cost(path, 5000, 7500, 5200, 7700)
    assert whole > 240  # 64 million pixels of 4 bytes.
    assert near_the_top < 25 and near_the_end < 25  # Measured: 14 and 16.


@pytest.mark.parametrize("name", [name for name in HOSTILE if "claims" in name or "bomb" in name])
def test_a_header_that_lies_costs_nothing(tmp_path, name):
    (tmp_path / name).write_bytes(HOSTILE[name][0])
    megabytes, seconds = cost(tmp_path / name, 0, 0, 1, 1)
    assert megabytes < 10 and seconds < 0.5


# --- bad files


@pytest.mark.parametrize("name", HOSTILE)
def test_bad_files_and_their_reasons(name):
    data, expected = HOSTILE[name]
    assert reason(data, (0, 0, 3, 3)) == expected


def test_there_are_many_kinds_of_bad_files():
    assert len(HOSTILE) >= 50 and len({data for data, _ in HOSTILE.values()}) == len(HOSTILE)


def with_thumbnail(data):
    """The JPEG with another, whole one in its metadata."""
    segment = b"Exif\0\0" + encoded(smooth((40, 30)), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def test_a_truncated_jpeg_is_told_wherever_the_cut_is(small_parts):
    data = with_thumbnail(JPEGS["4:2:0 (97, 61)"])
    assert SourceImage(data).region(0, 0, 9, 9).size == (9, 9) and len(small_parts) == 1

    @given(st.integers(0, len(data) - 1))
    @example(len(data) - 1)
    @example(len(data) - 2)
    def check(length):
        assert reason(data[:length], (0, 0, 3, 3)) == "undecodable_image"

    check()


def test_damage_within_a_jpeg_shows_as_in_a_full_decode(small_parts):
    data = JPEGS["4:2:0 (97, 61)"]
    start = data.find(b"\xff\xda") + 12
    failed = 0
    for position in range(start, len(data) - 20, 97):
        damaged = with_field(data, position, "20s", bytes(range(20)))
        whole = decoded(damaged)
        for y0 in (0, 20, 50):
            image = SourceImage(damaged)
            region = image.region(20, y0, 60, y0 + 11)
            np.testing.assert_array_equal(region, whole[y0 : y0 + 11, 20:60])
            failed += "_whole" in vars(image)
    assert 0 < failed < len(small_parts)


def test_an_image_that_failed_fails_again():
    image = SourceImage(encoded(smooth(), "PNG")[:-400])
    for _ in range(3):
        with pytest.raises(Unusable, match="undecodable_image"):
            image.region(0, 0, 5, 5)


def test_the_limit_on_pixels_is_the_product(monkeypatch):
    data = encoded(Image.new("RGB", (20, 10)), "PNG")
    monkeypatch.setattr(source_image, "MAX_PIXELS", 200)
    assert SourceImage(data).size == (20, 10)
    monkeypatch.setattr(source_image, "MAX_PIXELS", 199)
    assert reason(data) == "image_too_large"


def test_ten_scans_are_no_abuse():
    progressive = HARMLESS["progressive.jpg"]
    assert 5 < progressive.count(b"\xff\xda") < source_image._MAX_SCANS / 5


def test_bad_files_are_not_talked_about(small_parts, capfd, caplog, recwarn):
    data = JPEGS["4:2:0 (97, 61)"]
    damaged = with_field(data, len(data) // 2, "20s", bytes(range(20)))
    SourceImage(damaged).region(0, 40, 9, 61)
    assert len(small_parts) == 1
    for name in ("cut_below_the_crop.jpg", "16_bits.png", "text_bomb.png", "cut.gif"):
        reason(HOSTILE[name][0])
    assert reason(png(10_000, 10_000)) == "image_too_large"
    assert capfd.readouterr() == ("", "") and not caplog.records and not recwarn.list


@given(st.data())
def test_no_file_whatever_raises_anything_else(data):
    """Real files with some bytes changed, taken out or put in, mostly near the beginning."""
    good = HARMLESS[data.draw(st.sampled_from(sorted(HARMLESS)))]
    for _ in range(data.draw(st.integers(1, 4))):
        last = data.draw(st.sampled_from([40, 400, len(good)]))
        start = data.draw(st.integers(0, min(last, len(good))))
        stop = start + data.draw(st.integers(0, 8))
        good = good[:start] + data.draw(st.binary(max_size=8)) + good[stop:]
    try:
        image = SourceImage(good)
        region = image.region(*data.draw(regions(image.size)))
    except Unusable as unusable:
        assert unusable.reason in {reason for _, reason in HOSTILE.values()}
    else:
        assert region.mode == "RGB"
