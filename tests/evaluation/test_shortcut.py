"""The shortcut: its numbers against loops over pairs."""

from __future__ import annotations

import numpy as np
import pytest

from nullscope.evaluation.shortcut import Coloured, chance_half_width, effect


def drawn(seed: int = 0, lean: float = 0.0, images: int = 90, ties: bool = True) -> Coloured:
    """Scores of a camera and two generators, with ties, that lean on the colour."""
    rng = np.random.default_rng(seed)
    subset = rng.choice(["camera", "vae", "vq"], images)
    is_fake, fake_colour = subset != "camera", rng.random(images) < 0.4
    logit = rng.normal(size=images) + is_fake + lean * fake_colour
    return Coloured(is_fake, fake_colour, subset, np.round(logit, 1) if ties else logit)


def chance_above(scores: Coloured, rows: list[int]) -> tuple[float, int]:
    """Wins and pairs of the fakes' colours over the reals' among some pictures, by counting."""
    wins, pairs = 0.0, 0
    for one in rows:
        for other in rows:
            if scores.is_fake_colour_N[one] and not scores.is_fake_colour_N[other]:
                pairs += 1
                wins += float(scores.logit_N[one] > scores.logit_N[other]) + 0.5 * (scores.logit_N[one] == scores.logit_N[other])
    return wins, pairs


@pytest.mark.parametrize("seed", range(4))
def test_colour_auroc_counts_the_pairs_of_every_label_and_generator(seed):
    scores, wins, pairs = drawn(seed, lean=0.5), 0.0, 0
    for subset in ("camera", "vae", "vq"):
        own_wins, own_pairs = chance_above(scores, list(np.flatnonzero(scores.subset_N == subset)))
        wins, pairs = wins + own_wins, pairs + own_pairs
    assert effect(scores)["colour_auroc"] == pytest.approx(wins / pairs)


def test_a_subset_of_reals_and_fakes_is_two_groups():
    """A real is never compared with a fake: that would measure the detector, not the colour."""
    is_fake = np.array([False, False, True, True])
    scores = Coloured(is_fake, ~is_fake, np.array(["a"] * 4), np.array([0.0, 1, 2, 3]))
    assert "colour_auroc" not in effect(scores)
    mixed = Coloured(is_fake, np.array([False, True, False, True]), np.array(["a"] * 4), np.array([5.0, 6, 1, 2]))
    assert effect(mixed)["colour_auroc"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_agreement_is_that_of_counting(seed):
    scores = drawn(seed, lean=1.0)
    found = effect(scores)
    for word, agrees in (("agree", True), ("conflict", False)):
        rows = [at for at in range(90) if (scores.is_fake_N[at] == scores.is_fake_colour_N[at]) == agrees]
        fakes, reals = [at for at in rows if scores.is_fake_N[at]], [at for at in rows if not scores.is_fake_N[at]]
        logit = scores.logit_N
        area = np.mean([(logit[f] > logit[r]) + 0.5 * (logit[f] == logit[r]) for f in fakes for r in reals])
        balanced = (np.mean([logit[at] > 0 for at in fakes]) + np.mean([logit[at] <= 0 for at in reals])) / 2
        assert (found[f"auroc_{word}"], found[f"balanced_{word}"]) == pytest.approx((area, balanced))
    assert found["auroc_drop"] == pytest.approx(found["auroc_conflict"] - found["auroc_agree"])
    assert found["auroc_drop"] < 0, "these scores lean on the colour"


def test_a_detector_of_colours_is_found_out_and_a_blind_one_is_not():
    blind = drawn(1, images=4000)
    sees = Coloured(blind.is_fake_N, blind.is_fake_colour_N, blind.subset_N, blind.is_fake_colour_N.astype(float))
    assert effect(sees) == pytest.approx(
        {"colour_auroc": 1, "auroc_agree": 1, "auroc_conflict": 0, "auroc_drop": -1}
        | {"balanced_agree": 1, "balanced_conflict": 0, "balanced_drop": -1}
    )
    assert abs(effect(blind)["colour_auroc"] - 0.5) < 1.5 * chance_half_width(blind)


def test_colour_auroc_knows_only_the_order_and_turns_round_with_the_colours():
    scores = drawn(2, lean=0.7)
    area = effect(scores)["colour_auroc"]
    stretched = Coloured(scores.is_fake_N, scores.is_fake_colour_N, scores.subset_N, np.exp(scores.logit_N) + 7)
    swapped = Coloured(scores.is_fake_N, ~scores.is_fake_colour_N, scores.subset_N, scores.logit_N)
    assert effect(stretched)["colour_auroc"] == pytest.approx(area)
    assert effect(swapped)["colour_auroc"] == pytest.approx(1 - area)


@pytest.mark.slow
def test_chance_is_what_shuffled_colours_do():
    scores, rng, areas = drawn(3, ties=False), np.random.default_rng(0), []
    for _ in range(250):
        colour_N = scores.is_fake_colour_N.copy()
        for subset in ("camera", "vae", "vq"):
            own = np.flatnonzero(scores.subset_N == subset)
            colour_N[own] = rng.permutation(colour_N[own])
        areas.append(effect(Coloured(scores.is_fake_N, colour_N, scores.subset_N, scores.logit_N))["colour_auroc"])
    assert 1.96 * np.std(areas) == pytest.approx(chance_half_width(scores), rel=0.15)
