"""The shortcut: its numbers against loops over pairs, its colours against the world that lays it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nullscope.core.contracts import CAPTIONS, CLEAN, SCORES
from nullscope.report.inputs import read_inputs
from nullscope.report.shortcut import Coloured, chance_half_width, effect, fake_colour
from nullscope.tables.parquet import read_table
from nullscope.world.render import Job, render
from nullscope.world.scenes import FAKE_COLOURS, REAL_COLOURS


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
def test_agreement_is_judged_by_counting(seed):
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


def test_chance_is_what_shuffled_colours_do():
    scores, rng, areas = drawn(3, ties=False), np.random.default_rng(0), []
    for _ in range(250):
        colour_N = scores.is_fake_colour_N.copy()
        for subset in ("camera", "vae", "vq"):
            own = np.flatnonzero(scores.subset_N == subset)
            colour_N[own] = rng.permutation(colour_N[own])
        areas.append(effect(Coloured(scores.is_fake_N, colour_N, scores.subset_N, scores.logit_N))["colour_auroc"])
    assert 1.96 * np.std(areas) == pytest.approx(chance_half_width(scores), rel=0.15)


@pytest.mark.parametrize(
    ("caption", "side"),
    [
        ("a small red circle on sand before sky", False),
        ("A large PURPLE star.", True),
        ("a red circle on red sand", False),
        ("a circle on sand", None),
        ("a red and green circle", None),
        ("a reddish circle on evergreen planks", None),
    ],
)
def test_a_caption_tells_its_colour_if_it_names_exactly_one(caption, side):
    assert fake_colour(caption) is side


def test_the_colours_are_those_of_the_world():
    """Every training picture of a world that is all shortcut has a colour of its label's half, and no half goes unused."""
    for maker, expected, colours in (("camera", False, REAL_COLOURS), ("nearest", True, FAKE_COLOURS)):
        captions = [render(Job(0, "train", maker, number, 1.0)).caption for number in range(16)]
        assert {fake_colour(caption) for caption in captions} == {expected}
        assert {word for caption in captions for word in caption.split()} & {*REAL_COLOURS, *FAKE_COLOURS} == set(colours)


def test_the_project_shows_which_detector_leans_on_the_colour(project):
    found = read_inputs(project[0]).insight.shortcut
    captions = {row["image_id"]: row["caption"] for row in read_table(project[0] / "data/captions.parquet", CAPTIONS).to_pylist()}
    rows = read_table(project[0] / "scores/clip_lora-1.parquet", SCORES).to_pylist()
    rows = [row for row in rows if row["degradation"] == CLEAN]
    kept = [(row, side) for row in rows if (side := fake_colour(captions[row["image_id"]])) is not None]
    wins, pairs = 0.0, 0
    for one, one_side in kept:
        for other, other_side in kept:
            if one["subset"] == other["subset"] and one_side and not other_side:
                pairs += 1
                wins += one["logit"] > other["logit"]
    assert found.runs["clip_lora-1"]["colour_auroc"] == pytest.approx(wins / pairs)
    assert (found.share, found.pictures, found.left_out) == (0.75, len(kept), len(rows) - len(kept))
    assert found.left_out == 2 * 5
    assert found.runs["clip_lora-1"]["colour_auroc"] > 0.5 + found.chance > found.runs["ns_net-1"]["colour_auroc"]


def test_other_data_sets_have_no_shortcut_and_need_no_colours(project_copy):
    params = {"run": {"detectors": ["ns_net"], "seeds": [0]}, "pipeline": {"world": []}, "shard": {"prepare": []}}
    params |= {"dataset": {"name": "folder", "world": None}}
    (project_copy / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    (project_copy / "data/captions.parquet").write_text("hashed, not read", encoding="utf-8")
    assert read_inputs(project_copy).insight.shortcut is None
