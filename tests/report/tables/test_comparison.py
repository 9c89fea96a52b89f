"""The comparison over seeds: its columns, its numbers, its figure."""

from __future__ import annotations

import csv
from io import BytesIO, StringIO

import numpy as np
import pytest
from PIL import Image
from report.resampled import tables_of
from scipy import stats

from nullscope.evaluation.paired import compare
from nullscope.report.figures.canvas import looks
from nullscope.report.figures.forest import comparison_figure
from nullscope.report.headline import differences
from nullscope.report.layout import to_csv, to_markdown
from nullscope.report.tables.comparison import comparison_table, differing
from nullscope.report.tables.pairs import FEW_SEEDS

NOBODY: frozenset[str] = frozenset()
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


def table_of(runs: dict[str, dict], models: dict = MODELS):
    return comparison_table(runs, models, tables_of(runs), NOBODY)


def test_parameters_come_first_then_the_numbers_then_the_differences():
    keys = [column.key for column in table_of(summary(5)).columns]
    assert keys[:4] == ["detector", "input", "null_space.scope", "null_space.rank"]
    assert tuple(keys[4:12]) == NUMBERS
    assert keys[12:] == ["auroc_unseen_difference", "f_acc_unseen_difference"]


def test_csv_holds_mean_low_and_high_of_seeds_as_scipy_finds_them():
    """The runs have no intervals over images here: what is left is Student's."""
    runs = summary(5)
    row = rows_of(table_of(runs))[1]
    own = 100 * np.array([runs[f"ours-{seed}"]["auroc_unseen"] for seed in range(5)])
    low, high = stats.t(4, own.mean(), stats.sem(own)).interval(0.95)
    found = [float(row[f"auroc_unseen_percent{end}"]) for end in ("", "_low", "_high")]
    assert found == pytest.approx([own.mean(), low, high], abs=1e-3)


def test_differences_are_tested_together_and_those_that_hold_are_marked():
    runs = summary(5)
    tables = tables_of(runs)
    table = comparison_table(runs, MODELS, tables, NOBODY)
    cells = {row[0]: row[-2:] for row in table.rows}
    assert cells["plain"] == ["", ""], "the first is not compared with itself"
    questions = [(name, "plain", "auroc_unseen") for name in ("ours", "other")]
    expected = compare(tables, questions, fixed=NOBODY)
    assert [cells[name][0].p for name, *_ in questions] == [own.p for own in expected]
    shown = {line.split("|")[1].strip(): line for line in to_markdown(table).splitlines()[6:]}
    assert "\\*" not in shown["plain"]
    for name in ("ours", "other"):
        assert ("\\*" in shown[name]) == any(cell.p < 0.05 for cell in cells[name])


def test_what_differs_is_said_in_words():
    runs = {f"plain-{seed}": {"auroc_unseen": 0.7 + 0.002 * seed} for seed in range(5)}
    runs |= {f"ours-{seed}": {"auroc_unseen": 0.85 + 0.002 * seed} for seed in range(5)}
    runs |= {f"other-{seed}": {"auroc_unseen": 0.701 + 0.002 * seed} for seed in range(5)}
    said = differences(tables_of(runs), NOBODY)
    assert said.startswith("AUROC on unseen generators: ours (+15.0 ± ")
    assert " differs from plain; other (+0.1 ± " in said and " is not separable from it (p adjusted" in said


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_test_nothing(seeds):
    runs = summary(seeds)
    table = table_of(runs)
    assert "\\*" not in to_markdown(table) and FEW_SEEDS in table.note
    assert {cell.p for row in table.rows[1:] for cell in row[-2:]} == {None}
    assert all(cell.low < cell.mean < cell.high for row in table.rows[1:] for cell in row[-2:]), "of the images alone"
    assert differences(tables_of(runs), NOBODY) == ""


def test_one_detector_is_compared_with_nobody():
    runs = summary(3, ("plain",))
    table = table_of(runs, {"plain": MODELS["plain"]})
    assert [column.key for column in table.columns] == ["detector", *NUMBERS]
    assert differences(tables_of(runs), NOBODY) == ""
    assert comparison_figure(runs, looks(["plain"]), "") is None


def test_a_number_that_no_run_has_is_said_so():
    runs = {name: {"r_acc": 0.5} for name in ("plain-0", "ours-0")}
    models = {name: MODELS[name] for name in ("plain", "ours")}
    assert rows_of(table_of(runs, models))[1]["auroc_unseen_percent"] == ""
    assert comparison_figure({f"{name}-{seed}": {} for name in models for seed in range(3)}, looks(list(models)), "") is None


def test_figure_is_the_same_bytes_again_and_its_words_state_the_means():
    runs, look = summary(5), looks(list(MODELS))
    figure = comparison_figure(runs, look, "Nothing differs.")
    assert figure.png == comparison_figure(runs, look, "Nothing differs.").png
    assert Image.open(BytesIO(figure.png)).size[0] > 1000
    mean = 100 * np.mean([runs[f"ours-{seed}"]["auroc_unseen"] for seed in range(5)])
    assert f"ours: AUROC {mean:.1f} % (" in figure.alt and figure.alt.endswith("Nothing differs.")
