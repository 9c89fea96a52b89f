"""Where the numbers come from: md5 sums, licences, and the mark of official weights."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from io import StringIO

import pytest

from nullscope.core.contracts import ContractError
from nullscope.evaluation.protocol import PROTOCOL
from nullscope.evaluation.seeds import Spread
from nullscope.records.licences import licences
from nullscope.report.build import build_report
from nullscope.report.figures.canvas import COLOURS, OFFICIAL_COLOURS, OFFICIAL_LINE, looks
from nullscope.report.layout import Column, Table
from nullscope.report.project import DAGGER, Project
from nullscope.report.tables.provenance import MEANING, licence_table, marked, read_provenance


@pytest.fixture(scope="module")
def tables(papers_project) -> dict[str, Table]:
    return {table.name: table for table in build_report(papers_project).tables}


def rows_of(root, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO((root / f"reports/tables/{name}.csv").read_text(encoding="utf-8"))))


# Hashes


def test_md5_sums_are_those_of_the_files(project):
    root, _ = project
    origins = {f"{row['detector']}-{row['seed']}": row for row in rows_of(root, "origins")}
    assert list(origins) == [f"{name}-{seed}" for name in ("ns_net", "clip_lora", "probe") for seed in (0, 1)]
    for run, row in origins.items():
        assert row["scores_md5"] == hashlib.md5((root / f"scores/{run}.parquet").read_bytes()).hexdigest()
    data = {row["file"]: row["md5"] for row in rows_of(root, "data_hashes")}
    assert data == {name: hashlib.md5((root / name).read_bytes()).hexdigest() for name in data}
    assert set(data) == {"data/index.parquet", "data/captions.parquet"}


def test_origins_tell_what_a_model_says_of_itself(project):
    row = rows_of(project[0], "origins")[-1]
    told = {
        "method": "linear_probe",
        "weights": "retrained",
        "dataset": "world",
        "prepare": "as they are",
        "protocol": str(PROTOCOL),
    }
    assert {key: row[key] for key in told} == told


def test_prepared_images_are_told(project_copy):
    params = (project_copy / "params.yaml").read_text().replace("prepare: []", "prepare: [resize_0.5, jpeg_90]")
    (project_copy / "params.yaml").write_text(params)
    path = project_copy / "models/probe-0/detector.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prepare": ["resize_0.5", "jpeg_90"]}))
    tables = {table.name: table for table in build_report(project_copy).tables}
    assert tables["data_hashes"].note == "Data set world. Every image was prepared: resize_0.5, jpeg_90."
    prepared = {row[0]: row[5] for row in tables["origins"].rows}
    assert prepared == {"ns_net": "as they are", "clip_lora": "as they are", "probe": "resize_0.5, jpeg_90"}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ContractError, match=r"index\.parquet does not exist; run `dvc repro` to make it"):
        read_provenance(Project(tmp_path, {}, {}))


# Official weights


def words_of(table: Table) -> list[str]:
    """Everything that a table says, its numbers and its note left out."""
    heads = [words for column in table.columns for words in (column.title, column.group)]
    return heads + [cell for row in table.rows for cell in row if isinstance(cell, str)]


def test_official_weights_are_marked_wherever_their_detector_is_named(tables):
    named = 0
    for table in tables.values():
        found = [words for words in words_of(table) if re.search(r"\bprobe\b", words) and table.name != "losses"]
        assert all(f"probe {DAGGER}" in words for words in found), (table.name, found)
        assert (f"{DAGGER}: weights that its authors released" in table.note) is bool(found), table.name
        assert all("probe" in words for words in words_of(table) if DAGGER in words), table.name
        named += len(found)
    assert named > 20
    assert any(row[1] == "probe" for row in tables["losses"].rows), "a phase of that name stays as it is"


def test_whose_weights_a_row_has_is_a_column_of_its_own(tables):
    with_column = [table for table in tables.values() if any(column.key == "weights" for column in table.columns)]
    assert {"summary", "comparison", "paper_ns_net_t2", "origins"} <= {table.name for table in with_column}
    for table in with_column:
        at = [column.key for column in table.columns].index("weights")
        for row in table.rows:
            printed = table.name.startswith("paper_") and "(ours)" not in row[0]
            assert row[at] == ("" if printed else "official" if DAGGER in row[0] else "retrained"), (table.name, row[0])


def test_the_best_number_is_the_best_among_weights_of_the_same_kind():
    """Released weights saw other data: they neither take the bold print from those that were trained here, nor the other way."""
    columns = [Column("detector", "Detector", "text"), Column("auroc", "AUROC", best="max")]
    values = {"npr": 0.7, "safe": 0.8, f"npr_new {DAGGER}": 0.9, f"safe_new {DAGGER}": 0.6}
    rows = [[name, Spread(value, value, value, 1, "interval")] for name, value in values.items()]
    plain = Table("comparison", "T", "N.", columns, rows)
    assert [plain.is_best(at, 1) for at in range(4)] == [False, False, True, False]
    table = marked(plain)
    assert [table.is_best(at, 2) for at in range(4)] == [False, True, True, False]


def test_without_official_weights_tables_stay_as_they_are(project):
    table = Table("summary", "T", "N.", [Column("detector", "Detector", "text")], [["npr"]])
    assert marked(table) is table
    assert all(DAGGER not in file.read_text(encoding="utf-8") for file in (project[0] / "reports/tables").glob("*.md"))


def test_official_weights_have_a_colour_of_their_own(papers_project):
    page = (papers_project / "reports/index.html").read_text(encoding="utf-8")
    for words in (f"probe {DAGGER}", f"probe {DAGGER} (ours)"):
        own = re.findall(rf'<th scope="row"[^>]*>(<span class="swatch"[^>]*></span>)?{re.escape(words)}</th>', page)
        swatches = [swatch for swatch in own if swatch]  # none where a row is a run
        assert swatches, words
        assert all(OFFICIAL_COLOURS[0] in swatch for swatch in swatches)
    assert not set(OFFICIAL_COLOURS) & set(COLOURS)


def test_what_was_trained_here_looks_the_same_beside_official_weights():
    alone = looks(["ns_net", "npr"])
    together = looks([f"npr_old {DAGGER}", "ns_net", f"npr_new {DAGGER}", "npr"])
    assert {name: together[name] for name in alone} == alone
    assert list(together) == [f"npr_old {DAGGER}", "ns_net", f"npr_new {DAGGER}", "npr"]
    assert len({look.colour for look in together.values()}) == 4
    assert {look.line for name, look in together.items() if DAGGER in name} == {OFFICIAL_LINE}


def test_figures_say_what_the_mark_means(papers_project):
    report = build_report(papers_project)
    shown = {figure.name: figure.caption for figure in report.figures if DAGGER in figure.alt}
    assert {"roc", "generators"} <= set(shown)
    assert all(MEANING in caption for caption in shown.values())


def test_the_head_of_the_page_does_not_rank_official_weights(papers_project):
    sentences = build_report(papers_project).headline
    (own,) = [words for words in sentences if DAGGER in words and "released" in words]
    assert own.startswith(f"Weights that their authors released, on the same images, balanced accuracy: probe {DAGGER}")
    assert DAGGER not in sentences[0]


def test_metrics_of_all_runs_are_kept_under_the_names_of_their_files(papers_project):
    summary = build_report(papers_project).summary
    assert list(summary) == ["ns_net-0", "ns_net-1", "clip_lora-0", "clip_lora-1", "probe"]
    assert all((papers_project / f"metrics/{run}.json").is_file() for run in summary)


# Licences


def test_licences_are_those_of_the_runs_methods_its_data_and_all_encoders():
    table = licence_table("genimage17", ["npr", "linear_probe", "npr"])
    named = {row[0] for row in table.rows}
    encoders = {row.name for row in licences() if row.kind == "encoder"}
    assert named == {"npr", "linear_probe", "genimage17", *encoders}
    expected = [(row.name, row.part, row.licence, row.commercial, row.source) for row in licences() if row.name in named]
    assert [tuple(row) for row in table.rows] == expected
    assert len({row.source for row in licences() if row.name == "npr"}) == 2, "our code and theirs"


def test_an_unknown_data_set_has_no_licence():
    table = licence_table("folder", ["ns_net"])
    assert {row[0] for row in table.rows} == {"ns_net", *(row.name for row in licences() if row.kind == "encoder")}
