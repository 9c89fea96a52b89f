"""Patch selection against the definition of the official code, written again as the slow loop it is.

The reference (DETECTORS.md, section 2.5) takes one patch at a time through numpy's complex FFT in float64. Nothing of
`nullscope.ops.patches` is used in it.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_images

from nullscope.core.config import ParamsError, validate
from nullscope.ops import patches
from nullscope.ops.patches import PatchParams

PAPER = PatchParams(patch_px=32, grid=7, fill="repeat")
HALF = PatchParams(patch_px=16, grid=7, fill="repeat")  # the embedded world's
SMALL = PatchParams(patch_px=8, grid=7, fill="black")

properties = settings(derandomize=True, deadline=None, max_examples=60)


# The reference


def reference_patches(image: np.ndarray, side: int) -> list[np.ndarray]:
    """All whole patches, row by row; the rest of the image at the bottom and on the right is left out."""
    rows, columns = image.shape[0] // side, image.shape[1] // side
    return [image[i * side : (i + 1) * side, j * side : (j + 1) * side] for i in range(rows) for j in range(columns)]


def reference_entropy(patch: np.ndarray) -> float:
    """Spectral entropy in bits: luma on [0, 1], the whole complex power spectrum with its DC term, log2, epsilon 1e-12."""
    luma = (0.299 * patch[..., 0].astype(float) + 0.587 * patch[..., 1] + 0.114 * patch[..., 2]) / 255
    power = np.abs(np.fft.fft2(luma)) ** 2
    share = power / (power.sum() + 1e-12)
    return float(-(share * np.log2(share + 1e-12)).sum())


def ranking_of(entropies: list[float]) -> list[int]:
    """Positions in ascending order of entropy; neighbours closer than 1e-9 bits belong to one tie, which position breaks."""
    ties, last = [], -np.inf
    for entropy, position in sorted(zip(entropies, range(len(entropies)), strict=True)):
        if entropy - last >= 1e-9:
            ties.append([])
        ties[-1].append(position)
        last = entropy
    return [position for tie in ties for position in sorted(tie)]


def reference_ranking(cut: list[np.ndarray]) -> list[int]:
    """The ranking of patches by the entropy of the definition."""
    return ranking_of([reference_entropy(patch) for patch in cut])


def reference_choice(cut: list[np.ndarray], cells: int) -> list[int]:
    """The ``cells // 2`` lowest and the other cells' highest, or every patch where there are no more than cells."""
    ranking = reference_ranking(cut)
    return ranking if len(ranking) <= cells else ranking[: cells // 2] + ranking[len(ranking) - (cells - cells // 2) :]


def reference_mosaic(chosen: list[np.ndarray], grid: int) -> np.ndarray:
    """Patches laid out row by row."""
    return np.vstack([np.hstack(chosen[row * grid : (row + 1) * grid]) for row in range(grid)])


def reference_select(image: np.ndarray, side: int, grid: int) -> np.ndarray:
    """The whole selection; an image of few patches cycles through them in rank order."""
    cut = reference_patches(image, side)
    chosen = [cut[position] for position in reference_choice(cut, grid**2)]
    return reference_mosaic([chosen[cell % len(chosen)] for cell in range(grid**2)], grid)


# Images


@cache
def photographs() -> tuple[np.ndarray, ...]:
    """The two photographs that scikit-learn ships, 640 x 427 px."""
    return tuple(np.asarray(image) for image in load_sample_images().images)


def symmetric_copy(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rotation, reflection and cyclic shift of a patch: other pixels, the same power spectrum up to its order."""
    turned = np.rot90(patch, rng.integers(4))
    mirrored = turned[:, ::-1] if rng.random() < 0.5 else turned
    return np.roll(mirrored, tuple(rng.integers(patch.shape[0], size=2)), (0, 1))


def texture(side: int, rng: np.random.Generator) -> np.ndarray:
    """One random patch: noise, one bright pixel, an edge, sparse dots, or a smooth gradient."""
    kind = rng.integers(5)
    patch = np.zeros((side, side, 3), np.uint8)
    if kind == 0:
        patch[:] = rng.integers(0, 256, patch.shape)
    elif kind == 1:
        patch[tuple(rng.integers(side, size=2))] = rng.integers(1, 256, 3)
    elif kind == 2:
        patch[:] = rng.integers(0, 256, 3)
        patch[: rng.integers(1, side)] = rng.integers(0, 256, 3)
    elif kind == 3:
        patch[rng.random(patch.shape) < 0.1] = rng.integers(1, 256)
    else:
        patch[:] = np.clip(128 + np.arange(side)[:, None, None] * rng.uniform(-4, 4) + rng.normal(0, 2, patch.shape), 0, 255)
    return patch


def tiled(rows: int, columns: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """An image made of symmetric copies of at most four textures: nearly all its entropies are ties."""
    bases = [texture(side, rng) for _ in range(rng.integers(1, 5))]
    cells = [symmetric_copy(bases[rng.integers(len(bases))], rng) for _ in range(rows * columns)]
    return np.vstack([np.hstack(cells[row * columns : (row + 1) * columns]) for row in range(rows)])


def make_image(family: str, height: int, width: int, side: int, seed: int) -> np.ndarray:
    """An image (height, width, 3) of one family of contents."""
    rng = np.random.default_rng(seed)
    if family == "photograph":
        photograph = photographs()[seed % 2]
        return np.pad(photograph, ((0, max(0, height - 427)), (0, max(0, width - 640)), (0, 0)), "reflect")[:height, :width]
    if family == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if family == "flat":
        return np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), (height, width, 3))
    if family == "partly flat":
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image[: rng.integers(height + 1), : rng.integers(width + 1)] = rng.choice([0, 7, 255])
        return image
    whole = tiled(height // side, width // side, side, rng)
    return np.pad(whole, ((0, height - whole.shape[0]), (0, width - whole.shape[1]), (0, 0)))


FAMILIES = ["photograph", "noise", "flat", "partly flat", "tiled"]


# The ranking and the mosaic equal the reference


@pytest.mark.parametrize(("side", "largest"), [(16, 20), (32, 12)])
def test_every_size_in_patches_equals_the_loop(side: int, largest: int) -> None:
    """From 1 x 1 to ``largest`` x ``largest`` patches, each with an odd remainder of pixels."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (largest * side + side, largest * side + side, 3), dtype=np.uint8)
    noise[: 3 * side, : 5 * side] = 90  # ties among the lowest
    every = reference_patches(noise[: largest * side, : largest * side], side)
    entropy = np.reshape([reference_entropy(patch) for patch in every], (largest, largest))
    for rows in range(1, largest + 1):
        for columns in range(1, largest + 1):
            image = noise[: rows * side + rng.integers(side), : columns * side + rng.integers(side)]
            ranking = ranking_of(entropy[:rows, :columns].ravel().tolist())
            expected = ranking if len(ranking) <= 49 else ranking[:24] + ranking[-25:]
            assert patches.rank(patches.cut(image, side), 49).tolist() == expected, f"{rows} x {columns} patches"


@properties
@given(
    family=st.sampled_from(FAMILIES),
    height=st.integers(16, 330),
    width=st.integers(16, 330),
    seed=st.integers(0, 2**32 - 1),
    params=st.sampled_from([PAPER, HALF]),
)
def test_mosaic_equals_the_loop(family: str, height: int, width: int, seed: int, params: PatchParams) -> None:
    """Whole mosaics, to the pixel, on every family of images and on sizes that are no multiple of anything."""
    height, width = max(height, params.patch_px), max(width, params.patch_px)
    image = make_image(family, height, width, params.patch_px, seed)
    assert np.array_equal(patches.select(image, params), reference_select(image, params.patch_px, params.grid))


@pytest.mark.parametrize("photograph", [0, 1])
@pytest.mark.parametrize("side", [16, 32])
def test_photographs_equal_the_loop(photograph: int, side: int) -> None:
    """The two real photographs: their 260 and 1040 patches are ranked as float64 ranks them."""
    image = photographs()[photograph]
    params = PatchParams(patch_px=side, grid=7, fill="repeat")
    assert np.array_equal(patches.select(image, params), reference_select(image, side, 7))


@properties
@given(side=st.integers(1, 40), grid=st.integers(1, 8), count=st.integers(1, 90), seed=st.integers(0, 2**32 - 1))
def test_any_patch_and_grid_equal_the_loop(side: int, grid: int, count: int, seed: int) -> None:
    """Odd patch sides (whose half spectrum has no middle column) and mosaics of other sizes, down to one cell."""
    rng = np.random.default_rng(seed)
    cut = [texture(side, rng) if side > 1 else rng.integers(0, 256, (1, 1, 3), dtype=np.uint8) for _ in range(count)]
    assert patches.rank(np.stack(cut), grid**2).tolist() == reference_choice(cut, grid**2)


@pytest.mark.parametrize("side", [1, 2, 3, 7, 16, 31, 32])
def test_entropy_equals_the_definition(side: int) -> None:
    """In float64 to 1e-9 bits; in float32, which sides that are powers of two use, within the bound that is derived for it."""
    rng = np.random.default_rng(side)
    cut = np.stack([texture(max(side, 2), rng)[:side, :side] for _ in range(60)])
    expected = np.array([reference_entropy(patch) for patch in cut])
    np.testing.assert_allclose(patches.spectral_entropy(cut), expected, rtol=0, atol=1e-9)
    single = patches.spectral_entropy(cut, np.float32)
    assert single.dtype == np.float32
    if side & (side - 1) == 0:
        assert (np.abs(single - expected) <= patches.single_precision_margin(single, side)).all()


# The same on every processor: docs/numerics.md


def dotted(side: int, rng: np.random.Generator) -> np.ndarray:
    """256 patches of few bright pixels on black. Their spectra are nearly white: the largest sums and rounding errors."""
    cut = np.zeros((256, side, side, 3), np.uint8)
    for patch in cut:
        dots = rng.integers(side, size=(rng.integers(1, 4), 2))
        patch[dots[:, 0], dots[:, 1]] = rng.integers(1, 256, (len(dots), 3))
    return cut


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_single_precision_stays_inside_its_margin_where_it_is_worst(side: int) -> None:
    """The bound holds for every way of rounding, so no processor should come near it: at most a tenth."""
    rng = np.random.default_rng(0)
    cut = np.concatenate([dotted(side, rng), [texture(side, rng) for _ in range(100)]])
    single = patches.spectral_entropy(cut, np.float32)
    distance = np.abs(single - patches.spectral_entropy(cut))
    assert (distance <= patches.single_precision_margin(single, side) / 10).all()


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_double_precision_can_tell_ties(side: int) -> None:
    """Against the definition in extended precision: 1e-11 bits, a hundredth of what counts as a tie."""
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("no extended precision on this processor")
    rng = np.random.default_rng(0)
    cut = np.concatenate([dotted(side, rng), [texture(side, rng) for _ in range(100)]])
    luma = (cut.astype(np.longdouble) @ np.array([299, 587, 114], np.longdouble)) / 255_000
    power = np.abs(np.fft.fft2(luma)) ** 2
    assert power.dtype == np.longdouble
    epsilon = np.longdouble(10) ** -12
    share = power / (power.sum((1, 2), keepdims=True) + epsilon)
    expected = -(share * np.log2(share + epsilon)).sum((1, 2))
    assert np.abs(patches.spectral_entropy(cut) - expected).max() < 1e-11


@pytest.mark.parametrize("side", [2, 8, 32, 64])
def test_the_fourier_transform_rounds_as_little_as_the_bound_assumes(side: int) -> None:
    """The one assumption about a library: the spectrum as a vector is off by less than 8 roundings a stage and one stage more."""
    rng = np.random.default_rng(0)
    luma = torch.from_numpy(rng.integers(0, 255_001, (200, side, side)).astype(np.float32))
    luma[:100] = luma[:100] % 255  # half of them dark, and half bright
    exact = torch.fft.fft2(luma.double())
    error = (torch.fft.fft2(luma) - exact).norm(dim=(1, 2)) / exact.norm(dim=(1, 2))
    assert error.max() < 8 * 2.0**-24 * (2 * np.log2(side) + 1)


def test_lower_ends_of_the_margin_rise_with_the_entropy() -> None:
    """Or neighbours in the ranking would not be the only ones to look at."""
    entropy = np.concatenate([[0], np.geomspace(1e-12, 12, 10_000)])
    for side in (1, 2, 16, 32, 256):
        assert (np.diff(entropy - patches.single_precision_margin(entropy, side)) > 0).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", [16, 32])
def test_whatever_a_processor_makes_of_single_precision_the_choice_is_the_same(
    monkeypatch: pytest.MonkeyPatch, family: str, side: int
) -> None:
    """Float32 entropies moved to both ends of their margin at random, float64 ones by 1e-11 bits: one choice."""
    exact, processor = patches.spectral_entropy, np.random.default_rng(1)

    def elsewhere(cut: np.ndarray, dtype: type = np.float64) -> np.ndarray:
        entropy, sign = exact(cut), processor.choice([-1, 1], len(cut))
        if dtype is np.float32:
            return entropy + sign * 0.99 * patches.single_precision_margin(entropy, side)
        return entropy + sign * 1e-11

    for seed in range(4):
        cut = patches.cut(make_image(family, 320, 480, side, seed), side)
        expected = patches.rank(cut, 49)
        with monkeypatch.context() as other:
            other.setattr(patches, "spectral_entropy", elsewhere)
            for _ in range(4):
                assert patches.rank(cut, 49).tolist() == expected.tolist()


def test_rounding_cannot_part_what_is_equal() -> None:
    """Copies stay a tie wherever their entropy lies; a rule that rounds to nine digits parts those beside a half."""
    for entropy in (2.5e-9, 1.0000000005, 7.1234567895):
        tied = patches._tied(entropy + np.array([3e-12, -3e-12, 0, 1e-3, -2e-12]))
        assert len(set(tied[[0, 1, 2, 4]])) == 1 and tied[3] > tied[0]


@pytest.mark.parametrize(("patch", "bits"), [("flat", 0.0), ("black", 0.0), ("impulse", 10.0), ("half", 1.0)])
def test_entropy_of_known_spectra(patch: str, bits: float) -> None:
    """A flat patch holds one frequency, one bright pixel holds all 1024, a DC and a cosine of equal power make one bit."""
    image = np.zeros((1, 32, 32, 3), np.uint8)
    if patch == "flat":
        image[:] = 77
    elif patch == "impulse":
        image[0, 3, 5] = 255
    elif patch == "half":
        image[0, ::2] = 200  # rows of 0 and 200: amplitude 100 at DC and 100 at the highest frequency
    assert patches.spectral_entropy(image)[0] == pytest.approx(bits, abs=1e-8)


# Ties


@pytest.mark.parametrize("side", [16, 32])
@pytest.mark.parametrize("seed", range(8))
def test_symmetric_copies_are_ties_broken_by_position(side: int, seed: int) -> None:
    """Copies, rotations, reflections and cyclic shifts of one patch share one entropy: the first 24 and the last 25 stay."""
    rng = np.random.default_rng(seed)
    base = texture(side, rng)
    cut = np.stack([symmetric_copy(base, rng) for _ in range(50 + 40 * seed)])
    assert patches.rank(cut, 49).tolist() == [*range(24), *range(len(cut) - 25, len(cut))]


@pytest.mark.parametrize("seed", range(4))
def test_two_tied_classes_are_separated_and_ordered_inside(seed: int) -> None:
    """Noise copies and gradient copies mixed at random: all gradients stand before all noise, each in order of position."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None, None] + 100, (32, 32, 3))
    is_noise = rng.random(120) < 0.5
    cut = np.stack([symmetric_copy(noise if noisy else ramp, rng) for noisy in is_noise])
    ranking = [*np.flatnonzero(~is_noise), *np.flatnonzero(is_noise)]
    assert patches.rank(cut, 49).tolist() == ranking[:24] + ranking[-25:]


def test_near_ties_below_single_precision_are_ranked_as_double_precision_ranks_them() -> None:
    """One pixel of one patch changed by one grey level: float32 cannot order them, float64 can."""
    rng = np.random.default_rng(5)
    base = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    cut = [base.copy() for _ in range(80)]
    for patch in cut:
        patch[tuple(rng.integers(32, size=2))][rng.integers(3)] ^= 1
    entropy = [reference_entropy(patch) for patch in cut]
    margin = patches.single_precision_margin(np.array(entropy), 32).min()
    assert np.diff(np.sort(entropy)).max() < margin, "the patches of this test must lie closer than float32 can tell"
    assert patches.rank(np.stack(cut), 49).tolist() == reference_choice(cut, 49)


# What the order of patches, pixels beyond the last patch and memory may not change


@properties
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 120))
def test_shuffling_distinct_patches_changes_nothing(seed: int, count: int) -> None:
    """Where no two entropies tie, the same patches are chosen in the same order, wherever they stood."""
    rng = np.random.default_rng(seed)
    cut = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    shuffle = rng.permutation(count)
    assert np.array_equal(cut[patches.rank(cut, 49)], cut[shuffle][patches.rank(cut[shuffle], 49)])


@properties
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 12), columns=st.integers(1, 12))
def test_shuffling_tied_patches_keeps_the_chosen_entropies(seed: int, rows: int, columns: int) -> None:
    """With ties other patches may be chosen, but of the same entropies."""
    rng = np.random.default_rng(seed)
    cut = patches.cut(tiled(rows, columns, 8, rng), 8)
    shuffled = cut[rng.permutation(len(cut))]
    entropies = [patches.spectral_entropy(some[patches.rank(some, 49)]) for some in (cut, shuffled)]
    np.testing.assert_allclose(*entropies, rtol=0, atol=1e-8)


def test_pixels_beyond_the_last_whole_patch_do_not_matter() -> None:
    """What is cropped at the bottom and on the right changes no pixel of the mosaic."""
    image = photographs()[0][:350, :350].copy()
    before = patches.select(image, PAPER)
    image[320:], image[:, 320:] = 0, 255
    assert np.array_equal(patches.select(image, PAPER), before)
    assert np.array_equal(patches.select(image[:320, :320], PAPER), before)


def test_memory_layout_and_read_only_images_do_not_matter() -> None:
    """Fortran order, strides, a mirror view and an image that may not be written give the mosaic of a plain copy."""
    image = photographs()[1]
    views = [np.asfortranarray(image), image[::-1, ::-1], image[::2, ::2], np.flip(image, 2)]
    for view in views:
        view.flags.writeable = False
        assert np.array_equal(patches.select(view, HALF), patches.select(np.ascontiguousarray(view), HALF))


def test_the_image_is_left_alone_and_the_mosaic_owns_its_pixels() -> None:
    """Selection writes nothing into its input, and writing into the mosaic does not reach the image, whatever the shape."""
    for height, width in ((64, 64), (32, 320), (320, 32), (32, 32)):
        image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
        before = image.copy()
        for params in (PAPER, PatchParams(patch_px=32, grid=1, fill="black")):
            mosaic = patches.select(image, params)
            assert not np.shares_memory(mosaic, image)
            mosaic[:] = 0
        assert np.array_equal(image, before)


def test_thread_count_does_not_matter() -> None:
    """One torch thread or two: the same choice."""
    threads = torch.get_num_threads()
    try:
        chosen = []
        for count in (1, 2):
            torch.set_num_threads(count)
            chosen.append(patches.rank(patches.cut(photographs()[0], 16), 49))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*chosen)


def test_a_quarter_turn_of_the_image_keeps_the_chosen_patches() -> None:
    """Entropy does not see the direction of a texture: a turned image gives the turned patches, in the same order."""
    image = photographs()[0][:320, :320]
    chosen = patches.cut(patches.select(image, PAPER), 32)
    turned = patches.cut(patches.select(np.rot90(image), PAPER), 32)
    assert np.array_equal(np.rot90(chosen, axes=(1, 2)), turned)


# Images of few patches


def row_of(count: int) -> tuple[np.ndarray, list[bytes]]:
    """An image of ``count`` distinct patches of 8 px side by side (no pixel black), and its patches' bytes in rank order."""
    image = np.random.default_rng(count).integers(1, 256, (8, 8 * count, 3), dtype=np.uint8)
    cut = reference_patches(image, 8)
    return image, [cut[position].tobytes() for position in reference_ranking(cut)]


def cells_of(mosaic: np.ndarray) -> list[bytes]:
    """The bytes of the cells of a 56 px mosaic, row by row."""
    return [patch.tobytes() for patch in reference_patches(mosaic, 8)]


@pytest.mark.parametrize("count", [*range(1, 50), 64, 165])
def test_black_fill_is_the_official_table(count: int) -> None:
    """The 24 lowest then the 25 highest, which overlap in images of few patches, then black cells."""
    image, ranked = row_of(count)
    lowest, highest = ranked[:24], ranked[-25:]
    black = [bytes(8 * 8 * 3)] * (49 - len(lowest) - len(highest))
    shown = cells_of(patches.select(image, SMALL))
    if count < 49:
        assert shown == lowest + highest + black
    else:
        assert shown == ranked[:24] + ranked[-25:]


@pytest.mark.parametrize(
    ("count", "filled", "distinct"),
    [(1, 2, 1), (16, 32, 16), (23, 46, 23), (24, 48, 24), (25, 49, 25), (48, 49, 48), (49, 49, 49), (64, 49, 49), (165, 49, 49)],
)
def test_black_fill_counts(count: int, filled: int, distinct: int) -> None:
    """How many cells are filled and how many patches are shown, as printed in DETECTORS.md, section 2.5."""
    image, _ = row_of(count)
    shown = Counter(cells_of(patches.select(image, SMALL)))
    black = shown.pop(bytes(8 * 8 * 3), 0)
    assert (49 - black, len(shown)) == (filled, distinct)
    assert max(shown.values()) <= 2


@pytest.mark.parametrize("count", [*range(1, 50), 64])
def test_repeat_fill_cycles_through_the_ranking(count: int) -> None:
    """Cell i shows the patch of rank i mod n, so that no patch is shown more than once oftener than another."""
    image, ranked = row_of(count)
    shown = cells_of(patches.select(image, PatchParams(patch_px=8, grid=7, fill="repeat")))
    chosen = ranked if count <= 49 else ranked[:24] + ranked[-25:]
    assert shown == [chosen[cell % len(chosen)] for cell in range(49)]


def test_fill_does_not_matter_where_nothing_is_missing() -> None:
    """An image of exactly 49 patches or more gives one mosaic, whatever the fill."""
    for image in (photographs()[0][:224, :224], photographs()[1]):
        black = PatchParams(patch_px=32, grid=7, fill="black")
        assert np.array_equal(patches.select(image, PAPER), patches.select(image, black))


@pytest.mark.parametrize(("height", "width"), [(31, 500), (500, 31), (1, 1), (31, 31)])
@pytest.mark.parametrize("fill", ["repeat", "black"])
def test_a_side_shorter_than_a_patch_is_an_error_that_says_so(height: int, width: int, fill: str) -> None:
    """The official code returns a black image in silence; here the error names both sizes."""
    params = PatchParams(patch_px=32, grid=7, fill=fill)
    with pytest.raises(ValueError, match=rf"{width}x{height} px.*shorter than a patch of 32 px"):
        patches.select(np.zeros((height, width, 3), np.uint8), params)


@pytest.mark.parametrize("wrong", [{"patch_px": 0}, {"grid": -1}, {"fill": "mirror"}, {"patch_px": 32.5}, {"cells": 49}])
def test_parameters_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    """Sizes below one, a fill nobody knows, half a pixel and unknown keys."""
    with pytest.raises(ParamsError, match=next(iter(wrong))):
        validate("patches", {"patch_px": 32, "grid": 7, "fill": "repeat", **wrong}, PatchParams)


def test_parameters_state_the_papers_mosaic() -> None:
    """49 cells, 224 px."""
    assert (PAPER.cells, PAPER.mosaic_px) == (49, 224)


# Cutting, laying out, permuting


@properties
@given(side=st.integers(1, 9), grid=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_cut_and_assemble_are_inverse(side: int, grid: int, seed: int) -> None:
    """Both ways, to the pixel, and both equal the loops of the reference."""
    params = PatchParams(patch_px=side, grid=grid, fill="repeat")
    cells = np.random.default_rng(seed).integers(0, 256, (grid**2, side, side, 3), dtype=np.uint8)
    mosaic = patches.assemble(cells, params)
    assert np.array_equal(mosaic, reference_mosaic(list(cells), grid))
    assert np.array_equal(patches.cut(mosaic, side), cells)
    assert np.array_equal(patches.assemble(patches.cut(mosaic, side), params), mosaic)


@properties
@given(height=st.integers(5, 40), width=st.integers(5, 40), side=st.integers(1, 5))
def test_cut_equals_the_loop(height: int, width: int, side: int) -> None:
    """Row by row, without what is left over."""
    image = np.arange(height * width * 3).astype(np.uint8).reshape(height, width, 3)
    assert np.array_equal(patches.cut(image, side), np.stack(reference_patches(image, side)))


@pytest.mark.parametrize("width", [8, 16, 17])
def test_cut_is_a_copy(width: int) -> None:
    """As its docstring says: writing into patches never reaches the image, not even where the image is one patch wide."""
    image = np.zeros((16, width, 3), np.uint8)
    assert not np.shares_memory(patches.cut(image, 8), image)


def permuted_by_loop(mosaic: torch.Tensor, order: torch.Tensor, grid: int) -> torch.Tensor:
    """Cell i of every mosaic shows what was its cell ``order[i]``."""
    out, side = mosaic.clone(), mosaic.shape[-1] // grid
    for b in range(len(mosaic)):
        for cell in range(grid**2):
            row, column = divmod(cell, grid)
            from_row, from_column = divmod(int(order[b, cell]), grid)
            there = mosaic[b, :, from_row * side : (from_row + 1) * side, from_column * side : (from_column + 1) * side]
            out[b, :, row * side : (row + 1) * side, column * side : (column + 1) * side] = there
    return out


def random_mosaics(dtype: torch.dtype, *, grid: int, side: int, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Four random mosaics of a type and a permutation for each."""
    rng = torch.Generator().manual_seed(grid * 100 + side)
    pixels = torch.randint(0, 256, (4, channels, grid * side, grid * side), generator=rng)
    orders = torch.stack([torch.randperm(grid**2, generator=rng) for _ in range(4)])
    return pixels.to(dtype), orders


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("grid", "side", "channels"), [(7, 3, 3), (1, 4, 3), (2, 5, 1), (7, 16, 3)])
def test_permute_equals_the_loop(dtype: torch.dtype, grid: int, side: int, channels: int) -> None:
    """For bytes and floats, any number of channels, and a permutation of each mosaic's own."""
    mosaic, order = random_mosaics(dtype, grid=grid, side=side, channels=channels)
    permuted = patches.permute_patches(mosaic, order, grid)
    assert permuted.dtype == dtype
    assert torch.equal(permuted, permuted_by_loop(mosaic, order, grid))


def test_permuting_by_the_identity_is_the_identity_and_by_the_inverse_the_way_back() -> None:
    """Two statements that hold for every permutation; narrow integer types serve as orders too."""
    mosaic, order = random_mosaics(torch.uint8, grid=7, side=4)
    identity = torch.arange(49).expand(4, 49)
    assert torch.equal(patches.permute_patches(mosaic, identity, 7), mosaic)
    there = patches.permute_patches(mosaic, order.to(torch.uint8), 7)
    assert torch.equal(patches.permute_patches(there, order.argsort(1), 7), mosaic)


def test_permuting_one_mosaic_leaves_its_neighbours_alone() -> None:
    """An image depends on itself alone."""
    mosaic, order = random_mosaics(torch.float32, grid=7, side=4)
    alone = torch.cat([patches.permute_patches(mosaic[b : b + 1], order[b : b + 1], 7) for b in range(4)])
    assert torch.equal(alone, patches.permute_patches(mosaic, order, 7))


def test_permuting_agrees_with_the_mosaic_of_permuted_patches() -> None:
    """The two layouts, (H, W, 3) of the shards and (B, C, H, W) of training, number the cells the same way."""
    cells = np.random.default_rng(0).integers(0, 256, (49, 16, 16, 3), dtype=np.uint8)
    order = np.random.default_rng(1).permutation(49)
    mosaic = torch.from_numpy(patches.assemble(cells, HALF)).permute(2, 0, 1)[None]
    permuted = patches.permute_patches(mosaic, torch.from_numpy(order)[None], 7)[0].permute(1, 2, 0)
    assert np.array_equal(permuted.numpy(), patches.assemble(cells[order], HALF))
