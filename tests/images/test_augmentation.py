"""Augmentation: every draw from the image's own generator, and as often and as strong as it says."""

import numpy as np
import pytest
from images.bad_images import photo
from scipy.ndimage import gaussian_filter

from nullscope.images.augmentation import AugmentedCrop, Blur, ColourJitter, Jpeg, Mask, Rotation, shortened
from nullscope.images.transforms import image_rng

PICTURE = photo(1, (96, 128))
IDS = [f"{number:016x}{0:048x}" for number in range(300)]


def rng(number=0):
    return image_rng(IDS[number], 0, 0)


@pytest.mark.parametrize("kind", [Blur(0.3, 0.5, 3.0), Jpeg(0.3, 30, 60), Mask(0.3, 0.75)])
def test_it_is_done_as_often_as_it_says(kind):
    changed = sum(not np.array_equal(kind(PICTURE, rng(number)), PICTURE) for number in range(300))
    assert 60 < changed < 120  # 90 are expected, with a deviation of 8


@pytest.mark.parametrize("kind", [Blur(1, 0, 3), Jpeg(1, 30, 100), Rotation(180), ColourJitter(0.5), Mask(1, 0.75)])
def test_the_same_generator_gives_the_same_picture_and_another_another(kind):
    before = PICTURE.copy()
    once = kind(PICTURE, rng(3))
    assert once.dtype == np.uint8 and once.shape == PICTURE.shape and np.array_equal(PICTURE, before)
    assert np.array_equal(once, kind(PICTURE, rng(3)))
    assert not np.array_equal(once, kind(PICTURE, rng(4)))


def test_a_blur_is_scipys_channel_by_channel():
    expected = np.stack([gaussian_filter(PICTURE[:, :, channel], 2.0) for channel in range(3)], axis=2)
    assert np.array_equal(Blur(1, 2.0, 2.0)(PICTURE, rng()), expected)


def test_a_mask_blackens_whole_cells_up_to_its_share():
    white = np.full((96, 128, 3), 255, np.uint8)
    shares = []
    for number in range(100):
        black = (Mask(1, 0.75)(white, rng(number)) == 0).all(axis=2)
        cells = black.reshape(6, 16, 8, 16).mean(axis=(1, 3))
        assert set(np.unique(cells)) <= {0.0, 1.0}
        shares.append(black.mean())
    assert max(shares) <= 0.75 and 0.3 < np.mean(shares) < 0.45


def test_a_turned_picture_is_black_in_its_corners_and_keeps_its_middle():
    white = np.full((65, 65, 3), 255, np.uint8)
    turned = Rotation(180)(white, rng(1))
    assert (turned[32, 32] == 255).all() and (turned == 0).any()


def test_the_shorter_side_gets_its_length_and_the_aspect_stays():
    """As torchvision's Resize: the longer side is cut off to whole pixels."""
    assert shortened(photo(0, (50, 101)), 20).shape == (20, 40, 3)
    assert shortened(photo(0, (101, 50)), 20).shape == (40, 20, 3)
    assert shortened(photo(0, (30, 30)), 60).shape == (60, 60, 3)


def test_nothing_is_augmented_in_testing_and_small_pictures_are_padded_with_black():
    transform = AugmentedCrop(160, 160, 0.5, after=(Rotation(180), Mask(1, 0.75)))
    seen = transform(PICTURE, rng(), training=False)
    assert seen["image"].shape == (3, 160, 160) and not seen["flip"]
    assert np.array_equal(seen["image"][:, 32:128, 16:144], PICTURE.transpose(2, 0, 1))
    assert seen["image"].sum() == int(PICTURE.sum())
    whole = AugmentedCrop(64, None, 0.5)(PICTURE, rng(), training=False)
    assert np.array_equal(whole["image"], PICTURE.transpose(2, 0, 1))
    assert transform(PICTURE, rng(), training=True)["image"].shape == (3, 160, 160)
