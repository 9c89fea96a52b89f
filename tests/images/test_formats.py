"""What Pillow loses, does not say or does not read: facts of the file, missing pixels, sound files of other kinds, bounds."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from images.bad_images import photo, png16, png_chunk, save, turned
from images.making import bmp32, packed, tiff
from PIL import Image

from nullscope.images.decoder import ImageError, decode, facts, looks_like
from nullscope.images.formats.jpeg import MOST_SCANS

LIMIT = 10**6
SIDE = (40, 56)  # (H, W)
GREY = photo(1, SIDE)[:, :, 0]


def read(data):
    """The pixels, by the door of predictions; the index must agree."""
    pixels_HWC = decode(data, max_pixels=LIMIT)
    found = facts(data, max_pixels=LIMIT)
    assert (found.height, found.width) == pixels_HWC.shape[:2]
    return pixels_HWC


def refused(data):
    """Why, by both doors in the same words."""
    with pytest.raises(ImageError) as one:
        decode(data, max_pixels=LIMIT)
    with pytest.raises(ImageError) as other:
        facts(data, max_pixels=LIMIT)
    assert str(one.value) == str(other.value)
    return str(one.value)


def grey(levels_HW):
    return np.repeat(levels_HW[:, :, None], 3, axis=2)


# ---- facts of the file


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_a_grey_tiff_of_any_depth_has_its_levels(bits, photometric):
    """Black is black at every depth, and white where 0 is white; what Pillow does not read is named."""
    samples_HW = np.random.default_rng(bits).integers(0, 2**bits, SIDE)
    written_HW = (2**bits - 1 - samples_HW) if photometric == 0 else samples_HW
    pixels = packed(written_HW, bits) if bits < 16 else written_HW.astype("<u2").tobytes()
    data = tiff(pixels, SIDE[::-1], bits=bits, photometric=photometric)
    expected = samples_HW >> (bits - 8) if bits > 8 else samples_HW * 255 // (2**bits - 1)
    if (bits, photometric) == (12, 0):
        assert refused(data).startswith("not supported: a grey TIFF of 1 x 12 bits a pixel (little-endian, white is 0")
        return
    assert np.array_equal(read(data), grey(expected))


@pytest.mark.parametrize("order", ["<", ">"])
def test_big_endian_samples_are_read_or_refused_by_name(order):
    samples_HW = np.random.default_rng(0).integers(0, 65_536, SIDE)
    black = tiff(samples_HW.astype(f"{order}u2").tobytes(), SIDE[::-1], bits=16, order=order)
    assert np.array_equal(read(black), grey(samples_HW >> 8))
    white = tiff((65_535 - samples_HW).astype(f"{order}u2").tobytes(), SIDE[::-1], bits=16, order=order, photometric=0)
    if order == "<":
        assert np.array_equal(read(white), grey(samples_HW >> 8))
    else:
        assert refused(white).startswith("not supported: a grey TIFF of 1 x 16 bits a pixel (big-endian")


def test_planes_behind_one_another_are_the_same_picture():
    """Planar configuration 2: all reds, then all greens, then all blues."""
    picture = photo(2, SIDE)
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1))
    data = tiff(planes.tobytes(), SIDE[::-1], bits=(8, 8, 8), photometric=2, t284=2, t279=(SIDE[0] * SIDE[1],) * 3)
    assert np.array_equal(read(data), picture)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"t339": 3, "bits": 32}, "floating-point"),
        ({"t339": 2, "bits": 16}, "signed"),
        ({"bits": 10}, "a grey TIFF of 10 bits a sample"),
        ({"bits": (8,) * 5}, "a grey TIFF of 5 x 8 bits a pixel"),
        ({"bits": (5, 6, 5), "photometric": 2}, "a TIFF of 5, 6, 5 bits a sample"),
        ({"bits": (8,) * 3, "photometric": 8}, "CIELab"),
        ({"bits": 8, "photometric": 32_844}, "colour space 32844"),
    ],
)
def test_other_samples_are_not_supported_and_not_called_damaged(tags, said):
    reason = refused(tiff(bytes(SIDE[0] * SIDE[1] * 20), SIDE[::-1], **tags))
    assert reason.startswith("not supported: ") and said in reason and "damaged" not in reason


@pytest.mark.parametrize(
    "tags",
    [
        {"t50706": (1, 4, 0, 0)},  # DNG
        {"t254": 1, "t330": 8},  # NEF, ARW: a thumbnail, and the picture in a directory below
        {"photometric": 32_803},  # a mosaic of colour filters
        {"t254": 1},  # a reduced copy of another picture
    ],
)
def test_the_thumbnail_of_a_camera_raw_file_is_not_scored(tags):
    reason = refused(tiff(GREY.tobytes(), SIDE[::-1], **tags))
    assert reason.startswith("not supported: ") and ("raw" in reason or "reduced" in reason)


@pytest.mark.parametrize("alpha", [0, 255])
def test_alpha_that_is_zero_everywhere_in_a_bmp_is_unused(alpha):
    rgba = np.dstack([photo(3, SIDE), np.full(SIDE, alpha, np.uint8)])
    assert np.array_equal(read(bmp32(rgba)), rgba[:, :, :3])


def test_alpha_in_a_bmp_is_white_where_it_is_used():
    rgba = np.dstack([photo(3, SIDE), np.full(SIDE, 255, np.uint8)])
    rgba[:7, :, 3] = 0
    assert (read(bmp32(rgba))[:7] == 255).all() and np.array_equal(read(bmp32(rgba))[7:], rgba[7:, :, :3])


def png_of(samples_HWC, depth, *chunks):
    """A PNG of grey or RGB with ``depth`` bits a sample."""
    if depth == 16:
        return png16(samples_HWC, *chunks)
    height, width, channels = samples_HWC.shape
    rows = packed(samples_HWC.reshape(height, -1), depth)
    length = len(rows) // height
    filtered = b"".join(b"\0" + rows[row * length :][:length] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, {1: 0, 3: 2}[channels], 0, 0, 0)
    body = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(filtered)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize(("channels", "depth"), [(1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (3, 8), (3, 16)])
def test_exactly_the_pixels_of_the_colour_key_are_white(channels, depth):
    """Compared at the file's own depth: two levels of 16 bits with one high byte are two levels."""
    samples = np.random.default_rng(depth).integers(0, 2**depth, (*SIDE, channels))
    key = samples[3, 5].copy()
    samples[10:12, 20:30] = key
    if depth == 16:
        samples[30, 30] = key ^ 1  # the same high byte
    chosen = (samples == key).all(axis=2)
    pixels = read(png_of(samples.astype(np.uint16), depth, png_chunk(b"tRNS", b"".join(int(k).to_bytes(2, "big") for k in key))))
    levels = samples >> 8 if depth == 16 else samples * 255 // (2**depth - 1)
    expected = np.broadcast_to(levels, (*SIDE, 3)).copy()
    expected[chosen] = 255
    assert np.array_equal(pixels, expected) and chosen.sum() >= 20


def test_a_gif_is_its_first_frame_on_its_canvas():
    """What the frame does not cover is transparent, whatever the colour of the background."""
    frame = save(Image.new("P", (20, 10), 1), "GIF")
    data = bytearray(frame)
    data[6:10] = struct.pack("<HH", 50, 40)  # the canvas
    place = bytes(data).index(b",\0\0\0\0" + struct.pack("<HH", 20, 10))
    data[place + 1 : place + 5] = struct.pack("<HH", 7, 5)  # where the frame lies on it
    pixels = read(bytes(data))
    inside = np.zeros((40, 50), bool)
    inside[5:15, 7:27] = True
    assert pixels.shape == (40, 50, 3) and (pixels[~inside] == 255).all()
    assert (pixels[inside] == decode(frame, max_pixels=LIMIT)[0, 0]).all()


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_orientation_is_applied_wherever_a_file_says_it(format, orientation):
    """And nonsense is none. Compared with the file that was turned before it was saved, at a tolerance for the codec."""
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    smooth = np.asarray(Image.fromarray(photo(4, (6, 9))).resize((72, 48), Image.Resampling.BICUBIC))
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    upright = Image.fromarray(smooth)
    if orientation in turns:
        upright = upright.transpose(Image.Transpose(turns[orientation]))
    if format == "HEIF" and orientation not in range(1, 9):
        pytest.skip("its encoder takes no nonsense")
    pixels = read(save(smooth, format, exif=turned(orientation).tobytes(), quality=95))
    assert pixels.shape == np.asarray(upright).shape
    assert np.abs(pixels.astype(int) - np.asarray(upright)).mean() < 8


# ---- pixels that are missing behind a proper end


def jpegs():
    """Of every kind that encoders write."""
    picture = photo(5, (97, 121))
    for sampling in (0, 1, 2):
        for more in ({}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}):
            yield save(picture, "JPEG", quality=80, subsampling=sampling, **more)
    yield save(Image.fromarray(picture).convert("CMYK"), "JPEG")
    yield save(Image.fromarray(picture).convert("L"), "JPEG", progressive=True)
    yield save(np.full((64, 64, 3), 128, np.uint8), "JPEG")  # grey to its last corner


def test_whole_jpegs_are_read():
    """With another picture, zeros or bytes behind them, too."""
    for data in jpegs():
        pixels = read(data)
        for behind in (data, bytes(500), b"\xff\xd8\xff\xe0 cut", b"trailer"):
            assert np.array_equal(read(data + behind), pixels)


@pytest.mark.parametrize("share", [0.35, 0.7, 0.9])
def test_half_a_jpeg_behind_a_proper_end_is_refused(share):
    for data in list(jpegs())[:-1]:
        cut = data[: int(len(data) * share)].rstrip(b"\xff")
        assert refused(cut + b"\xff\xd9").startswith("truncated JPEG: "), share
        assert refused(cut).startswith("truncated JPEG: ")


def test_a_jpeg_whose_header_promises_more_rows_is_refused():
    data = bytearray(save(photo(5, (96, 120)), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 2] = (192).to_bytes(2, "big")
    assert refused(bytes(data)) == "truncated JPEG: its pixels end before the picture does"


def test_a_lost_part_between_restart_markers_is_refused():
    data = save(photo(5, (97, 121)), "JPEG", restart_marker_blocks=2)
    start = data.index(b"\xff\xd3")
    assert "1 of the" in refused(data[:start] + data[data.index(b"\xff\xd4") :])


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1"])
def test_half_the_rows_of_a_png_behind_a_proper_end_are_refused(mode, interlaced):
    """Sound checksums, a sound zlib stream, an end; and half of the pixels."""
    data = save(Image.fromarray(photo(6, SIDE)).convert(mode), "PNG")
    read(data)
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    rows = zlib.decompress(data[start + 8 : end - 4])
    if interlaced:
        rows = bytes(len(rows))  # no filter anywhere, whatever the passes
        data = data[:28] + b"\1" + data[29:]
        data = data[:29] + zlib.crc32(data[12:29]).to_bytes(4, "big") + data[33:]
    half = data[:start] + png_chunk(b"IDAT", zlib.compress(rows[: len(rows) // 2])) + data[end:]
    assert refused(half).startswith(("truncated PNG: its pixels take ", "damaged PNG: image file is truncated"))


def test_a_jpeg_in_a_tiff_that_is_cut_is_refused():
    data = save(photo(7, SIDE), "TIFF", compression="jpeg")
    read(data)
    place = data.index(b"\xff\xd9")
    assert refused(data[: place - 40] + bytes(42) + data[place + 2 :]).startswith("truncated JPEG")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_that_lacks_its_last_strip_is_refused(compression):
    data = save(photo(7, (300, 200)), "TIFF", compression=compression)
    with Image.open(io.BytesIO(data)) as image:
        last = image.tag_v2[273][-1]
    read(data)
    assert refused(data[:last] + bytes(20)).startswith(("truncated TIFF", "damaged TIFF"))


@pytest.mark.parametrize("format", ["GIF", "BMP", "WEBP", "AVIF"])
def test_half_of_any_other_format_is_refused(format):
    data = save(photo(7, SIDE), format)
    assert refused(data[: len(data) // 2])


# ---- sound, and of another kind


def test_a_png_with_megabytes_of_text_or_profile_is_read():
    """Generators write such: nobody looks at them here, so nothing of them can be wrong but a checksum."""
    data, picture = save(photo(8, SIDE), "PNG"), photo(8, SIDE)
    start = data.index(b"IDAT") - 4
    much = zlib.compress(bytes(5 * 10**6))
    blocks = (
        png_chunk(b"zTXt", b"parameters\0\0" + much),
        png_chunk(b"iTXt", b"parameters\0\1\0\0\0" + much),
        png_chunk(b"iCCP", b"profile\0\0" + much),
        png_chunk(b"tEXt", b"parameters\0" + b"x" * 2**21),
        png_chunk(b"zTXt", b"parameters\0\0" + much) * 30,
        png_chunk(b"zTXt", b"parameters\0\0 no zlib at all"),
    )
    for block in blocks:
        assert np.array_equal(read(data[:start] + block + data[start:]), picture)
        assert np.array_equal(read(data[:-12] + block + data[-12:]), picture)


@pytest.mark.parametrize(
    ("marker", "precision", "said"),
    [
        (0xC1, 12, "a JPEG of 12 bits a sample"),
        (0xC3, 8, "a lossless JPEG"),
        (0xC5, 8, "a hierarchical JPEG"),
    ],
)
def test_jpegs_that_libjpeg_does_not_read_are_not_supported(marker, precision, said):
    data = bytearray(save(photo(9, SIDE), "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 1], data[place + 4] = marker, precision
    assert refused(bytes(data)).startswith(f"not supported: {said}; ")


NAMED = {
    b"\xff\xd8\xff\xf7\0\x0b\x08": "not supported: JPEG-LS",
    b"\xff\x4f\xff\x51\0\x2f": "not supported: JPEG 2000",
    b"8BPS\0\1\0\0": "not supported: Photoshop document",
    b"v/1\x01\2\0\0\0": "not supported: OpenEXR image",
    b"#?RADIANCE\n": "not supported: Radiance HDR image",
    b"P6\n10 10\n255\n": "not supported: PNM image",
    b"II*\0\x10\0\0\0CR\2\0": "not supported: camera raw file (Canon CR2)",
    b"FUJIFILMCCD-RAW 0201": "not supported: camera raw file (Fujifilm RAF)",
    b"\0\0\0\x18ftypcrx \0\0\0\1": "not supported: camera raw file (Canon CR3)",
    b"\0\0\0\x20ftypisom\0\0\2\0": "not an image: looks like video",
    b"\x1aE\xdf\xa3\x9fB\x86": "not an image: looks like video",
    b"RIFF\x24\0\0\0WAVEfmt ": "not an image: looks like audio",
    b"%PDF-1.7\n": "not an image: looks like PDF",
    b"%!PS-Adobe-3.0 EPSF": "not an image: looks like PostScript",
    b"Rar!\x1a\x07\1\0": "not an image: looks like RAR archive",
    b"\x28\xb5\x2f\xfd\4": "not an image: looks like Zstandard archive",
    b"\xef\xbb\xbf <!DOCTYPE HTML><html>": "not an image: looks like web page",
    b"\n\n<html><head>": "not an image: looks like web page",
    b"<!-- drawn --> <svg xmlns=''>": "not supported: SVG",
    b"<?xml version='1.0'?><Error>": "not an image: looks like XML",
    b'{"error": "not found"}': "not an image: looks like JSON",
    "\ufeffsorry".encode("utf-16-le"): "not an image: looks like text",
    b"version https://git-lfs.github.com/spec/v1": "git lfs pull",
    bytes(4096): "not an image: looks like nothing but zeros",
    b"": "empty file (0 bytes)",
}


@pytest.mark.parametrize("data", NAMED, ids=lambda data: NAMED[data][-12:])
def test_another_kind_of_file_is_named_and_not_called_damaged(data):
    reason = refused(data)
    assert NAMED[data] in reason and "damaged" not in reason


def test_a_png_for_iphones_and_a_bmp_with_a_jpeg_inside_are_not_supported():
    data = save(photo(9, SIDE), "PNG")
    assert "CgBI" in refused(data[:8] + png_chunk(b"CgBI", b"\x50\0\x20\2") + data[8:])
    bmp = bytearray(save(photo(9, SIDE), "BMP"))
    bmp[30:34] = struct.pack("<I", 4)
    assert refused(bytes(bmp)).startswith("not supported: a BMP with a JPEG inside")


@pytest.mark.parametrize(("format", "module", "extra"), [("HEIF", "pillow_heif", "heif"), ("JXL", "pillow_jxl", "jxl")])
def test_heic_and_jpeg_xl_are_read_with_their_extra_and_name_it_without(format, module, extra, monkeypatch):
    plugin = pytest.importorskip(module)
    if format == "HEIF":
        plugin.register_heif_opener()
    smooth = np.asarray(Image.fromarray(photo(4, (6, 9))).resize((72, 48), Image.Resampling.BICUBIC))
    data = save(smooth, format, quality=95)
    assert np.abs(read(data).astype(int) - smooth).mean() < 5
    assert refused(data[: len(data) // 2]).startswith("damaged")
    monkeypatch.setitem(sys.modules, module, None)
    assert refused(data) == f"not supported: {looks_like(data)}; `pip install 'nullscope[{extra}]'` and it is read"


# ---- bounds


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded():
    """A scan that brings nothing passes over all coefficients: 6,000 of them take minutes."""
    data = save(np.full((2000, 2000, 3), 90, np.uint8), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    began = time.perf_counter()
    with pytest.raises(ImageError, match=f"more than {MOST_SCANS} scans"):
        decode(data[:-2] + scan * 6000 + b"\xff\xd9", max_pixels=10**7)
    assert time.perf_counter() - began < 1


def test_a_tiff_that_promises_millions_of_numbers_is_refused_at_once():
    data = bytearray(tiff(GREY.tobytes(), SIDE[::-1]))
    place = data.index(struct.pack("<HHI", 273, 4, 1))
    data[place + 4 : place + 8] = struct.pack("<I", 2**31)
    began = time.perf_counter()
    assert "TIFF" in refused(bytes(data))
    assert time.perf_counter() - began < 1


def test_libtiff_writes_nothing_behind_pythons_back():
    """In a process of its own, whose standard error is a file."""
    script = (
        "import sys; from nullscope.images.decoder import decode, ImageError\n"
        "data = bytearray(sys.stdin.buffer.read()); data[len(data) // 3 : len(data) // 3 + 40] = b'x' * 40\n"
        "try: decode(bytes(data), max_pixels=10**6)\n"
        "except ImageError as error: print(error)"
    )
    data = save(photo(7, SIDE), "TIFF", compression="tiff_lzw")
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True, env={**os.environ})
    assert done.stdout.startswith(b"damaged TIFF") and done.stderr == b""
