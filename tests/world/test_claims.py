"""What the committed results of the default pipeline say about the world: learnable, and not the same for every detector.

The numbers are those of ``metrics/summary.json``, which `dvc repro` writes and `make demo` makes again from nothing.
"""

import json

import pytest
from conftest import ROOT

from nullscope.evaluation.intervals import wilson


@pytest.fixture(scope="module")
def results() -> dict[str, dict]:
    return json.loads((ROOT / "metrics/summary.json").read_text(encoding="utf-8"))


def unseen_interval(result: dict) -> tuple[float, float]:
    """The 95 % interval of the share of fakes of unseen generators that were found, over all their images."""
    unseen = [subset for subset in result["subsets"].values() if subset["n_fake"] and not subset["seen"]]
    images = sum(subset["n_fake"] for subset in unseen)
    assert len(unseen) >= 6 and images >= 600
    return wilson(sum(subset["f_acc"] * subset["n_fake"] for subset in unseen) / images, images)


def test_lora_detectors_learn_the_generators_they_saw(results):
    tuned = {name: result for name, result in results.items() if name != "linear_probe-0"}  # the frozen features do not
    assert tuned.keys() == {"clip_lora-0", "ns_net-0", "advanced_ns_net-0", "dgs_net-0"}
    for name, result in tuned.items():
        # One seed, and another one or another kind of processor draws another threshold (docs/numerics.md): so at 5 % false
        # alarms, and of the threshold itself the interval must reach 0.9.
        assert result["auroc_seen"] > 0.97 and result["tpr_5_seen"] > 0.9, name
        assert wilson(result["r_acc"], result["n_real"])[1] > 0.9, name


def test_detectors_differ_on_unseen_generators_by_more_than_the_intervals(results):
    intervals = sorted(unseen_interval(result) for result in results.values())
    assert intervals[0][1] < intervals[-1][0], "the worst and the best detector cannot be told apart"
