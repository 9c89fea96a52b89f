"""How much of the label the files give away, without a look at a pixel. Pure functions; what opens files is `stages/audit.py`.

Where the reals are JPEG and the fakes PNG, or all fakes have one size, a detector that reads the file's history scores like one
that reads the picture ("Fake or JPEG?", arXiv:2403.17608, on GenImage). Here a small classifier sees nothing but facts of the
file, and its balanced accuracy is what such a shortcut is worth. Every rate is a fraction in [0, 1]; 0.5 is chance.

What is judged counts each distinct image once: a repeated image cannot lie in two folds and does not narrow an interval.

N rows of the index or of a choice of them, always as numbers of rows; K numbers that state a fact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from nullscope.core.contracts import FAKE, REAL, SPLITS
from nullscope.evaluation.metrics import wilson

COLUMNS = ("image_id", "split", "subset", "label", "width", "height", "format", "bytes", "jpeg_quality")  # what `audit` reads
ALL = "all"
FACTS = ("format", "size", "bytes_per_pixel", "jpeg_quality", ALL)
CHANCE = 0.5
SHORTCUT = 0.6  # balanced accuracy; the embedded world's own bar (tests/world/test_validity.py)
FOLDS = 5
LEAST = FOLDS  # distinct images of either label: fewer cannot be in every fold
MOST = 10_000  # distinct images of either label that are judged: the interval is then within 0.7 points of the rate
SEED = 0
NO_QUALITY = 0  # below every quality, so that one split of a tree tells what is no JPEG
DIGITS = 6

Bools = NDArray[np.bool_]
Ints = NDArray[np.integer]
Floats = NDArray[np.floating]


def audit(index: pa.Table, *, reals: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what the rows of ``index`` (`COLUMNS` of `contracts.INDEX`, in any order) give away; docs/audit.md lists the keys.

    The training split is judged as a whole; every test subset with fakes by itself, against its own reals or, if it has none,
    against those of all test subsets without fakes, as in `metrics.evaluate`. ``reals`` names another subset for some subsets,
    whose reals judge them instead. Fewer than `LEAST` distinct images of a label are not judged but counted (``too_few``).
    Raises `ValueError` on an unknown label or split, an image under both labels, a side or size below 1, and a bad ``reals``.
    """
    rows = _read(index)
    train, test = (np.flatnonzero(rows.is_train_N == wanted) for wanted in (True, False))
    pool = rows.distinct(train)
    pools = {name: rows.distinct(own) for name, own in _judged(rows, test, reals or {}).items()}
    subsets = _by_subset(rows, test)
    for name, own in subsets.items():
        own["leakage"] = len(np.intersect1d(rows.image_N[test[rows.is_of(test, name)]], rows.image_N[pool]))
    for name, own in pools.items():
        subsets[name] |= _cross_validated(rows, own)
    for name, numbers in _transfer(rows, pool, pools).items():
        subsets[name] |= numbers
    return _rounded(
        {
            "too_few": sum(not _enough(rows, own) for own in (pool, *pools.values())),
            "leakage": len(np.intersect1d(rows.image_N[test], rows.image_N[pool])),
            "shortcuts": _called(subsets, "cross_validated"),
            "carried_over": _called(subsets, "transfer"),
            "train": _split(rows, train) | _cross_validated(rows, pool) | {"subsets": _by_subset(rows, train)},
            "test": _split(rows, test) | {"subsets": subsets},
        }
    )


def shortcuts(judged: Mapping[str, Any], by: str = "cross_validated") -> list[str]:
    """Return the facts that tell the label of a split or subset: above `SHORTCUT`, the whole interval above `CHANCE`.

    ``by`` is ``cross_validated`` or ``transfer``.
    """
    found = judged.get(by, {})
    return [fact for fact in FACTS if fact in found and found[fact]["balanced_acc"] > SHORTCUT and found[fact]["low"] > CHANCE]


def _called(subsets: dict[str, dict[str, Any]], by: str) -> dict[str, int]:
    called = [fact for own in subsets.values() for fact in shortcuts(own, by)]
    return {fact: called.count(fact) for fact in FACTS}


# The table as arrays


@dataclass(frozen=True)
class _Rows:
    """The index. Images, subsets and formats are the ranks of their names: no result depends on the order of the rows."""

    image_N: Ints
    is_train_N: Bools
    is_fake_N: Bools
    subset_N: Ints  # into subsets
    format_N: Ints  # into formats
    width_N: Ints
    height_N: Ints
    bytes_per_pixel_N: Floats
    quality_N: Ints
    subsets: list[str]
    formats: list[str]

    def is_of(self, some: Ints, subset: str) -> Bools:
        """Return which of ``some`` rows lie in a subset."""
        return self.subset_N[some] == self.subsets.index(subset)

    def distinct(self, some: Ints) -> Ints:
        """Return the first row of every image of ``some``, in the order of the images."""
        return some[np.unique(self.image_N[some], return_index=True)[1]]

    def facts(self, some: Ints, fitted: Ints) -> dict[str, NDArray[np.float32]]:
        """Return the numbers of every fact, (N, K): of the formats, those among the ``fitted`` rows, whatever others there are.

        float32 is what scikit-learn's trees compare.
        """
        width, height = self.width_N[some].astype(np.float64), self.height_N[some].astype(np.float64)
        numbers = {
            "format": self.format_N[some][:, None] == np.unique(self.format_N[fitted]),
            "size": np.stack([width, height, width * height, width / height], axis=1),
            "bytes_per_pixel": self.bytes_per_pixel_N[some][:, None],
            "jpeg_quality": self.quality_N[some][:, None],
        }
        numbers[ALL] = np.concatenate(list(numbers.values()), axis=1)
        return {fact: values.astype(np.float32) for fact, values in numbers.items()}


def _read(index: pa.Table) -> _Rows:
    _check(index)
    pixels = pc.multiply(index["width"].cast(pa.int64()), index["height"].cast(pa.int64()))
    rows = _Rows(
        image_N=_ranks(index["image_id"]),
        is_train_N=pc.equal(index["split"], "train").to_numpy(),
        is_fake_N=pc.equal(index["label"], FAKE).to_numpy(),
        subset_N=_ranks(index["subset"]),
        format_N=_ranks(index["format"]),
        width_N=index["width"].to_numpy(),
        height_N=index["height"].to_numpy(),
        bytes_per_pixel_N=index["bytes"].to_numpy() / pixels.to_numpy(),
        quality_N=pc.fill_null(index["jpeg_quality"], NO_QUALITY).to_numpy(),
        subsets=sorted(index["subset"].unique().to_pylist()),
        formats=sorted(index["format"].unique().to_pylist()),
    )
    both = np.intersect1d(rows.image_N[rows.is_fake_N], rows.image_N[~rows.is_fake_N])
    if len(both):
        raise ValueError(f"index: {len(both)} images are listed as real and as fake, which the index refuses; `dvc repro index`")
    return rows


def _check(index: pa.Table) -> None:
    for name, known in (("label", {REAL, FAKE}), ("split", set(SPLITS))):
        found = set(index[name].unique().to_pylist())
        if not found <= known:
            raise ValueError(f"index: expected of {name}: {sorted(known)}, found {sorted(found, key=str)}; `dvc repro index`")
    for name in ("width", "height", "bytes"):
        smallest = pc.min(index[name]).as_py()
        if index.num_rows and smallest < 1:
            raise ValueError(f"index: expected of {name}: at least 1, found {smallest}; `dvc repro index`")


def _ranks(column: pa.ChunkedArray) -> Ints:
    """Return for every row how many distinct words sort before its own (as in Python: UTF-8 sorts like its code points)."""
    return pc.rank(column, tiebreaker="dense").to_numpy().astype(np.int64) - 1


# Who is judged


def _judged(rows: _Rows, test: Ints, reals: Mapping[str, str]) -> dict[str, Ints]:
    """Return for every test subset with fakes the rows of these and of the reals that they are judged against."""
    members = {name: test[rows.is_of(test, name)] for name in rows.subsets}
    fake = {name: own[rows.is_fake_N[own]] for name, own in members.items()}
    real = {name: own[~rows.is_fake_N[own]] for name, own in members.items()}
    judged, holders = [name for name in fake if len(fake[name])], [name for name in real if len(real[name])]
    for name, other in reals.items():
        if name not in judged or other not in holders:
            known = f"a test subset with fakes ({', '.join(judged)}) and one with reals ({', '.join(holders)})"
            raise ValueError(f"reals: expected {known}, found {name}: {other}")
    shared = np.concatenate([np.empty(0, np.int64), *(real[name] for name in holders if name not in judged)])
    chosen = {name: real[reals.get(name, name)] for name in judged}
    return {name: np.concatenate([own if len(own) else shared, fake[name]]) for name, own in chosen.items()}


def _enough(rows: _Rows, pool: Ints) -> bool:
    fakes = np.count_nonzero(rows.is_fake_N[pool])
    return min(fakes, len(pool) - fakes) >= LEAST


def _sample(rows: _Rows, pool: Ints) -> Ints:
    """Return at most `MOST` of either label, in the order of the images.

    A common share of both would leave nothing of a rare label, and what is computed here does not move with the share of fakes.
    """
    rng = np.random.default_rng(SEED)
    kinds = [pool[rows.is_fake_N[pool] == wanted] for wanted in (False, True)]
    kept = np.concatenate([rng.permutation(kind)[:MOST] for kind in kinds])
    return kept[np.argsort(rows.image_N[kept])]


# What the files tell


def _classifier() -> RandomForestClassifier:
    """Return the classifier of file facts: ten shallow trees, each split choosing among a third of the numbers.

    Trees need no scaling and find one exact size among many. A single one misses what only a pair of facts tells (an exclusive
    or, each fact alone at chance: 82 % where 100 are there), because its first split takes the best single number; in a forest it
    often may not. Boosting finds it too, at several times the price, with sums that depend on the number of threads. The weights
    are balanced per tree, so that a fact that all images share gives exactly `CHANCE`.
    """
    weights = "balanced_subsample"
    return RandomForestClassifier(10, max_depth=6, min_samples_leaf=2, max_features=0.34, class_weight=weights, random_state=SEED)


def _cross_validated(rows: _Rows, pool: Ints) -> dict[str, Any]:
    """Return how well each fact tells the label within a pool of distinct images, by five folds; nothing of a small pool."""
    if not _enough(rows, pool):
        return {}
    some = _sample(rows, pool)
    is_fake_N, numbers = rows.is_fake_N[some], {}
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(some, is_fake_N))
    for fact, facts_NK in rows.facts(some, some).items():
        probability_N = np.empty(len(some))
        for fit, held_out in folds:
            probability_N[held_out] = _probability(_classifier().fit(facts_NK[fit], is_fake_N[fit]), facts_NK[held_out])
        numbers[fact] = _scores(is_fake_N, probability_N)
    return {"cross_validated": numbers}


def _transfer(rows: _Rows, pool: Ints, pools: dict[str, Ints]) -> dict[str, Any]:
    """Return how well what the training files teach tells the label in every test subset: what a detector could exploit.

    Images that lie in the training split too are left out.
    """
    new = {name: own[~np.isin(rows.image_N[own], rows.image_N[pool])] for name, own in pools.items()}
    samples = {name: _sample(rows, own) for name, own in new.items() if _enough(rows, own)}
    if not samples or not _enough(rows, pool):
        return {}
    training = _sample(rows, pool)
    lesson = rows.facts(training, training)
    fitted = {fact: _classifier().fit(lesson[fact], rows.is_fake_N[training]) for fact in FACTS}
    numbers = {}
    for name, some in samples.items():
        facts = rows.facts(some, training)
        scores = {fact: _scores(rows.is_fake_N[some], _probability(fitted[fact], facts[fact])) for fact in FACTS}
        numbers[name] = {"transfer": scores}
    return numbers


def _probability(fitted: RandomForestClassifier, facts_NK: Floats) -> Floats:
    """Return the probability of fake, rounded: unlike folds would otherwise rank equal images by errors in the last digit."""
    return fitted.predict_proba(facts_NK)[:, 1].round(DIGITS)


def _scores(is_fake_N: Bools, probability_N: Floats) -> dict[str, float]:
    """Return balanced accuracy with its 95 % interval, and AUROC.

    The interval is Wilson's of both accuracies, joined by the squares of their distances from them (Newcombe 1998, method 10, for
    half a sum in place of a difference). It holds for the classifiers as fitted, not for what other images would make of them.
    """
    right_N = (probability_N > CHANCE) == is_fake_N
    rates, lows, highs = np.transpose([_wilson(right_N[is_fake_N == wanted]) for wanted in (False, True)])
    balanced = rates.mean()
    low, high = balanced - np.hypot(*(rates - lows)) / 2, balanced + np.hypot(*(highs - rates)) / 2
    return {"balanced_acc": balanced, "low": low, "high": high, "auroc": roc_auc_score(is_fake_N, probability_N)}


def _wilson(right_N: Bools) -> tuple[float, float, float]:
    """Return the share of right answers and the ends of its Wilson 95 % interval."""
    rate = float(right_N.mean())
    return rate, *wilson(rate, len(right_N))


# What the files are


def _split(rows: _Rows, some: Ints) -> dict[str, Any]:
    """Return the counts of a split: rows, rows beyond the first of an image, and images that lie in several of its subsets."""
    pairs = np.unique(np.stack([rows.image_N[some], rows.subset_N[some]]), axis=1)
    spread = np.unique(pairs[0], return_counts=True)[1]
    return _counts(rows, some) | {"across_subsets": int((spread > 1).sum())}


def _by_subset(rows: _Rows, some: Ints) -> dict[str, dict[str, Any]]:
    """Return the counts and the files of every subset of a split."""
    members = {name: some[rows.is_of(some, name)] for name in rows.subsets}
    return {name: _counts(rows, own) | _files(rows, own) for name, own in members.items() if len(own)}


def _counts(rows: _Rows, some: Ints) -> dict[str, float]:
    fakes = int(rows.is_fake_N[some].sum())
    share = {"share_fake": fakes / len(some)} if len(some) else {}
    return {"n_real": len(some) - fakes, "n_fake": fakes, "duplicates": len(some) - len(rows.distinct(some)), **share}


def _files(rows: _Rows, some: Ints) -> dict[str, Any]:
    """Return per label the formats and the middle and the ends (5 and 95 %) of the sizes."""
    described = {}
    for word, wanted in (("real", False), ("fake", True)):
        own = some[rows.is_fake_N[some] == wanted]
        if len(own):
            formats, counts = np.unique(rows.format_N[own], return_counts=True)
            described[word] = {
                "formats": {rows.formats[code]: int(count) for code, count in zip(formats, counts, strict=True)},
                "width": _spread(rows.width_N[own]),
                "height": _spread(rows.height_N[own]),
                "bytes_per_pixel": _spread(rows.bytes_per_pixel_N[own]),
            }
    return described


def _spread(values_N: NDArray[Any]) -> dict[str, float]:
    return dict(zip(("p5", "median", "p95"), np.quantile(values_N, (0.05, 0.5, 0.95)).tolist(), strict=True))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return round(float(value), DIGITS) if isinstance(value, float | np.floating) else value
