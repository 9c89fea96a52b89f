"""NS-Net's figure 1: which images make the sets, and what the projection does to them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from nullscope.evaluation.semantics import Basis, compare, matched, mismatched, unit
from nullscope.evaluation.separation import Features
from nullscope.ops import null_space, projection

WIDTH, MEANING = 12, 6


def texts(count: int, rng: np.random.Generator, width: int = 5) -> np.ndarray:
    return unit(rng.normal(size=(count, width)))


@pytest.mark.parametrize(("reals", "fakes"), [(4, 6), (5, 5), (6, 3)])
def test_matched_pairs_have_the_largest_cosines_in_sum(reals, fakes):
    rng = np.random.default_rng(reals)
    text_ND, order = texts(reals + fakes, rng), rng.permutation(reals + fakes)
    real, fake = order[:reals], order[reals:]
    count = min(reals, fakes)
    rows = matched(text_ND, real, fake, count)
    short, long = (real, fake) if reals <= fakes else (fake, real)
    best = max(
        sum(text_ND[a] @ text_ND[b] for a, b in zip(short, chosen, strict=True)) for chosen in itertools.permutations(long, count)
    )
    assert set(rows[:count]) <= set(real) and set(rows[count:]) <= set(fake) and len(set(rows)) == 2 * count, "one to one"
    assert sum(text_ND[a] @ text_ND[b] for a, b in zip(rows[:count], rows[count:], strict=True)) == pytest.approx(best)


def test_of_the_pairs_the_nearest_are_taken():
    rng = np.random.default_rng(0)
    text_ND, real, fake = texts(24, rng), np.arange(10), np.arange(10, 24)
    every, some = matched(text_ND, real, fake, 10), matched(text_ND, real, fake, 4)
    cosine = [text_ND[a] @ text_ND[b] for a, b in zip(every[:10], every[10:], strict=True)]
    assert cosine == sorted(cosine, reverse=True)
    assert list(some) == [*every[:4], *every[10:14]]


@pytest.mark.slow
def test_mismatched_sets_are_the_ends_of_what_captions_differ_in_most():
    rng = np.random.default_rng(1)
    text_ND = rng.normal(size=(60, 5)) * [0.2, 3, 0.2, 0.2, 0.2] + 10  # spread along one axis, far from the origin
    real, fake = np.arange(0, 60, 3), np.setdiff1d(np.arange(60), np.arange(0, 60, 3))
    rows = mismatched(text_ND, real, fake, 8)
    assert sorted(rows[:8]) == sorted(real[np.argsort(text_ND[real, 1])[:8]])
    assert sorted(rows[8:]) == sorted(fake[np.argsort(text_ND[fake, 1])[-8:]])


def test_arrays_are_projected_as_the_detectors_tensors():
    rng = np.random.default_rng(2)
    features, basis = rng.normal(size=(7, WIDTH)), np.linalg.qr(rng.normal(size=(WIDTH, 3)))[0]
    reference = null_space.remove(torch.from_numpy(features), torch.from_numpy(basis)).numpy()
    np.testing.assert_allclose(projection.remove(features, basis), reference, atol=1e-12)


def pictures(trace: float) -> tuple[Features, np.ndarray]:
    """Pictures of six things in turn: features of what they show, and a trace of their making; the captions' features."""
    rng = np.random.default_rng(3)
    meaning = np.eye(MEANING)[rng.integers(0, MEANING, 300)] @ np.diag([4, 1, 1, 1, 1, 1])
    is_fake = rng.random(300) < 0.6
    made = rng.normal(size=(300, WIDTH - MEANING)) + trace * is_fake[:, None]
    captions = np.hstack([meaning + 0.01 * rng.normal(size=meaning.shape), np.zeros_like(made)])
    features = np.hstack([meaning + 0.1 * rng.normal(size=meaning.shape), made]).astype(np.float32)
    return Features([str(at) for at in range(300)], features, is_fake, is_fake), captions


@pytest.mark.parametrize("trace", [0.0, 3.0])
def test_mismatched_sets_separate_by_meaning_until_it_is_removed(trace):
    """Without a trace there is nothing else to tell by; with a clear one everything separates."""
    own, captions = pictures(trace)
    found = compare("probe", "crop", own, captions, Basis("ours", np.eye(WIDTH, MEANING, dtype=np.float32)))
    area = {key: value.mean for key, value in found.auroc.items()}
    assert area["captions", "mismatched"] > 0.95 and abs(area["captions", "matched"] - 0.5) < 0.12
    assert area["before", "mismatched"] > 0.95
    assert found.count == int((~own.is_fake_N).sum()) // 2 == len(found.place["after", "matched"]) // 2
    for key in (("before", "matched"), ("after", "matched"), ("after", "mismatched")):
        assert (area[key] > 0.95) if trace else abs(area[key] - 0.5) < 0.12, key


def test_too_few_images_have_no_sets():
    own, captions = pictures(0)
    few = Features(own.image_ids[:12], own.feature_NK[:12], own.is_fake_N[:12], own.is_seen_N[:12])
    assert compare("probe", "crop", few, captions[:12], Basis("ours", np.eye(WIDTH, 2, dtype=np.float32))) is None
