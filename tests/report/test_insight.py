"""What the section "What the detectors look at" reads: features, captions, colours, and the labels that go with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from nullscope.core.contracts import CAPTIONS, CLEAN, SCORES, feature_schema, text_schema
from nullscope.evaluation.semantics import Semantics
from nullscope.evaluation.separation import Features
from nullscope.report.insight import _read_features, find_probe, read_feature_maps, read_semantics, read_shortcut
from nullscope.report.project import read_models, read_project
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_table, write_table
from nullscope.world.colours import is_fake_colour

MEANING, SEEN = 6, frozenset({"vae", "unet"})


def semantics_of(root: Path) -> Semantics | None:
    project = read_project(root)
    return read_semantics(project, read_models(project), SEEN)


def features_of(root: Path) -> Features:
    (own,) = _read_features(read_project(root), ["probe"], SEEN)
    return own


def test_there_is_a_map_of_every_detector(project):
    maps = read_feature_maps(read_project(project[0]), SEEN)
    assert list(maps) == ["ns_net", "clip_lora", "probe"]
    own = features_of(project[0])
    assert maps["probe"].images == len(own.image_ids) == len(maps["probe"].place_M2)
    np.testing.assert_array_equal(maps["probe"].is_fake_M, own.is_fake_N)


def test_the_project_has_the_sets_of_its_probe_and_the_basis_of_ns_net(project):
    found = semantics_of(project[0])
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
    assert semantics_of(project_copy) is None


def test_the_probe_of_whole_images_is_preferred():
    def model(**params) -> dict:
        return {"params": {"input": "patches", "null_space": {"scope": "none"}, **params}}

    assert find_probe({"linear_probe": model(), "whole": model(method="linear_probe", input="crop")}) == "whole"
    assert find_probe({"clip_lora": model(), "linear_probe": model()}) == "linear_probe"
    old = {"params": {"method": "linear_probe"}}
    assert find_probe({"linear_probe": model(null_space={"scope": "global"}), "old": old}) is None


def test_features_go_with_the_labels_of_the_index(project):
    own = features_of(project[0])
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
    before, after = (features_of(root).is_seen_N for root in (project[0], project_copy))
    assert np.array_equal(before, after)


def test_features_of_another_index_are_refused(project_copy):
    path = project_copy / "data/features/ns_net-0.parquet"
    schema = feature_schema(2 * MEANING)
    found = read_table(path, schema)
    strange = found.set_column(0, schema.field("image_id"), pa.array(["0" * 64, *found["image_id"].to_pylist()[1:]]))
    write_table(path, strange, schema)
    with pytest.raises(ValueError, match=f"in the split test, found no '{'0' * 64}'"):
        read_feature_maps(read_project(project_copy), SEEN)


def test_captions_that_are_missing_are_counted(project_copy):
    path = project_copy / "data/text/test.parquet"
    table = read_table(path, text_schema(2 * MEANING))
    write_table(path, table.slice(5), text_schema(2 * MEANING))
    with pytest.raises(ValueError, match=r"test.parquet: \d of 150 images are missing; rerun `caption` and `embed`"):
        semantics_of(project_copy)


def test_features_of_a_validation_image_are_refused(project_copy):
    path = project_copy / "data/index.parquet"
    index = read_table(path, INDEX)
    one = pc.equal(index["image_id"], features_of(project_copy).image_ids[3])
    split = pc.if_else(one, "val", index["split"])
    write_table(path, index.set_column(1, INDEX.field("split"), split), INDEX)
    with pytest.raises(ValueError, match="expected every image with features in the split test"):
        features_of(project_copy)


def test_the_project_shows_which_detector_leans_on_the_colour(project):
    found = read_shortcut(read_project(project[0]))
    captions = {row["image_id"]: row["caption"] for row in read_table(project[0] / "data/captions.parquet", CAPTIONS).to_pylist()}
    rows = read_table(project[0] / "scores/clip_lora-1.parquet", SCORES).to_pylist()
    rows = [row for row in rows if row["degradation"] == CLEAN]
    kept = [(row, side) for row in rows if (side := is_fake_colour(captions[row["image_id"]])) is not None]
    wins, pairs = 0.0, 0
    for one, one_side in kept:
        for other, other_side in kept:
            if one["subset"] == other["subset"] and one_side and not other_side:
                pairs += 1
                wins += one["logit"] > other["logit"]
    assert found.runs["clip_lora-1"]["colour_auroc"] == pytest.approx(wins / pairs)
    assert (found.share, found.pictures, found.left_out) == (0.75, len(kept), len(rows) - len(kept))
    assert found.left_out == 2 * 5
    assert found.runs["clip_lora-1"]["colour_auroc"] > 0.5 + found.chance > found.runs["ns_net-1"]["colour_auroc"]


def test_other_data_sets_have_no_shortcut_and_need_no_colours(project_copy):
    params = {"run": {"detectors": ["ns_net"], "seeds": [0], "official": []}, "pipeline": {"world": []}, "shard": {"prepare": []}}
    params |= {"dataset": {"name": "folder", "world": None}}
    (project_copy / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    (project_copy / "data/captions.parquet").write_text("hashed, not read", encoding="utf-8")
    assert read_shortcut(read_project(project_copy)) is None
