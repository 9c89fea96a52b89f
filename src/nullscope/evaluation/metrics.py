"""From scores to numbers: the evaluation protocol. Pure functions; what opens files is `stages/evaluate.py`.

``is_fake_N`` is bool, ``logit_N`` float, above `THRESHOLD` (strictly) is called fake. Every rate is a fraction in [0, 1].
Definitions follow what the papers' code computes (validate.py of AIGIBench, the same in DGS-Net and UniversalFakeDetect):
accuracies and average precision per *subset* of the test set, then the unweighted mean over subsets. "mAcc." has meant three
things in print, so each averaging has a name of its own here: `mean_real_fakes`, `mean_fakes`, `mean_balanced`.

N images, S subsets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from nullscope.core.contracts import CLEAN, FAKE, REAL
from nullscope.evaluation.resampling import Resamples, Strata, interval, resample, resample_table
from nullscope.evaluation.scores import TEST

PROTOCOL = 2  # what the numbers mean; a change of any is a new version, with a line in docs/protocol.md
THRESHOLD = 0.0  # logit; the papers' p > 0.5
MAX_FPR = MappingProxyType({"tpr_1": 0.01, "tpr_5": 0.05})  # shares of fakes found, at how many false alarms at most
ECE_BINS = 15
Z_95 = 1.959963984540054  # standard normal quantile at 0.975
DIGITS = 6  # of every number of the JSON; a test set of a million images resolves no more

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
IndexGroup = tuple[str, str, str, int]  # split, subset, generator, label
NONE_NAMED: Mapping[str, str] = MappingProxyType({})  # no subset uses the reals of a named one


def real_accuracy(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the share of reals that are called real (logit <= 0). NaN if there are none."""
    return _share(logit_N[~is_fake_N] <= THRESHOLD)


def fake_accuracy(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the share of fakes that are called fake (logit > 0). NaN if there are none."""
    return _share(logit_N[is_fake_N] > THRESHOLD)


def accuracy(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the share of images that are called what they are."""
    return _share((logit_N > THRESHOLD) == is_fake_N)


def balanced_accuracy(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the mean of real and fake accuracy; unlike accuracy, it does not move with the share of fakes."""
    return (real_accuracy(is_fake_N, logit_N) + fake_accuracy(is_fake_N, logit_N)) / 2


def average_precision(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the average precision, fake as positive: the sum over thresholds of precision times the step of recall."""
    return float(average_precision_score(is_fake_N, logit_N))


def auroc(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the area under the ROC curve: the chance that a fake scores above a real, ties counting half."""
    return float(roc_auc_score(is_fake_N, logit_N))


def tpr_at_fpr(is_fake_N: Bools, logit_N: Floats, max_fpr: float) -> float:
    """Return the largest share of fakes found by any threshold that calls at most ``max_fpr`` of the reals fake."""
    fpr, tpr, _ = roc_curve(is_fake_N, logit_N, drop_intermediate=False)
    return float(tpr[fpr <= max_fpr].max())


def sigmoid(logit_N: Floats) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-logit)) in float64, in a form that does not overflow."""
    return 0.5 * (1 + np.tanh(np.asarray(logit_N, np.float64) / 2))


@dataclass(frozen=True)
class Reliability:
    """One bin of predicted probabilities per entry; empty bins are not listed."""

    predicted_K: NDArray[np.float64]  # mean probability of fake
    observed_K: NDArray[np.float64]  # share of fakes
    count_K: NDArray[np.int64]  # images


def reliability(is_fake_N: Bools, logit_N: Floats) -> Reliability:
    """Return the probability of fake (sigmoid of the logit) against the share of fakes in `ECE_BINS` bins of equal width.

    A probability on an edge belongs to the bin below it (the first bin holds 0), as in Guo et al. 2017 and scikit-learn.
    """
    probability_N = sigmoid(logit_N)
    edges = np.linspace(0, 1, ECE_BINS + 1)
    bin_N = np.searchsorted(edges[1:-1], probability_N)
    count = np.bincount(bin_N, minlength=ECE_BINS)
    used = count > 0
    predicted = np.bincount(bin_N, probability_N, ECE_BINS)[used] / count[used]
    observed = np.bincount(bin_N, np.asarray(is_fake_N, np.float64), ECE_BINS)[used] / count[used]
    return Reliability(predicted, observed, count[used])


def expected_calibration_error(is_fake_N: Bools, logit_N: Floats) -> float:
    """Return the mean over images of |probability of fake - share of fakes| of the image's bin (see `reliability`)."""
    bins = reliability(is_fake_N, logit_N)
    return float(np.average(np.abs(bins.predicted_K - bins.observed_K), weights=bins.count_K))


def wilson(rate: float, count: int) -> tuple[float, float]:
    """Return the Wilson 95 % interval of a ``rate`` seen in ``count`` trials (Wilson 1927; no trial: the whole of [0, 1])."""
    if not count:
        return 0.0, 1.0
    centre = rate + Z_95**2 / (2 * count)
    margin = Z_95 * np.sqrt(rate * (1 - rate) / count + Z_95**2 / (4 * count**2))
    scale = 1 + Z_95**2 / count
    # At a rate of 0 or 1 one end is the rate itself, and rounding must not move it past.
    return float(np.clip((centre - margin) / scale, 0, rate)), float(np.clip((centre + margin) / scale, rate, 1))


def index_counts(batches: Iterable[pa.RecordBatch]) -> Counter[IndexGroup]:
    """Return how many images each (split, subset, generator, label) of the index has, in memory of one batch."""
    counts: Counter[IndexGroup] = Counter()
    for batch in batches:
        keys = ["split", "subset", "generator", "label"]
        for row in pa.table(batch).group_by(keys).aggregate([([], "count_all")]).to_pylist():
            counts[tuple(row[key] for key in keys)] += row["count_all"]
    return counts


def seen_subsets(groups: Iterable[IndexGroup]) -> frozenset[str]:
    """Return the test subsets with fakes of a generator of the training set.

    One seen generator makes a mixed subset seen: "unseen" is the claim that needs to be strict.
    """
    groups = list(groups)
    training = {generator for split, _, generator, label in groups if split == "train" and label == FAKE}
    return frozenset(
        subset for split, subset, generator, label in groups if split == TEST and label == FAKE and generator in training
    )


def evaluate(scores: pa.Table, seen: frozenset[str], reals: Mapping[str, str] = NONE_NAMED) -> dict[str, Any]:
    """Return every metric of one detector's scores (`contracts.SCORES`; only ``image_id`` may be missing).

    ``seen`` names the subsets whose generator was in the training set; their rows say so. ``reals`` is the parameter
    `dataset.reals`: which subset's reals another one uses (`reals.reals_for`).
    The keys lie flat, the subsets' under ``subsets``; ``<key>_low`` and ``<key>_high`` are the ends of a 95 % interval: Wilson's
    of the rates of one subset, the bootstrap's of everything else that has one. A number that is not defined (the accuracy of a
    subset without reals, say) is left out; ``n_real`` and ``n_fake`` tell why.
    Degradations other than `CLEAN` have the same dictionary each, without bootstrap, under ``degradations``. Memory: some tens
    of bytes per image.
    Raises `ValueError` on a row of another split than ``test`` (if the table has the column ``split``), a logit that is not
    finite, a label that is neither real nor fake, no clean scores, or a name in ``reals`` that the scores do not have.
    """
    return evaluate_with_resamples(scores, seen, reals)[0]


def evaluate_with_resamples(
    scores: pa.Table, seen: frozenset[str], reals: Mapping[str, str] = NONE_NAMED
) -> tuple[dict[str, Any], pa.Table]:
    """Return what `evaluate` does, and the resamples of the means over subsets (`resampling.resample_table`)."""
    _check(scores)
    results = {}
    for name in sorted(scores["degradation"].unique().to_pylist()):
        strata = Strata.of(scores.filter(pc.equal(scores["degradation"], name)), reals)
        results[name] = _points(strata, seen)
        if name == CLEAN:
            resamples = _add_bootstrap(results[name], strata, seen)
    clean = results.pop(CLEAN, None)
    if clean is None:
        raise ValueError(
            f"scores: no row has the degradation {CLEAN!r}, found {sorted(results) or 'no rows'}; rerun `dvc repro score`"
        )
    return rounded({"protocol": PROTOCOL} | clean | ({"degradations": results} if results else {})), resamples


@dataclass(frozen=True)
class _Images:
    """The logits of some images of either label."""

    real: Floats
    fake: Floats

    @property
    def pool(self) -> tuple[Bools, Floats]:
        """Reals and fakes as (is_fake_N, logit_N)."""
        return np.repeat([False, True], [len(self.real), len(self.fake)]), np.concatenate([self.real, self.fake])


def _points(strata: Strata, seen: frozenset[str]) -> dict[str, Any]:
    pools = {lenders: strata.reals_of(lenders) for lenders in set(strata.lenders.values())}
    subsets = {name: _subset_metrics(_Images(pools[lenders], strata.fakes[name])) for name, lenders in strata.lenders.items()}
    for name, row in subsets.items():
        row |= {"seen": name in seen} if row["n_fake"] else {}
    everything = _Images(strata.reals_of(strata.reals), np.concatenate([*strata.fakes.values()]))
    return {**_means(subsets, seen), **_pooled(everything), "subsets": subsets}


def _add_bootstrap(points: dict[str, Any], strata: Strata, seen: frozenset[str]) -> pa.Table:
    """Add the bootstrap's intervals to `_points`, the subsets' included, and return the resamples of the means."""
    resamples = resample(strata, _averaged(points["subsets"]), threshold=THRESHOLD, max_fpr=MAX_FPR)
    for name, own in resamples.items():
        row = points["subsets"][name]
        row |= _ends({key: values_R for key, values_R in own.items() if f"{key}_low" not in row})  # a rate has Wilson's
    means = _means(resamples, seen)
    table = resample_table(points, means, strata)
    points |= _ends(means)
    return table


def _ends(resamples: Resamples) -> dict[str, float]:
    intervals = {key: interval(values_R) for key, values_R in resamples.items()}
    return {f"{key}_{end}": value for key, ends in intervals.items() for end, value in zip(("low", "high"), ends, strict=True)}


def _subset_metrics(images: _Images) -> dict[str, float]:
    """Return the row of one subset; ``n_real`` counts the reals that it is compared with, its own or those of other subsets."""
    pool = images.pool
    n_real, n_fake = len(images.real), len(images.fake)
    values: dict[str, float] = {"n_real": n_real, "n_fake": n_fake}
    rates = {"r_acc": (real_accuracy, n_real), "f_acc": (fake_accuracy, n_fake)}
    if n_real and n_fake:
        rates["acc"] = (accuracy, n_real + n_fake)
        values |= {"balanced_acc": balanced_accuracy(*pool), "ece": expected_calibration_error(*pool)}
        values |= {"ap": average_precision(*pool), "auroc": auroc(*pool)}
        values |= {key: tpr_at_fpr(*pool, rate) for key, rate in MAX_FPR.items()}
    for key, (rate, count) in rates.items():
        if count:
            values[key] = rate(*pool)
            values[f"{key}_low"], values[f"{key}_high"] = wilson(values[key], count)
    return values


Row = Mapping[str, Any]  # of numbers, or of a number per resample (R,): the same means of either


def _averaged(rows: Mapping[str, Row]) -> Mapping[str, Row]:
    """Return the rows that a mean is over: those with fakes, or all of a test set without any."""
    return {name: row for name, row in rows.items() if "f_acc" in row} or rows


def _means(rows: Mapping[str, Row], seen: frozenset[str]) -> dict[str, Any]:
    """Return the unweighted means over subsets: the papers' tables. Reals that several rows share count once per row."""
    rows = _averaged(rows)
    keys = ("f_acc", "acc", "ap", "auroc", *MAX_FPR)
    means = {key: _mean(rows.values(), key) for key in ("r_acc", *keys)}
    for word, wanted in (("seen", True), ("unseen", False)):
        part = [row for name, row in rows.items() if (name in seen) == wanted]
        means |= {f"{key}_{word}": _mean(part, key) for key in keys}
    means |= {"mean_fakes": means["f_acc"], "mean_balanced": _mean(rows.values(), "balanced_acc")}
    if means["mean_balanced"] is not None:
        columns = [means["r_acc"], *(row["f_acc"] for row in rows.values())]
        means["mean_real_fakes"] = np.mean(columns, axis=0)
    return {key: value for key, value in means.items() if value is not None}


def _mean(rows: Iterable[Row], key: str) -> Any:
    values = [row[key] for row in rows if key in row]
    return np.mean(values, axis=0) if values else None


def _pooled(everything: _Images) -> dict[str, float]:
    """Return what is computed over all images at once, each once."""
    n_real, n_fake = len(everything.real), len(everything.fake)
    values: dict[str, float] = {"n_real": n_real, "n_fake": n_fake}
    if n_real and n_fake:
        values["balanced_acc"] = balanced_accuracy(*everything.pool)
        values["ece"] = expected_calibration_error(*everything.pool)
    return values


def _check(scores: pa.Table) -> None:
    splits = set(scores["split"].unique().to_pylist()) if "split" in scores.column_names else {TEST}
    if splits - {TEST}:
        raise ValueError(
            f"scores: expected rows of the split {TEST!r} only, found {sorted(splits)}; read them with read_test_scores"
        )
    labels = set(scores["label"].unique().to_pylist())
    if not labels <= {REAL, FAKE}:
        raise ValueError(
            f"scores: expected the labels {REAL} (real) and {FAKE} (fake), found {sorted(labels)}; rerun `dvc repro score`"
        )
    bad = int((~np.isfinite(scores["logit"].to_numpy())).sum())
    if bad:
        raise ValueError(
            f"scores: {bad} of {scores.num_rows} logits are not finite: the detector diverged; "
            "look at its training curve, lower its learning rate and run `dvc repro` again"
        )


def _share(hits_N: Bools) -> float:
    return float(np.mean(hits_N)) if len(hits_N) else float("nan")


def rounded(value: Any) -> Any:
    """Return nested dictionaries with every float, numpy's included, rounded to `DIGITS`: what goes into a JSON file."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return round(float(value), DIGITS) if isinstance(value, float | np.floating) else value
