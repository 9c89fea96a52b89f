"""What `dvc plots` and `dvc metrics` draw and print."""

from __future__ import annotations

import csv
import json
from itertools import groupby
from pathlib import Path

import pytest
import yaml

from nullscope.evaluation.summary import compared

ROOT = Path(__file__).parents[2]


def rows_of(project, name: str) -> list[dict[str, str]]:
    with open(project[0] / f"reports/plots/{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_curve_and_bar_of_the_project_is_there(project):
    runs = [("ns_net", "0"), ("clip_lora", "0"), ("clip_lora", "1"), ("probe", "0")]
    for name in ("losses", "validation"):
        found = [key for key, _ in groupby(rows_of(project, name), lambda row: (row["detector"], row["seed"]))]
        assert set(found) <= {*runs, ("ns_net", "1"), ("probe", "1")} and len(found) == len(set(found)) >= len(runs)
    for (name, seed), own in groupby(rows_of(project, "roc"), lambda row: (row["detector"], row["seed"])):
        points = [(float(row["reals called fake"]), float(row["fakes called fake"])) for row in own]
        assert points[-1] == (100, 100) and points == sorted(points) and len(points) == 101, (name, seed)
    summary = json.loads((project[0] / "metrics/summary.json").read_text(encoding="utf-8"))
    bars = {(row["detector"], row["generator"]): float(row["fakes called fake"]) for row in rows_of(project, "generators")}
    assert bars["ns_net", "vq"] == pytest.approx(
        100 * sum(run["subsets"]["vq"]["f_acc"] for key, run in summary.items() if key.startswith("ns_net-"))
        / sum(key.startswith("ns_net-") for key in summary), abs=1e-3,
    )  # fmt: skip


def test_dvc_draws_files_that_the_report_writes_by_templates_that_are_there(project):
    for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]:
        ((name, drawn),) = plot.items()
        ((path, column),) = drawn["y"].items()
        row = rows_of(project, name)[0]
        assert path == f"reports/plots/{name}.csv" and {drawn["x"], column, "detector"} <= set(row)
        template = json.loads((ROOT / f".dvc/plots/{drawn['template']}.json").read_text(encoding="utf-8"))
        assert template["facet"]["field"] == "detector"


def test_a_metric_is_what_people_compare(project):
    found = json.loads((project[0] / "metrics/compared.json").read_text(encoding="utf-8"))
    summary = json.loads((project[0] / "metrics/summary.json").read_text(encoding="utf-8"))
    assert found == compared(summary)
    assert all(set(own) == {"r_acc", "tpr_5_unseen", "auroc_unseen"} for own in found.values())
    assert found["ns_net"]["auroc_unseen"] == summary["ns_net-0"]["auroc_unseen"] or "ns_net-1" in summary
    assert sum(map(len, found.values())) <= 3 * len(found), "a screen"


def test_where_nothing_is_unseen_the_next_number_is_compared():
    assert compared({"x-0": {"r_acc": 0.5, "f_acc": 0.25, "auroc": 0.75}}) == {"x": {"r_acc": 0.5, "f_acc": 0.25, "auroc": 0.75}}
    assert compared({"x-0": {"f_acc": 0.2}, "x-1": {"f_acc": 0.4}}) == {"x": {"f_acc": 0.3}}
