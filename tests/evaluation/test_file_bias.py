"""File bias: what is planted is found, what is not there is not, and repeated images add nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from nullscope.core.contracts import FAKE, REAL
from nullscope.evaluation import file_bias, file_facts
from nullscope.evaluation.file_bias import COLUMNS, FACTS, biased_facts
from nullscope.evaluation.file_bias import measure_file_bias as measure
from nullscope.evaluation.intervals import wilson
from nullscope.tables.index import INDEX

LABELS = {"real": REAL, "fake": FAKE}


def files(count: int, kind: str, *, subset: str = "s", split: str = "test", seed: int = 0, **facts) -> pa.Table:
    """Rows of distinct images whose facts are drawn alike for every kind, but for the columns in ``facts``.

    ``facts`` are columns of the index or ``per_pixel``, the bytes per pixel: one value, or one per row.
    """
    rng = np.random.default_rng([seed, *kind.encode(), *subset.encode(), *split.encode()])
    columns = {
        "width": rng.integers(200, 1000, count),
        "height": rng.integers(200, 1000, count),
        "format": rng.choice(["JPEG", "PNG"], count),
        "jpeg_quality": rng.integers(60, 100, count),
        "per_pixel": rng.uniform(0.2, 2, count),
    }
    columns |= {name: np.broadcast_to(value, count) for name, value in facts.items()}
    columns["bytes"] = np.ceil(columns.pop("per_pixel") * columns["width"] * columns["height"]).astype(int)
    columns["jpeg_quality"] = pa.array(columns["jpeg_quality"], pa.int16(), mask=columns["format"] != "JPEG")
    columns["image_id"] = [rng.bytes(32).hex() for _ in range(count)]
    same = {"split": split, "subset": subset, "generator": "real" if kind == "real" else subset, "label": LABELS[kind]}
    columns |= {name: [value] * count for name, value in same.items()} | {"source": columns["image_id"]}
    columns |= {name: [None] * count for name in ("source_of_real", "group", "released")}
    return pa.table([pa.array(columns[field.name], field.type) for field in INDEX], schema=INDEX)


def both(count: int = 150, *, real: dict | None = None, fake: dict | None = None, **where) -> pa.Table:
    """``count`` reals and as many fakes, each with facts of their own."""
    return pa.concat_tables([files(count, "real", **where, **(real or {})), files(count, "fake", **where, **(fake or {}))])


def within(table: pa.Table, subset: str = "s", **options) -> dict:
    """The cross-validated numbers of one test subset."""
    return measure(table, **options)["test"]["subsets"][subset]["cross_validated"]


def with_column(table: pa.Table, name: str, value: object) -> pa.Table:
    at = INDEX.get_field_index(name)
    return table.set_column(at, INDEX.field(at), pa.array([value] * table.num_rows, INDEX.field(at).type))


def shuffled(table: pa.Table, seed: int = 0) -> pa.Table:
    return table.take(np.random.default_rng(seed).permutation(table.num_rows))


# Planted bias


@pytest.mark.parametrize(
    ("fact", "real", "fake"),
    [
        ("format", {"format": "WEBP"}, {"format": "PNG"}),
        ("size", {}, {"width": 512, "height": 512}),
        ("bytes_per_pixel", {"per_pixel": 0.5}, {"per_pixel": 1.5}),
        ("jpeg_quality", {"format": "JPEG", "jpeg_quality": 75}, {"format": "JPEG", "jpeg_quality": 95}),
    ],
)
def test_a_planted_fact_is_found_and_no_other(fact, real, fake):
    found = measure(both(real=real, fake=fake))
    own = found["test"]["subsets"]["s"]
    assert biased_facts(own) == [fact, "all"]
    assert own["cross_validated"][fact]["balanced_acc"] > 0.98
    assert own["cross_validated"][fact]["auroc"] > 0.98
    assert found["biased_subsets"] == {name: int(name in (fact, "all")) for name in FACTS}
    assert all(0.4 < own["cross_validated"][name]["balanced_acc"] < 0.6 for name in FACTS if name not in (fact, "all"))


def test_not_being_a_jpeg_is_a_value_of_the_quality():
    rates = within(both(real={"format": "JPEG"}, fake={"format": "PNG"}))
    assert rates["jpeg_quality"]["balanced_acc"] == rates["format"]["balanced_acc"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_what_only_a_conjunction_tells_is_seen_by_all_facts_together(seed):
    """Reals are large as JPEG and small as PNG, fakes the other way round: each alone says nothing."""
    rng = np.random.default_rng(seed)
    planted = {}
    for kind in LABELS:
        is_png, side = rng.random(300) < 0.5, rng.integers(200, 500, (2, 300))
        side = np.where(is_png == (kind == "fake"), side + 300, side)
        planted[kind] = {"format": np.where(is_png, "PNG", "JPEG"), "width": side[0], "height": side[1]}
    own = measure(both(300, **planted, seed=seed))["test"]["subsets"]["s"]
    assert biased_facts(own) == ["all"]
    assert own["cross_validated"]["all"]["balanced_acc"] > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_where_nothing_is_planted_nothing_is_found(seed):
    own = measure(both(400, seed=seed))["test"]["subsets"]["s"]
    assert biased_facts(own) == []
    assert all(0.43 < own["cross_validated"][fact]["balanced_acc"] < 0.57 for fact in FACTS)
    assert all(0.42 < own["cross_validated"][fact]["auroc"] < 0.58 for fact in FACTS)


@pytest.mark.parametrize(("reals", "fakes"), [(33, 17), (12, 49), (101, 60)])
def test_images_with_equal_files_are_ranked_equal_though_different_folds_judge_them(reals, fakes):
    """Sums of weights differ in the last digit from fold to fold, and would rank the folds."""
    same = {"width": 256, "height": 256, "format": "JPEG", "jpeg_quality": 90, "per_pixel": 0.5}
    rates = within(pa.concat_tables([files(reals, "real", **same), files(fakes, "fake", **same)]))
    assert {(rates[fact]["balanced_acc"], rates[fact]["auroc"]) for fact in FACTS} == {(0.5, 0.5)}


def test_a_biased_fact_has_its_whole_interval_above_chance():
    rate = {"balanced_acc": 0.65, "low": 0.51}
    rates = {"format": rate, "size": rate | {"low": 0.5}, "bytes_per_pixel": {"balanced_acc": 0.6, "low": 0.59}}
    assert biased_facts({"cross_validated": rates}) == ["format"]
    assert biased_facts({"transfer": rates}, "transfer") == ["format"]
    assert biased_facts({}) == []


# The numbers


def test_equal_to_a_loop_with_scikit_learn():
    table = both(90, fake={"per_pixel": np.random.default_rng(3).uniform(0.5, 2.3, 90)})
    rows = sorted(table.to_pylist(), key=lambda row: row["image_id"])
    is_fake = np.array([row["label"] == FAKE for row in rows])
    sides = [(row["width"], row["height"]) for row in rows]
    sizes = [[width, height, width * height, width / height] for width, height in sides]
    formats = [[row["format"] == name for name in ("JPEG", "PNG")] for row in rows]
    others = [[row["bytes"] / size[2], row["jpeg_quality"] or 0] for row, size in zip(rows, sizes, strict=True)]
    numbers = np.concatenate([formats, sizes, others], axis=1).astype(np.float32)
    columns = {"format": [0, 1], "size": [2, 3, 4, 5], "bytes_per_pixel": [6], "jpeg_quality": [7], "all": list(range(8))}
    rates = within(shuffled(table))
    for fact, own in columns.items():
        facts, probability = numbers[:, own], np.empty(len(rows))
        for fit, held_out in StratifiedKFold(5, shuffle=True, random_state=0).split(facts, is_fake):
            forest = RandomForestClassifier(
                10, max_depth=6, min_samples_leaf=2, max_features=0.34, class_weight="balanced_subsample", random_state=0
            )
            probability[held_out] = forest.fit(facts[fit], is_fake[fit]).predict_proba(facts[held_out])[:, 1]
        probability = np.round(probability, 6)
        assert rates[fact]["balanced_acc"] == pytest.approx(balanced_accuracy_score(is_fake, probability > 0.5), abs=1e-6)
        assert rates[fact]["auroc"] == pytest.approx(roc_auc_score(is_fake, probability), abs=1e-6)


def test_the_interval_joins_the_wilson_intervals_of_both_accuracies():
    is_fake = np.repeat([False, True], [40, 25])
    probability = np.concatenate([np.repeat([0.2, 0.8], [30, 10]), np.repeat([0.9, 0.5], [20, 5])])  # 0.5 is called real
    real, fake = 30 / 40, 20 / 25
    (real_low, real_high), (fake_low, fake_high) = wilson(real, 40), wilson(fake, 25)
    found = file_bias._scores(is_fake, probability)
    assert found["balanced_acc"] == pytest.approx((real + fake) / 2)
    assert found["low"] == pytest.approx((real + fake) / 2 - np.sqrt((real - real_low) ** 2 + (fake - fake_low) ** 2) / 2)
    assert found["high"] == pytest.approx((real + fake) / 2 + np.sqrt((real_high - real) ** 2 + (fake_high - fake) ** 2) / 2)


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    is_fake = np.repeat([False, True], [60, 40])
    for _ in range(1000):
        right = rng.random(100) < np.where(is_fake, 0.6, 0.8)
        found = file_bias._scores(is_fake, np.where(right == is_fake, 0.9, 0.1))
        held += found["low"] <= 0.7 <= found["high"]
    assert 930 <= held <= 975


@pytest.mark.slow
def test_no_result_depends_on_the_order_of_the_rows():
    table = pa.concat_tables([both(60), both(60, subset="t", split="train"), both(60, subset="u", fake={"format": "PNG"})])
    table = pa.concat_tables([table, table.slice(0, 30)])
    assert measure(table) == measure(shuffled(table, 1)) == measure(shuffled(table, 2).select(list(COLUMNS)))


def test_of_many_images_a_sample_is_measured_that_keeps_a_rare_label(monkeypatch):
    monkeypatch.setattr(file_bias, "MOST", 30)
    table = pa.concat_tables([files(400, "real", format="WEBP"), files(8, "fake", format="PNG")])
    found = within(table)["format"]
    low = [1 - wilson(1, count)[0] for count in (30, 8)]
    assert found["low"] == pytest.approx(1 - np.hypot(*low) / 2, abs=1e-6)


# Repeated images


def test_a_repeated_image_does_not_lie_in_two_folds():
    """Random labels, every image fifty times: with its copies in other folds each label would be known by heart."""
    table = both(30)
    assert within(pa.concat_tables([table] * 50)) == within(table)
    assert within(table)["all"]["balanced_acc"] < 0.75


def test_duplicates_and_leakage_of_a_hand_made_table():
    rows = [
        # id, split, subset, label
        ("a", "train", "x", REAL), ("a", "train", "x", REAL), ("a", "train", "y", REAL), ("b", "train", "x", FAKE),
        ("a", "test", "x", REAL), ("c", "test", "x", FAKE), ("c", "test", "x", FAKE), ("c", "test", "z", FAKE),
        ("b", "test", "z", FAKE), ("a", "test", "z", REAL),
    ]  # fmt: skip
    fixed = {"generator": "g", "source": "p", "width": 100, "height": 50, "format": "PNG", "bytes": 2500, "jpeg_quality": None}
    keys = ("image_id", "split", "subset", "label")
    found = measure(pa.Table.from_pylist([dict(zip(keys, row, strict=True)) | fixed for row in rows], INDEX))
    assert found["leakage"] == 2  # a and b
    assert (found["train"]["duplicates"], found["train"]["across_subsets"]) == (2, 1)
    assert (found["test"]["duplicates"], found["test"]["across_subsets"]) == (3, 2)
    counts = {
        name: (own["n_real"], own["n_fake"], own["duplicates"], own["leakage"]) for name, own in found["test"]["subsets"].items()
    }
    assert counts == {"x": (1, 2, 1, 1), "z": (1, 2, 0, 2)}
    assert list(found["train"]["subsets"]) == ["x", "y"]
    assert found["too_few"] == 3  # the training split, x and z
    assert found["test"]["subsets"]["x"]["fake"]["bytes_per_pixel"] == {"p5": 0.5, "median": 0.5, "p95": 0.5}


# What is measured


def test_the_training_split_is_measured_as_a_whole():
    """In neither subset is there anything to tell, as each holds one kind; together they tell it by the size."""
    table = pa.concat_tables(
        [files(60, "real", split="train", subset="a"), files(60, "fake", split="train", subset="b", width=77)]
    )
    assert biased_facts(measure(table)["train"]) == ["size", "all"]


@pytest.mark.slow
def test_a_subset_without_reals_is_compared_with_the_shared_ones():
    fakes, mixed = files(40, "fake", subset="f", format="PNG"), both(40, subset="m")
    reals = [files(30, "real", subset="r1", format="WEBP"), files(20, "real", subset="r2", format="WEBP")]
    found = measure(pa.concat_tables([fakes, mixed, *reals]))["test"]["subsets"]
    alone = with_column(pa.concat_tables([fakes, *reals]), "subset", "f")
    assert found["f"]["cross_validated"] == within(alone, "f")
    assert found["f"]["cross_validated"]["format"]["balanced_acc"] == 1
    assert found["f"]["n_real"] == 0
    assert "cross_validated" not in found["r1"]
    assert found["m"]["cross_validated"] == within(mixed, "m")


@pytest.mark.slow
def test_named_reals_are_used_in_place_of_shared_and_of_own_ones():
    fakes, mixed = (
        files(40, "fake", subset="f", format="PNG"),
        both(40, subset="m", real={"format": "PNG"}, fake={"format": "PNG"}),
    )
    table = pa.concat_tables([fakes, mixed, files(40, "real", subset="r", format="WEBP")])
    shared, named = (
        measure(table)["test"]["subsets"],
        measure(table, reals={"f": "m", "m": "r"})["test"]["subsets"],
    )
    assert shared["f"]["cross_validated"]["format"]["balanced_acc"] == 1
    assert named["f"]["cross_validated"]["format"]["balanced_acc"] == 0.5
    assert shared["m"]["cross_validated"]["format"]["balanced_acc"] == 0.5
    assert named["m"]["cross_validated"]["format"]["balanced_acc"] == 1


@pytest.mark.parametrize("reals", [{"nothing": "m"}, {"f": "nothing"}, {"f": "f"}, {"r": "m"}])
def test_reals_that_are_not_there_are_refused(reals):
    table = pa.concat_tables([files(9, "fake", subset="f"), both(9, subset="m"), files(9, "real", subset="r")])
    with pytest.raises(ValueError, match=r"dataset.reals: .* in the test split; subsets with (fakes: f, m|reals: m, r)"):
        measure(table, reals=reals)


@pytest.mark.slow
def test_the_validation_split_is_described_and_changes_nothing_else(monkeypatch):
    """However biased its files are: what is measured is what training teaches, and what testing asks."""
    monkeypatch.setattr(file_bias, "SPLITS", ("train", "val", "test"))
    monkeypatch.setattr(file_facts, "SPLITS", ("train", "val", "test"))
    table = pa.concat_tables([both(60, split="train"), both(60, subset="u", seed=3)])
    planted = both(30, subset="v", split="val", seed=5, fake={"format": "PNG"}, real={"format": "WEBP"})
    before, after = measure(table), measure(pa.concat_tables([planted, table]))
    described = after.pop("val")
    assert after == before
    assert (described["n_real"], described["n_fake"]) == (30, 30) and "cross_validated" not in described
    assert described["subsets"]["v"]["fake"]["formats"] == {"PNG": 30}


def test_too_few_images_are_counted_and_not_measured():
    table = pa.concat_tables([both(4, subset="few"), both(5, subset="five", real={"format": "WEBP"}, fake={"format": "PNG"})])
    found = measure(pa.concat_tables([table, table, files(50, "fake", subset="lonely", split="train")]))
    assert found["too_few"] == 2  # `few`, whose copies count for nothing, and the training split
    assert "cross_validated" not in found["train"] and "cross_validated" not in found["test"]["subsets"]["few"]
    assert found["test"]["subsets"]["five"]["cross_validated"]["format"]["balanced_acc"] == 1
    assert found["biased_subsets_by_transfer"] == dict.fromkeys(FACTS, 0)
    json.dumps(found, allow_nan=False)


def test_no_rows_no_numbers():
    found = measure(INDEX.empty_table())
    assert found["too_few"] == 1  # the training split
    assert found["test"]["subsets"] == {} and "share_fake" not in found["test"]


def test_no_quality_at_all_tells_nothing():
    rates = within(both(real={"format": "PNG"}, fake={"format": "PNG"}))
    assert rates["jpeg_quality"] == rates["format"]
    assert rates["format"]["balanced_acc"] == 0.5


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", 2, r"expected label to be one of \[0, 1\], found \[2\]"),
        ("split", "other", r"expected split to be one of \[.*'test', 'train'.*\], found \['other'\]"),
        ("width", 0, "expected width to be at least 1, found 0"),
        ("bytes", -1, "expected bytes to be at least 1, found -1"),
        ("image_id", "same", "1 images that are real and fake"),
    ],
)
def test_a_table_that_the_index_cannot_be_is_refused(column, value, message):
    table = both(6)
    with pytest.raises(ValueError, match=message):
        measure(with_column(table, column, value))


# What the training files teach


@pytest.mark.slow
def test_a_classifier_of_the_training_files_is_tested_on_other_files():
    lesson = {"real": {"format": "WEBP"}, "fake": {"format": "PNG"}}
    tests = {
        "agrees": lesson,
        "reversed": {"real": {"format": "PNG"}, "fake": {"format": "WEBP"}},
        "sized": {"real": {"format": "PNG"}, "fake": {"format": "PNG", "width": 64}},
    }
    table = pa.concat_tables(
        [both(60, subset="t", split="train", **lesson)] + [both(60, subset=n, **facts) for n, facts in tests.items()]
    )
    found = measure(table)
    rates = {name: own["transfer"]["format"]["balanced_acc"] for name, own in found["test"]["subsets"].items()}
    assert rates == {"agrees": 1, "reversed": 0, "sized": 0.5}
    assert biased_facts(found["test"]["subsets"]["sized"]) == ["size", "all"]
    assert biased_facts(found["test"]["subsets"]["sized"], "transfer") == []
    assert found["biased_subsets_by_transfer"]["format"] == 1
    assert found["train"].keys() >= {"cross_validated", "subsets"} and "transfer" not in found["train"]


@pytest.mark.slow
def test_images_of_the_training_split_are_no_test_of_its_lesson():
    """Random labels: on the very images it was fitted to, the classifier is far better than chance."""
    train, new = both(60, subset="t", split="train"), both(60, subset="t", seed=1)
    leaked = with_column(train, "split", "test")
    clean, dirty = (measure(pa.concat_tables(parts))["test"]["subsets"]["t"] for parts in ([train, new], [train, new, leaked]))
    assert dirty["leakage"] == 120
    assert dirty["transfer"] == clean["transfer"]
    assert "transfer" not in measure(pa.concat_tables([train, leaked]))["test"]["subsets"]["t"]


# What the files are


def test_counts_formats_and_sizes_are_those_of_the_rows():
    table = pa.concat_tables([both(40), files(20, "fake")])
    own = measure(table)["test"]["subsets"]["s"]
    assert (own["n_real"], own["n_fake"], own["share_fake"]) == (40, 60, 0.6)
    for kind, label in LABELS.items():
        rows = table.filter(pc.equal(table["label"], label))
        pixels = rows["width"].to_numpy().astype(float) * rows["height"].to_numpy()
        values = {"width": rows["width"], "height": rows["height"], "bytes_per_pixel": rows["bytes"].to_numpy() / pixels}
        assert own[kind]["formats"] == {pair["values"]: pair["counts"] for pair in pc.value_counts(rows["format"]).to_pylist()}
        for name, column in values.items():
            ends = np.quantile(np.asarray(column), [0.05, 0.5, 0.95])
            assert [own[kind][name][key] for key in ("p5", "median", "p95")] == pytest.approx(ends, abs=1e-6)


BIG = """
import re, numpy as np, pyarrow as pa
from nullscope.evaluation.file_bias import measure_file_bias
rng, rows = np.random.default_rng(0), 300_000
train = np.arange(rows) < 200_000
subset = np.where(train, "train", np.char.add("test", (np.arange(rows) % 20).astype(str)))
side = lambda: pa.array(rng.integers(200, 1500, rows), pa.int32())
quality = pa.array(rng.integers(60, 100, rows).astype(np.int16), mask=rng.random(rows) < 0.5)
found = measure_file_bias(pa.table({
    "image_id": [rng.bytes(32).hex() for _ in range(rows)], "split": np.where(train, "train", "test"), "subset": subset,
    "label": pa.array(np.arange(rows) // 20 % 2, pa.int8()), "width": side(), "height": side(),
    "format": rng.choice(["JPEG", "PNG"], rows), "bytes": rng.integers(10_000, 1_000_000, rows), "jpeg_quality": quality,
}))
assert len(found["test"]["subsets"]) == 20 and not any(found["biased_subsets"].values())
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024)  # getrusage would count the parent's
"""


@pytest.mark.slow
def test_three_hundred_thousand_rows_need_less_than_two_gigabytes():
    """In a process of its own, as this one has torch in memory. Half a minute on a virtual CPU."""
    done = subprocess.run([sys.executable, "-c", BIG], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2e9
