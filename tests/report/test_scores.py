"""The command `evaluate`: the pipeline's own numbers from a file, its page, and how it fails."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from nullscope.cli import main
from nullscope.core.contracts import SCORES
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_table


@pytest.fixture
def files(project, tmp_path):
    """The scores of two runs of the made-up project as somebody else would bring them."""
    sources = read_table(project[0] / "data/index.parquet", INDEX).to_pandas().set_index("image_id")["source_of_real"]
    for name in ("ns_net", "probe"):
        rows = read_table(project[0] / f"scores/{name}-0.parquet", SCORES).to_pandas()
        rows["source_of_real"] = sources.loc[rows.image_id].to_numpy()
        rows = rows[rows.degradation == "none"].assign(generator=lambda own: own.subset).rename(columns={"logit": "score"})
        rows.drop(columns="degradation").to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


def run(*arguments) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_numbers_are_those_of_the_pipeline(project, files):
    code, said = run(files / "ns_net.csv", files / "probe.csv", "--score", "logit", "--out", files / "out")
    assert code == 0, said
    for name in ("ns_net", "probe"):
        found = json.loads((files / f"out/metrics/{name}.json").read_text(encoding="utf-8"))
        expected = json.loads((project[0] / f"metrics/{name}-0.json").read_text(encoding="utf-8"))
        shared = {key for key in expected if "seen" not in key and key not in ("subsets", "degradations")}
        assert {key: found[key] for key in shared} == {key: expected[key] for key in shared} and "sources" in shared
        for subset, row in expected["subsets"].items():
            assert {key: found["subsets"][subset][key] for key in row if key != "seen"} == {
                key: value for key, value in row.items() if key != "seen"
            }
    page = (files / "out/index.html").read_text(encoding="utf-8")
    assert "Models two by two" in page and "all of them count as unseen" in page and "Refused files" not in page
    assert "has the highest balanced accuracy" in said and "One seed" not in said, "two fixed models can be told apart"
    assert {path.name for path in (files / "out/tables").glob("*.csv")} >= {"summary.csv", "pairs.csv", "models.csv", "runs.csv"}


def test_seen_generators_are_named(project, files):
    code, said = run(files / "ns_net.csv", "--score", "logit", "--out", files / "out", "--seen", "vae", "--seen", "vq")
    assert code == 0, said
    found = json.loads((files / "out/metrics/ns_net.json").read_text(encoding="utf-8"))
    expected = json.loads((project[0] / "metrics/ns_net-0.json").read_text(encoding="utf-8"))
    seen = {name for name, row in found["subsets"].items() if row.get("seen")}
    assert seen == {"vae", "vq"} and "count as unseen" not in said
    values = [found["subsets"][name]["auroc"] for name in seen]
    assert found["auroc_seen"] == pytest.approx(np.mean(values), abs=1e-6) and found["auroc"] == expected["auroc"]
    code, said = run(files / "ns_net.csv", "--score", "logit", "--seen", "gan")
    assert code == 2 and "--seen gan: expected generators of the test images: shuffle, unet, vae, vq" in said


def test_thresholds_are_set_on_validation_rows_of_another_file(files):
    rng = np.random.default_rng(0)
    lines = [f"v{at},real,,{value}" for at, value in enumerate(rng.normal(-1, 1, 120))]
    (files / "val").mkdir()
    (files / "val/ns_net.csv").write_text("source,label,generator,score\n" + "\n".join(lines) + "\n", encoding="utf-8")
    code, said = run(files / "ns_net.csv", "--score", "logit", "--val", files / "val/ns_net.csv")
    assert code == 0, said
    assert "Promised and achieved" in said and "the 120 reals of the validation split" in said
    assert "--out FOLDER" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ns_net.csv", "--score", "probability"), "are these logits (--score logit)"),
        (("none.csv", "--score", "logit"), "no such file"),
        (("ns_net.csv", "ns_net.csv", "--score", "logit"), "twice"),
        (("ns_net.csv", "--score", "logit", "--val", "probe.csv"), "expected the name of a file of scores"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(files, arguments, words):
    code, said = run(*(files / word if word.endswith(".csv") else word for word in arguments))
    assert code == 2 and said.startswith("Error: ") and words in said


def test_a_report_replaces_a_report_and_nothing_else(files):
    (files / "home").mkdir()
    (files / "home/letter.txt").write_text("dear", encoding="utf-8")
    for out in (files / "home", files / "probe.csv"):
        code, said = run(files / "ns_net.csv", "--score", "logit", "--out", out)
        assert code == 2 and "expected a new folder or one with an earlier report" in said
    assert (files / "home/letter.txt").read_text(encoding="utf-8") == "dear"
    for _ in range(2):
        assert run(files / "ns_net.csv", "--score", "logit", "--out", files / "new")[0] == 0


def test_a_file_of_one_kind_is_refused(files):
    (files / "one.csv").write_text("source,label,generator,score\na,fake,sd,3\nb,fake,sd,-2\n", encoding="utf-8")
    code, said = run(files / "one.csv", "--score", "logit")
    assert code == 2 and "one: expected reals and fakes among its test images" in said
