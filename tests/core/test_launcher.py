"""The launcher's variables, left over, alone or contradictory; a stage's command line."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from nullscope.core import launcher, ranks

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher has started the tests."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_there_is_one_process():
    assert launcher.position() == (0, 1) and (ranks.rank(), ranks.world_size()) == (0, 1)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "1"}, "RANK is set and WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set and RANK is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 of WORLD_SIZE=2: expected a rank from 0 to 1"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK: expected a whole number of at least 0, found '-1'"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE: expected a whole number of at least 1, found '0'"),
        ({"RANK": "", "WORLD_SIZE": "1"}, "RANK: expected a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE: expected a whole number of at least 1, found 'two'"),
    ],
)
def test_variables_that_make_no_sense_are_named(monkeypatch, variables, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=said):
        ranks.rank()
    with pytest.raises(ValueError, match=said):
        ranks.world_size()


def test_the_share_of_this_machine_is_a_number_too(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "0")
    with pytest.raises(ValueError, match="LOCAL_WORLD_SIZE: expected a whole number of at least 1, found '0'"):
        ranks.workers()


def stage(*command, **environment):
    """A stage in a folder without a project; what it said last."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "stages" / command[0]), *command[1:]],
        capture_output=True, text=True, cwd=ROOT / "tests", env={**os.environ, **environment},
    )  # fmt: skip
    return done.returncode, done.stderr.strip().splitlines()[-1:], done.stdout


def test_a_rank_that_is_left_over_ends_a_stage_with_a_sentence():
    """It ran, wrote nothing and ended with status 0."""
    status, (said,), _ = stage("index.py", RANK="1")
    assert status == 1 and said.startswith("error: RANK is set and WORLD_SIZE is not")


@pytest.mark.slow
def test_a_stage_says_what_arguments_it_wants():
    status, (found,), _ = stage("train.py")
    assert status == 1 and found.startswith("error: expected <detector> <seed>, found nothing; usage: python ")


@pytest.mark.parametrize("given", [["ns_net"], ["ns_net", "0", "1"]])
def test_other_arguments_are_named(monkeypatch, given):
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    with pytest.raises(ValueError, match=f"expected <detector> <seed>, found {' '.join(given)}; usage: python train.py"):
        launcher.arguments("<detector>", "<seed>")


def test_a_stage_has_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stage.py", "--help"])
    ranks.launch(test_a_stage_has_help)
    assert capsys.readouterr().out == f"{__doc__}\n"
