"""The tables, warnings and lines of file bias, and the stage `audit`."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from nullscope.evaluation.file_bias import FACTS
from nullscope.report.layout import to_csv, to_markdown
from nullscope.report.tables.file_bias import file_bias_tables, files_table, transfer_table, warning_lines, warnings, within_table
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import write_table


def rates(**given: float) -> dict:
    """The numbers of every fact: those given, the others at chance; intervals of five points to either side."""
    found = dict.fromkeys(FACTS, 0.5) | given
    return {
        fact: {"balanced_acc": rate, "low": max(rate - 0.05, 0), "high": min(rate + 0.05, 1), "auroc": rate}
        for fact, rate in found.items()
    }


def of_files(formats: dict[str, int], side: float) -> dict:
    ends = {"p5": side - 0.4, "median": side, "p95": side + 10.2}
    return {"formats": formats, "width": ends, "height": ends, "bytes_per_pixel": {"p5": 0.1, "median": 0.5, "p95": 2.25}}


def made(train: dict, tests: dict[str, dict], transfers: dict[str, dict], leakage: int = 0, too_few: int = 0) -> dict:
    """File bias as `measure_file_bias` returns it, as far as the report reads it."""
    fake = {"n_real": 0, "n_fake": 4, "share_fake": 1.0, "duplicates": 0, "leakage": leakage}
    fake |= {"fake": of_files({"PNG": 3, "JPEG": 1}, 512.0)}
    subsets = {name: fake | {"cross_validated": own} for name, own in tests.items()}
    for name, own in transfers.items():
        subsets[name]["transfer"] = own
    subsets["photos"] = {"n_real": 1000, "n_fake": 0, "leakage": 0, "real": of_files({"JPEG": 1000}, 1500.5)}
    train_files = {"n_real": 7, "n_fake": 0, "real": of_files({"WEBP": 7}, 99)}
    return {
        "too_few": too_few,
        "leakage": leakage,
        "train": {"cross_validated": train, "subsets": {"t": train_files}},
        "test": {"subsets": subsets},
    }


@pytest.fixture
def quiet() -> dict:
    """Files that tell nothing."""
    return made(rates(), {"ADM": rates(), "BigGAN": rates(all=0.59)}, {"ADM": rates(), "BigGAN": rates(all=0.55)})


@pytest.fixture
def loud() -> dict:
    """Biased files in training and in two of three test subsets, one of them biased as the training files are."""
    tests = {"ADM": rates(format=0.99, size=0.7, all=1.0), "BigGAN": rates(size=0.999, all=1.0), "wukong": rates()}
    carried = {"ADM": rates(format=1.0, all=0.9), "BigGAN": rates(format=0.3), "wukong": rates()}
    return made(rates(format=0.95, all=0.97), tests, carried, leakage=12, too_few=2)


# Warnings


def test_where_the_files_tell_nothing_there_is_nothing_to_say(quiet):
    assert warnings(quiet) == []
    assert warning_lines(quiet) == []


def test_the_head_of_the_report_says_which_fact_tells_where_and_what_to_do(loud):
    within, training, carried, remedy, leaked = warnings(loud)
    assert within == (
        "Without a look at a pixel, facts of the files tell real from fake: file format in 1 of 3 test subsets (99.0 % balanced "
        "accuracy in ADM), picture size in 2 (99.9 % in BigGAN)."
    )
    assert training.startswith("In the training split the files tell real from fake (file format 95.0 % balanced accuracy):")
    assert carried.startswith(
        "A classifier of the training files tells real from fake in 1 of 3 test subsets (up to 100.0 % balanced accuracy, in ADM)"
    )
    assert "`shard.prepare`" in remedy and "docs/audit.md" in remedy
    assert leaked == "12 test images also lie in the training split, 12 of them in ADM."


def test_bias_that_the_training_files_do_not_have_is_said_to_stay_at_chance(quiet):
    quiet["test"]["subsets"]["BigGAN"]["cross_validated"] = rates(all=0.7)
    within, carried, _ = warnings(quiet)
    assert "all together in 1 of 2 test subsets (70.0 % balanced accuracy in BigGAN)" in within
    assert carried == "A classifier of the training files is at chance in the test subsets (at most 55.0 %, in BigGAN)."


def test_without_a_measured_training_split_nothing_is_said_of_it(loud):
    del loud["train"]["cross_validated"]
    for own in loud["test"]["subsets"].values():
        own.pop("transfer", None)
    assert [line.split(" ")[0] for line in warnings(loud)] == ["Without", "The", "12"]
    assert [table.name for table in file_bias_tables(loud)] == ["file_bias", "files"]


def test_a_line_per_biased_fact_the_strongest_first_and_all_together_only_where_no_fact_is_biased_alone(loud):
    loud["test"]["subsets"]["wukong"]["cross_validated"] = rates(all=0.65)
    assert warning_lines(loud) == [
        "BigGAN: picture size tells real from fake, 99.9 % balanced accuracy (95 %: 94.9 to 100.0)",
        "ADM: file format tells real from fake, 99.0 % balanced accuracy (95 %: 94.0 to 100.0)",
        "training split: file format tells real from fake, 95.0 % balanced accuracy (95 %: 90.0 to 100.0)",
        "ADM: picture size tells real from fake, 70.0 % balanced accuracy (95 %: 65.0 to 75.0)",
        "wukong: all together tells real from fake, 65.0 % balanced accuracy (95 %: 60.0 to 70.0)",
    ]


# Tables


def test_a_row_per_measured_subset_with_its_biased_facts_named_and_marked(loud):
    table = within_table(loud)
    assert [row[0] for row in table.rows] == ["training split", "ADM", "BigGAN", "wukong"]
    assert [row[-1] for row in table.rows] == ["file format", "file format, picture size", "picture size", ""]
    assert "Left out for too few images of a kind: 2." in table.note
    lines = to_markdown(table).splitlines()
    assert "JPEG quality" in lines[4]
    numbers = ["99.0\\* (94.0 to 100.0)", "70.0\\* (65.0 to 75.0)", *["50.0 (45.0 to 55.0)"] * 2, "100.0\\* (95.0 to 100.0)"]
    assert lines[7].startswith(f"| ADM | {' | '.join(numbers)} |")
    assert to_csv(table).splitlines()[0].startswith("subset,format_percent,format_percent_low,format_percent_high,size_percent,")


def test_below_chance_is_marked_only_where_it_can_mean_something(loud):
    loud["test"]["subsets"]["BigGAN"]["cross_validated"] = rates(format=0.3)
    assert "| BigGAN | 30.0 (25.0 to 35.0) |" in to_markdown(within_table(loud))
    assert "| BigGAN | 30.0\\* (25.0 to 35.0) |" in to_markdown(transfer_table(loud))


def test_files_without_bias_have_the_same_tables(quiet):
    assert [table.name for table in file_bias_tables(quiet)] == ["file_bias", "file_bias_transfer", "files"]
    assert {row[-1] for table in file_bias_tables(quiet)[:2] for row in table.rows} == {""}
    assert "Left out" not in within_table(quiet).note


def test_the_files_are_described_per_split_subset_and_kind(quiet):
    lines = to_markdown(files_table(quiet)).splitlines()[6:]
    assert [line.split(" | ")[:5] for line in lines] == [
        ["| train", "t", "real", "7", "WEBP 100 %"],
        ["| test", "ADM", "fake", "4", "PNG 75 %, JPEG 25 %"],
        ["| test", "BigGAN", "fake", "4", "PNG 75 %, JPEG 25 %"],
        ["| test", "photos", "real", "1,000", "JPEG 100 %"],
    ]
    assert lines[3].endswith("| 1,500 (1,500 to 1,511) | 1,500 (1,500 to 1,511) | 0.5 (0.1 to 2.25) |")


# The stage


@pytest.mark.slow
@pytest.mark.parametrize("planted", [True, False])
def test_the_stage_writes_the_numbers_and_warns_of_file_bias(tmp_path, stage, planted):
    rng = np.random.default_rng(0)
    rows = [
        {"image_id": rng.bytes(32).hex(), "split": split, "subset": "s", "generator": "g", "label": label, "source": "p"}
        | {"width": int(rng.integers(64, 512)), "height": 64, "bytes": int(rng.integers(100, 9000)), "jpeg_quality": None}
        | {"format": "PNG" if label or not planted else "WEBP"}
        for split in ("train", "test")
        for label in (0, 1)
        for _ in range(100)
    ]
    write_table(tmp_path / "data/index.parquet", pa.Table.from_pylist(rows, INDEX), INDEX)
    (tmp_path / "params.yaml").write_text("dataset: {reals: {}}\nshard: {samples: 8, prepare: []}\n", encoding="utf-8")
    done = stage(tmp_path, "audit")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "metrics/audit.json").read_text())
    assert found["biased_subsets"]["format"] == found["biased_subsets_by_transfer"]["format"] == int(planted)
    warned = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    if planted:
        facts = "file format tells real from fake, 100.0 % balanced accuracy (95 %: 97.4 to 100.0)"
        assert warned == [f"warning: s: {facts}", f"warning: training split: {facts}"]
    else:
        assert warned == []
    assert done.stdout.splitlines()[-1] == "audit: 400 rows as they are, 1 test subsets -> metrics/audit.json"


@pytest.mark.slow
def test_the_stage_says_what_is_missing(tmp_path, stage):
    (tmp_path / "params.yaml").write_text("dataset: {reals: {}}\nshard: {samples: 8, prepare: []}\n", encoding="utf-8")
    done = stage(tmp_path, "audit")
    assert done.returncode == 1
    assert "data/index.parquet does not exist" in done.stderr and "Traceback" not in done.stderr
