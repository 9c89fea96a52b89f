"""The comparison over seeds: its columns, its numbers, its figure."""

from __future__ import annotations

import csv
from io import BytesIO, StringIO

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from nullscope.report.figures.canvas import looks
from nullscope.report.figures.forest import comparison_figure
from nullscope.report.headline import differences
from nullscope.report.layout import to_csv, to_markdown
from nullscope.report.tables.comparison import comparison_table, differing

NUMBERS = ("r_acc", "f_acc_seen", "f_acc_unseen", "tpr_5_unseen", "auroc_seen", "auroc_unseen", "ap_unseen", "mean_balanced")


def model(**params) -> dict:
    return {"params": params}


MODELS = {
    "plain": model(input="patches", lr=0.1, epochs=2, null_space={"scope": "none", "rank": None}),
    "ours": model(method="plain", input="patches", lr=0.1, epochs=2, null_space={"scope": "global", "rank": 8}, bce_weight=0.2),
    "other": model(method="plain", input="crop", lr=0.1, epochs=2, null_space={"scope": "none", "rank": None}),
}


def summary(seeds: int, names=tuple(MODELS)) -> dict[str, dict]:
    """Runs whose AUROC on unseen generators rises by 0.05 from the first to the second detector, within the luck of a seed."""
    rng, luck = np.random.default_rng(0), np.random.default_rng(1).normal(0, 0.05, 9)
    runs = {}
    for name in names:
        for seed in range(seeds):
            runs[f"{name}-{seed}"] = {key: float(rng.uniform(0.4, 0.9)) for key in NUMBERS}
            gain = 0.05 if name == "ours" else 0.0
            runs[f"{name}-{seed}"]["auroc_unseen"] = float(0.7 + luck[seed] + gain + rng.normal(0, 0.004))
    return runs


def rows_of(table) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(to_csv(table))))


def test_only_what_all_have_and_what_differs_is_told():
    assert differing(MODELS) == {
        "input": {"plain": "patches", "ours": "patches", "other": "crop"},
        "null_space.scope": {"plain": "none", "ours": "global", "other": "none"},
        "null_space.rank": {"plain": "-", "ours": "8", "other": "-"},
    }
    assert set(differing(dict(reversed(MODELS.items())))) == {"input", "null_space.scope", "null_space.rank"}
    assert differing({"plain": MODELS["plain"]}) == {}


def test_parameters_come_first_then_the_numbers_then_the_differences():
    keys = [column.key for column in comparison_table(summary(5), MODELS).columns]
    assert keys[:4] == ["detector", "input", "null_space.scope", "null_space.rank"]
    assert tuple(keys[4:12]) == NUMBERS
    assert keys[12:] == ["auroc_unseen_difference", "f_acc_unseen_difference"]


def test_csv_holds_mean_low_and_high_as_scipy_finds_them():
    runs = summary(5)
    row = rows_of(comparison_table(runs, MODELS))[1]
    values = 100 * np.array([[runs[f"{name}-{seed}"]["auroc_unseen"] for seed in range(5)] for name in ("ours", "plain")])
    for key, own in (("auroc_unseen_percent", values[0]), ("auroc_unseen_difference_points", values[0] - values[1])):
        low, high = stats.t(4, own.mean(), stats.sem(own)).interval(0.95)
        found = [float(row[f"{key}{end}"]) for end in ("", "_low", "_high")]
        assert found == pytest.approx([own.mean(), low, high], abs=1e-3)


def test_the_interval_that_excludes_zero_is_marked_and_the_others_are_not():
    table = comparison_table(summary(5), MODELS)
    lines = to_markdown(table).splitlines()
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[6:]}
    assert cells["plain"][-2:] == ["", ""], "the first is not compared with itself"
    assert cells["ours"][-2].startswith("+") and "\\* ± " in cells["ours"][-2]
    assert "*" not in cells["other"][-2]
    said = differences(summary(5))
    assert "it excludes zero for ours (+" in said and "it includes zero for other (" in said


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_intervals_and_no_figure(seeds):
    runs = summary(seeds)
    table = comparison_table(runs, MODELS)
    assert "±" not in to_markdown(table).split("| --- |")[1] and "\\*" not in to_markdown(table)
    assert not [key for key in rows_of(table)[0] if key.endswith(("_low", "_high", "_min", "_max"))]
    assert comparison_figure(runs, looks(list(MODELS))) is None
    assert differences(runs) == ""


def test_one_detector_is_compared_with_nobody():
    table = comparison_table(summary(3, ("plain",)), {"plain": MODELS["plain"]})
    assert [column.key for column in table.columns] == ["detector", *NUMBERS]
    assert differences(summary(3, ("plain",))) == ""


def test_a_number_that_no_run_has_is_said_so():
    runs = {name: {"r_acc": 0.5} for name in ("plain-0", "ours-0")}
    models = {name: MODELS[name] for name in ("plain", "ours")}
    assert rows_of(comparison_table(runs, models))[1]["auroc_unseen_percent"] == ""
    assert comparison_figure({f"{name}-{seed}": {} for name in models for seed in range(3)}, looks(list(models))) is None


def test_figure_is_the_same_bytes_again_and_its_words_state_the_means():
    runs, look = summary(5), looks(list(MODELS))
    figure = comparison_figure(runs, look)
    assert figure.png == comparison_figure(runs, look).png
    assert Image.open(BytesIO(figure.png)).size[0] > 1000
    mean = 100 * np.mean([runs[f"ours-{seed}"]["auroc_unseen"] for seed in range(5)])
    assert f"ours: AUROC {mean:.1f} ± " in figure.alt
