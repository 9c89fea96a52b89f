"""The protocol: rows, means, intervals, what is left out and what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from nullscope.core.contracts import CLEAN, SCORES, check_schema
from nullscope.evaluation import metrics
from nullscope.evaluation.generators import forecast
from nullscope.evaluation.intervals import newcombe, on_logit_scale, wilson
from nullscope.evaluation.protocol import NONE_SEEN, PROTOCOL, evaluate, evaluate_with_resamples
from nullscope.evaluation.resampling import resample_schema
from nullscope.evaluation.scores import index_counts, seen_subsets


@pytest.fixture
def drawn():
    """200 images whose logits overlap and tie, unbalanced: (is_fake_N, logit_N)."""
    rng = np.random.default_rng(7)
    is_fake = rng.random(200) < 0.3
    return is_fake, np.round(rng.normal(size=200) + is_fake, 1)


def table(*rows: tuple[str, int, list[float]], degradation: str = CLEAN) -> pa.Table:
    """Return a scores table of (subset, label, logits) groups."""
    flat = [(subset, label, logit) for subset, label, logits in rows for logit in logits]
    subset, label, logit = map(list, zip(*flat, strict=True))
    ids, split, degraded = [str(i) for i in range(len(flat))], ["test"] * len(flat), [degradation] * len(flat)
    return pa.table([ids, split, subset, label, degraded, logit], schema=SCORES)


def test_subsets_with_reals_of_their_own_are_averaged_without_weights():
    scores = table(("a", 0, [-1, 1]), ("a", 1, [1, 1]), ("b", 0, [-1]), ("b", 1, [1, -1, -1, -1]))
    found = evaluate(scores, frozenset({"a"}))
    assert (found["r_acc"], found["f_acc"]) == ((0.5 + 1) / 2, (1 + 0.25) / 2)
    assert found["acc"] == pytest.approx((3 / 4 + 2 / 5) / 2)
    assert found["mean_fakes"] == found["f_acc"]
    assert found["mean_real_fakes"] == pytest.approx((0.75 + 1 + 0.25) / 3, abs=1e-6)
    assert found["mean_balanced"] == pytest.approx((0.75 + 0.625) / 2)
    assert found["balanced_acc"] == pytest.approx((2 / 3 + 3 / 6) / 2, abs=1e-6)
    assert (found["f_acc_seen"], found["f_acc_unseen"]) == (1, 0.25)
    assert (found["acc_seen"], found["acc_unseen"]) == (0.75, 0.4)
    assert (found["n_real"], found["n_fake"]) == (3, 6)


def test_subsets_without_reals_are_compared_with_the_shared_ones():
    camera, lens, own = ("camera", 0, [-3, -1, 1]), ("lens", 0, [-1]), [("own", 0, [5]), ("own", 1, [6])]
    found = evaluate(table(camera, lens, ("x", 1, [2, -2]), *own), NONE_SEEN)
    x = found["subsets"]["x"]
    assert (x["n_real"], x["n_fake"], x["r_acc"], x["f_acc"]) == (4, 2, 0.75, 0.5)
    assert x["acc"] == pytest.approx(4 / 6, abs=1e-6)
    assert x["auroc"] == roc_auc_score([0, 0, 0, 0, 1, 1], [-3, -1, 1, -1, 2, -2])
    assert "tpr_5" not in x, "four reals do not say where 5 % of them lie"
    camera = found["subsets"]["camera"]
    assert (camera["r_acc"], camera["n_real"], camera["n_fake"]) == (0.666667, 3, 0)
    assert set(camera) == {"r_acc", "r_acc_low", "r_acc_high", "n_real", "n_fake"}
    assert found["subsets"]["own"]["r_acc"] == 0, "a subset with reals of its own is compared with those"
    assert found["r_acc"] == (0.75 + 0) / 2, "one entry per row with fakes, none for `camera` and `lens`"
    assert (found["n_real"], found["n_fake"]) == (5, 3), "shared reals are counted once"


def test_a_named_subset_lends_its_reals_and_the_pool_lends_to_the_rest():
    lenders = ("imagenet", 0, [-1, -1, -1, 1]), ("laion", 0, [1, 1])
    scores = table(*lenders, ("guided", 1, [2]), ("ldm", 1, [2]), ("other", 1, [2]), ("own", 0, [-5, -4]), ("own", 1, [3]))
    found = evaluate(scores, NONE_SEEN, {"guided": "imagenet", "ldm": "laion", "own": "laion"})["subsets"]
    assert (found["guided"]["n_real"], found["guided"]["r_acc"], found["guided"]["acc"]) == (4, 0.75, 0.8)
    assert (found["ldm"]["n_real"], found["ldm"]["r_acc"]) == (2, 0)
    assert (found["own"]["n_real"], found["own"]["r_acc"]) == (2, 0), "a name goes before the subset's own reals"
    assert (found["other"]["n_real"], found["other"]["r_acc"]) == (6, 0.5), "the pool holds all that are only reals"


def test_a_subset_with_fakes_may_lend_its_reals_too():
    scores = table(("a", 0, [-1, 1]), ("a", 1, [2]), ("b", 1, [2]))
    found = evaluate(scores, NONE_SEEN, {"b": "a"})
    assert (found["subsets"]["b"]["n_real"], found["subsets"]["b"]["r_acc"], found["n_real"]) == (2, 0.5, 2)


@pytest.mark.parametrize(
    ("reals", "message"),
    [
        (
            {"x": "imagnet"},
            "the subset that lends its reals to 'x' is 'imagnet', which has no reals in the test split; "
            "subsets with reals: camera, own",
        ),
        ({"x": "x"}, "the subset that lends its reals to 'x' is 'x', which has no reals .* subsets with reals: camera, own"),
        ({"y": "camera"}, "the subset is 'y', which has no fakes in the test split; subsets with fakes: own, x"),
        ({"camera": "own"}, "the subset is 'camera', which has no fakes"),
    ],
)
def test_a_name_that_the_test_set_does_not_have_is_refused(reals, message):
    scores = table(("camera", 0, [-1]), ("x", 1, [2]), ("own", 0, [-1]), ("own", 1, [1]))
    with pytest.raises(ValueError, match=message):
        evaluate(scores, NONE_SEEN, reals)


RATES = {"r_acc", "f_acc", "acc"}
CURVES = {"ap", "auroc"}
PROBABILITIES = {"brier", "miscalibration"}


def with_ends(keys: set[str]) -> set[str]:
    """Return the keys and those of their intervals."""
    return {key + end for key in keys for end in ("", "_low", "_high")}


def test_what_is_not_defined_is_left_out():
    fakes = evaluate(table(("x", 1, [1, -1])), NONE_SEEN)
    assert set(fakes) == with_ends({"f_acc", "mean_fakes", "f_acc_unseen"}) | {"protocol", "n_real", "n_fake", "subsets"}
    assert set(fakes["subsets"]["x"]) == with_ends({"f_acc"}) | {"n_real", "n_fake", "seen"}
    reals = evaluate(table(("camera", 0, [1, -1]), ("lens", 0, [-1, -1])), NONE_SEEN)
    assert set(reals) == with_ends({"r_acc"}) | {"protocol", "n_real", "n_fake", "subsets"}
    assert (reals["r_acc"], reals["n_real"], reals["n_fake"]) == (0.75, 4, 0)
    assert set(reals["subsets"]["camera"]) == with_ends({"r_acc"}) | {"n_real", "n_fake"}


def test_the_fields_are_the_contract():
    logits = list(np.linspace(-3, 1, 99))
    found = evaluate(table(("a", 0, logits), ("a", 1, [1, 2]), ("b", 1, [1, 2]), ("camera", 0, logits)), frozenset({"a"}))
    numbers = RATES | CURVES | {"tpr_1", "tpr_5"}
    means = numbers | {"mean_real_fakes", "mean_fakes", "mean_balanced"}
    means |= {f"{key}_{word}" for key in (numbers | {"balanced_acc"}) - {"r_acc"} for word in ("seen", "unseen")}
    assert set(found) == with_ends(means) | PROBABILITIES | {"balanced_acc", "n_real", "n_fake", "protocol", "subsets", "sources"}
    row = with_ends(numbers | {"balanced_acc"}) | PROBABILITIES | {"n_real", "n_fake", "seen"}
    assert set(found["subsets"]["a"]) == set(found["subsets"]["b"]) == row
    assert (found["subsets"]["a"]["seen"], found["subsets"]["b"]["seen"]) == (True, False)
    assert found["protocol"] == PROTOCOL == 3
    json.dumps(found, allow_nan=False)


def test_a_row_holds_what_the_functions_say(drawn):
    is_fake, logit = drawn
    row = evaluate(table(("a", 0, list(logit[~is_fake])), ("a", 1, list(logit[is_fake]))), NONE_SEEN)["subsets"]["a"]
    expected = {"balanced_acc": metrics.balanced_accuracy(*drawn), "brier": metrics.brier(*drawn)}
    expected |= {"ap": metrics.average_precision(*drawn), "auroc": metrics.auroc(*drawn), "acc": metrics.accuracy(*drawn)}
    expected |= {"tpr_1": metrics.tpr_at_fpr(*drawn, 0.01), "tpr_5": metrics.tpr_at_fpr(*drawn, 0.05)}
    expected |= {"miscalibration": metrics.miscalibration(*drawn)}
    assert {key: row[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    reals, fakes = int((~is_fake).sum()), int(is_fake.sum())
    ends = {"r_acc": wilson(row["r_acc"], reals), "f_acc": wilson(row["f_acc"], fakes)}
    rates = [row["r_acc"], row["f_acc"]]
    ends |= {"acc": newcombe(rates, [reals, fakes], [reals / len(logit), fakes / len(logit)])}
    ends |= {"balanced_acc": newcombe(rates, [reals, fakes], [0.5, 0.5])}
    for key, pair in ends.items():
        assert (row[f"{key}_low"], row[f"{key}_high"]) == pytest.approx(pair, abs=3e-6)


def test_a_mean_over_one_subset_is_that_subset(drawn):
    is_fake, logit = drawn
    found = evaluate(table(("a", 0, list(logit[~is_fake])), ("a", 1, list(logit[is_fake]))), NONE_SEEN)
    row = found["subsets"]["a"]
    for key in CURVES:
        for end in ("", "_low", "_high"):
            assert found[key + end] == found[f"{key}_unseen{end}"] == row[key + end]
    assert found["mean_balanced"] == row["balanced_acc"]


def test_the_resamples_of_the_means_are_what_the_intervals_are_of(drawn):
    is_fake, logit = drawn
    scores = table(("a", 0, list(logit[~is_fake])), ("a", 1, list(logit[is_fake])), ("b", 1, [0.5, -0.5, 3]))
    found, resamples = evaluate_with_resamples(scores, frozenset({"b"}), {"b": "a"})
    assert found == evaluate(scores, frozenset({"b"}), {"b": "a"})
    assert resamples["resample"].to_pylist() == list(range(1001))
    keys = resamples.column_names[1:]
    means = [key for key in keys if "/" not in key]
    assert means == sorted(key.removesuffix("_low") for key in found if key.endswith("_low"))
    for key in means:
        observed, *values = resamples[key].to_pylist()
        assert found[key] == round(observed, 6)
        if 0 < observed < 1 and not key.startswith("tpr_"):
            ends = on_logit_scale(observed, np.std(values, ddof=1))
            assert [found[f"{key}_low"], found[f"{key}_high"]] == pytest.approx(ends, abs=1e-6)
    for key in set(keys) - set(means):
        name, subset = key.split("/")
        assert found["subsets"][subset][name] == round(resamples[key][0].as_py(), 6)
    assert set(keys) - set(means) == {f"{key}/{subset}" for key in ("auroc", "f_acc") for subset in "ab"}
    check_schema(resamples.schema, resample_schema(keys), "resamples")
    columns = [resamples[key].to_numpy() for key in ("r_acc", "f_acc_seen", "f_acc_unseen")]  # one subset is seen, one is not
    np.testing.assert_allclose(resamples["mean_real_fakes"].to_numpy(), np.mean(columns, axis=0))


def test_a_perfect_number_is_not_said_to_be_certain():
    """Resamples of 20 right answers are all right. Wilson's interval of the smaller kind stands for them."""
    found = evaluate(table(("a", 0, [-1] * 40), ("a", 1, [1] * 20), ("b", 0, [-1] * 40), ("b", 1, [1] * 20)), NONE_SEEN)
    row, ends = found["subsets"]["a"], wilson(1.0, 20)
    assert (row["auroc"], row["auroc_low"], row["auroc_high"]) == pytest.approx((1, *ends), abs=1e-6)
    assert (found["auroc_low"], found["f_acc_low"]) == pytest.approx((ends[0], ends[0]), abs=1e-6)
    assert found["r_acc_low"] == pytest.approx(wilson(1.0, 40)[0], abs=1e-6)


def test_a_mean_without_some_subsets_says_which():
    reals = list(np.linspace(-3, 1, 25))
    rows = [("a", 0, reals), ("a", 1, [1.0]), ("b", 0, reals[:5]), ("b", 1, [1.0]), ("c", 1, [1.0]), ("c", 0, [])]
    found = evaluate(table(*rows), NONE_SEEN)
    assert found["left_out"] == {
        "r_acc": ["c"],
        "acc": ["c"],
        "balanced_acc": ["c"],
        "ap": ["c"],
        "auroc": ["c"],
        "tpr_5": ["b", "c"],
    }
    assert found["tpr_5"] == found["subsets"]["a"]["tpr_5"]
    assert (
        "left_out" not in evaluate(table(*rows[:4]), NONE_SEEN)
        or "auroc" not in evaluate(table(*rows[:4]), NONE_SEEN)["left_out"]
    )


def test_the_interval_over_generators_is_of_unseen_ones_and_needs_three():
    rng = np.random.default_rng(0)
    rows = [("camera", 0, list(rng.normal(-1, 1, 60)))]
    rows += [(name, 1, list(rng.normal(shift, 1, 50))) for name, shift in (("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 3.0))]
    found, resamples = evaluate_with_resamples(table(*rows), frozenset({"d"}))
    own = {name: resamples[f"auroc/{name}"].to_numpy()[1:] for name in "abc"}
    ends = forecast(found["auroc_unseen"], own)
    assert (found["auroc_unseen_generators_low"], found["auroc_unseen_generators_high"]) == pytest.approx(ends, abs=2e-6)
    assert found["auroc_unseen_generators_low"] < found["auroc_unseen_low"]
    assert not [key for key in evaluate(table(*rows), frozenset("bcd")) if "generators" in key]


def test_groups_take_the_place_of_images():
    """Every image four times: the interval is that of the images once, for closed forms too."""
    once = table(("a", 0, list(np.linspace(-2, 1, 40))), ("a", 1, list(np.linspace(-1, 2, 40))))
    groups = [f"g{at}" for at in range(80)]
    alone = evaluate(once.append_column("group", pa.array(groups)))["subsets"]["a"]
    copied = pa.concat_tables([once] * 4).append_column("group", pa.array(groups * 4))
    grouped, pretended = evaluate(copied)["subsets"]["a"], evaluate(pa.concat_tables([once] * 4))["subsets"]["a"]
    for key in ("r_acc", "f_acc", "auroc", "balanced_acc"):
        widths = [row[f"{key}_high"] - row[f"{key}_low"] for row in (alone, grouped, pretended)]
        assert widths[1] == pytest.approx(widths[0], rel=0.02)
        assert widths[2] == pytest.approx(widths[0] / 2, rel=0.2)


def interleaved(scores: pa.Table, seed: int) -> pa.Table:
    """Return the rows of all subsets and labels shuffled, each stratum's own in their order."""
    strata = [f"{row['subset']}/{row['label']}" for row in scores.select(["subset", "label"]).to_pylist()]
    waiting = {name: [i for i, other in enumerate(strata) if other == name] for name in set(strata)}
    return scores.take([waiting[name].pop(0) for name in np.random.default_rng(seed).permutation(strata)])


def test_numbers_are_rounded_and_do_not_depend_on_the_order_of_rows(drawn):
    is_fake, logit = drawn
    scores = table(("a", 0, list(logit[~is_fake])), ("a", 1, list(logit[is_fake])), ("b", 1, [0.5, -0.5, 3]))
    found = evaluate(scores, NONE_SEEN)
    other = evaluate(interleaved(scores, 1), NONE_SEEN)
    assert json.dumps(found, sort_keys=True) == json.dumps(other, sort_keys=True)
    shuffled = evaluate(scores.take(np.random.default_rng(1).permutation(scores.num_rows)), NONE_SEEN)
    ends = [key for key in found if key.endswith(("_low", "_high"))]
    assert ends, "the bootstrap draws by position: another order is another, equally good draw"
    assert [(key, found[key]) for key in found if key not in (*ends, "subsets")] == [
        (key, shuffled[key]) for key in found if key not in (*ends, "subsets")
    ]
    assert found["ap"] == round(found["ap"], 6)


def test_other_degradations_are_nested():
    clean = table(("a", 0, [-1]), ("a", 1, [1]))
    both = pa.concat_tables([clean, table(("a", 0, [1]), ("a", 1, [1]), degradation="jpeg_75")])
    found = evaluate(both, NONE_SEEN)
    degraded = found.pop("degradations")["jpeg_75"]
    assert (degraded["r_acc"], degraded["mean_balanced"]) == (0, 0.5)
    assert not [key for key in degraded if key.endswith(("_low", "_high"))], "the bootstrap is of the clean images only"
    ends = {key.removesuffix("_low") for key in degraded["subsets"]["a"] if key.endswith("_low")}
    assert ends == RATES | {"balanced_acc"} and set(degraded["subsets"]["a"]) >= CURVES
    assert "protocol" not in degraded
    assert found == evaluate(clean, NONE_SEEN)
    with pytest.raises(ValueError, match="'none', found \\['jpeg_75'\\]"):
        evaluate(table(("a", 0, [1]), degradation="jpeg_75"), NONE_SEEN)


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match=r"expected finite logits, found 1 of 2 that are not: .* probabilities of 0 or 1"):
        evaluate(table(("a", 0, [-1, math.nan])), NONE_SEEN)
    with pytest.raises(ValueError, match=r"expected the labels 0 \(real\) and 1 \(fake\), found \[0, 2\]"):
        evaluate(table(("a", 0, [-1]), ("a", 2, [-1])), NONE_SEEN)


def test_a_subset_is_seen_if_its_generator_was_trained_on():
    columns = ["split", "subset", "generator", "label"]
    rows = [
        ("train", "a", "vae", 1), ("train", "a", "vae", 1), ("train", "a", "real", 0),
        ("test", "camera", "real", 0), ("test", "first", "vae", 1), ("test", "second", "gan", 1),
        ("test", "mixed", "vae", 1), ("test", "mixed", "gan", 1), ("test", "own", "real", 0), ("test", "own", "gan", 1),
    ]  # fmt: skip
    batches = pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True))).to_batches(max_chunksize=3)
    counts = index_counts(batches)
    assert counts["train", "a", "vae", 1] == 2
    assert counts.total() == len(rows)
    assert seen_subsets(counts) == {"first", "mixed"}


def test_the_module_starts_without_torch():
    code = "import sys, nullscope.evaluation.protocol; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
