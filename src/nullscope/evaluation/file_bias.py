"""File bias: how much of the label the files give away, without a look at a pixel.

Where the reals are JPEG and the fakes PNG, or all fakes have one size, a detector can learn the file in place of the picture
("Fake or JPEG?", arXiv:2403.17608, finds both on GenImage). Here a small classifier sees only facts of the file. Its balanced
accuracy tells how far such a detector could come. Every rate is a fraction in [0, 1]; 0.5 is chance.

Every distinct image counts once: copies of an image never lie in two folds, and do not make an interval narrower.

N rows, always given as numbers of rows; K numbers that state a fact. A pool: the rows of reals and fakes that are told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from nullscope.core.contracts import SPLITS
from nullscope.evaluation.file_facts import (
    ALL,
    COLUMNS,
    FACTS,
    Bools,
    FileFacts,
    Floats,
    Ints,
    describe_split,
    describe_subsets,
    read_file_facts,
)
from nullscope.evaluation.intervals import newcombe
from nullscope.evaluation.metrics import DIGITS, rounded
from nullscope.evaluation.reals import reals_for

__all__ = ["ALL", "CHANCE", "COLUMNS", "FACTS", "biased_facts", "measure_file_bias"]

CHANCE = 0.5
BIASED = 0.6  # balanced accuracy above which a fact is called biased; the embedded world must stay below (tests/world)
FOLDS = 5
LEAST = FOLDS  # distinct images of either label: fewer cannot be in every fold
MOST = 10_000  # distinct images of either label that are used: the interval is then within 0.7 points of the rate
SEED = 0


def measure_file_bias(index: pa.Table, *, reals: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what the files tell about the label; docs/audit.md lists the keys.

    ``index``: `COLUMNS` of `index.INDEX`, the rows in any order. ``reals``: the parameter `dataset.reals`.

    The training split is measured as a whole. Every test subset with fakes is measured by itself, with the reals that
    `reals.reals_for` gives it, as in `protocol.evaluate`. A split or subset with fewer than `LEAST` distinct images of a label is
    not measured but counted (``too_few``). The validation split, which is drawn from where the training split comes from, is
    described and not measured. Raises `ValueError` as `read_file_facts` and `reals_for` do.
    """
    facts = read_file_facts(index)
    train, test = facts.of_split("train"), facts.of_split("test")
    training = facts.distinct(train)
    pools = {name: facts.distinct(own) for name, own in _pools(facts, test, reals or {}).items()}
    subsets = describe_subsets(facts, test)
    for name, own in subsets.items():
        own["leakage"] = len(np.intersect1d(facts.image_N[test[facts.is_of(test, name)]], facts.image_N[training]))
    for name, own in pools.items():
        subsets[name] |= _cross_validated(facts, own)
    for name, numbers in _transfer(facts, training, pools).items():
        subsets[name] |= numbers
    described = {split: facts.of_split(split) for split in SPLITS if split not in ("train", "test")}
    return rounded(
        {
            "too_few": sum(not _enough(facts, own) for own in (training, *pools.values())),
            "leakage": len(np.intersect1d(facts.image_N[test], facts.image_N[training])),
            "biased_subsets": _count_biased(subsets, "cross_validated"),
            "biased_subsets_by_transfer": _count_biased(subsets, "transfer"),
            "train": describe_split(facts, train)
            | _cross_validated(facts, training)
            | {"subsets": describe_subsets(facts, train)},
            "test": describe_split(facts, test) | {"subsets": subsets},
        }
        | {
            split: describe_split(facts, own) | {"subsets": describe_subsets(facts, own)}
            for split, own in described.items()
            if len(own)
        }
    )


def biased_facts(measured: Mapping[str, Any], by: str = "cross_validated") -> list[str]:
    """Return the facts that tell the label of a split or subset: above `BIASED`, the whole interval above `CHANCE`.

    ``measured``: the entry of the training split or of a test subset; ``by``: ``cross_validated`` or ``transfer``.
    """
    found = measured.get(by, {})
    return [fact for fact in FACTS if fact in found and found[fact]["balanced_acc"] > BIASED and found[fact]["low"] > CHANCE]


def _count_biased(subsets: dict[str, dict[str, Any]], by: str) -> dict[str, int]:
    """Return for every fact in how many subsets it tells the label."""
    named = [fact for own in subsets.values() for fact in biased_facts(own, by)]
    return {fact: named.count(fact) for fact in FACTS}


# Which rows are told apart


def _pools(facts: FileFacts, test: Ints, reals: Mapping[str, str]) -> dict[str, Ints]:
    """Return for every test subset with fakes the rows of these fakes, behind the rows of the reals they are compared with."""
    members = {name: test[facts.is_of(test, name)] for name in facts.subsets}
    fake = {name: own[facts.is_fake_N[own]] for name, own in members.items()}
    real = {name: own[~facts.is_fake_N[own]] for name, own in members.items()}
    lenders = reals_for({name: len(own) for name, own in real.items()}, {name: len(own) for name, own in fake.items()}, reals)
    none = np.empty(0, np.int64)
    return {name: np.concatenate([none, *(real[n] for n in lenders[name]), own]) for name, own in fake.items() if len(own)}


def _enough(facts: FileFacts, pool: Ints) -> bool:
    fakes = np.count_nonzero(facts.is_fake_N[pool])
    return min(fakes, len(pool) - fakes) >= LEAST


def _sample(facts: FileFacts, pool: Ints) -> Ints:
    """Return at most `MOST` of either label, in the order of the images.

    The same share of both labels would leave too few of a rare one, and no number here depends on the share of fakes.
    """
    rng = np.random.default_rng(SEED)
    kinds = [pool[facts.is_fake_N[pool] == wanted] for wanted in (False, True)]
    kept = np.concatenate([rng.permutation(kind)[:MOST] for kind in kinds])
    return kept[np.argsort(facts.image_N[kept])]


# What the files tell


def _classifier() -> RandomForestClassifier:
    """Return the classifier of file facts: ten shallow trees, each split choosing among a third of the numbers.

    Trees need no scaling and find one exact size among many. A single tree misses what only two facts together tell (an exclusive
    or: 82 % where 100 % is possible), because its first split always takes the best single number. In a forest the best number is
    often not on offer. Boosting finds it too, but takes several times as long, and its sums depend on the number of threads. The
    classes are weighted in every tree, so that a fact that all images share gives exactly `CHANCE`.
    """
    weights = "balanced_subsample"
    return RandomForestClassifier(10, max_depth=6, min_samples_leaf=2, max_features=0.34, class_weight=weights, random_state=SEED)


def _cross_validated(facts: FileFacts, pool: Ints) -> dict[str, Any]:
    """Return how well each fact tells the label within a pool of distinct images, by five folds; nothing for a small pool."""
    if not _enough(facts, pool):
        return {}
    some = _sample(facts, pool)
    is_fake_N, numbers = facts.is_fake_N[some], {}
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(some, is_fake_N))
    for fact, facts_NK in facts.numbers(some, some).items():
        probability_N = np.empty(len(some))
        for fit, held_out in folds:
            probability_N[held_out] = _probability(_classifier().fit(facts_NK[fit], is_fake_N[fit]), facts_NK[held_out])
        numbers[fact] = _scores(is_fake_N, probability_N)
    return {"cross_validated": numbers}


def _transfer(facts: FileFacts, distinct: Ints, pools: dict[str, Ints]) -> dict[str, Any]:
    """Return how well a classifier of the training files tells the label in every test subset: what a detector could have learnt.

    Test images that also lie in the training split are left out.
    """
    new = {name: own[~np.isin(facts.image_N[own], facts.image_N[distinct])] for name, own in pools.items()}
    samples = {name: _sample(facts, own) for name, own in new.items() if _enough(facts, own)}
    if not samples or not _enough(facts, distinct):
        return {}
    training = _sample(facts, distinct)
    numbers_of_training = facts.numbers(training, training)
    fitted = {fact: _classifier().fit(numbers_of_training[fact], facts.is_fake_N[training]) for fact in FACTS}
    numbers = {}
    for name, some in samples.items():
        given = facts.numbers(some, training)
        scores = {fact: _scores(facts.is_fake_N[some], _probability(fitted[fact], given[fact])) for fact in FACTS}
        numbers[name] = {"transfer": scores}
    return numbers


def _probability(fitted: RandomForestClassifier, facts_NK: Floats) -> Floats:
    """Return the probability of fake, rounded: otherwise an error in the last digit could rank images that are equal."""
    return fitted.predict_proba(facts_NK)[:, 1].round(DIGITS)


def _scores(is_fake_N: Bools, probability_N: Floats) -> dict[str, float]:
    """Return balanced accuracy with its 95 % interval, and AUROC.

    The interval is Newcombe's for half a sum. It is that of the classifiers as they are: it does not cover other training images.
    """
    right_N = (probability_N > CHANCE) == is_fake_N
    kinds = [right_N[is_fake_N == wanted] for wanted in (False, True)]
    rates, counts = [float(own.mean()) for own in kinds], [len(own) for own in kinds]
    low, high = newcombe(rates, counts, [0.5, 0.5])
    auroc = roc_auc_score(is_fake_N, probability_N)
    return {"balanced_acc": float(np.mean(rates)), "low": low, "high": high, "auroc": auroc}
