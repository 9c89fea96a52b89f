"""Generators by the day from which they were there: trained on what existed until a day, tested on what came after.

R resamples, S seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nullscope.core.contracts import FAKE
from nullscope.evaluation.intervals import on_logit_scale
from nullscope.evaluation.scores import TEST
from nullscope.evaluation.seeds import Spread, over_seeds_and_images
from nullscope.evaluation.summary import Metrics


@dataclass(frozen=True)
class Releases:
    """The test subsets by their generators' days, held against the newest generator of the training split."""

    trained_until: date  # T, the day of the newest one
    until: tuple[str, ...]  # subsets all of whose generators were there by T, the oldest first
    after: tuple[str, ...]  # subsets all of whose generators are newer
    left_out: tuple[str, ...]  # subsets with a generator whose day is not known, or with generators of both kinds
    days: dict[str, date]  # subset -> the day of its newest generator


def releases(batches: Iterable[pa.RecordBatch]) -> Releases | None:
    """Return the releases of an index, in memory of one batch.

    None where nothing can be said: the day of a training generator is not known, or no test subset is newer than all of them.
    """
    found: set[tuple[str, str, date | None]] = set()
    for batch in batches:
        fakes = pa.table(batch).filter(pc.equal(batch["label"], FAKE))
        kinds = fakes.group_by(["split", "subset", "released"]).aggregate([]).to_pylist()
        found |= {(row["split"], row["subset"], row["released"]) for row in kinds}
    training = {day for split, _, day in found if split == "train"}
    if not training or None in training:
        return None
    newest = max(training)
    days: dict[str, set[date | None]] = {}
    for split, subset, day in found:
        if split == TEST:
            days.setdefault(subset, set()).add(day)
    known = {subset: own for subset, own in days.items() if None not in own}
    in_order = sorted(known, key=lambda subset: (max(known[subset]), subset))
    until = tuple(subset for subset in in_order if max(known[subset]) <= newest)
    after = tuple(subset for subset in in_order if min(known[subset]) > newest)
    if not after:
        return None
    left_out = tuple(sorted(set(days) - {*until, *after}))
    return Releases(newest, until, after, left_out, {subset: max(known[subset]) for subset in in_order})


def mean_over(runs_S: Sequence[Metrics], tables_S: Sequence[pa.Table], key: str, subsets: Sequence[str]) -> Spread | None:
    """Return the mean of a number over some subsets, over seeds and images; None where a subset does not have it.

    ``runs_S``, ``tables_S``: one detector's metrics and resamples (`resampling.resample_table`), one per seed. Where all subsets
    are at 0 or at 1 the resamples do not move, and the ends are the means of the subsets' own.
    """
    names = [f"{key}/{subset}" for subset in subsets]
    if not names or not all(name in table.column_names for table in tables_S for name in names):
        return None
    found = []
    for run, table in zip(runs_S, tables_S, strict=True):
        mean_R = np.mean([table[name].to_numpy() for name in names], axis=0)
        value = float(mean_R[0])
        if 0 < value < 1:
            ends = on_logit_scale(value, float(np.std(mean_R[1:], ddof=1)))
        else:
            rows = [run["subsets"][subset] for subset in subsets]
            ends = (float(np.mean([row[f"{key}_low"] for row in rows])), float(np.mean([row[f"{key}_high"] for row in rows])))
        found.append(Spread(value, *ends, 1, "interval"))
    return over_seeds_and_images(found)
