"""Thresholds set before the test, and reals by their sources."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from nullscope.evaluation.intervals import wilson
from nullscope.evaluation.metrics import auroc
from nullscope.evaluation.operating import frozen_thresholds, source_grid


def rows(*kinds: tuple[str, str, int, np.ndarray]) -> pa.Table:
    """Return rows of (subset, source of reals, label, logits)."""
    flat = [(subset, source, label, float(logit)) for subset, source, label, logits in kinds for logit in logits]
    return pa.table(dict(zip(("subset", "source_of_real", "label", "logit"), map(list, zip(*flat, strict=True)), strict=True)))


def test_the_threshold_is_of_the_validation_reals_and_judges_every_source():
    val = rows(("real", "mine", 0, np.arange(99.0)), ("sd", "sd", 1, np.full(50, 1000.0)))
    test = rows(("real", "mine", 0, [97.0, 98, 98.5, 1]), ("real", "theirs", 0, [99.0, 2]), ("sd", "sd", 1, [98.0, 99, 100]))
    one, five = frozen_thresholds(test, val).values()
    assert (one["promised"], one["reals"], one["threshold"]) == (0.01, 99, 98.0)
    assert (five["promised"], five["threshold"]) == (0.05, 94.0), "of 99 reals, four may lie above: 5 / 100"
    assert {name: own["rate"] for name, own in one["alarms"].items()} == {"mine": 0.25, "theirs": 0.5}
    assert (one["alarms"]["mine"]["rate_low"], one["alarms"]["mine"]["rate_high"]) == wilson(0.25, 4)
    assert one["found"]["sd"]["rate"] == pytest.approx(2 / 3)


def test_degraded_images_meet_the_threshold_of_images_as_they_are():
    val = rows(("real", "mine", 0, np.arange(99.0)))
    test = rows(("real", "mine", 0, [0.0]), ("sd", "sd", 1, [1.0]))
    blurred = rows(("real", "mine", 0, [97.0, 98, 99, 100]), ("sd", "sd", 1, [98.5, 0]), ("gan", "gan", 1, [0.0, 0.0]))
    reals = rows(("real", "mine", 0, [99.0]))
    one = frozen_thresholds(test, val, {"blur": blurred, "jpeg": reals})["tpr_1"]
    assert one["degraded"]["blur"]["alarms"]["rate"] == 0.5 and one["degraded"]["blur"]["found"]["rate"] == 0.25
    assert one["degraded"]["jpeg"].keys() == {"alarms"} and one["degraded"]["jpeg"]["alarms"]["rate"] == 1.0
    assert (one["expected_low"], one["expected_high"]) == pytest.approx((1 - 0.975 ** (1 / 99), 1 - 0.025 ** (1 / 99)))


@pytest.mark.parametrize("together", [1, 4])
def test_images_of_one_group_say_what_one_image_says(together):
    """Ten photographs, each in the test set once or four times: the interval is that of ten."""
    val = rows(("real", "mine", 0, np.arange(99.0)))
    test = rows(("real", "mine", 0, np.repeat([99.0, 99, 99] + [0] * 7, together)), ("sd", "sd", 1, [1.0]))
    groups = pa.array([str(at) for at in np.repeat(np.arange(10), together)] + ["a"])
    own = frozen_thresholds(test.append_column("group", groups), val)["tpr_1"]["alarms"]["mine"]
    assert (own["rate"], *wilson(0.3, 10)) == pytest.approx(tuple(own.values()))
    alone = frozen_thresholds(test, val)["tpr_1"]["alarms"]["mine"]
    assert (alone["rate_low"], alone["rate_high"]) == pytest.approx(wilson(0.3, 10 * together))


def test_too_few_reals_promise_nothing():
    test = rows(("real", "mine", 0, [0.0]), ("sd", "sd", 1, [1.0]))
    assert frozen_thresholds(test, rows(("real", "mine", 0, np.arange(18.0)))) == {}
    assert list(frozen_thresholds(test, rows(("real", "mine", 0, np.arange(19.0))))) == ["tpr_5"]


def test_a_source_that_is_called_fake_shows_in_the_grid():
    rng = np.random.default_rng(0)
    phone, scan, fake = rng.normal(-2, 1, 60), rng.normal(3, 1, 5), rng.normal(2, 1, 50)
    test = rows(("real", "phone", 0, phone), ("real", "scan", 0, scan), ("sd", "sd", 1, fake), ("gan", "gan", 1, fake + 1))
    grid = source_grid(test)
    assert grid["worst"] == ["sd", "scan"]
    assert grid["auroc"]["sd"]["scan"] == auroc(np.repeat([False, True], [5, 50]), np.concatenate([scan, fake])) < 0.5
    assert grid["auroc"]["gan"]["phone"] > 0.99
    assert source_grid(test.filter(pa.compute.not_equal(test["source_of_real"], "scan"))) is None


def test_without_the_column_a_source_is_a_subset():
    test = rows(("camera", "", 0, [0.0, 1]), ("lens", "", 0, [0.0]), ("sd", "", 1, [1.0])).drop_columns("source_of_real")
    assert list(source_grid(test)["auroc"]["sd"]) == ["camera", "lens"]
