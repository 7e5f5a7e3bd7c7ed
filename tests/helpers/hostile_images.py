"""Files that are no image, or not the image that they claim to be; and odd ones that are fine."""

import gzip
import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

SIZE = (200, 180)
UNDECODABLE, TOO_LARGE, UNSUPPORTED = "undecodable_image", "image_too_large", "unsupported_pixels"


def smooth(size=SIZE, seed=0):
    """A smooth picture of random colours."""
    colours = np.random.default_rng(seed).integers(0, 255, (9, 10, 3), np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_field(data, offset, layout, *values):
    """`data` with other values at an offset."""
    patched = bytearray(data)
    struct.pack_into(layout, patched, offset, *values)
    return bytes(patched)


def with_jpeg_header(data, width=SIZE[0], height=SIZE[1], bits=8):
    """`data` with another frame header; the pixels stay."""
    start = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return with_field(data, start + 4, ">BHH", bits, height, width)


def png_chunk(kind, data):
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(width, height, *chunks):
    """A PNG file with that header and little else."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    chunks = (png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", pixels))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(width, height, tile=None, offset=200):
    """A TIFF file that is all header: in strips, or in tiles of that (width, height)."""
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1}
    if tile:
        tags |= {322: tile[0], 323: tile[1], 324: offset, 325: 100}
    else:
        tags |= {273: offset, 278: height, 279: 100}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + fields + bytes(4)
    return header.ljust(200, b"\0") + zlib.compress(bytes(1000))


def many_scans(count):
    """A progressive JPEG with its last scan, which goes over all pixels again, many times."""
    data = encoded(smooth().convert("L"), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * count + data[-2:]


def zip_file():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("image.jpg", encoded(smooth(), "JPEG"))
    return file.getvalue()


def undecodable_images() -> dict[str, bytes]:
    """Name -> content of files that are no image, or a damaged one."""
    rng = np.random.default_rng(0)
    jpeg = encoded(smooth(), "JPEG")
    scans = jpeg.find(b"\xff\xda")
    # Large enough to be decoded in parts, of which the upper ones are whole.
    large = encoded(smooth((1600, 1200)), "JPEG")
    kinds = ("PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM")
    cut = {kind.lower(): encoded(smooth(), kind)[:-400] for kind in kinds}
    text_bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    return {
        # No image at all.
        "empty.jpg": b"",
        "one_byte.jpg": b"\xff",
        "zeros.jpg": bytes(5000),
        "noise.jpg": rng.bytes(5000),
        "text.jpg": b"not an image\n",
        "error_page.jpg": b"<!DOCTYPE html><html><title>404 Not Found</title></html>\n",
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "zip.jpg": zip_file(),
        "gzip.jpg": gzip.compress(jpeg, mtime=0),
        "pdf.jpg": b"%PDF-1.7\n1 0 obj\n<</Type/Catalog>>\nendobj\n",
        "mat.jpg": b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\1IM" + bytes(500),
        # Images of formats that would need other programs, or would run one.
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\nshowpage\n",
        "drawing.jpg": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9"/></svg>',
        "photo.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + rng.bytes(2000),
        "icon.jpg": encoded(smooth(), "ICO"),
        # Damaged JPEGs.
        "first_marker.jpg": jpeg[:2],
        "header.jpg": jpeg[:scans],
        "half.jpg": jpeg[: len(jpeg) // 2],
        "half_progressive.jpg": encoded(smooth(), "JPEG", progressive=True)[:2000],
        "cut_before_the_end.jpg": jpeg[:-2],
        "cut_below_the_crop.jpg": large[: len(large) * 3 // 4],
        "cut_and_padded.jpg": large[: len(large) * 3 // 4] + bytes(len(large) // 4),
        "noise_after_first_marker.jpg": b"\xff\xd8\xff" + rng.bytes(5000),
        "newline_first.jpg": b"\r\n" + jpeg,
        "without_width.jpg": with_jpeg_header(jpeg, width=0),
        "12_bits.jpg": with_jpeg_header(jpeg, bits=12),
        "many_scans.jpg": many_scans(1000),
        # Other damage.
        **{f"cut.{kind}": data for kind, data in cut.items()},
        "header.png": png(200, 180)[:33],
        "without_pixels.png": png(200, 180),
        "without_width.png": png(0, 180),
        "checksum.png": with_field(encoded(smooth(), "PNG"), 29, ">I", 0),
        "text_bomb.png": png(200, 180, text_bomb),
        "far_away.tiff": tiff(200, 180, offset=2**32 - 1),
    }


def too_large_images() -> dict[str, bytes]:
    """Name -> content of small files that claim to be images larger than are decoded."""
    jpeg = encoded(smooth(), "JPEG")
    lossless = encoded(smooth(), "WEBP", lossless=True)
    return {
        "claims_10_billion.png": png(100_000, 100_000),
        "claims_a_line.png": png(2**31 - 1, 1),
        "claims_little_too_much.png": png(10_000, 8_001),
        "claims_4_billion.jpg": with_jpeg_header(jpeg, 65_500, 65_500),
        "claims_4_billion.gif": with_field(encoded(smooth(), "GIF"), 6, "<HH", 65_535, 65_535),
        "claims_4_billion.tiff": tiff(65_535, 65_535),
        "claims_large_tiles.tiff": tiff(200, 180, tile=(20_000, 20_000)),
        # 14 bits each of the width and the height, less one.
        "claims_268_million.webp": with_field(lossless, 21, "<I", 2**28 - 1),
        "claims_10_billion.bmp": with_field(encoded(smooth(), "BMP"), 18, "<ii", 100_000, 100_000),
        "claims_10_billion.ppm": b"P6 100000 100000 255\n" + bytes(5000),
    }


def deep_images() -> dict[str, bytes]:
    """Name -> content of images with more than 8 bits a channel."""
    deep = Image.fromarray(np.arange(200 * 180, dtype=np.uint16).reshape(180, 200))
    return {
        "16_bits.png": encoded(deep, "PNG"),
        "16_bits.tiff": encoded(deep, "TIFF"),
        "16_bits.pgm": encoded(deep, "PPM"),
        "32_bits.tiff": encoded(smooth().convert("I"), "TIFF"),
        "floats.tiff": encoded(smooth().convert("F"), "TIFF"),
        "floats.pfm": encoded(smooth().convert("F"), "PPM"),
    }


def hostile_images() -> dict[str, tuple[bytes, str]]:
    """File name -> the file's content, and the reason for which it is to be rejected."""
    return {
        name: (content, reason)
        for reason, files in (
            (UNDECODABLE, undecodable_images()),
            (TOO_LARGE, too_large_images()),
            (UNSUPPORTED, deep_images()),
        )
        for name, content in files.items()
    }


def harmless_images() -> dict[str, bytes]:
    """File name -> content of images that must be taken; the box 40 30 140 150 meets each."""
    image, exif, comment = smooth(), Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = 6  # A viewer would turn the picture by 90 degrees.
    comment.add_text("Comment", "x" * 100_000, zip=True)
    jpeg = encoded(image, "JPEG")
    alpha = image.copy()
    alpha.putalpha(90)
    return {
        "really_png.jpg": encoded(image, "PNG"),
        "really_jpeg.png": jpeg,
        "no_ending": jpeg,
        "grey.jpg": encoded(image.convert("L"), "JPEG"),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "rgb.jpg": encoded(image, "JPEG", keep_rgb=True),
        "4_4_4.jpg": encoded(image, "JPEG", subsampling=0),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "restarts.jpg": encoded(image, "JPEG", restart_marker_rows=1),
        "turned.jpg": encoded(image, "JPEG", exif=exif),
        "commented.jpg": encoded(image, "JPEG", comment=b"x" * 60_000),
        "several.jpg": encoded(image, "MPO", save_all=True, append_images=[smooth(seed=1)]),
        # As in frames of motion JPEG, which take the standard's tables for granted.
        "without_tables.jpg": jpeg.replace(b"\xff\xc4", b"\xff\xec"),
        "trailing.jpg": jpeg + b"\r\ntrailing bytes" * 500,
        "large.jpg": encoded(smooth((1600, 1200)), "JPEG"),
        "palette.png": encoded(image.quantize(64), "PNG"),
        "alpha.png": encoded(alpha, "PNG"),
        "bits.png": encoded(image.convert("1"), "PNG"),
        "commented.png": encoded(image, "PNG", pnginfo=comment),
        "animated.gif": encoded(image, "GIF", save_all=True, append_images=[smooth(seed=1)]),
        "animated.webp": encoded(image, "WEBP", save_all=True, append_images=[smooth(seed=1)]),
        "image.bmp": encoded(image, "BMP"),
        "image.tiff": encoded(image, "TIFF", compression="tiff_deflate"),
        "image.ppm": encoded(image, "PPM"),
        "tall.png": encoded(smooth((60, 5000)), "PNG"),
        "one_row.jpg": encoded(smooth((3000, 31)), "JPEG"),
    }
