"""The report: the stage scripts run on a synthetic project, and what they leave is read back."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from rich.console import Console
from trees import tree_sha256

from nullscope.core.contracts import CLEAN, SCORES
from nullscope.evaluation.protocol import evaluate
from nullscope.evaluation.scores import read_test_scores, read_val_scores, with_origins
from nullscope.evaluation.seeds import Spread
from nullscope.report.build import build_report
from nullscope.report.layout import Column, Table, to_csv, to_markdown
from nullscope.report.page import render
from nullscope.report.tables.generators import print_summary
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_table, write_table

RUNS = [f"{name}-{seed}" for name in ("ns_net", "clip_lora", "probe") for seed in (0, 1)]
SEEN = frozenset({"unet", "vae"})
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Every start tag with its attributes; raises on a tag that is not closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()} closes something else"

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="session")
def page(project) -> Page:
    return Page((project[0] / "reports/index.html").read_text(encoding="utf-8"))


# The page


def test_page_has_every_section_and_the_contents_lead_there(page):
    sections = [section["id"] for section in page.all("section")]
    assert sections == ["summary", "per-generator", "robustness", "insight", "figures", "data", "numbers"]
    assert [link["href"] for link in page.all("a")] == [f"#{name}" for name in sections]


def test_page_needs_nothing_from_outside(project, page):
    text = (project[0] / "reports/index.html").read_text(encoding="utf-8")
    assert not page.all("script")
    assert not re.search(r"https?:|//\w|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))


def test_every_image_says_what_it_shows(project, page):
    alts = [image["alt"] for image in page.all("img")]
    assert len(alts) == len(set(alts)) == 13
    assert all(len(alt) > 60 for alt in alts)
    reals = [json.loads((project[0] / f"metrics/clip_lora-{seed}.json").read_text())["r_acc"] for seed in (0, 1)]
    assert any(f"clip_lora: reals {100 * np.mean(reals):.1f} %" in alt for alt in alts)


def test_every_header_has_a_scope_and_a_body_row_begins_with_one(page):
    assert {header["scope"] for header in page.all("th")} == {"col", "row", "colgroup"}
    names = [tag for tag, _ in page.tags if tag in ("tbody", "tr", "th", "td", "table")]
    assert all(names[at + 1] == "tr" and names[at + 2] == "th" for at, tag in enumerate(names) if tag == "tbody")


def test_page_states_the_numbers_of_the_metrics_files(project, page):
    metrics = [json.loads((project[0] / f"metrics/ns_net-{seed}.json").read_text()) for seed in (0, 1)]
    balanced = 100 * np.mean([run["mean_balanced"] for run in metrics])
    text = " ".join(page.words).replace("\N{NO-BREAK SPACE}", " ")
    assert f"ns_net has the highest balanced accuracy, {balanced:.1f} %" in text
    assert "NxN px: a side is too short" in text
    assert "4 of them repeat the very bytes of another" in text
    assert "In 75 % of the training pictures the colour of the object told the label" in text
    assert "A linear classifier that sees only the frozen text features of 180 training captions is right on" in text


def test_report_is_the_same_bytes_again_whatever_the_number_of_threads(project, stage):
    root, _ = project
    first = tree_sha256(root / "reports"), (root / "metrics/summary.json").read_bytes()
    shutil.rmtree(root / "reports")
    assert stage(root, "report", OMP_NUM_THREADS="3", OPENBLAS_NUM_THREADS="3").returncode == 0
    assert (tree_sha256(root / "reports"), (root / "metrics/summary.json").read_bytes()) == first


def test_report_names_no_machine(project):
    for file in (project[0] / "reports").rglob("*"):
        if file.is_file():
            assert str(project[0]).encode() not in file.read_bytes(), file


def test_a_page_of_a_benchmark_shows_the_papers_and_warns(papers_project):
    page = Page((papers_project / "reports/index.html").read_text(encoding="utf-8"))
    sections = [section["id"] for section in page.all("section")]
    assert sections == ["summary", "per-generator", "papers", "robustness", "insight", "figures", "data", "numbers"]
    assert [link["href"] for link in page.all("a")] == [f"#{name}" for name in sections]
    assert len(page.all("aside")) == 1
    text = " ".join(page.words)
    for words in ("Before you believe these numbers", "NS-Net, table 2", "Not as published", "imagenet"):
        assert words in text
    assert "`" not in text, "code is set as code"
    names = {file.stem for file in (papers_project / "reports/tables").iterdir()}
    assert {"scorecard", "paper_ns_net_t2", "paper_ns_net_t6", "paper_dgs_net_t7", "paper_dgs_net_t7_ap"} <= names


def test_without_file_bias_there_is_no_warning(page):
    assert not page.all("aside")


# The files beside it


def test_summary_holds_the_metrics_files(project):
    summary = json.loads((project[0] / "metrics/summary.json").read_text())
    assert sorted(summary) == sorted(RUNS)
    assert all(summary[run] == json.loads((project[0] / f"metrics/{run}.json").read_text()) for run in RUNS)


def test_metrics_file_is_the_evaluation_of_the_scores(project):
    path = project[0] / "scores/ns_net-0.parquet"
    scores = with_origins(read_test_scores(path), read_table(project[0] / "data/index.parquet", INDEX))
    expected = evaluate(scores, SEEN, val=read_val_scores(path))
    assert json.loads((project[0] / "metrics/ns_net-0.json").read_text()) == expected
    assert set(expected["sources"]["auroc"]["vq"]) == {"phone", "scan"}


def test_tables_and_figures_lie_beside_the_page(project):
    tables = {"summary", "averages", "per_generator", "per_generator_ap", "runs", "losses", "index", "refused", "parameters"}
    tables |= {"comparison", "shortcut", "semantics", "captions_alone", "file_bias", "file_bias_transfer", "files"}
    tables |= {
        "pairs",
        "per_generator_differences",
        "prevalence",
        "robustness",
        "robustness_detail",
        "sources",
        "unexpected",
        "origins",
        "data_hashes",
        "licences",
    }
    files = {file.name for file in (project[0] / "reports/tables").iterdir()}
    assert files == {f"{table}.{suffix}" for table in tables for suffix in ("csv", "md", "tex")}
    figures = {"generators", "roc", "logits", "calibration", "training", "examples", "features", "shortcut", "semantics"}
    figures |= {"robustness", "comparison", "costs", "validation"}
    assert {file.name for file in (project[0] / "reports/figures").iterdir()} == {f"{figure}.png" for figure in figures}


def test_csv_shows_percent_with_the_ends_of_its_interval(project):
    rows = list(csv.DictReader(StringIO((project[0] / "reports/tables/per_generator.csv").read_text(encoding="utf-8"))))
    found = [json.loads((project[0] / f"metrics/clip_lora-{seed}.json").read_text())["subsets"]["vq"] for seed in (0, 1)]
    assert [row["detector"] for row in rows] == ["ns_net", "clip_lora", "probe"], "the order of the parameters"
    assert list(rows[0])[1:4] == ["real_percent", "real_percent_low", "real_percent_high"], "the reals come first"
    shown = [float(rows[1][f"vq_percent{suffix}"]) for suffix in ("", "_low", "_high")]
    expected = [100 * np.mean([own[f"f_acc{end}"] for own in found]) for end in ("", "_low", "_high")]
    assert shown == pytest.approx(expected, abs=1e-3), "of two seeds, the interval of the images"


# The terminal


def test_printed_table_is_never_cut_and_has_no_colours_in_a_file(project):
    assert "\x1b" not in project[1]
    row = next(csv.reader((project[0] / "reports/tables/per_generator.csv").read_text(encoding="utf-8").splitlines()[1:]))
    for words in (f"{float(row[1]):.1f}", "clip_lora", "reports/index.html"):
        assert words in project[1]
    assert "…" not in project[1]


def test_print_summary_prints_the_stages_table_again(project):
    out = StringIO()
    summary = json.loads((project[0] / "metrics/summary.json").read_text())
    print_summary({run: summary[run] for run in RUNS}, Console(file=out, width=20))
    assert out.getvalue() in project[1]


# What is missing or wrong


@pytest.mark.parametrize(
    ("missing", "maker"),
    [
        ("params.yaml", "run this from the project's root"),
        ("data/index.parquet", "run `dvc repro` to make it"),
        ("data/rejects.csv", "run `dvc repro` to make it (stage `index`)"),
        ("models/ns_net-0/detector.json", "run `dvc repro` to make it (stage `train`)"),
        ("scores/ns_net-1.parquet", "run `dvc repro` to make it"),
        ("metrics/clip_lora-1.json", "run `dvc repro` to make it (stage `evaluate`)"),
        ("metrics/audit.json", "run `dvc repro` to make it (stage `audit`)"),
        ("metrics/index.json", "run `dvc repro` to make it (stage `index`)"),
        ("data/evaluated/probe-1.parquet", "run `dvc repro` to make it"),
        ("data/shards/images/test/test-000000.tar", "run `dvc repro shard`"),
        ("data/features/clip_lora-0.parquet", "run `dvc repro` to make it"),
        ("data/text/test.parquet", "run `dvc repro` to make it"),
        ("data/captions.parquet", "run `dvc repro` to make it"),
        ("models/ns_net-0/weights.safetensors", "run `dvc repro` to make it (stage `train`)"),
    ],
)
def test_missing_file_is_named_with_its_maker(project, tmp_path, missing, maker):
    root = Path(shutil.copytree(project[0], tmp_path / "copy"))
    (root / missing).unlink()
    with pytest.raises(ValueError, match=re.escape(maker)) as error:
        build_report(root)
    assert str((root / missing).parent) in str(error.value)


def test_error_is_one_line_and_the_last_report_still_stands(project, tmp_path, stage):
    root = Path(shutil.copytree(project[0], tmp_path / "copy"))
    (root / "metrics/clip_lora-1.json").unlink()
    done = stage(root, "report")
    assert done.returncode == 1
    expected = "error: metrics/clip_lora-1.json does not exist; run `dvc repro` to make it (stage `evaluate`)\n"
    assert done.stderr == expected
    assert tree_sha256(root / "reports") == tree_sha256(project[0] / "reports")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "params.yaml",
            "run: {detectors: [], seeds: [0], official: []}",
            "expected detectors and seeds, or a model of `official`",
        ),
        (
            "models/ns_net-0/history.csv",
            "step,loss\n0,1\n",
            "line 1: expected the columns step, epoch, phase, loss, found ['step', 'loss']",
        ),
        ("models/ns_net-0/history.csv", "step,epoch,phase,loss\n", "expected a row per step, found none"),
        ("data/rejects.csv", "file,why\n", "expected the columns source and reason, found ['file', 'why']"),
        ("metrics/ns_net-0.json", "{", "is not JSON"),
        ("metrics/ns_net-0.json", '{"protocol": 1}', "expected protocol 3, found 1; run `dvc repro evaluate`"),
        ("metrics/probe-1.json", '{"r_acc": 1}', "expected protocol 3, found none; run `dvc repro evaluate`"),
        ("metrics/audit.json", "", "is not JSON"),
        ("models/ns_net-0/weights.safetensors", "PK", "expected the tensor null_space.basis_DK"),
    ],
)
def test_broken_file_is_refused(project, tmp_path, file, content, message):
    root = Path(shutil.copytree(project[0], tmp_path / "copy"))
    (root / file).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        build_report(root)


def test_validation_images_and_degraded_ones_do_not_reach_the_report(project, project_copy):
    """Validation images that are all called wrong stand in front of the test images, and no degraded image is left."""
    for run in RUNS:
        path = project_copy / f"scores/{run}.parquet"
        rows = read_table(path, SCORES)
        assert set(rows["degradation"].to_pylist()) == {CLEAN, "jpeg_75", "blur_1.0"}
        clean = rows.filter(pc.equal(rows["degradation"], CLEAN))
        wrong = clean.set_column(1, SCORES.field("split"), pa.array(["val"] * len(clean)))
        logit = pa.array(np.where(clean["label"].to_numpy() == 1, -9, 9), pa.float32())
        wrong = wrong.set_column(SCORES.get_field_index("logit"), SCORES.field("logit"), logit)
        write_table(path, pa.concat_tables([wrong, clean]), SCORES)
    report, reports = build_report(project_copy), project[0] / "reports"
    for table in report.tables:
        if table.name != "origins":  # it has the hashes of the scores
            assert to_csv(table) == (reports / f"tables/{table.name}.csv").read_text(encoding="utf-8"), table.name
    assert all(figure.png == (reports / f"figures/{figure.name}.png").read_bytes() for figure in report.figures)


def test_a_model_without_history_is_named_and_not_drawn(project_copy):
    (project_copy / "models/probe-1/history.csv").unlink()
    report = build_report(project_copy)
    (training,) = (figure for figure in report.figures if figure.name == "training")
    (losses,) = (table for table in report.tables if table.name == "losses")
    assert "not drawn: probe." in training.caption and "probe from" not in training.alt
    assert {row[0] for row in losses.rows} == {"ns_net", "clip_lora"}


def test_without_any_history_the_page_says_so(project_copy):
    for file in project_copy.glob("models/*/history.csv"):
        file.unlink()
    text = render(build_report(project_copy))
    assert "No detector here has a history of its training." in text and 'id="figure-training"' not in text


@pytest.mark.slow
def test_scores_of_another_index_are_refused(tmp_path, make_project, stage):
    root = make_project(tmp_path / "other")
    table = read_table(root / "scores/ns_net-0.parquet", SCORES)
    other = table.slice(0, 1).set_column(1, SCORES.field("split"), pa.array(["val"]))  # makes up the number, and does not count
    write_table(root / "scores/ns_net-0.parquet", pa.concat_tables([other, table.slice(1)]), SCORES)
    done = stage(root, "evaluate", "ns_net-0")
    assert done.returncode == 1
    assert "found 299 of the degradation 'none': 1 are missing" in done.stderr
    assert not (root / "metrics/ns_net-0.json").exists()


# Parts


def test_the_lowest_error_is_the_best_and_equal_numbers_share_it():
    column, cells = Column("ece", "ECE", best="min"), [Spread(x, x, x, 1) for x in (0.3, 0.2001, 0.2)]
    table = Table("t", "Title", "Note.", [column], [[cell] for cell in cells])
    assert [table.is_best(row, 0) for row in range(3)] == [False, True, True]


def test_table_without_seeds_or_numbers():
    columns = [Column("detector", "Detector", "text"), Column("acc", "Acc | all", best="max"), Column("ece", "ECE", best="min")]
    rows = [["a", Spread(0.5, 0.5, 0.5, 1), Spread(0.2, 0.2, 0.2, 1)], ["b", Spread(0.4, 0.4, 0.4, 1), None]]
    table = Table("t", "Title", "Note.", columns, rows)
    assert to_csv(table) == "detector,acc_percent,ece_percent\na,50.0000,20.0000\nb,40.0000,\n"
    assert (
        "| Detector | Acc \\| all | ECE |\n| --- | ---: | ---: |\n| a | **50.0** | 20.0 |\n| b | 40.0 | n/a |\n"
        in to_markdown(table)
    )


def test_intervals_show_their_ends_and_have_columns_of_their_own():
    columns = [Column("acc", "Acc", best="max"), Column("less", "Less", "points", against=(0, 0))]
    rows = [
        [Spread(0.5, 0.45, 0.55, 3, "interval"), Spread(-0.02, -0.03, -0.01, 3, "interval")],
        [Spread(0.4, 0.3, 0.5, 2, "range"), Spread(0.02, -0.01, 0.05, 3, "interval")],
    ]
    table = Table("t", "Title", "Note.", columns, rows)
    header, first, _ = to_csv(table).splitlines()
    assert header == "acc_percent,acc_percent_low,acc_percent_high,less_points,less_points_low,less_points_high"
    assert first == "50.0000,45.0000,55.0000,-2.0000,-3.0000,-1.0000"
    markdown = to_markdown(table)
    assert "| **50.0** (45.0 to 55.0) | -2.0\\* ± 1.0 |" in markdown, "an interval that excludes zero is marked"
    assert "| 40.0 (30.0 to 50.0) | +2.0 ± 3.0 |" in markdown, "one that includes it is not"


@pytest.mark.slow
def test_the_report_does_not_wait_for_torch():
    """It takes seconds to import, and the report needs nothing of it."""
    code = "import sys; from nullscope.report import build, page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
