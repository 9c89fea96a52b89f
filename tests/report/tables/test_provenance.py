"""Where the numbers come from: md5 sums, licences, and the mark of official weights."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from io import StringIO

import pytest

from nullscope.core.contracts import ContractError
from nullscope.records.licences import licences
from nullscope.report.build import build_report
from nullscope.report.layout import Column, Table
from nullscope.report.project import Project, read_models, read_project
from nullscope.report.tables.provenance import DAGGER, IN_HEADINGS, NAMING, licence_table, marked, official, read_provenance

OFFICIAL = re.compile(r"\bprobe(-\d|\)| \(ours\))?")  # of the project on the papers' benchmark, as tables name it


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
    told = {"method": "linear_probe", "weights": "retrained", "dataset": "world", "prepare": "as they are", "protocol": "2"}
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


def test_official_weights_are_marked_wherever_their_detector_is_named(tables):
    names = 0
    for table in tables.values():
        cells = [(column.key, cell) for row in table.rows for column, cell in zip(table.columns, row, strict=True)]
        heads = [words for column in table.columns for words in (column.title, column.group)]
        naming = [cell for key, cell in cells if key in NAMING] + (heads if table.name in IN_HEADINGS else [])
        for words in naming:
            named = bool(OFFICIAL.search(words))
            assert words.endswith(f" {DAGGER}") is named, (table.name, words)
            names += named
        marks = any(DAGGER in words for words in naming)
        assert (f"{DAGGER}: weights its authors released" in table.note) is marks, table.name
    assert names > 40


def test_nothing_else_is_marked(tables):
    for table in tables.values():
        for row in table.rows:
            for column, cell in zip(table.columns, row, strict=True):
                if column.key not in NAMING:
                    assert DAGGER not in str(cell), (table.name, column.key)
        if table.name not in IN_HEADINGS:
            assert not any(DAGGER in column.full_title for column in table.columns)
    assert any(row[1] == "probe" for row in tables["losses"].rows), "a phase of that name stays as it is"
    assert all(DAGGER not in f"{table.rows} {table.note}" for table in (tables["index"], tables["licences"], tables["files"]))


def test_the_first_detector_is_marked_in_the_headings_that_name_it():
    columns = [Column("detector", "Detector", "text"), Column("auroc", "AUROC", "points", "Difference to npr")]
    table = marked(Table("comparison", "T", "N.", columns, [["npr", 0.5], ["npr_two", 0.5]]), {"npr"})
    assert [column.full_title for column in table.columns] == ["Detector", f"Difference to npr {DAGGER}: AUROC"]
    assert [row[0] for row in table.rows] == [f"npr {DAGGER}", "npr_two"], "another name that begins alike"


def test_without_official_weights_tables_stay_as_they_are(project):
    assert official(read_models(read_project(project[0]))) == set()
    assert all(DAGGER not in file.read_text(encoding="utf-8") for file in (project[0] / "reports/tables").glob("*.md"))


def test_a_marked_detector_keeps_its_colour(papers_project):
    page = (papers_project / "reports/index.html").read_text(encoding="utf-8")
    for words in (f"probe {DAGGER}", f"probe (ours) {DAGGER}"):
        own = re.findall(rf'<th scope="row"[^>]*>(<span class="swatch"[^>]*></span>)?{re.escape(words)}</th>', page)
        assert own, words
        assert all("#009E73" in swatch for swatch in own), "the colour of the third detector"


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
