"""The evaluation protocol: every number of one detector's scores. Pure functions; what opens files is `stages/evaluate.py`.

Accuracies and average precision are computed per *subset* of the test set, then comes the unweighted mean over subsets.
"mAcc." has meant three things in print, so each averaging has a name of its own here: `mean_real_fakes`, `mean_fakes`,
`mean_balanced`. docs/protocol.md has every definition. Every rate is a fraction in [0, 1].

R resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nullscope.core.contracts import CLEAN, FAKE, REAL
from nullscope.evaluation.generators import forecast
from nullscope.evaluation.intervals import LEVEL, newcombe, on_logit_scale, wilson
from nullscope.evaluation.metrics import (
    MAX_FPR,
    THRESHOLD,
    Bools,
    Floats,
    auroc,
    average_precision,
    brier,
    fake_accuracy,
    miscalibration,
    pooled,
    real_accuracy,
    rounded,
    tpr_at_fpr,
)
from nullscope.evaluation.operating import frozen_thresholds, source_grid
from nullscope.evaluation.resampling import Resamples, Strata, resample, resample_table
from nullscope.evaluation.scores import TEST

PROTOCOL = 3  # what the numbers mean; a change of any is a new version, with a line in docs/protocol.md
RATES = ("r_acc", "f_acc", "acc", "balanced_acc")  # with an interval of their own in a row
COMPARED = ("auroc", "f_acc")  # numbers of single subsets that the table of resamples keeps
NONE_NAMED: Mapping[str, str] = MappingProxyType({})  # no subset uses the reals of a named one
NONE_SEEN: frozenset[str] = frozenset()
Row = Mapping[str, Any]  # of numbers, or of a number per resample (R,): the same means of either
Ends = tuple[float, float]


def evaluate(
    scores: pa.Table,
    seen: frozenset[str] = NONE_SEEN,
    reals: Mapping[str, str] = NONE_NAMED,
    threshold: float = THRESHOLD,
    val: pa.Table | None = None,
) -> dict[str, Any]:
    """Return every number of one detector's scores (`contracts.SCORES`; ``image_id`` and ``split`` may be missing).

    ``seen`` names the subsets whose generator was in the training set; their rows say so. ``reals`` is the parameter
    `dataset.reals`: which subset's reals another one uses (`reals.reals_for`). ``val``: scores of validation images as they are,
    on which the thresholds of ``frozen`` are set (`operating.frozen_thresholds`). An optional column ``group`` names the images
    that belong together: they are resampled as one; ``source_of_real`` says where a real is from (`operating.source_grid`). The
    keys lie flat, the subsets' under ``subsets``; ``<key>_low`` and ``<key>_high`` are the ends of a 95 % interval over images,
    ``<key>_generators_low`` and ``_high`` of one over generators. A number that is not defined (the accuracy of a subset without
    reals, say) is left out; ``n_real`` and ``n_fake`` tell why, and ``left_out`` which subsets a mean is without. Degradations
    other than `CLEAN` have the same dictionary each, without bootstrap, under ``degradations``. Memory: some tens of bytes per
    image. Raises `ValueError` on a row of another split than ``test`` (if the table has the column ``split``), a logit that is
    not finite, a label that is neither real nor fake, no clean scores, or a name in ``reals`` that the scores do not have.
    """
    return evaluate_with_resamples(scores, seen, reals, threshold, val)[0]


def evaluate_with_resamples(
    scores: pa.Table,
    seen: frozenset[str] = NONE_SEEN,
    reals: Mapping[str, str] = NONE_NAMED,
    threshold: float = THRESHOLD,
    val: pa.Table | None = None,
) -> tuple[dict[str, Any], pa.Table]:
    """Return what `evaluate` does, and the resamples of the means and of single subsets (`resampling.resample_table`)."""
    _check(scores)
    names = sorted(scores["degradation"].unique().to_pylist())
    rows_of = {name: scores.filter(pc.equal(scores["degradation"], name)) for name in names}
    results = {}
    for name, rows in rows_of.items():
        strata = Strata.of(rows, reals)
        results[name] = _points(strata, seen, threshold)
        if name == CLEAN:
            resamples = _add_bootstrap(results[name], strata, seen, threshold)
    clean = results.pop(CLEAN, None)
    if clean is None:
        raise ValueError(
            f"scores: no row has the degradation {CLEAN!r}, found {sorted(results) or 'no rows'}; rerun `dvc repro score`"
        )
    as_they_are = rows_of.pop(CLEAN)
    frozen = frozen_thresholds(as_they_are, val, rows_of) if val is not None else {}
    more = {"frozen": frozen, "sources": source_grid(as_they_are)}
    more |= {"degradations": results}
    return rounded({"protocol": PROTOCOL} | clean | {key: value for key, value in more.items() if value}), resamples


@dataclass(frozen=True)
class _Images:
    """The logits of some images of either label."""

    real: Floats
    fake: Floats

    @property
    def pool(self) -> tuple[Bools, Floats]:
        """Reals and fakes as (is_fake_N, logit_N)."""
        return pooled(self.real, self.fake)


def _points(strata: Strata, seen: frozenset[str], threshold: float) -> dict[str, Any]:
    pools = {lenders: strata.reals_of(lenders) for lenders in set(strata.lenders.values())}
    subsets = {name: _row(_Images(pools[lenders], strata.fakes[name]), threshold) for name, lenders in strata.lenders.items()}
    for name, row in subsets.items():
        row |= {"seen": name in seen} if row["n_fake"] else {}
    everything = _Images(strata.reals_of(strata.reals), np.concatenate([*strata.fakes.values()]))
    left_out = _left_out(_averaged(subsets))
    return {
        **_means(subsets, seen),
        **_pooled(everything, threshold),
        **({"left_out": left_out} if left_out else {}),
        "subsets": subsets,
    }


def _row(images: _Images, threshold: float) -> dict[str, Any]:
    """Return the row of one subset; ``n_real`` counts the reals that it is compared with, its own or those of other subsets."""
    pool, n_real, n_fake = images.pool, len(images.real), len(images.fake)
    rates = {"r_acc": (real_accuracy(*pool, threshold), n_real), "f_acc": (fake_accuracy(*pool, threshold), n_fake)}
    row: dict[str, Any] = {"n_real": n_real, "n_fake": n_fake}
    for key, (rate, count) in rates.items():
        row |= _with_ends(key, rate, wilson(rate, count)) if count else {}
    if n_real and n_fake:
        both, counts = [rate for rate, _ in rates.values()], (n_real, n_fake)
        shares = {"acc": np.array(counts) / (n_real + n_fake), "balanced_acc": np.array([0.5, 0.5])}
        for key, own in shares.items():
            row |= _with_ends(key, float(own @ both), newcombe(both, counts, own))
        row |= {"ap": average_precision(*pool), "auroc": auroc(*pool), **_probabilities(images)}
        found = {key: tpr_at_fpr(*pool, rate) for key, rate in MAX_FPR.items()}
        row |= {key: value for key, value in found.items() if value is not None}
    return row


def _pooled(everything: _Images, threshold: float) -> dict[str, float]:
    """Return what is computed over all images at once, each once."""
    values: dict[str, float] = {"n_real": len(everything.real), "n_fake": len(everything.fake)}
    if all(values.values()):
        pool = everything.pool
        rates = [rate(*pool, threshold) for rate in (real_accuracy, fake_accuracy)]
        values |= {"balanced_acc": sum(rates) / 2, **_probabilities(everything)}
    return values


def _probabilities(images: _Images) -> dict[str, float]:
    values = {"brier": brier(*images.pool), "miscalibration": miscalibration(*images.pool)}
    return {key: value for key, value in values.items() if np.isfinite(value)}


def _add_bootstrap(points: dict[str, Any], strata: Strata, seen: frozenset[str], threshold: float) -> pa.Table:
    """Add the bootstrap's intervals to `_points`, the subsets' included, and return the resamples."""
    subsets = points["subsets"]
    resamples = resample(strata, _averaged(subsets), threshold=threshold, max_fpr=MAX_FPR)
    for name, own in resamples.items():
        row, fewest = subsets[name], min(count for count in (subsets[name]["n_real"], subsets[name]["n_fake"]) if count)
        for key, values_R in own.items():
            if strata.groups or key not in RATES:  # the closed forms take the images for independent
                row |= _with_ends(key, row[key], _over_images(key, row[key], values_R, wilson(row[key], fewest)))
    means, columns = _means(resamples, seen), {}
    lows, highs = (_means({name: _ends_of(row, end) for name, row in subsets.items()}, seen) for end in ("low", "high"))
    for key, values_R in means.items():
        points |= _with_ends(key, points[key], _over_images(key, points[key], values_R, (lows[key], highs[key])))
        columns[key] = values_R
    points |= _forecasts(points, {name: own for name, own in resamples.items() if "f_acc" in own and name not in seen})
    observed = {key: points[key] for key in columns}
    for name, own in resamples.items():
        columns |= {f"{key}/{name}": own[key] for key in COMPARED if key in own}
        observed |= {f"{key}/{name}": subsets[name][key] for key in COMPARED if key in own}
    return resample_table(observed, columns, strata)


def _forecasts(points: Row, unseen: Mapping[str, Resamples]) -> dict[str, float]:
    """Return the intervals over generators of the means over unseen subsets that are complete."""
    values = {}
    for key in _over(unseen):
        if all(key in own for own in unseen.values()):
            ends = forecast(points[f"{key}_unseen"], {name: own[key] for name, own in unseen.items()})
            values |= _with_ends(f"{key}_unseen_generators", None, ends) if ends else {}
    return values


def _over_images(key: str, value: float, values_R: Floats, at_an_end: Ends) -> Ends:
    """Return the interval of a number from its resamples; ``at_an_end`` if it is 0 or 1, where resamples say nothing.

    A share of fakes at a false-positive rate has the quantiles: the reals that set the threshold make it lopsided. All else has
    the resamples' error on the scale of the logit (bench/coverage.py measures both).
    """
    if not 0 < value < 1:
        return at_an_end
    if key.startswith("tpr_"):
        low, high = np.quantile(values_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return min(float(low), value), max(float(high), value)
    return on_logit_scale(value, float(np.std(values_R, ddof=1)))


def _with_ends(key: str, value: float | None, ends: Ends) -> dict[str, float]:
    return ({} if value is None else {key: value}) | {f"{key}_low": ends[0], f"{key}_high": ends[1]}


def _ends_of(row: Row, end: str) -> dict[str, float]:
    """Return one end of the interval of every number of a row, under the name of the number."""
    return {key.removesuffix(f"_{end}"): value for key, value in row.items() if key.endswith(f"_{end}")}


def _averaged(rows: Mapping[str, Row]) -> Mapping[str, Row]:
    """Return the rows that a mean is over: those with fakes, or all of a test set without any."""
    return {name: row for name, row in rows.items() if "f_acc" in row} or rows


def _over(rows: Mapping[str, Row]) -> tuple[str, ...]:
    """Return the numbers whose means over seen and over unseen subsets are taken."""
    return tuple(
        key for key in ("f_acc", "acc", "balanced_acc", "ap", "auroc", *MAX_FPR) if any(key in row for row in rows.values())
    )


def _left_out(rows: Mapping[str, Row]) -> dict[str, list[str]]:
    """Return the subsets that a mean is without, by number: those without reals, or with too few for a false-positive rate."""
    missing = {key: sorted(name for name, row in rows.items() if key not in row) for key in ("r_acc", *_over(rows))}
    return {key: names for key, names in missing.items() if names and len(names) < len(rows)}


def _means(rows: Mapping[str, Row], seen: frozenset[str]) -> dict[str, Any]:
    """Return the unweighted means over subsets: the papers' tables. Reals that several rows share count once per row."""
    rows = _averaged(rows)
    keys = _over(rows)
    means = {key: _mean(rows.values(), key) for key in ("r_acc", *keys) if key != "balanced_acc"}
    for word, wanted in (("seen", True), ("unseen", False)):
        part = [row for name, row in rows.items() if (name in seen) == wanted]
        means |= {f"{key}_{word}": _mean(part, key) for key in keys}
    means |= {"mean_fakes": means.get("f_acc"), "mean_balanced": _mean(rows.values(), "balanced_acc")}
    if means["mean_balanced"] is not None:
        columns = [means["r_acc"], *(row["f_acc"] for row in rows.values())]
        means["mean_real_fakes"] = np.mean(columns, axis=0)
    return {key: value for key, value in means.items() if value is not None}


def _mean(rows: Iterable[Row], key: str) -> Any:
    values = [row[key] for row in rows if key in row]
    return np.mean(values, axis=0) if values else None


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
            f"scores: expected finite logits, found {bad} of {scores.num_rows} that are not: the detector diverged (look at its "
            "training curve), or probabilities of 0 or 1 were turned into logits"
        )
