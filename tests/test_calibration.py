"""A model whose threshold rests on a user's photographs: a copy, and every door uses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import conf_of, noise_image, save_model

from nullscope import detectors, load
from nullscope.cli import main
from nullscope.decision import decide
from nullscope.model_facts import Validation, read_validation, write_validation

PHOTOGRAPHS = 40


@pytest.fixture(scope="module")
def model(small, tmp_path_factory) -> Path:
    """A model with a validation whose reals lie far below all logits that it gives."""
    detector = detectors.build("clip_lora", conf_of("clip_lora"), small.context, seed=0)
    out = tmp_path_factory.mktemp("models") / "clip_lora-0"
    save_model(out, detector, "clip_lora", conf_of("clip_lora"), small.context)
    write_validation(out, Validation(reals="a", fakes="b", real=np.linspace(-60, -50, 30).tolist(), fake=[60.0] * 40))
    return out


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(PHOTOGRAPHS):
        (folder / f"{number}.png").write_bytes(noise_image(number, 0))
    shutil.copy(folder / "0.png", folder / "again.png")
    (folder / "broken.png").write_bytes(b"none")
    return folder


def run(*arguments: object):
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def copy(model, photographs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("calibrated") / "mine"
    done = run("calibrate", model, "--images", photographs, "--real", "--out", out)
    assert done.exit_code == 0, done.output
    for words in (
        "40 photographs, 1 refused, 1 repeated",
        "before: 100.0 % of them",
        "5 % false alarms",
        "its 40 validation reals",
    ):
        assert words in done.output
    assert "broken.png" in done.stderr
    return out


def test_the_copy_has_the_threshold_of_the_photographs_and_the_fakes_of_the_model(copy, model, photographs):
    judge = load(copy, "cpu", anyway=True)
    logits = sorted({own.logit for own in judge.predict_many(sorted(photographs.iterdir())) if own.logit is not None})
    assert read_validation(copy).real == logits and len(logits) == PHOTOGRAPHS
    assert read_validation(copy).fake == [60.0] * 40
    assert judge.decision == decide(logits, [60.0] * 40) and judge.decision.threshold == logits[-2]
    assert {path.name for path in copy.iterdir()} == {path.name for path in model.iterdir()}
    assert read_validation(model).real[0] == -60, "the model is as it was"


@pytest.mark.parametrize("style", ["--json", "--csv", None])
def test_every_door_gives_the_answer_of_the_decision(copy, photographs, style):
    judge = load(copy, "cpu", anyway=True, fpr=0.1)
    files = [photographs / f"{number}.png" for number in range(PHOTOGRAPHS)]
    expected = [own.answer for own in judge.predict_many(files)]
    assert expected.count("generated") == 0 and expected.count("not sure") == 4, "the threshold is the fourth"
    done = run("predict", *files, "--model", copy, "--anyway", "--fpr", 0.1, *([style] if style else []))
    words = {"--json": '"answer": "not sure"', "--csv": ",not sure,", None: "not sure "}[style]
    assert done.stdout.count(words) == 4
    assert "for 10 % false alarms" in done.stderr and "not sure: from" in done.stderr
    two = run("predict", *files, "--model", copy, "--anyway", "--fpr", 0.1, "--no-band", "--json")
    answers = [json.loads(line)["answer"] for line in two.stdout.splitlines()]
    assert answers.count("generated") == 3 and answers.count("real") == 37 and "not sure" not in two.stderr
    assert [json.loads(line)["fake"] for line in two.stdout.splitlines()].count(True) == 3


def test_a_rate_that_the_model_cannot_promise_is_an_error(copy, photographs):
    done = run("predict", photographs / "0.png", "--model", copy, "--fpr", 0.01)
    assert done.exit_code == 2 and "40 images cannot promise a rate of 1 %: at least 99 are needed" in done.output
    assert "nullscope calibrate" in done.output
    assert run("predict", photographs / "0.png", "--model", copy, "--fpr", 7).exit_code == 2


def test_a_model_without_a_validation_has_the_threshold_of_training(copy, photographs, tmp_path):
    bare = shutil.copytree(copy, tmp_path / "bare")
    (bare / "validation.json").unlink()
    assert {own.answer for own in load(bare, "cpu", anyway=True).predict_many(sorted(photographs.glob("?.png")))} <= {
        "real",
        "generated",
    }
    done = run("predict", photographs / "0.png", "--model", bare, "--anyway")
    assert done.exit_code == 0 and "no validation" in done.stderr
    assert "has no validation logits" in run("predict", photographs / "0.png", "--model", bare, "--fpr", 0.05).output


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"reals": "a", "fakes": "b", "real": [NaN], "fake": []}', '{"real": 1}'])
def test_a_damaged_validation_is_one_line(copy, photographs, tmp_path, text):
    damaged = shutil.copytree(copy, tmp_path / "damaged")
    (damaged / "validation.json").unlink()
    (damaged / "validation.json").write_text(text)
    done = run("predict", photographs / "0.png", "--model", damaged)
    assert done.exit_code == 2 and "validation.json is no list of validation logits" in done.output


def test_what_cannot_be_calibrated_is_one_line_and_leaves_nothing(model, photographs, tmp_path):
    few = run("calibrate", model, "--images", photographs / "0.png", "--real", "--out", tmp_path / "out")
    assert few.exit_code == 2 and "1 images cannot promise a rate of 5 %: at least 19 are needed" in few.output
    assert run("calibrate", model, "--images", photographs, "--out", tmp_path / "out").exit_code == 2, "without --real"
    over = run("calibrate", model, "--images", photographs, "--real", "--out", model)
    assert over.exit_code == 2 and "is there already" in over.output
    assert not list(tmp_path.iterdir())
