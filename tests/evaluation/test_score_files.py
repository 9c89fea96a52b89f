"""Anybody's scores: every format, what is refused and how it is said, and the join of several detectors."""

from __future__ import annotations

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from nullscope.core.contracts import CLEAN
from nullscope.evaluation import evaluate
from nullscope.evaluation.protocol import evaluate as by_protocol
from nullscope.evaluation.score_files import CERTAIN, ScoreFileError, checked, join, logit_of, read_score_file

ROWS = [
    {"source": "007.png", "label": "real", "generator": "", "score": 0.25},
    {"source": "a/b, c.png", "label": "fake", "generator": "NA", "score": 0.75},
    {"source": "é.png", "label": "fake", "generator": "sd", "score": 1.0},
]


def table(**columns) -> pa.Table:
    made = {key: [row[key] for row in ROWS] for key in ROWS[0]} | columns
    return pa.table({key: values for key, values in made.items() if values is not None})


def written(folder, suffix: str):
    path = folder / f"mine{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif suffix in (".csv", ".tsv"):
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["", *ROWS[0]], delimiter="," if suffix == ".csv" else "\t")  # pandas' own first column
            writer.writeheader()
            writer.writerows({"": at, **row} for at, row in enumerate(ROWS))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_all_formats_say_the_same(tmp_path, suffix):
    found = read_score_file(written(tmp_path, suffix), "probability")
    assert found.name == "mine"
    assert found.rows["image_id"].to_pylist() == ["007.png", "a/b, c.png", "é.png"], "a name is no number"
    assert found.rows["subset"].to_pylist() == ["real", "NA", "sd"], "a generator may be called NA"
    assert found.rows["label"].to_pylist() == [0, 1, 1]
    assert found.rows["logit"].to_pylist() == pytest.approx([np.log(1 / 3), np.log(3), CERTAIN])
    assert set(found.rows["degradation"].to_pylist()) == {CLEAN} and set(found.rows["split"].to_pylist()) == {"test"}


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_every_probability_keeps_its_rank_as_a_logit(values):
    made = {"source": [str(at) for at in range(len(values))], "label": [0] * len(values), "subset": ["x"] * len(values)}
    logits = checked(pa.table(made | {"score": values}), "probability", "x", "x").rows["logit"].to_numpy()
    assert np.isfinite(logits).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(logits[order]) >= 0).all()
    assert ((np.diff(logits[order]) > 0) | (np.diff(np.array(values)[order]) < 1e-15)).all()
    np.testing.assert_allclose(scipy.special.expit(logits), values, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"score": None}, "probability", "found source, label, generator: score missing"),
        ({"source": None}, "probability", r"source \(or image_id\) missing"),
        ({"generator": None}, "probability", r"generator \(or subset\) missing"),
        (
            {"score": [0.1, 3.2, 0.4]},
            "probability",
            r"row 2: expected probabilities .* found 3.2; are these logits \(--score logit\)",
        ),
        ({}, "logit", r"found 3 scores from 0.25 to 1: these can only be probabilities \(--score probability\)"),
        ({"score": ["0.1", "high", ""]}, "probability", "row 2, 3: expected a number in the column score, found 'high'"),
        ({"score": [0.1, float("nan"), 0.2]}, "probability", "row 2: expected a finite score"),
        ({"score": [0.1, None, 0.2]}, "probability", "row 2: expected a finite score"),
        ({"score": [[1], [2], [3]]}, "probability", "expected numbers in the column score, found list"),
        ({"label": ["real", "ai", "fake"]}, "probability", "row 2: expected a label real or fake, or 0 or 1, found 'ai'"),
        ({"source": ["a", "b", "a"]}, "probability", "expected every source once, found some again: 'a'"),
        ({"source": ["a", "", "c"]}, "probability", "row 2: expected a source of every image"),
        ({"split": ["test", "train", "val"]}, "probability", "row 2: expected a split test or val, found 'train'"),
    ],
)
def test_what_is_wrong_is_said_with_its_row(change, kind, message):
    with pytest.raises(ScoreFileError, match=f"^scores.csv.*{message}"):
        checked(table(**change), kind, "scores.csv", "scores")


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(ScoreFileError, match="no such file"):
        read_score_file(tmp_path / "none.csv", "logit")
    with pytest.raises(ScoreFileError, match=r"expected a file named \*.csv"):
        read_score_file(tmp_path / "scores.xlsx", "logit")
    for name, content in (("a.csv", "source,label\nx\ny,1,2\n"), ("b.jsonl", "[1, 2]\n{"), ("c.parquet", "PAR1"), ("d.csv", "")):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(ScoreFileError, match=name):
            read_score_file(tmp_path / name, "logit")
    (tmp_path / "e.csv").write_text("source,label,generator,score\n", encoding="utf-8")
    with pytest.raises(ScoreFileError, match="a row per image, found none"):
        read_score_file(tmp_path / "e.csv", "logit")


# Several files


def scored(name: str, images: list[str], labels: dict[str, int], seed: int, **columns):
    rng = np.random.default_rng(seed)
    made = {"source": images, "label": [labels[image] for image in images], "generator": ["sd"] * len(images)}
    return checked(pa.table(made | {"score": list(rng.normal(0, 3, len(images)))} | columns), "logit", name, name)


LABELS = {f"{at}.png": at % 2 for at in range(30)}


def test_files_are_joined_by_image_in_the_order_of_the_first():
    images = list(LABELS)
    first = scored("a", images[:25], LABELS, 1)
    second = scored("b", images[5:][::-1], LABELS, 2)
    joined = join([first, second])
    assert joined.left_out == {"a": 5, "b": 5}
    assert [own.rows["image_id"].to_pylist() for own in joined.files] == [images[5:25]] * 2
    by_image = dict(zip(second.rows["image_id"].to_pylist(), second.rows["logit"].to_pylist(), strict=True))
    assert joined.files[1].rows["logit"].to_pylist() == [by_image[image] for image in images[5:25]]


def test_files_that_do_not_agree_are_refused():
    images = list(LABELS)
    first = scored("a", images, LABELS, 1)
    with pytest.raises(
        ScoreFileError, match=r"a, b: expected the same label of every image, found 30 that differ: '0.png' is 0 and 1"
    ):
        join([first, scored("b", images, {image: 1 - label for image, label in LABELS.items()}, 2)])
    with pytest.raises(ScoreFileError, match="expected scores of the same images, found none"):
        join([first, scored("b", [f"other/{image}" for image in images], {f"other/{k}": v for k, v in LABELS.items()}, 2)])
    with pytest.raises(ScoreFileError, match="expected the column group in both"):
        join([first, scored("b", images, LABELS, 2, group=images)])


# From Python


def test_evaluate_is_the_protocol_on_the_test_rows():
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    made = {"source": [str(at) for at in range(200)], "label": label, "generator": np.where(label, "sd", "camera")}
    made |= {"score": rng.normal(label, 1), "split": np.where(np.arange(200) < 40, "val", "test")}
    found = evaluate({key: list(values) for key, values in made.items()}, score="logit")
    rows = pa.table(
        {"subset": np.where(label, "sd", "real")[40:], "label": label[40:].astype(np.int8), "logit": made["score"][40:]}
    )
    val = pa.table({"subset": ["x"] * 40, "label": label[:40].astype(np.int8), "logit": made["score"][:40]})
    expected = by_protocol(rows.append_column("degradation", pa.array([CLEAN] * 160)), val=val)
    assert found == expected and found["frozen"]["tpr_5"]["reals"] == 20
    assert evaluate({key: list(values) for key, values in made.items()}, score="logit", threshold=9)["r_acc"] == 1


def test_a_threshold_is_a_score():
    assert (logit_of(None, "probability"), logit_of(1.5, "logit")) == (0, 1.5)
    assert logit_of(0.8, "probability") == pytest.approx(np.log(4))
    with pytest.raises(ScoreFileError, match="between 0 and 1, found 2"):
        logit_of(2, "probability")
    with pytest.raises(ScoreFileError, match="finite"):
        logit_of(float("nan"), "logit")
