"""NS-Net's figure 1: which images make the sets, what the projection does to them, and where the inputs come from."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from nullscope.core.contracts import INDEX, feature_schema, text_schema
from nullscope.ops import null_space
from nullscope.report.inputs import read_inputs
from nullscope.report.insight import _find_probe
from nullscope.report.semantics import Basis, compare, matched, mismatched, remove, unit
from nullscope.report.separation import Features
from nullscope.tables.parquet import read_table, write_table

WIDTH, MEANING = 12, 6


def texts(count: int, rng: np.random.Generator, width: int = 5) -> np.ndarray:
    return unit(rng.normal(size=(count, width)))


@pytest.mark.parametrize(("reals", "fakes"), [(4, 6), (5, 5), (6, 3)])
def test_matched_pairs_have_the_largest_cosines_in_sum(reals, fakes):
    rng = np.random.default_rng(reals)
    text_ND, order = texts(reals + fakes, rng), rng.permutation(reals + fakes)
    real, fake = order[:reals], order[reals:]
    count = min(reals, fakes)
    rows = matched(text_ND, real, fake, count)
    short, long = (real, fake) if reals <= fakes else (fake, real)
    best = max(
        sum(text_ND[a] @ text_ND[b] for a, b in zip(short, chosen, strict=True)) for chosen in itertools.permutations(long, count)
    )
    assert set(rows[:count]) <= set(real) and set(rows[count:]) <= set(fake) and len(set(rows)) == 2 * count, "one to one"
    assert sum(text_ND[a] @ text_ND[b] for a, b in zip(rows[:count], rows[count:], strict=True)) == pytest.approx(best)


def test_of_the_pairs_the_nearest_are_taken():
    rng = np.random.default_rng(0)
    text_ND, real, fake = texts(24, rng), np.arange(10), np.arange(10, 24)
    every, some = matched(text_ND, real, fake, 10), matched(text_ND, real, fake, 4)
    cosine = [text_ND[a] @ text_ND[b] for a, b in zip(every[:10], every[10:], strict=True)]
    assert cosine == sorted(cosine, reverse=True)
    assert list(some) == [*every[:4], *every[10:14]]


def test_mismatched_sets_are_the_ends_of_what_captions_differ_in_most():
    rng = np.random.default_rng(1)
    text_ND = rng.normal(size=(60, 5)) * [0.2, 3, 0.2, 0.2, 0.2] + 10  # spread along one axis, far from the origin
    real, fake = np.arange(0, 60, 3), np.setdiff1d(np.arange(60), np.arange(0, 60, 3))
    rows = mismatched(text_ND, real, fake, 8)
    assert sorted(rows[:8]) == sorted(real[np.argsort(text_ND[real, 1])[:8]])
    assert sorted(rows[8:]) == sorted(fake[np.argsort(text_ND[fake, 1])[-8:]])


def test_the_projection_is_that_of_the_detectors():
    rng = np.random.default_rng(2)
    features, basis = rng.normal(size=(7, WIDTH)), np.linalg.qr(rng.normal(size=(WIDTH, 3)))[0]
    reference = null_space.remove(torch.from_numpy(features), torch.from_numpy(basis)).numpy()
    np.testing.assert_allclose(remove(features, basis), reference, atol=1e-12)


def pictures(trace: float) -> tuple[Features, np.ndarray]:
    """Pictures of six things in turn: features of what they show, and a trace of their making; the captions' features."""
    rng = np.random.default_rng(3)
    meaning = np.eye(MEANING)[rng.integers(0, MEANING, 300)] @ np.diag([4, 1, 1, 1, 1, 1])
    is_fake = rng.random(300) < 0.6
    made = rng.normal(size=(300, WIDTH - MEANING)) + trace * is_fake[:, None]
    captions = np.hstack([meaning + 0.01 * rng.normal(size=meaning.shape), np.zeros_like(made)])
    features = np.hstack([meaning + 0.1 * rng.normal(size=meaning.shape), made]).astype(np.float32)
    return Features([str(at) for at in range(300)], features, is_fake, is_fake), captions


@pytest.mark.parametrize("trace", [0.0, 3.0])
def test_mismatched_sets_separate_by_meaning_until_it_is_removed(trace):
    """Without a trace there is nothing else to tell by; with a clear one everything separates."""
    own, captions = pictures(trace)
    found = compare("probe", "crop", own, captions, Basis("ours", np.eye(WIDTH, MEANING, dtype=np.float32)))
    area = {key: value.mean for key, value in found.auroc.items()}
    assert area["captions", "mismatched"] > 0.95 and abs(area["captions", "matched"] - 0.5) < 0.12
    assert area["before", "mismatched"] > 0.95
    assert found.count == int((~own.is_fake_N).sum()) // 2 == len(found.feature["after", "matched"]) // 2
    for key in (("before", "matched"), ("after", "matched"), ("after", "mismatched")):
        assert (area[key] > 0.95) if trace else abs(area[key] - 0.5) < 0.12, key


def test_too_few_images_have_no_sets():
    own, captions = pictures(0)
    few = Features(own.image_ids[:12], own.feature_NK[:12], own.is_fake_N[:12], own.is_seen_N[:12])
    assert compare("probe", "crop", few, captions[:12], Basis("ours", np.eye(WIDTH, 2, dtype=np.float32))) is None


# From the project


def test_the_project_has_the_sets_of_its_probe_and_the_basis_of_ns_net(project):
    found = read_inputs(project[0]).insight.semantics
    assert (found.detector, found.input, found.basis, found.removed) == ("probe", "crop", "ns_net", 6)
    assert found.auroc["before", "mismatched"].mean > found.auroc["after", "mismatched"].mean + 0.02
    table = (project[0] / "reports/tables/semantics.csv").read_text().splitlines()
    assert table[0].startswith("features,matched_percent,matched_percent_low,") and len(table) == 4


@pytest.mark.parametrize("run", ["ns_net-0", "probe-0"])
def test_without_a_basis_or_a_probe_the_sets_are_left_out(project_copy, run):
    path = project_copy / f"models/{run}/detector.json"
    facts = json.loads(path.read_text())
    facts["params"]["null_space"]["scope"] = "batch"
    path.write_text(json.dumps(facts))
    assert read_inputs(project_copy).insight.semantics is None


def test_the_probe_of_whole_images_is_preferred():
    def model(**params) -> dict:
        return {"params": {"view": "patches", "null_space": {"scope": "none"}, **params}}

    assert _find_probe({"linear_probe": model(), "whole": model(page="linear_probe", view="crop")}) == "whole"
    assert _find_probe({"clip_lora": model(), "linear_probe": model()}) == "linear_probe"
    old = {"params": {"method": "linear_probe"}}
    assert _find_probe({"linear_probe": model(null_space={"scope": "global"}), "old": old}) is None


def test_features_go_with_the_labels_of_the_index(project):
    insight = read_inputs(project[0]).insight
    assert list(insight.features) == ["ns_net", "clip_lora", "probe"]
    own = insight.features["probe"]
    trace = own.feature_NK[:, MEANING:].mean(1)
    assert (
        trace[own.is_fake_N & own.is_seen_N].mean() > trace[own.is_fake_N & ~own.is_seen_N].mean() > trace[~own.is_fake_N].mean()
    )
    assert not own.is_seen_N[~own.is_fake_N].any()


def test_a_test_image_that_lies_in_training_too_is_what_testing_calls_it(project, project_copy):
    path = project_copy / "data/index.parquet"
    index = read_table(path, INDEX)
    unseen = index.filter(pc.and_(pc.equal(index["split"], "test"), pc.equal(index["subset"], "vq")))
    leaked = unseen.set_column(1, INDEX.field("split"), pa.array(["train"] * len(unseen)))
    leaked = leaked.set_column(2, INDEX.field("subset"), pa.array(["unet"] * len(unseen)))
    leaked = leaked.set_column(3, INDEX.field("generator"), pa.array(["unet"] * len(unseen)))
    write_table(path, pa.concat_tables([index, leaked]), INDEX)
    before, after = (read_inputs(root).insight.features["probe"].is_seen_N for root in (project[0], project_copy))
    assert np.array_equal(before, after)


def test_features_of_another_index_are_refused(project_copy):
    path = project_copy / "data/features/ns_net-0.parquet"
    schema = feature_schema(2 * MEANING)
    found = read_table(path, schema)
    strange = found.set_column(0, schema.field("image_id"), pa.array(["0" * 64, *found["image_id"].to_pylist()[1:]]))
    write_table(path, strange, schema)
    with pytest.raises(ValueError, match=f"no image '{'0' * 64}'"):
        read_inputs(project_copy)


def test_captions_that_are_missing_are_counted(project_copy):
    path = project_copy / "data/text/test.parquet"
    table = read_table(path, text_schema(2 * MEANING))
    write_table(path, table.slice(5), text_schema(2 * MEANING))
    with pytest.raises(ValueError, match=r"test.parquet: \d of 150 images are missing; rerun `caption` and `embed`"):
        read_inputs(project_copy)
