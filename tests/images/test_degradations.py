"""Degradations of the whole image: each against an independent reference, and the view that scores them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images.bad_images import photo, save
from PIL import Image

from nullscope.core.config import ParamsError, validate
from nullscope.images import preparation
from nullscope.images.decoder import decode, facts
from nullscope.images.degradations import CHAINS, Degraded, ScoreParams, check_name, degrade
from nullscope.images.preparation import encode_prepared, prepared
from nullscope.images.transforms import PatchMosaic, WholeImage, image_rng
from nullscope.ops.patches import PatchParams, select

NAMES = ["jpeg_95", "jpeg_75", "webp_80", "blur_0.5", "blur_1.5", "resize_0.5", "resize_2", "crop_48", "social"]
PATCHES = PatchParams(patch_px=16, grid=3, fill="repeat")


def gaussian_loop(image_HWC: np.ndarray, sigma: float) -> np.ndarray:
    """Blur by the sampled and normalised Gaussian up to 4 sigma, mirrored at the edges (d c b a | a b c d), in float64."""
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    out = image_HWC.astype(np.float64)
    for axis in (0, 1):
        padded = np.pad(out, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="symmetric")
        size = out.shape[axis]
        out = sum(w * np.take(padded, range(k, k + size), axis) for k, w in enumerate(weights))
    return np.clip(np.rint(out), 0, 255)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.5])
def test_blur_is_the_untruncated_gaussian(sigma):
    image = photo(1, (40, 53))
    ours = degrade(image, f"blur_{sigma}", min_side=16)
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - gaussian_loop(image, sigma)).max() <= 1  # rounding of ties in float32
    assert (ours == gaussian_loop(image, sigma)).mean() > 0.999


def test_blur_leaves_a_plain_area_and_the_mean_as_they_are():
    plain = np.full((30, 30, 3), 77, np.uint8)
    assert np.array_equal(degrade(plain, "blur_1.0", min_side=16), plain)
    image = photo(2, (64, 64))
    assert abs(degrade(image, "blur_1.0", min_side=16).mean() - image.mean()) < 0.5


@pytest.mark.parametrize("quality", [95, 85, 75])
def test_jpeg_is_pillows_with_its_default_chroma(quality):
    image, buffer = photo(3, (40, 50)), io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    assert np.array_equal(degrade(image, f"jpeg_{quality}", min_side=16), np.array(Image.open(buffer)))
    assert facts(buffer.getvalue(), max_pixels=10**6).jpeg_quality == quality


@pytest.mark.parametrize(
    ("name", "shape", "min_side", "expected"),
    [
        ("resize_0.5", (41, 60), 16, (20, 30)),
        ("resize_2", (40, 60), 16, (80, 120)),
        ("resize_0.5", (20, 60), 16, (16, 30)),  # never below a patch
        ("resize_0.5", (10, 60), 16, (10, 30)),  # and what was smaller stays
        ("crop_32", (40, 60), 16, (32, 32)),
        ("crop_50", (40, 60), 16, (40, 50)),
        ("crop_8", (40, 60), 16, (16, 16)),
    ],
)
def test_sizes(name, shape, min_side, expected):
    assert degrade(photo(4, shape), name, min_side=min_side).shape == (*expected, 3)


def test_crop_is_the_central_window():
    image = photo(5, (41, 60))
    assert np.array_equal(degrade(image, "crop_20", min_side=16), image[10:30, 20:40])


def test_resizing_is_antialiased():
    """A checkerboard halved is grey; without antialiasing it would be black, white or a moire of both."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    halved = degrade(np.repeat(board[..., None], 3, 2), "resize_0.5", min_side=16)
    assert np.abs(halved[2:-2, 2:-2].astype(int) - 128).max() <= 2


def test_a_chain_is_its_steps():
    image = photo(6, (50, 70))
    stepwise = prepared(image, CHAINS["social"], min_side=16)
    assert np.array_equal(degrade(image, "social", min_side=16), stepwise)


@given(name=st.sampled_from(NAMES), seed=st.integers(0, 20), height=st.integers(16, 70), width=st.integers(16, 70))
def test_every_degradation_gives_an_image_and_leaves_its_input_alone(name, seed, height, width):
    image = photo(seed, (height, width))
    before = image.copy()
    first, second = (degrade(image, name, min_side=16) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(image, before)
    assert first.dtype == np.uint8 and first.flags.c_contiguous and min(first.shape[:2]) >= 16


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("jpg_75", "no degradation 'jpg_75'; known: jpeg_<quality>"),
        ("jpeg", "expected a number behind jpeg_"),
        ("jpeg_7.5", "expected a number"),
        ("jpeg_0", "expected quality from 1 to 100"),
        ("blur_0", "expected sigma from"),
        ("none", "no degradation"),
    ],
)
def test_an_unknown_name_says_what_is_known(name, words):
    with pytest.raises(ValueError, match=words):
        check_name(name)
    with pytest.raises(ParamsError, match=words):
        validate("score", {"degradations": [name]}, ScoreParams)


def test_a_degradation_is_named_once():
    with pytest.raises(ParamsError, match="different degradations"):
        validate("score", {"degradations": ["jpeg_75", "jpeg_75"]}, ScoreParams)


# Preparation of a data set


@pytest.mark.parametrize(
    ("names", "suffix", "kind", "quality"),
    [
        (["jpeg_90"], "jpg", "JPEG", 90),
        (["crop_32", "jpeg_80"], "jpg", "JPEG", 80),
        (["resize_0.75", "jpeg_85", "jpeg_75"], "jpg", "JPEG", 75),
        (["crop_32", "webp_70"], "webp", "WEBP", None),
        (["crop_32"], "png", "PNG", None),
        (["webp_80", "resize_0.5"], "png", "PNG", None),
    ],
)
def test_a_prepared_file_decodes_to_the_prepared_image(names, suffix, kind, quality):
    image = photo(7, (60, 44))
    found, data = encode_prepared(image, names, min_side=16)
    known = facts(data, max_pixels=10**6)
    assert (found, known.format, known.jpeg_quality) == (suffix, kind, quality)
    assert np.array_equal(decode(data, max_pixels=10**6), prepared(image, names, min_side=16))


def test_preparation_makes_files_of_two_makers_alike():
    """A JPEG and a PNG of different sizes come out with the same format, size and quality."""
    made = [encode_prepared(decode(save(photo(k, shape), form), max_pixels=10**6), ["crop_64", "jpeg_90"], min_side=16)[1]
            for k, shape, form in ((1, (100, 130), "PNG"), (2, (80, 70), "JPEG"))]  # fmt: skip
    first, second = (facts(data, max_pixels=10**6) for data in made)
    assert (first.format, first.width, first.height, first.jpeg_quality) == ("JPEG", 64, 64, 90)
    assert (second.format, second.width, second.height, second.jpeg_quality) == ("JPEG", 64, 64, 90)


# The view


def test_patches_are_selected_after_the_degradation_and_in_the_order_of_the_clean_image():
    image, identity = photo(8, (64, 64)), "ab" * 32
    inner = PatchMosaic(9, flip=0.5)
    clean = inner(select(image, PATCHES), image_rng(identity), training=False)
    degraded = Degraded(inner, "blur_1.0", PATCHES)(image, image_rng(identity), training=False)
    expected = select(degrade(image, "blur_1.0", min_side=16), PATCHES)
    assert np.array_equal(degraded["image"], expected.transpose(2, 0, 1))
    assert np.array_equal(degraded["order"], clean["order"])
    assert not np.array_equal(degraded["image"], clean["image"])


def test_whole_views_get_the_degraded_image():
    image = photo(9, (64, 80))
    seen = Degraded(WholeImage(None, 48, 48, 0.0), "jpeg_75", PATCHES)(image, image_rng("00" * 32), training=False)["image"]
    assert np.array_equal(seen, degrade(image, "jpeg_75", min_side=16)[8:56, 16:64].transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["blur_1.0", "social"])
def test_what_makes_no_files_alike_is_no_preparation(name):
    """A blur or a chain is for testing robustness."""
    with pytest.raises(ValueError, match=rf"no preparation '{name}'; known: jpeg_<quality>, .*crop_<side>$"):
        preparation.check_name(name)
