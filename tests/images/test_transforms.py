"""Transforms: what a detector reads of an image, without patch selection and with it."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import PATCHES, conf_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from nullscope import detectors
from nullscope.core.contracts import SHARD_KINDS
from nullscope.images.decoder import decode
from nullscope.images.transforms import PatchMosaic, WholeImage, image_rng
from nullscope.shards.loading import read_whole, training_batches
from nullscope.shards.reading import read_shard
from nullscope.training import Training

SIDE = 32


def whole(fit, side, flip, min_side_px=1):
    """The transform of `input: crop` or `input: resize`."""
    return WholeImage(None, side, side, flip, min_side_px) if fit == "crop" else WholeImage(side, None, None, flip, min_side_px)


CROP, RESIZE = whole("crop", SIDE, 0.0), whole("resize", SIDE, 0.0)
ID = "0123456789abcdef" * 4
properties = settings(derandomize=True, deadline=None, max_examples=80)
sizes = st.integers(1, 90)


def located(height, width):
    """An image whose every pixel says where it stands: (row, column, 255), none of them black."""
    rows, columns = np.indices((height, width))
    return np.stack([rows, columns, np.full_like(rows, 255)], 2).astype(np.uint8)


def photograph(height, width, seed=0):
    """Smooth colours and some noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.array(coarse) + rng.integers(-9, 10, (height, width, 3)), 0, 255).astype(np.uint8)


def seen(view, image, *draw, image_id=ID):
    """What the view gives of an image: in testing without ``draw``, in training with it."""
    return view(image, image_rng(image_id, *draw), training=bool(draw))


def square(view, image, *draw, image_id=ID):
    """The pixels of it, as (side, side, 3)."""
    return seen(view, image, *draw, image_id=image_id)["image"].transpose(1, 2, 0)


# The window


def part_of_image(window):
    """Where the pixels of a window stand in it and in the `located` image: rows and columns of both."""
    there = window[:, :, 2] == 255
    assert not window[~there].any(), "what the image lacks is black"
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    assert there[np.ix_(rows, columns)].all(), "the image's part is a rectangle"
    inner = window[np.ix_(rows, columns)]
    assert (inner[:, :, 0] == inner[:, :1, 0]).all() and (inner[:, :, 1] == inner[:1, :, 1]).all()
    return (rows, inner[:, 0, 0].astype(int)), (columns, inner[0, :, 1].astype(int))


@properties
@given(height=sizes, width=sizes, epoch=st.integers(0, 5))
def test_a_window_holds_the_images_pixels_in_their_places(height, width, epoch):
    """A whole run of rows and columns, one after the other, none beyond the image; black around it where it is too small."""
    for draw in ((), (0, epoch)):
        window = square(CROP, located(height, width), *draw)
        assert window.shape == (SIDE, SIDE, 3)
        for size, (places, found) in zip((height, width), part_of_image(window), strict=True):
            assert len(found) == min(size, SIDE)
            assert (np.diff(found) == 1).all() and (np.diff(places) == 1).all()
            assert found[-1] < size
            before, after = places[0], SIDE - 1 - places[-1]
            assert after - before == (max(0, SIDE - size) % 2), "padding is centred; an odd pixel goes below and to the right"


@properties
@given(height=sizes, width=sizes)
def test_a_test_image_is_seen_at_its_centre(height, width):
    """As torchvision's CenterCrop: half of what is too much goes above and left, a half pixel to the even side."""
    for size, (_, found) in zip((height, width), part_of_image(square(CROP, located(height, width))), strict=True):
        assert found[0] == round(max(0, size - SIDE) / 2)
        assert abs(size - 1 - found[-1] - found[0]) <= 1


def test_a_window_of_the_size_of_the_image_is_the_image():
    image = photograph(SIDE, SIDE)
    for draw in ((), (0, 3)):
        assert np.array_equal(square(CROP, image, *draw), image)


def test_training_windows_reach_every_place_and_no_place_more_often():
    """Rows and columns are drawn apart, both ends included: 9 x 5 places in 2,000 draws."""
    places = []
    for epoch in range(2000):
        (_, rows), (_, columns) = part_of_image(square(CROP, located(SIDE + 8, SIDE + 4), 0, epoch))
        places.append((rows[0], columns[0]))
    found, counts = np.unique(np.array(places), axis=0, return_counts=True)
    assert len(found) == 45 and found.min() == 0 and found.max(0).tolist() == [8, 4]
    expected = 2000 / 45
    assert ((counts - expected) ** 2 / expected).sum() < 44 + 4 * np.sqrt(2 * 44)  # chi-squared of 44 degrees of freedom


# The square


@pytest.mark.parametrize(("height", "width"), [(48, 48), (33, 90), (7, 200), (1, 1), (20, 32), (32, 31), (300, 211)])
@pytest.mark.parametrize("draw", [(), (0, 1)], ids=["testing", "training"])
def test_resize_is_pillows_antialiased_bilinear(height, width, draw):
    """And torch's, whose antialiasing follows Pillow's, to the rounding of bytes; training and testing alike."""
    image = photograph(height, width)
    found = square(RESIZE, image, *draw)
    pillow = Image.fromarray(image).resize((SIDE, SIDE), resample=2)
    assert np.array_equal(found, np.asarray(pillow))
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    torchs = F.interpolate(planes, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)[0].permute(1, 2, 0)
    np.testing.assert_allclose(found, torchs, rtol=0, atol=1.01)


def test_resize_shows_all_of_the_image_whatever_its_aspect():
    """Each quarter of the image is a quarter of the square."""
    image = np.zeros((64, 400, 3), np.uint8)
    image[:32, :200], image[:32, 200:], image[32:, :200] = 40, 120, 200
    found = square(RESIZE, image)[:, :, 0]
    assert {int(found[4, 4]), int(found[4, 27]), int(found[27, 4]), int(found[27, 27])} == {40, 120, 200, 0}
    assert found[:15, :15].std() == 0 and found[17:, 17:].std() == 0


# What it depends on


@pytest.mark.parametrize("view", [whole("crop", SIDE, 0.5), whole("resize", SIDE, 0.5), PatchMosaic(16, 0.5)], ids=str)
def test_an_image_is_seen_alike_whoever_comes_before_it(view):
    """Its own generator alone: not numpy's or torch's global one, not another image, not how often it was asked."""
    image, other = photograph(SIDE, SIDE) if view.kind == "patches" else photograph(50, 70), photograph(80, 80, 1)
    first = seen(view, image, 7, 2)
    np.random.seed(1)
    torch.manual_seed(1)
    seen(view, other if view.kind == "images" else image, 7, 2, image_id="f" * 64)
    state = np.random.get_state()[1].copy(), torch.get_rng_state()
    again = seen(view, image, 7, 2)
    assert first.keys() == again.keys() and all(np.array_equal(first[name], again[name]) for name in first)
    assert np.array_equal(np.random.get_state()[1], state[0]) and torch.equal(torch.get_rng_state(), state[1])


@pytest.mark.parametrize("view", [whole("crop", SIDE, 0.5), PatchMosaic(16, 0.5)], ids=str)
def test_id_seed_and_epoch_each_make_another_draw(view):
    image = photograph(90, 90)
    draws = [seen(view, image, *draw, image_id=name) for name in (ID, "f" * 64) for draw in ((0, 0), (0, 1), (1, 0))]
    as_text = {tuple((name, array.tobytes()) for name, array in sorted(found.items())) for found in draws}
    assert len(as_text) == 6


@pytest.mark.parametrize("view", [CROP, RESIZE], ids=str)
def test_in_testing_nothing_is_drawn(view):
    """So that an image scores the same under another id: its bytes written again."""
    image = photograph(50, 70)
    found = [seen(view, image, image_id=name) for name in (ID, "f" * 64)]
    assert np.array_equal(found[0]["image"], found[1]["image"]) and not found[0]["flip"] and not found[1]["flip"]


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_mirroring_is_announced_in_training_alone_and_as_often_as_asked(fit):
    """The view only says so: pixels are mirrored on the device."""
    image = photograph(50, 40)
    for probability, low, high in ((0.0, 0, 0), (1.0, 400, 400), (0.5, 160, 240)):
        view = whole(fit, SIDE, probability)
        flips = [seen(view, image, 0, epoch)["flip"] for epoch in range(400)]
        assert all(flip.dtype == bool and flip.shape == () for flip in flips)
        assert low <= sum(map(int, flips)) <= high
        assert not seen(view, image)["flip"]
        plain = seen(dataclasses.replace(view, flip=0.0), image, 0, 5)["image"]
        assert np.array_equal(seen(view, image, 0, 5)["image"], plain)


@pytest.mark.parametrize("view", [CROP, RESIZE], ids=str)
@pytest.mark.parametrize("size", [(20, 20), (SIDE, SIDE), (50, 70)], ids=str)
def test_arrays_are_bytes_of_their_own_and_the_image_is_left_alone(view, size):
    image = photograph(*size)
    before = image.copy()
    image.flags.writeable = False
    for draw in ((), (0, 1)):
        found = seen(view, np.asfortranarray(image), *draw)["image"]
        assert np.array_equal(found, seen(view, image, *draw)["image"])
        assert found.dtype == np.uint8 and found.shape == (3, SIDE, SIDE) and found.flags.c_contiguous
        assert not np.shares_memory(found, image)
        found[:] = 0
    assert np.array_equal(image, before)


# In a detector


def build(small, view, **changes):
    conf = {**conf_of("clip_lora"), "input": view, "batch_size": 8, "epochs": 1, **changes}
    return detectors.build("clip_lora", conf, small.context, seed=0)


def test_a_detectors_view_is_the_one_its_parameters_name(small):
    assert build(small, "patches", flip=0.25).transform == PatchMosaic(PATCHES.cells, 0.25, PATCHES.patch_px)
    assert build(small, "crop", flip=0.25).transform == whole("crop", PATCHES.mosaic_px, 0.25, PATCHES.patch_px)
    assert build(small, "resize", flip=0.25).transform == whole("resize", PATCHES.mosaic_px, 0.25, PATCHES.patch_px)
    assert {build(small, view).transform.kind for view in ("patches", "crop", "resize")} == set(SHARD_KINDS)


def test_a_mosaic_must_fit_the_clip_and_a_whole_image_need_not(small):
    context = dataclasses.replace(small.context, patches=PATCHES.model_copy(update={"patch_px": 4}))
    with pytest.raises(ValueError, match=r"images of 32 px, a mosaic of 4 x 4 patches of 4 px has 16"):
        detectors.build("clip_lora", conf_of("clip_lora"), context, seed=0)
    detector = detectors.build("clip_lora", {**conf_of("clip_lora"), "input": "crop"}, context, seed=0)
    assert detector.transform == WholeImage(None, 32, 32, 0.0, 4)


# Other sizes in testing


@pytest.mark.parametrize(("height", "width"), [(50, 90), (20, 20), (64, 64)])
def test_resized_then_cropped_in_training_and_not_cropped_in_testing(height, width):
    """AIGIBench's detectors on pixels: trained on windows of what they are tested on whole."""
    transform = WholeImage(resize_px=40, crop_px=SIDE, test_crop_px=None, flip=0.0)
    image = photograph(height, width)
    tested = seen(transform, image)["image"]
    assert tested.shape == (3, 40, 40) and np.array_equal(tested, seen(whole("resize", 40, 0.0), image)["image"])
    trained = seen(transform, image, 0, 1)["image"]
    windows = np.lib.stride_tricks.sliding_window_view(tested, (SIDE, SIDE), (1, 2))
    assert trained.shape == (3, SIDE, SIDE)
    assert (windows == trained[:, None, None]).all((0, 3, 4)).any(), "no window of the resized image"


def test_at_native_size_in_testing_the_image_is_as_it_is():
    transform = WholeImage(resize_px=None, crop_px=SIDE, test_crop_px=None, flip=0.5)
    image = photograph(50, 91)
    assert np.array_equal(square(transform, image), image)
    assert square(transform, image, 0, 1).shape == (SIDE, SIDE, 3)


def test_training_images_of_any_size_are_refused():
    with pytest.raises(ValueError, match="expected resize_px or crop_px, found neither"):
        WholeImage(None, None, SIDE, 0.0)


@pytest.mark.parametrize("view", ["crop", "resize"])
def test_batches_are_the_views_of_the_images_as_they_are(small, view):
    """From the shards of whole images, by hand: decoded, seen with the generator of the image's id, seed and epoch."""
    detector = build(small, view, flip=0.5)
    shards = small.shards("images")
    images = {name: decode(data, max_pixels=10**6) for shard in shards for name, _, data in read_shard(shard.path)}
    batches = training_batches(shards, detector.transform, batch_size=8, seed=3, epoch=2, skip=0, workers=0)
    for batch in batches:
        for row, name in enumerate(batch.image_ids):
            expected = detector.transform(images[name], image_rng(name, 3, 2), training=True)
            assert all(np.array_equal(batch.inputs[key][row], array) for key, array in expected.items())
    for rows in read_whole(shards, detector.transform, workers=0):
        for row, name in enumerate(rows.image_ids):
            expected = detector.transform(images[name], image_rng(name), training=False)
            assert all(np.array_equal(rows.inputs[key][row], array) for key, array in expected.items())


@pytest.mark.parametrize("view", ["crop", "resize"])
def test_a_detector_trains_on_whole_images(small, view, tmp_path):
    detector = build(small, view)
    run = Training(detector, small.data(detector), seed=0, device=torch.device("cpu"), scratch=tmp_path)
    assert len(list(run.run())) == 5
