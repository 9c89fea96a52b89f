"""Mutated files through every reader: short with every run of the tests, long with `-m fuzz`, an hour by `run.py`."""

import pytest
from fuzzing.mutations import mutant
from fuzzing.run import fuzz, fuzz_apart, rng_of
from fuzzing.targets import TARGETS

FEW = {"tree": 10, "model": 20}  # mutants of what takes longest; of the others
USUAL = 150
MANY_S = 60  # of every target


@pytest.mark.parametrize("name", TARGETS)
def test_only_documented_errors(name):
    """Some of every kind, the same at every run."""
    result = fuzz(TARGETS[name], seed=0, numbers=range(FEW.get(name, USUAL)), seconds=float("inf"), keep=None)
    assert not result.findings
    assert result.read + result.refused == FEW.get(name, USUAL)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", TARGETS)
def test_only_documented_errors_in_a_minute(request, name):
    """Within bounds of time and memory too, each kind in a process of its own."""
    if "fuzz" not in request.config.option.markexpr:
        pytest.skip("a quarter of an hour; run with `-m fuzz`")
    assert not fuzz_apart(name, seed=1, numbers=range(10**9), seconds=MANY_S, keep=None).findings


@pytest.mark.parametrize("name", ["png", "csv"])
def test_a_mutant_is_the_same_again(name):
    """By its target, seed and number alone, whatever was drawn before; and most of them differ from the file that they were."""
    target = TARGETS[name]
    corpus = target.corpus()
    drawn = [mutant(corpus, rng_of(target, 7, number)) for number in range(20)]
    assert [mutant(target.corpus(), rng_of(target, 7, number)) for number in reversed(range(20))] == drawn[::-1]
    assert len(set(drawn) - set(corpus)) > 15
