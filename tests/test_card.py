"""The card of a model says what its files say, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT, conf_of, save_model

from nullscope import detectors
from nullscope.card import card, read_metrics
from nullscope.cli import main
from nullscope.decision import promise
from nullscope.model_facts import Validation, write_validation

REAL = [at / 10 for at in range(-30, 30)]


@pytest.fixture
def model(small, tmp_path) -> Path:
    detector = detectors.build("ns_net", conf_of("ns_net"), small.context, seed=0)
    folder = tmp_path / "project/models/ns_net-0"
    save_model(folder, detector, "ns_net", conf_of("ns_net"), small.context)
    write_validation(folder, Validation(reals="my photographs", fakes="b", real=REAL, fake=[1.0, 2, 3, 4, 5, 6]))
    return folder


@pytest.fixture
def metrics(model) -> dict:
    """The committed numbers of the default world, where the project would have them."""
    text = (ROOT / "metrics/ns_net-0.json").read_text()
    (model.parents[1] / "metrics").mkdir()
    (model.parents[1] / "metrics/ns_net-0.json").write_text(text)
    return json.loads(text)


def test_every_number_is_that_of_the_metrics(model, metrics):
    text = card(model, read_metrics(model))
    block = yaml.safe_load(text.split("---\n")[1])
    (result,) = block["model-index"][0]["results"]
    assert {own["type"]: own["value"] for own in result["metrics"]}["auroc_unseen"] == metrics["auroc_unseen"]
    for name, row in metrics["subsets"].items():
        if row["n_fake"]:
            shown = re.search(rf"\| {name} \| (yes|no) \| ([\d.]+) \(([\d.]+) to ([\d.]+)\)", text)
            assert shown[1] == ("yes" if row["seen"] else "no")
            assert [float(end) for end in shown.groups()[1:]] == pytest.approx(
                [100 * row[key] for key in ("f_acc", "f_acc_low", "f_acc_high")], abs=0.051
            )
    for name, row in metrics["degradations"].items():
        assert f"| {name} | {100 * row['r_acc']:.1f} |" in text
    assert all(f"| {source} | {100 * own['rate']:.1f} (" in text for source, own in metrics["frozen"]["tpr_5"]["alarms"].items())


def test_what_it_promises_and_what_it_cannot(model):
    text = card(model)
    own = promise(REAL, 0.05)
    assert f"| 5 % | {own.threshold:+.4f} | {100 * own.low:.1f} to {100 * own.high:.1f} % |" in text
    assert "| 1 % | none | 60 images cannot promise a rate of 1 %: at least 99 are needed |" in text
    assert "60 reals (my photographs) and 6 fakes (b)" in text and "A temperature of" in text
    assert "It was not evaluated." in text and "gives a score, no proof" in text
    assert "Apache-2.0" in text, "the licence of the method's code"


def test_a_copy_with_its_card_and_no_model_overwritten(model, metrics, tmp_path):
    out = tmp_path / "shared"
    done = CliRunner().invoke(main, ["card", str(model), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert (out / "README.md").read_text() == card(model, metrics) and not (model / "README.md").exists()
    assert {path.name for path in out.iterdir()} == {"README.md", *(path.name for path in model.iterdir())}
    again = CliRunner().invoke(main, ["card", str(model), "--out", str(out)])
    assert again.exit_code == 2 and "is there already" in again.output
    assert CliRunner().invoke(main, ["card", str(model)]).output.strip() == card(model, metrics).strip()
    assert CliRunner().invoke(main, ["card", str(tmp_path)]).exit_code == 2
