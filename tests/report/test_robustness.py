"""Robustness: the order of degradations, the numbers against numpy, differences paired by seed, and what the figure says."""

from __future__ import annotations

import csv
import json
from io import BytesIO, StringIO

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from nullscope.evaluation.robustness import degradations_of
from nullscope.images.degradations import check_name
from nullscope.report.figures.canvas import looks
from nullscope.report.figures.robustness import describe, robustness_figure
from nullscope.report.layout import to_csv
from nullscope.report.tables.robustness import KEYS, robustness_tables, words

WEAKEST_FIRST = ["jpeg_95", "jpeg_75", "webp_80", "blur_0.5", "blur_1.0", "blur_10", "resize_2", "resize_0.75", "resize_0.5"]
WEAKEST_FIRST += ["crop_1000", "crop_224", "crop_96", "social"]


def numbers(rng: np.random.Generator) -> dict[str, float]:
    return {key: float(rng.uniform(0.4, 0.9)) for key in KEYS}


@pytest.fixture
def summary() -> dict[str, dict]:
    """Two detectors, three seeds, all degradations in no order."""
    rng = np.random.default_rng(0)
    shuffled = [str(name) for name in rng.permutation(WEAKEST_FIRST)]
    return {
        f"{name}-{seed}": numbers(rng) | {"degradations": {kind: numbers(rng) for kind in shuffled}}
        for name in ("a", "b")
        for seed in range(3)
    }


def read(table) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(to_csv(table))))


def test_degradations_are_in_the_order_of_their_kind_and_strength(summary):
    assert [check_name(name) for name in WEAKEST_FIRST] == WEAKEST_FIRST, "they exist"
    assert degradations_of(summary) == WEAKEST_FIRST


def test_a_degradation_that_some_runs_lack_is_left_out(summary):
    del summary["b-2"]["degradations"]["jpeg_75"]
    assert degradations_of(summary) == [name for name in WEAKEST_FIRST if name != "jpeg_75"]
    assert all("jpeg_75" not in to_csv(table) and "JPEG 75" not in to_csv(table) for table in robustness_tables(summary))


def test_without_degradations_there_is_no_table_and_no_figure(summary):
    clean = {run: {key: value for key, value in own.items() if key != "degradations"} for run, own in summary.items()}
    for nothing in (clean, {**summary, "b-2": clean["b-2"]}, {}):
        assert degradations_of(nothing) == []
        assert robustness_tables(nothing) == []
        assert robustness_figure(nothing, looks(["a", "b"])) is None


def test_the_papers_table_holds_the_means_of_the_metrics(summary):
    table, _ = robustness_tables(summary)
    assert table.groups == [
        ("", 2),
        ("JPEG quality", 2),
        ("WebP quality", 1),
        ("Gaussian blur, sigma (px)", 3),
        ("Resized by", 3),
        ("Cut to (px)", 3),
        ("Other", 1),
    ]
    assert [column.title for column in table.columns[1:4]] == ["as they are", "95", "75"]
    for row, name in zip(read(table), ("a", "b"), strict=True):
        for kind in WEAKEST_FIRST:
            values = [100 * summary[f"{name}-{seed}"]["degradations"][kind]["mean_balanced"] for seed in range(3)]
            half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
            assert float(row[f"{kind}_percent"]) == pytest.approx(np.mean(values), abs=1e-4)
            assert float(row[f"{kind}_percent_low"]) == pytest.approx(np.mean(values) - half, abs=1e-3)
        clean = [100 * summary[f"{name}-{seed}"]["mean_balanced"] for seed in range(3)]
        assert float(row["none_percent"]) == pytest.approx(np.mean(clean), abs=1e-4)


def test_the_drop_is_paired_by_seed(summary):
    luck = {0: -0.2, 1: 0.0, 2: 0.2}
    for seed, moved in luck.items():  # seeds that differ much, each of which loses four points, give or take a tenth
        summary[f"a-{seed}"]["auroc"] = 0.7 + moved
        summary[f"a-{seed}"]["degradations"]["jpeg_75"]["auroc"] = 0.66 + moved + 0.001 * (seed - 1)
    _, table = robustness_tables(summary)
    rows = read(table)
    assert [row["degradation"] for row in rows[: 1 + len(WEAKEST_FIRST)]] == ["as they are", *map(words, WEAKEST_FIRST)]
    assert rows[0]["auroc_difference_points"] == ""
    row = next(row for row in rows if (row["detector"], row["degradation"]) == ("a", "JPEG 75"))
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    ends = [float(row[f"auroc_difference_points{end}"]) for end in ("", "_low", "_high")]
    assert ends == pytest.approx([-4, -4 - half, -4 + half], abs=1e-3)
    own = summary["a-0"]["degradations"]["jpeg_75"], summary["a-1"]["degradations"]["jpeg_75"]
    reals = np.mean([*(100 * one["r_acc"] for one in own), 100 * summary["a-2"]["degradations"]["jpeg_75"]["r_acc"]])
    assert float(row["r_acc_percent"]) == pytest.approx(reals, abs=1e-4)


def test_the_alternative_text_states_what_is_drawn(summary):
    for seed in range(3):
        summary[f"a-{seed}"] |= {"mean_balanced": 0.8, "r_acc": 0.9, "f_acc": 0.7}
        summary[f"a-{seed}"]["degradations"]["blur_1.0"] |= {"mean_balanced": 0.3, "r_acc": 0.59 + 0.01 * seed, "f_acc": 0.0}
    text = describe(summary, degradations_of(summary))
    first = "a is worst under blur 1.0: balanced accuracy 80.0 to 30.0 %, reals 90.0 to 60.0 %, fakes 70.0 to 0.0 %;"
    assert first in text


def test_the_alternative_text_is_true_of_a_detector_that_gains():
    clean, better = dict.fromkeys(KEYS, 0.5), dict.fromkeys(KEYS, 0.75)
    text = describe({"a-0": clean | {"degradations": {"jpeg_75": better}}}, ["jpeg_75"])
    assert "a is worst under JPEG 75: balanced accuracy 50.0 to 75.0 %" in text
    assert "los" not in text


def test_the_figure_is_the_same_bytes_again_and_shows_every_detector(summary):
    first, second = (robustness_figure(summary, looks(["a", "b"])) for _ in range(2))
    assert first.png == second.png
    assert "from the lowest to the highest seed" in first.caption
    image = np.asarray(Image.open(BytesIO(first.png)).convert("RGB")).reshape(-1, 3)
    for look in looks(["a", "b"]).values():
        colour = [int(look.colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (image == colour).all(axis=1).sum() > 50, look


def test_the_project_loses_under_degradations(project):
    rows = list(csv.DictReader(StringIO((project[0] / "reports/tables/robustness.csv").read_text(encoding="utf-8"))))
    for row in rows:
        metrics = [json.loads((project[0] / f"metrics/{row['detector']}-{seed}.json").read_text()) for seed in (0, 1)]
        values = [100 * run["degradations"]["jpeg_75"]["mean_balanced"] for run in metrics]
        assert float(row["jpeg_75_percent"]) == pytest.approx(np.mean(values), abs=1e-3)
        assert float(row["jpeg_75_percent"]) < float(row["none_percent"])
