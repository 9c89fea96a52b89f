"""What a threshold promised and what it does, source by source."""

from __future__ import annotations

from importlib.resources import files

import pytest

from nullscope.report.tables.operating import degraded_operating_table, operating_table, sources_table


def run(phone: float, scan: float) -> dict:
    """The metrics of one run, as `protocol.evaluate` has them."""

    def share(rate: float) -> dict[str, float]:
        return {"rate": rate, "rate_low": rate - 0.01, "rate_high": rate + 0.02}

    alarms = {"phone": share(phone), "scan": share(scan)}
    entry = {"promised": 0.05, "reals": 40, "threshold": 1.0, "alarms": alarms, "found": {"sd": share(0.9)}}
    entry |= {"expected_low": 0.006, "expected_high": 0.13}
    entry |= {"degraded": {"jpeg_75": {"alarms": share(phone / 2), "found": share(0.3)}, "blur_1.0": {"alarms": share(scan)}}}
    grid = {"sd": {"phone": 1 - phone, "scan": 1 - scan}, "gan": {"phone": 0.99, "scan": 0.98}}
    return {"frozen": {"tpr_5": entry}, "sources": {"auroc": grid, "worst": ["sd", "scan"]}}


SUMMARY = {"x-0": run(0.04, 0.5), "x-1": run(0.04, 0.6), "x-2": run(0.04, 0.7), "y-0": {}}


def test_the_worst_source_is_named_beside_the_promise():
    table = operating_table(SUMMARY)
    assert [column.key for column in table.columns] == [
        *("detector", "promised", "alarms_worst", "alarms_phone", "alarms_scan", "found_sd"),
    ]
    (row,) = table.rows
    assert (row[0], row[1].mean, row[1].low, row[1].high) == ("x", 0.05, pytest.approx(0.006), pytest.approx(0.13))
    assert [cell.mean for cell in row[2:]] == pytest.approx([0.6, 0.04, 0.6, 0.9])
    assert (row[2].seeds, row[2].span) == (3, "interval") and row[2].low < 0.5, "seeds and images in one interval"
    assert "40 reals of the validation split" in table.note


def test_degraded_images_are_held_against_the_same_threshold():
    table = degraded_operating_table(SUMMARY)
    assert [[row[0], row[1].mean, row[2], *(cell and round(cell.mean, 6) for cell in row[3:])] for row in table.rows] == [
        ["x", 0.05, "jpeg_75", 0.02, 0.3],
        ["x", 0.05, "blur_1.0", 0.6, None],
    ]
    assert degraded_operating_table({"y-0": {}}) is None


def test_the_lowest_cell_of_the_grid_is_named():
    table = sources_table(SUMMARY)
    assert [[row[0], row[1], *(round(cell.mean, 6) for cell in row[2:])] for row in table.rows] == [
        ["x", "sd", 0.96, 0.4],
        ["x", "gan", 0.99, 0.98],
    ]
    assert "The lowest: x 40.0 (sd against scan)." in table.note


def test_without_thresholds_or_sources_there_is_no_table():
    assert operating_table({"y-0": {}}) is None and sources_table({"y-0": {}}) is None


def test_the_page_has_a_place_for_every_table_of_this_module():
    """A table that the template does not name is written to a file, and nobody sees it."""
    template = files("nullscope.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    for table in (operating_table(SUMMARY), degraded_operating_table(SUMMARY), sources_table(SUMMARY)):
        assert f'"{table.name}"' in template
