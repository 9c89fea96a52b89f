"""The decoder: every row of its table, every refusal, and no other error than ImageError on any bytes."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images.bad_images import animated, bad_files, png16, png_chunk, save, turned
from PIL import Image, ImageFile, ImageOps

from nullscope.core.contracts import image_id
from nullscope.images.decoder import FORMATS, Facts, ImageError, decode, facts, looks_like
from nullscope.images.formats.jpeg_quality import LOG_TABLES, estimate_quality

LIMIT = 10**6
SIDE = 20
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE + 10, 3), np.uint8)


FILES = {
    "jpeg": save(NOISE, "JPEG", exif=turned(6)),
    "progressive": save(NOISE, "JPEG", progressive=True),
    "png": save(NOISE, "PNG", exif=turned(3)),
    "palette": save(Image.fromarray(NOISE).quantize(16), "PNG", transparency=3),
    "webp": save(NOISE, "WEBP"),
    "lossless": save(NOISE, "WEBP", lossless=True, exif=turned(8)),
    "gif": save(NOISE, "GIF"),
    "bmp": save(NOISE, "BMP"),
    "tiff": save(NOISE, "TIFF", exif=turned(5)),
    **({"avif": save(NOISE, "AVIF")} if "AVIF" in FORMATS else {}),
}


def refusal(data: bytes, max_pixels: int = LIMIT) -> str:
    """Return why the bytes are refused, by both doors of the module in the same words."""
    with pytest.raises(ImageError) as by_decode:
        decode(data, max_pixels=max_pixels)
    with pytest.raises(ImageError) as by_facts:
        facts(data, max_pixels=max_pixels)
    assert str(by_decode.value) == str(by_facts.value)
    return str(by_decode.value)


def test_identity_is_the_hash_of_the_bytes():
    assert image_id(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_pixels_of_lossless_files_are_exact_contiguous_and_writable():
    for format, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        pixels = decode(save(NOISE, format, **options), max_pixels=LIMIT)
        assert np.array_equal(pixels, NOISE), format
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        pixels[0, 0, 0] = 1


@pytest.mark.parametrize("format", [format for format in FORMATS if format not in ("GIF", "BMP")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_does(format, orientation):
    data = save(NOISE, format, exif=turned(orientation))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels = decode(data, max_pixels=LIMIT)
    assert np.array_equal(pixels, expected)
    assert pixels.flags.c_contiguous
    found = facts(data, max_pixels=LIMIT)
    assert (found.height, found.width) == pixels.shape[:2]


@pytest.mark.parametrize("damage", [b"II*\0\xff\xff\xff\xff", b"garbage", b"MM\0*\0\0\0\x08\0\x05\x01\x12"])
def test_a_damaged_exif_block_is_no_orientation(damage):
    assert decode(save(NOISE, "JPEG", exif=b"Exif\0\0" + damage), max_pixels=LIMIT).shape == NOISE.shape
    assert decode(save(NOISE, "PNG", exif=turned(77)), max_pixels=LIMIT).shape == NOISE.shape


def test_16_bit_samples_keep_their_high_byte():
    samples = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE, 1)
    grey = decode(png16(samples), max_pixels=LIMIT)
    colour = decode(png16(samples.repeat(3, axis=2)), max_pixels=LIMIT)
    assert np.array_equal(grey, np.repeat(samples >> 8, 3, axis=2))
    assert np.array_equal(grey, colour)
    tiff = save(Image.fromarray(samples[:, :, 0]), "TIFF")
    assert np.array_equal(decode(tiff, max_pixels=LIMIT), grey)


def test_a_16_bit_colour_key_does_not_hit_8_bit_colours():
    samples = np.full((2, 2, 3), 0x3434, np.uint16)  # Pillow compares the low byte of the key with the high byte of the samples
    key = png_chunk(b"tRNS", struct.pack(">HHH", 0x1234, 0x1234, 0x1234))
    assert (decode(png16(samples, key), max_pixels=LIMIT) == 0x34).all()


def test_grey_and_one_bit_become_three_equal_channels():
    grey = NOISE[:, :, 0]
    assert np.array_equal(decode(save(grey, "PNG"), max_pixels=LIMIT), np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(decode(save(Image.fromarray(grey > 128), "PNG"), max_pixels=LIMIT)[:, :, 1], (grey > 128) * 255)


def test_cmyk_has_the_colours_it_was_made_of():
    flat = np.full((SIDE, SIDE, 3), (200, 60, 20), np.uint8)
    data = save(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(data, max_pixels=LIMIT).astype(int) - flat).max() <= 4


def test_opaque_alpha_changes_nothing_and_transparent_pixels_are_white():
    alpha = np.full(NOISE.shape[:2], 255, np.uint8)
    alpha[:5] = 0
    pixels = decode(save(np.dstack([NOISE, alpha]), "PNG"), max_pixels=LIMIT)
    assert (pixels[:5] == 255).all()
    assert np.array_equal(pixels[5:], NOISE[5:])
    half = np.dstack([np.zeros_like(NOISE), np.full(NOISE.shape[:2], 128, np.uint8)])
    assert (np.abs(decode(save(half, "PNG"), max_pixels=LIMIT).astype(int) - 127) <= 1).all()
    grey = save(Image.fromarray(np.dstack([NOISE[:, :, 0], alpha])), "PNG")
    assert (decode(grey, max_pixels=LIMIT)[:5] == 255).all()


def test_a_transparent_palette_entry_is_white():
    image = Image.fromarray(NOISE).quantize(16)
    chosen = np.asarray(image) == 3
    pixels = decode(save(image, "PNG", transparency=3), max_pixels=LIMIT)
    assert (pixels[chosen] == 255).all()
    assert np.array_equal(pixels[~chosen], np.asarray(image.convert("RGB"))[~chosen])


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(format):
    pixels = decode(animated(format), max_pixels=LIMIT)
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_refused(name):
    data = FILES[name]
    for kept in (len(data) // 2, len(data) - 20):
        assert refusal(data[:kept]).startswith(("damaged", "truncated")), kept


def test_missing_end_and_wrong_checksum_of_a_png_are_refused():
    assert refusal(bad_files()["cut_end.png"]) == "truncated PNG: its end is missing"
    assert "checksum" in refusal(bad_files()["bad_checksum.png"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty.png", "empty file (0 bytes)"),
        ("text.png", "looks like text"),
        ("page.jpg", "looks like web page"),
        ("pointer.png", "git lfs pull"),
        ("float.tiff", "not supported: a TIFF of floating-point"),
        ("icon.ico", "not supported: icon"),
        ("huge.png", f"12000x12000 px: more pixels than the limit, dataset.max_pixels = {LIMIT}"),
    ],
)
def test_the_reason_names_what_was_found(name, words):
    assert words in refusal(bad_files()[name])


def test_other_picture_formats_are_named():
    assert looks_like(save(NOISE, "JPEG2000")) == "JPEG 2000"
    assert refusal(save(NOISE, "JPEG2000")) == "not supported: JPEG 2000; save it as PNG or JPEG"
    assert looks_like(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == "HEIC"
    assert looks_like(b"PK\x03\x04....") == "zip archive"


@pytest.mark.parametrize("name", ["huge.png", "wide webp", "wide gif", "tile"])
def test_bombs_are_refused_before_a_pixel_is_decoded(name, monkeypatch):
    data = {
        "huge.png": bad_files()["huge.png"],
        "wide webp": save(Image.new("RGB", (8000, 8000)), "WEBP", lossless=True, method=0),
        "wide gif": b"GIF89a" + struct.pack("<HHBBB", 50_000, 50_000, 0, 0, 0) + FILES["gif"][13:],
        "tile": large_tile(),
    }[name]
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert "more pixels than the limit" in refusal(data)


def large_tile() -> bytes:
    """Return a TIFF of 16x16 pixels in one tile of 60,000x60,000."""
    tags = [(256, 3, 16), (257, 3, 16), (258, 3, 8), (259, 3, 5), (262, 3, 1), (277, 3, 1)]
    tags += [(322, 4, 60_000), (323, 4, 60_000), (324, 4, 8), (325, 4, 8)]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 16) + b"\0" * 8 + struct.pack("<H", len(tags)) + directory + b"\0\0\0\0"


def test_pillows_own_limit_and_switches_are_set_aside_and_given_back(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    filters = list(warnings.filters)
    decode(FILES["png"], max_pixels=LIMIT)
    refusal(FILES["jpeg"][:-100])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: facts(FILES[name], max_pixels=LIMIT), list(FILES) * 20))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (7, True)
    assert warnings.filters == filters


def test_facts_of_each_format():
    expected = {"jpeg": ("JPEG", SIDE, SIDE + 10), "png": ("PNG", SIDE + 10, SIDE), "gif": ("GIF", SIDE + 10, SIDE)}
    for name, (format, width, height) in expected.items():
        quality = 75 if format == "JPEG" else None
        assert facts(FILES[name], max_pixels=LIMIT) == Facts(width, height, format, len(FILES[name]), quality)


def test_the_multi_picture_jpeg_of_phones_is_a_jpeg():
    pair = save(NOISE, "MPO", save_all=True, append_images=[Image.fromarray(NOISE[::-1].copy())], quality=83)
    found = facts(pair, max_pixels=LIMIT)
    assert (found.format, found.jpeg_quality) == ("JPEG", 83)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_quality_is_exact_for_standard_tables(mode):
    image = Image.fromarray(NOISE).convert(mode)
    found = [facts(save(image, "JPEG", quality=quality), max_pixels=LIMIT).jpeg_quality for quality in range(1, 101)]
    assert found == list(range(1, 101))


def test_the_hundred_tables_are_those_of_the_encoder():
    for quality, log_table in enumerate(LOG_TABLES, start=1):
        with Image.open(io.BytesIO(save(NOISE, "JPEG", quality=quality))) as image:
            assert np.array_equal(np.rint(np.exp(log_table)), image.quantization[0]), quality


@given(quality=st.integers(10, 95), noise=st.lists(st.integers(-1, 1), min_size=64, max_size=64))
@settings(max_examples=50, deadline=None)
def test_jpeg_quality_of_other_tables_is_near(quality, noise):
    table = np.maximum(np.rint(np.exp(LOG_TABLES[quality - 1])).astype(int) + noise, 1)
    assert abs(estimate_quality(list(table)) - quality) <= 4


def outcome(data: bytes) -> tuple[int, ...] | str:
    try:
        pixels = decode(data, max_pixels=LIMIT)
    except ImageError as error:
        with pytest.raises(ImageError):
            facts(data, max_pixels=LIMIT)
        assert " at 0x" not in str(error)
        assert str(error)
        return str(error)
    found = facts(data, max_pixels=LIMIT)
    assert pixels.shape == (found.height, found.width, 3)
    return pixels.shape


@given(data=st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_decoded_or_refused(data):
    outcome(data)


@given(
    name=st.sampled_from(sorted(FILES)), edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4))), end=st.floats(0, 1)
)
@settings(max_examples=300, deadline=None)
def test_damaged_files_are_decoded_or_refused(name, edits, end):
    data = bytearray(FILES[name])
    for place, content in edits:
        start = int(place**2 * len(data))  # headers more often than pixels
        data[start : start + len(content)] = content
    assert outcome(bytes(data[: int(len(data) * (1 - end**3))]))
