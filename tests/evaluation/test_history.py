"""The history of a training: one parser, tolerant of more columns and strict about everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nullscope.evaluation.history import read_history, smooth, start_and_end

HEAD = "step,epoch,phase,loss,bce,contrastive,val_loss,val_ap,val_auroc\n"


def written(folder: Path, text: str) -> Path:
    (folder / "history.csv").write_text(text, encoding="utf-8")
    return folder / "history.csv"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two phases; the second has another part, and the validation stands in the last row of an epoch."""
    lines = [
        "1,0,probe,0.5,0.5,,,,",
        "2,0,probe,0.4,0.4,,0.6,0.7,0.8",
        "3,1,lora,0.9,0.3,0.6,,,",
        "7,1,lora,0.7,0.2,0.5,0.55,0.75,0.85",
    ]
    return written(tmp_path, HEAD + "\n".join(lines) + "\n")


def test_every_value_stands_at_its_step(path):
    found = read_history(path)
    assert found.step_T.tolist() == [1, 2, 3, 7] and found.epoch_T.tolist() == [0, 0, 1, 1]
    assert found.phases == ["probe", "probe", "lora", "lora"]
    assert found.losses == ["loss", "bce", "contrastive"], "the validation is no part of the loss"
    assert [own.tolist() for own in found.points("val_auroc")] == [[2, 7], [0.8, 0.85]]
    assert [own.tolist() for own in found.points("contrastive")] == [[3, 7], [0.6, 0.5]]
    assert [len(own) for own in found.points("of another version")] == [0, 0]


def test_a_model_without_history_has_none(tmp_path):
    assert read_history(tmp_path / "history.csv") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: expected the columns step, epoch, phase, loss, found \[\]"),
        ("step,loss\n1,2\n", r"line 1: expected the columns step, epoch, phase, loss, found \['step', 'loss'\]"),
        (HEAD, "line 1: expected a row per step, found none"),
        (HEAD + "1,0,a,0.5,0.5,,,,\n1,0,a,0.5,0.5,,,,\n", "line 3: expected a step above 1, found 1"),
        (HEAD + "1,0,a,half,0.5,,,,\n", "line 2: expected numbers, found .*half"),
        (HEAD + "one,0,a,0.5,0.5,,,,\n", "line 2: expected numbers"),
        (HEAD + "1,0,a\n", "line 2: expected 9 cells"),
        (HEAD + "1,0,a,0.5,0.5,,,,,\n", "line 2: expected 9 cells"),
    ],
)
def test_what_is_no_history_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_history(written(tmp_path, text))
    assert str(tmp_path) in str(error.value) and "dvc repro" in str(error.value)


def test_start_and_end_are_means_of_a_twentieth_of_the_steps_that_have_a_value(tmp_path):
    rng = np.random.default_rng(0)
    loss = rng.random(90)
    lines = [f"{step},0,{'a' if step < 45 else 'b'},{value},{value if step % 2 else ''},,,," for step, value in enumerate(loss)]
    found = read_history(written(tmp_path, HEAD + "\n".join(lines) + "\n"))
    assert start_and_end(found, "loss", "a") == (45, pytest.approx(loss[:2].mean()), pytest.approx(loss[43:45].mean()))
    odd = loss[45:][0::2]
    assert start_and_end(found, "bce", "b") == (23, odd[0], odd[-1])
    assert start_and_end(found, "contrastive", "a") is None


def test_the_moving_average_is_that_of_a_loop(tmp_path):
    value = np.random.default_rng(1).random(100)
    lines = [f"{2 * at},0,a,{own},,,,," for at, own in enumerate(value)]
    step, smoothed = smooth(read_history(written(tmp_path, HEAD + "\n".join(lines) + "\n")), "loss")
    assert smoothed == pytest.approx([value[at - 3 : at + 1].mean() for at in range(3, 100)])
    assert step.tolist() == [2 * at for at in range(3, 100)]
