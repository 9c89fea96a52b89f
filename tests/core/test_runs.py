"""The runs that the parameters ask for, and their names."""

import pytest

from nullscope.core.config import ParamsError
from nullscope.core.runs import detector_of, runs_of


def asked(**values) -> dict:
    return {"run": {"detectors": ["ns_net", "clip_lora"], "seeds": [0, 2], "official": []} | values}


def test_trained_runs_come_first_and_every_name_leads_back_to_its_detector():
    runs = runs_of(asked(official=["npr_official", "safe"]))
    assert [run.name for run in runs] == ["ns_net-0", "ns_net-2", "clip_lora-0", "clip_lora-2", "npr_official", "safe"]
    assert [run.is_official for run in runs] == [False] * 4 + [True] * 2
    assert all(detector_of(run.name) == run.detector for run in runs)


def test_released_weights_alone_are_a_project():
    assert [run.name for run in runs_of(asked(detectors=[], official=["npr_official"]))] == ["npr_official"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"detectors": []}, "found none"),
        ({"seeds": []}, "found none"),
        ({"seeds": [0, 0]}, "found [0, 0] twice"),
        ({"seeds": [-1]}, "greater than or equal to 0"),
        ({"detectors": ["npr", "npr"]}, "found npr twice"),
        ({"official": ["ns_net"]}, "found ns_net twice (nullscope import-weights gives a folder another name"),
        ({"official": ["npr-0"]}, "official.0"),
        ({"official": ["../npr"]}, "official.0"),
        ({"official": "npr_official"}, "official"),
        ({"offical": []}, "offical"),
    ],
)
def test_what_cannot_be_meant_is_refused(values, message):
    with pytest.raises(ParamsError) as refused:
        runs_of(asked(**values))
    assert message in str(refused.value)
