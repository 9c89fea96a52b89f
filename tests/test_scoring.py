"""What the classifier sees, kept for the figures: the features behind the logits."""

import numpy as np
import pytest
import torch
from conftest import conf_of

from nullscope import detectors, scoring
from nullscope.core.contracts import check_schema, feature_schema
from nullscope.scoring import judged, kept_features, logits
from nullscope.shards.loading import read_whole

CPU = torch.device("cpu")


def features(detector, rows, device, text=None):
    """What the stage `score` keeps if it keeps all."""
    return kept_features(judged(detector, rows, len(rows.image_ids), device, text))


@pytest.fixture
def detector(small):
    found = detectors.build("ns_net", {**conf_of("ns_net"), "null_space": {"scope": "sample"}}, small.context, seed=0)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if "lora_B" in name:
                parameter.normal_()  # so that dropout, were it on, would be seen
    return found


@pytest.mark.parametrize("size", [1, 3, 64])
def test_features_are_those_that_the_logits_are_made_of(small, detector, monkeypatch, size):
    """Image by image and in order, whatever the batch; computed as in testing, and left as they came."""
    monkeypatch.setattr(scoring, "BATCH_SIZE", size)
    text = small.data(detector).text
    for rows in read_whole(small.shards("patches"), detector.transform, workers=0):
        table = features(detector.train(), rows, CPU, text)
        check_schema(table.schema, feature_schema(24), "features")
        assert table["image_id"].to_pylist() == rows.image_ids
        feature_BK = torch.from_numpy(np.stack(table["feature"].to_numpy()))
        again = detector.classify(feature_BK).tolist()
        assert again == pytest.approx(logits(detector, rows, CPU, text), abs=1e-5)
        own = text.rows(rows.image_ids)
        assert (feature_BK * own).sum(1).abs().max() < 1e-4 * own.norm(dim=1).max()  # each off its own caption
    assert not detector.training


def test_features_of_a_detector_that_wants_no_caption(small):
    detector = detectors.build("linear_probe", conf_of("linear_probe"), small.context, seed=0)
    rows = next(read_whole(small.shards("patches"), detector.transform, workers=0))
    table = features(detector, rows, CPU)
    assert len(table) == len(rows.image_ids) == 7
    found = torch.from_numpy(np.stack(table["feature"].to_numpy()))
    torch.testing.assert_close(detector.classify(found), torch.tensor(logits(detector, rows, CPU)), rtol=0, atol=1e-6)


def test_only_the_first_features_are_kept_and_every_logit(small):
    detector = detectors.build("linear_probe", conf_of("linear_probe"), small.context, seed=0)
    rows = next(read_whole(small.shards("patches"), detector.transform, workers=0))
    table = judged(detector, rows, 3, CPU, None)
    assert table["logit"].to_pylist() == logits(detector, rows, CPU)
    assert kept_features(table).equals(features(detector, rows, CPU).slice(0, 3).combine_chunks())
    assert table["feature"].null_count == 4


def test_a_detector_trained_in_bf16_is_scored_in_float32(small):
    """Its logits would else depend on the batch that an image happens to be in."""
    exact, rough = (
        detectors.build("linear_probe", {**conf_of("linear_probe"), "precision": precision}, small.context, seed=0)
        for precision in ("fp32", "bf16")
    )
    rows = next(read_whole(small.shards("patches"), exact.transform, workers=0))
    for ours, expected in zip(scoring.judge(rough, rows, CPU), scoring.judge(exact, rows, CPU), strict=True):
        assert torch.equal(ours, expected)


def test_batches_in_order_are_the_rows_themselves(small):
    detector = detectors.build("linear_probe", conf_of("linear_probe"), small.context, seed=0)
    rows = next(read_whole(small.shards("patches"), detector.transform, workers=0))
    batches = [batch for _, batch in rows.batches(3)]
    assert [len(batch.image_ids) for batch in batches] == [3, 3, 1]
    assert [name for batch in batches for name in batch.image_ids] == rows.image_ids
    for name, whole in rows.inputs.items():
        assert torch.equal(torch.cat([batch.inputs[name] for batch in batches]), whole)
        assert batches[1].inputs[name].data_ptr() == whole[3:].data_ptr()
