"""The papers' tables with our rows, and the scorecard: numbers by hand, from the printed CSVs and from made-up metrics."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from nullscope.evaluation.seeds import Spread, estimate
from nullscope.records import published
from nullscope.records.published import load_all
from nullscope.report.tables.papers import OURS, PAPERS, benchmarks, paper_tables, scorecard_means, scorecard_table

load = load_all().__getitem__
PRINTED = Path(published.__file__).parent / "published"
DEGRADED = ("jpeg_95", "jpeg_85", "jpeg_75", "blur_0.5", "blur_1.0", "blur_1.5")
WHOLE = {"genimage17": "ns_net_t1", "aigibench": "dgs_net_t3", "universal_fake_detect": "ns_net_t2"}  # tables of all subsets
HALF = 0.03  # of the intervals of a subset's numbers
METHODS = {"ns_net": "ns_net", "mine": "ns_net"}  # of the detectors of `made`


def subsets_of(dataset: str) -> list[str]:
    return list(load(WHOLE[dataset]).columns.values())


def rows(rng: np.random.Generator, names: list[str]) -> dict[str, dict[str, float]]:
    """A row per subset with fakes, as `metrics.evaluate` has it."""
    found = {}
    for name in names:
        row = {key: float(rng.uniform(0.3, 0.9)) for key in ("r_acc", "f_acc", "ap")}
        row["balanced_acc"] = (row["r_acc"] + row["f_acc"]) / 2
        ends = {f"{key}_{end}": row[key] + sign * HALF for key in row for end, sign in (("low", -1), ("high", 1))}
        found[name] = {**row, **ends, "n_real": 50, "n_fake": 50}
    return found


def means(subsets: dict[str, dict[str, float]]) -> dict[str, float]:
    """The means over subsets by their definitions in docs/protocol.md, and made-up intervals of the bootstrap."""
    column = {key: [row[key] for row in subsets.values()] for key in ("r_acc", "f_acc", "ap", "balanced_acc")}
    real, fakes = float(np.mean(column["r_acc"])), column["f_acc"]
    found = {"r_acc": real, "f_acc": float(np.mean(fakes)), "mean_fakes": float(np.mean(fakes))}
    found |= {"mean_real_fakes": (real + sum(fakes)) / (1 + len(fakes)), "mean_balanced": float(np.mean(column["balanced_acc"]))}
    found["ap"] = float(np.mean(column["ap"]))
    return found | {f"{key}_{end}": found[key] + sign * 0.01 for key in found for end, sign in (("low", -1), ("high", 1))}


def run(seed: int, dataset: str, *, degraded: bool = True, more: tuple[str, ...] = ()) -> dict:
    rng = np.random.default_rng(seed)
    own = rows(rng, [*subsets_of(dataset), *more])
    found = {**means(own), "subsets": own | {"photos": {"r_acc": 0.5, "n_real": 50, "n_fake": 0}}}
    if degraded:
        kinds = {name: rows(rng, [*subsets_of(dataset), *more]) for name in DEGRADED}
        found["degradations"] = {name: {**means(own), "subsets": own} for name, own in kinds.items()}
    return found


def made(dataset: str, seeds: int = 1, **options) -> dict[str, dict]:
    """Metrics of ns_net, whose numbers are published, and of another detector."""
    numbers = enumerate((name, seed) for name in ("ns_net", "mine") for seed in range(seeds))
    return {f"{name}-{seed}": run(at, dataset, **options) for at, (name, seed) in numbers}


def table_of(dataset: str, summary: dict, id: str):
    return {table.name: table for table in paper_tables(dataset, summary)}[f"paper_{id}"]


def ours(table, name: str = "ns_net") -> dict[str, Spread]:
    row = next(row for row in table.rows if row[0] == f"{name} {OURS}")
    return {column.key: cell for column, cell in zip(table.columns[1:], row[1:], strict=True)}


def score(dataset: str, summary: dict, **wanted: str) -> list:
    """The cells of the one row of the scorecard that has what is wanted."""
    table = scorecard_table(dataset, summary, METHODS)
    keys = [column.key for column in table.columns]
    found = [row for row in table.rows if all(row[keys.index(key)] == value for key, value in wanted.items())]
    (row,) = found
    return [row[keys.index(key)] for key in ("ours", "published", "difference", "inside")]


# The printed rows


@pytest.mark.parametrize("dataset", sorted(WHOLE))
def test_the_printed_rows_stand_as_printed(dataset):
    tables = paper_tables(dataset, made(dataset))
    ids = [id for id, table in load_all().items() if table.benchmark == dataset]
    assert [table.name for table in tables] == [f"paper_{id}" for id in ids]
    for table, id in zip(tables, ids, strict=True):
        file = PRINTED / f"{id.removesuffix('_ap').removesuffix('_aigibench')}.csv"
        printed = {row["method"]: row for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines())}
        flags = load(id)
        assert [row[0] for row in table.rows] == [*printed, f"ns_net {OURS}", f"mine {OURS}"]
        for row in table.rows[:-2]:
            for column, cell in zip(table.columns[1:], row[1:], strict=True):
                doubtful = "?" if flags.flags_of(row[0], column.key) else ""
                assert cell == f"{printed[row[0]][column.key]}{doubtful}", (id, row[0], column.key)


def test_doubts_are_marked_and_explained():
    table = table_of("genimage17", made("genimage17"), "ns_net_t1")
    row = next(row for row in table.rows if row[0] == "CNN-Spot")
    assert row[-1] == "29.0?"
    assert row[1] == "99.0"
    assert "CNN-Spot (mAcc.): 29.0 printed; the cells give 26.97, the fakes alone 22.73." in table.note
    assert table.title == "NS-Net, table 1: accuracy on the 17 subsets called GenImage"
    assert ".." not in table.note.replace("...", "")


def test_what_there_is_to_know_of_a_table_stands_below_it():
    tables = {table.name: table for table in paper_tables("genimage17", made("genimage17"))}
    assert "only balanced accuracy, averaged over subsets, is compatible" in tables["paper_dgs_net_t5"].note
    assert "Averages" not in tables["paper_dgs_net_t5"].note, "it prints none"
    assert "?" not in tables["paper_dgs_net_t5"].note, "nothing is doubted"


def test_every_paper_has_a_name():
    assert {table.paper for table in load_all().values()} == set(PAPERS)


@pytest.mark.parametrize("dataset", ["world", "folder", "aigibench_setting_1", ""])
def test_an_unknown_data_set_has_no_tables(dataset):
    assert dataset not in benchmarks()
    assert paper_tables(dataset, made("aigibench")) == []
    assert scorecard_table(dataset, made("aigibench"), METHODS) is None


# Our rows


@pytest.mark.parametrize(
    ("dataset", "id", "average", "by_hand"),
    [
        ("genimage17", "ns_net_t1", "mAcc.", lambda r, f, ap: (np.mean(r) + sum(f)) / 18),
        ("genimage17", "ns_net_t4", "mean Acc.", lambda r, f, ap: (np.mean(r) + sum(f)) / 18),
        ("genimage17", "ns_net_t5", "mA.P.", lambda r, f, ap: np.mean(ap)),
        ("aigibench", "dgs_net_t3", "Average", lambda r, f, ap: (np.mean(r) + sum(f)) / 26),
        ("aigibench", "dgs_net_t4_aigibench", "AIGIBench", lambda r, f, ap: (np.mean(r) + sum(f)) / 26),
        ("universal_fake_detect", "ns_net_t2", "mAcc.", lambda r, f, ap: np.mean(f)),
        ("universal_fake_detect", "dgs_net_t7", "mAcc.", lambda r, f, ap: np.mean([np.mean(r), np.mean(f)])),
    ],
)
def test_our_average_is_the_named_one(dataset, id, average, by_hand):
    summary = made(dataset, seeds=3)
    expected = []
    for seed in range(3):
        own = [row for row in summary[f"ns_net-{seed}"]["subsets"].values() if row["n_fake"]]
        expected.append(by_hand(*([row[key] for row in own] for key in ("r_acc", "f_acc", "ap"))))
    cell = ours(table_of(dataset, summary, id))[average]
    seeds = estimate(expected)
    assert cell.mean == pytest.approx(seeds.mean)
    assert cell.low < seeds.low and cell.high > seeds.high, "the images are in it too"


def test_our_cells_are_the_subsets_the_columns_name():
    summary = made("aigibench")
    found = ours(table_of("aigibench", summary, "dgs_net_t3"))
    own = summary["ns_net-0"]["subsets"]
    assert found["Midjourney-V6"].mean == own["Midjourney"]["f_acc"]
    assert found["Instant-ID"].mean == own["InstantID"]["f_acc"]
    assert found["Real Image"].mean == pytest.approx(summary["ns_net-0"]["r_acc"])


@pytest.mark.parametrize(("dataset", "id", "real"), [("aigibench", "ns_net_t3", "Real Image"), ("genimage17", "ns_net_t7", None)])
def test_a_table_of_a_part_averages_its_own_columns_only(dataset, id, real):
    summary, table = made(dataset), load(id)
    part = [summary["ns_net-0"]["subsets"][name] for name in table.columns.values()]
    fakes, reals = [row["f_acc"] for row in part], np.mean([row["r_acc"] for row in part])
    found = ours(table_of(dataset, summary, id))
    expected = np.mean([reals, *fakes]) if real else np.mean(fakes)
    assert found[table.average].mean == pytest.approx(expected)
    assert found[table.average].mean != pytest.approx(summary["ns_net-0"][table.average_metric])
    if real:
        assert found[real].mean == pytest.approx(reals)


@pytest.mark.parametrize(("dataset", "id"), [("genimage17", "dgs_net_t5"), ("aigibench", "dgs_net_t6")])
def test_tables_of_degradations_fill_from_the_degradations(dataset, id):
    summary = made(dataset)
    found = ours(table_of(dataset, summary, id))
    own = summary["ns_net-0"]["degradations"]
    assert [cell.mean for cell in found.values()] == pytest.approx([own[name]["mean_balanced"] for name in DEGRADED])
    del own["blur_0.5"]
    found = ours(table_of(dataset, summary, id))
    assert [key for key, cell in found.items() if cell is None] == ["sigma=0.5"]
    assert set(ours(table_of(dataset, made(dataset, degraded=False), id)).values()) == {None}


def test_an_average_needs_every_subset_of_its_table():
    """Seventeen subsets less one are another benchmark: no mean over them stands beside the papers'."""
    summary = made("genimage17")
    for own in (summary["ns_net-0"], *summary["ns_net-0"]["degradations"].values()):
        del own["subsets"]["VQDM"]
    found = ours(table_of("genimage17", summary, "ns_net_t1"))
    assert found["mAcc."] is found["Real Image"] is found["VQDM"] is None
    assert found["ProGAN"].mean == summary["ns_net-0"]["subsets"]["progan"]["f_acc"]
    assert ours(table_of("genimage17", summary, "ns_net_t4")) == {"mean Acc.": None}, "an ablation has no columns of its own"
    assert set(ours(table_of("genimage17", summary, "dgs_net_t5")).values()) == {None}
    assert ours(table_of("genimage17", summary, "ns_net_t7"))["mAcc."] is None, "VQDM is one of the eight"
    card = scorecard_table("genimage17", summary, METHODS)
    assert {row[0] for row in card.rows} == {"ns_net"}
    assert scorecard_means(card) is None


def test_further_subsets_do_not_enter_the_average():
    summary = made("genimage17", more=("sora",))
    own = [row for name, row in summary["ns_net-0"]["subsets"].items() if name in subsets_of("genimage17")]
    expected = np.mean([np.mean([row["r_acc"] for row in own]), *(row["f_acc"] for row in own)])
    for id, average in (("ns_net_t1", "mAcc."), ("ns_net_t4", "mean Acc.")):
        assert ours(table_of("genimage17", summary, id))[average].mean == pytest.approx(expected)
    mean, *_ = score("genimage17", summary, table="NS-Net, table 1", metric="mean_real_fakes")
    assert mean.mean == pytest.approx(expected)


def test_a_number_that_one_seed_lacks_is_not_shown():
    summary = made("genimage17", seeds=2)
    del summary["ns_net-1"]["subsets"]["ADM"]["f_acc"]
    assert ours(table_of("genimage17", summary, "ns_net_t1"))["ADM"] is None
    assert ours(table_of("genimage17", summary, "ns_net_t5"))["ADM"] is not None


# The scorecard


def test_the_difference_is_ours_less_the_published():
    summary = made("genimage17")
    summary["ns_net-0"]["subsets"]["ADM"] |= {"f_acc": 0.9, "f_acc_low": 0.88, "f_acc_high": 0.93}
    mean, printed, less, inside = score("genimage17", summary, table="NS-Net, table 1", metric="f_acc", subset="ADM")
    assert (mean.mean, mean.low, mean.high) == pytest.approx((0.9, 0.88, 0.93))
    assert (printed, inside) == ("85.3", "no")
    assert less == pytest.approx(0.9 - 0.853)


@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [(0.84, 0.86, "yes"), (0.8535, 0.86, "yes"), (0.8536, 0.86, "no"), (0.84, 0.8525, "yes"), (0.84, 0.8524, "no")],
)
def test_within_is_judged_at_both_ends_with_what_rounding_hides(low, high, inside):
    """Printed as 85.3: anything from 85.25 to 85.35."""
    summary = made("genimage17")
    middle = (low + high) / 2
    summary["ns_net-0"]["subsets"]["ADM"] |= {"f_acc": middle, "f_acc_low": low, "f_acc_high": high}
    assert score("genimage17", summary, table="NS-Net, table 1", metric="f_acc", subset="ADM")[3] == inside


@pytest.mark.parametrize(("half", "values"), [(0.2, (0.60, 0.61, 0.62)), (0.001, (0.5, 0.6, 0.7))])
def test_the_interval_is_of_images_and_seeds(half, values):
    summary = made("genimage17", seeds=3)
    for seed, value in enumerate(values):
        told = {"f_acc": value, "f_acc_low": value - half, "f_acc_high": value + half}
        summary[f"ns_net-{seed}"]["subsets"]["ADM"] |= told
    mean, *_ = score("genimage17", summary, table="NS-Net, table 1", metric="f_acc", subset="ADM")
    both = np.hypot(half, estimate(values).half)
    assert (mean.mean, mean.low, mean.high) == pytest.approx((np.mean(values), np.mean(values) - both, np.mean(values) + both))


def test_an_interval_stays_one_of_fractions():
    summary = made("genimage17", seeds=3)
    for seed, value in enumerate((0.9, 1.0, 1.0)):
        summary[f"ns_net-{seed}"]["subsets"]["ADM"] |= {"f_acc": value, "f_acc_low": value - 0.01, "f_acc_high": value}
    mean, *_ = score("genimage17", summary, table="NS-Net, table 1", metric="f_acc", subset="ADM")
    assert mean.high == 1


def test_a_whole_benchmark_has_the_bootstraps_interval():
    summary = made("genimage17")
    own = summary["ns_net-0"]
    mean, *_ = score("genimage17", summary, table="NS-Net, table 1", metric="mean_real_fakes")
    expected = [own[f"mean_real_fakes{end}"] for end in ("", "_low", "_high")]
    assert [mean.mean, mean.low, mean.high] == pytest.approx(expected)


def test_parts_and_degradations_add_the_intervals_of_their_subsets_in_quadrature():
    """So would a bootstrap of independent strata; n equal intervals make one that is narrower by the root of n."""
    mean, *_ = score("genimage17", made("genimage17"), table="NS-Net, table 7", metric="mean_fakes", subset="diffusion8")
    assert mean.half == pytest.approx(HALF / np.sqrt(8))
    mean, *_ = score("genimage17", made("genimage17"), table="DGS-Net, table 5", subset="jpeg_75")
    assert mean.half == pytest.approx(0.5 * HALF * np.sqrt(2 / 17))
    mean, *_ = score("aigibench", made("aigibench"), table="NS-Net, table 3", metric="mean_real_fakes", subset="aigibench15")
    assert mean.half == pytest.approx(HALF * np.sqrt(15 / 16**2 + 15 / (15 * 16) ** 2))


def test_doubtful_numbers_are_marked_in_the_scorecard_too():
    _, printed, *_ = score("genimage17", made("genimage17"), table="NS-Net, table 1", metric="mean_real_fakes")
    assert printed == "93.2?"


def test_only_methods_of_a_name_that_is_published_are_scored():
    summary = made("genimage17")
    card = scorecard_table("genimage17", summary, METHODS)
    assert {row[0] for row in card.rows} == {"ns_net"}
    assert scorecard_table("genimage17", {"mine-0": summary["mine-0"]}, METHODS) is None
    within = sum(row[-1] == "yes" for row in card.rows)
    assert f"{100 * within / len(card.rows):.0f} % of the {len(card.rows)} published numbers lie within" in card.note


def test_released_weights_are_compared_as_their_method_and_a_variant_of_a_method_is_not():
    own = made("genimage17")["ns_net-0"]
    for name, method, found in (("npr_new †", "npr", {"npr_new †"}), ("npr_new", "npr", set())):
        card = scorecard_table("genimage17", {name: own, "mine-0": own}, METHODS | {name: method})
        assert {row[0] for row in (card.rows if card else [])} == found
    table = table_of("genimage17", {"npr_new †": own}, "ns_net_t1")
    assert table.rows[-1][0] == f"npr_new † {OURS}"


def test_the_means_are_shown_first():
    card = scorecard_table("genimage17", made("genimage17"), METHODS)
    kept = [tuple(row[1:4]) for row in scorecard_means(card).rows]
    assert ("NS-Net, table 1", "mean_real_fakes", "all") in kept
    assert ("NS-Net, table 7", "mean_fakes", "diffusion8") in kept
    assert ("DGS-Net, table 5", "mean_balanced", "jpeg_75") in kept
    assert not any(subset in subsets_of("genimage17") for *_, subset in kept)
    assert len(kept) == sum(row[3] not in subsets_of("genimage17") for row in card.rows)


def test_a_project_on_a_benchmark_shows_its_own_metrics(papers_project):
    runs = [json.loads((papers_project / f"metrics/ns_net-{seed}.json").read_text()) for seed in (0, 1)]
    summary = {f"ns_net-{seed}": own for seed, own in enumerate(runs)}
    for id, key, average in (
        ("ns_net_t2", "mean_fakes", "mAcc."),
        ("dgs_net_t7", "mean_balanced", "mAcc."),
        ("ns_net_t6", "ap", "mA.P."),
    ):
        cell = ours(table_of("universal_fake_detect", summary, id))[average]
        assert cell.mean == pytest.approx(np.mean([own[key] for own in runs]), abs=2e-6)
        mean, *_ = score(
            "universal_fake_detect",
            summary,
            table=table_of("universal_fake_detect", summary, id).title.split(":")[0],
            metric=key,
            subset="all",
        )
        assert [mean.low, mean.high] == pytest.approx([np.mean([own[f"{key}_{end}"] for own in runs]) for end in ("low", "high")])
