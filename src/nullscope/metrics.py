"""From scores to numbers. Pure functions of arrays; what opens files is `stages/evaluate.py`.

``is_fake_N`` is bool, ``logit_N`` float, above `THRESHOLD` (strictly) is called fake. Every rate is a fraction in [0, 1].
Definitions follow what the papers' code computes (validate.py of AIGIBench, the same in DGS-Net and UniversalFakeDetect):
accuracies and average precision per *subset* of the test set, then the unweighted mean over subsets. "mAcc." has meant three
things in print, so each averaging has a name of its own here: `mean_real_fakes`, `mean_fakes`, `mean_balanced`.

N images, S subsets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from nullscope.contracts import CLEAN, FAKE, REAL

THRESHOLD = 0.0  # logit; the papers' p > 0.5
ECE_BINS = 15
Z_95 = 1.959963984540054  # standard normal quantile at 0.975
DIGITS = 6  # of every number of the JSON; a test set of a million images resolves no more

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
IndexGroup = tuple[str, str, str, int]  # split, subset, generator, label


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
        subset for split, subset, generator, label in groups if split == "test" and label == FAKE and generator in training
    )


def evaluate(scores: pa.Table, seen: frozenset[str]) -> dict[str, Any]:
    """Return every metric of one detector's scores (`contracts.SCORES`; only ``image_id`` may be missing).

    ``seen`` names the subsets whose generator was in the training set; their rows say so. The keys lie flat, the subsets' under
    ``subsets``.
    A number that is not defined (the accuracy of a subset without reals, say) is left out; ``n_real`` and ``n_fake`` tell why.
    Degradations other than `CLEAN` have the same dictionary each, under ``degradations``. Memory: some tens of bytes per image.
    Raises `ValueError` on a logit that is not finite, a label that is neither real nor fake, or no clean scores.
    """
    _check(scores)
    results = {}
    for name in sorted(scores["degradation"].unique().to_pylist()):
        rows = scores.filter(pc.equal(scores["degradation"], name))
        results[name] = _rounded(_evaluate_one(_by_subset(rows), seen))
    clean = results.pop(CLEAN, None)
    if clean is None:
        raise ValueError(
            f"scores: no row has the degradation {CLEAN!r}, found {sorted(results) or 'no rows'}; rerun `dvc repro score`"
        )
    return clean | ({"degradations": results} if results else {})


@dataclass(frozen=True)
class _Subset:
    """The logits of one subset of the test set."""

    real: Floats
    fake: Floats

    @property
    def pool(self) -> tuple[Bools, Floats]:
        """Reals and fakes as (is_fake_N, logit_N)."""
        return np.repeat([False, True], [len(self.real), len(self.fake)]), np.concatenate([self.real, self.fake])


def _evaluate_one(by_subset: dict[str, _Subset], seen: frozenset[str]) -> dict[str, Any]:
    # UniversalFakeDetect's way: folders of fakes are judged against reals that lie in a folder of their own.
    shared = np.concatenate([np.empty(0), *(subset.real for subset in by_subset.values() if not len(subset.fake))])
    judged = {name: _Subset(s.real if len(s.real) else shared, s.fake) for name, s in by_subset.items()}
    subsets = {
        name: _subset_metrics(subset) | ({"seen": name in seen} if len(subset.fake) else {}) for name, subset in judged.items()
    }
    with_fakes = {name: values for name, values in subsets.items() if values["n_fake"]}
    everything = _Subset(*(np.concatenate([getattr(s, kind) for s in by_subset.values()]) for kind in ("real", "fake")))
    return {
        **_means(with_fakes or subsets),
        **_seen_means(with_fakes, seen),
        **_pooled(everything),
        "subsets": subsets,
    }


def _subset_metrics(subset: _Subset) -> dict[str, float]:
    """Return the row of one subset; ``n_real`` counts the reals it was judged against, shared or its own."""
    pool = subset.pool
    n_real, n_fake = len(subset.real), len(subset.fake)
    values: dict[str, float] = {"n_real": n_real, "n_fake": n_fake}
    if n_real:
        values["r_acc"] = real_accuracy(*pool)
    if n_fake:
        values["f_acc"] = fake_accuracy(*pool)
        values["f_acc_low"], values["f_acc_high"] = wilson(values["f_acc"], n_fake)
    if n_real and n_fake:
        values |= {"acc": accuracy(*pool), "ap": average_precision(*pool)}
        values |= {"auroc": auroc(*pool), "tpr_5": tpr_at_fpr(*pool, 0.05)}
    return values


def _means(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the unweighted means over subsets: the papers' tables. Reals that several rows share count once per row."""
    means = {key: _mean(rows, key) for key in ("r_acc", "f_acc", "acc", "ap", "auroc", "tpr_5")}
    fakes = [row["f_acc"] for row in rows.values() if "f_acc" in row]
    balanced = [(row["r_acc"] + row["f_acc"]) / 2 for row in rows.values() if "r_acc" in row and "f_acc" in row]
    means["mean_fakes"] = means["f_acc"]
    if means["r_acc"] is not None and fakes:
        means["mean_real_fakes"] = float(np.mean([means["r_acc"], *fakes]))
        means["mean_balanced"] = float(np.mean(balanced))
    return {key: value for key, value in means.items() if value is not None}


def _seen_means(rows: dict[str, dict[str, float]], seen: frozenset[str]) -> dict[str, float]:
    """Return the means over the seen and over the unseen subsets, as far as there are any."""
    means = {}
    for word, wanted in (("seen", True), ("unseen", False)):
        part = {name: row for name, row in rows.items() if (name in seen) == wanted}
        means |= {f"{key}_{word}": _mean(part, key) for key in ("f_acc", "acc", "ap", "auroc", "tpr_5")}
    return {key: value for key, value in means.items() if value is not None}


def _pooled(everything: _Subset) -> dict[str, float]:
    """Return what is computed over all images at once, each once."""
    n_real, n_fake = len(everything.real), len(everything.fake)
    values: dict[str, float] = {"n_real": n_real, "n_fake": n_fake}
    if n_real and n_fake:
        values["balanced_acc"] = balanced_accuracy(*everything.pool)
        values["ece"] = expected_calibration_error(*everything.pool)
    return values


def _mean(rows: dict[str, dict[str, float]], key: str) -> float | None:
    values = [row[key] for row in rows.values() if key in row]
    return float(np.mean(values)) if values else None


def _by_subset(rows: pa.Table) -> dict[str, _Subset]:
    coded = rows["subset"].combine_chunks().dictionary_encode()
    code_N, is_fake_N = coded.indices.to_numpy(), rows["label"].to_numpy() == FAKE
    logit_N = rows["logit"].to_numpy().astype(np.float64)
    names = coded.dictionary.to_pylist()
    own = {name: code_N == code for code, name in enumerate(names)}
    return {name: _Subset(logit_N[own[name] & ~is_fake_N], logit_N[own[name] & is_fake_N]) for name in sorted(names)}


def _check(scores: pa.Table) -> None:
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


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value
