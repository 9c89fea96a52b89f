"""The figures of the training: what is drawn of a history, and what is said where there is none."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nullscope.evaluation.history import History, read_history
from nullscope.report.figures.canvas import Look, looks, style
from nullscope.report.figures.training import training_figure, validation_figure
from nullscope.report.tables.training import losses_table

LOOK = looks(["a", "b"])


def history(folder: Path, *, validated: bool, auroc: float = 0.9) -> History:
    """Twenty steps in two epochs; AP and AUROC on the validation split after each."""
    lines = ["step,epoch,phase,loss,val_loss,val_ap,val_auroc" if validated else "step,epoch,phase,loss"]
    for step in range(20):
        ends = f",0.4,0.7,{auroc if step == 19 else 0.5}" if step % 10 == 9 else ",,,"
        lines.append(f"{step},{step // 10},main,{1 / (step + 1)}{ends if validated else ''}")
    (folder / "history.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_history(folder / "history.csv")


def count(png: bytes, look: Look) -> int:
    """How many pixels have a detector's very colour."""
    colour = [int(look.colour[at : at + 2], 16) for at in (1, 3, 5)]
    return int((np.asarray(Image.open(BytesIO(png)).convert("RGB")) == colour).all(axis=-1).sum())


@pytest.mark.parametrize("validated", [True, False])
def test_the_validation_is_drawn_where_there_is_one(tmp_path, validated):
    histories = {"a": [history(tmp_path, validated=validated)], "b": [history(tmp_path, validated=False)]}
    with style():
        training, validation = training_figure(histories, LOOK), validation_figure(histories, LOOK)
    assert ("Diamonds: the loss on the validation split" in training.caption) is validated
    assert "not drawn" not in training.caption
    if not validated:
        assert validation is None
        return
    assert "not drawn: b." in validation.caption
    assert validation.alt.endswith("after the last epoch: a 50.0 to 90.0 %.")
    assert count(validation.png, LOOK["a"]) > 50 and count(validation.png, LOOK["b"]) == 0


def test_the_loss_on_the_validation_split_adds_points_and_changes_no_curve(tmp_path):
    """Without these columns the figure has the same bytes as before there were any."""
    plain, validated = (history(tmp_path, validated=wanted) for wanted in (False, True))
    with style():
        without, again, with_points = (training_figure({"a": [own]}, LOOK) for own in (plain, plain, validated))
    assert without.png == again.png != with_points.png
    assert count(with_points.png, LOOK["a"]) > count(without.png, LOOK["a"])
    assert losses_table({"a": [plain]}) == losses_table({"a": [validated]}), "the validation is no loss of the training"


def test_a_detector_without_history_is_named(tmp_path):
    with style():
        figure = training_figure({"b": [history(tmp_path, validated=True)]}, LOOK)
    assert figure.caption.endswith("not drawn: a.")
    assert training_figure({}, LOOK) is None and validation_figure({}, LOOK) is None
