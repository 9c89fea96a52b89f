"""Trained on what existed until a day, tested on what came after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from nullscope.evaluation.releases import Releases, mean_over
from nullscope.evaluation.summary import Metrics, by_detector
from nullscope.report.layout import Cell, Column, Table, detector_column

NUMBERS = {"auroc": "AUROC", "f_acc": "Fakes called fake"}


def releases_table(
    found: Releases | None, summary: Mapping[str, Metrics], tables: Mapping[str, Sequence[pa.Table]], official: frozenset[str]
) -> Table | None:
    """Return one row per detector that was trained here; None where the days of the generators say nothing.

    ``tables``: detector -> its resamples, one table per seed; ``official``: those with released weights, which have another T.
    """
    metrics = by_detector(summary)
    trained = {name: own for name, own in tables.items() if name not in official}
    if not found or not trained:
        return None
    kinds = {"until": found.until, "after": found.after}
    titles = {"until": f"until {found.trained_until}", "after": f"after {found.trained_until}"}
    shown = [(key, kind) for key in NUMBERS for kind, subsets in kinds.items() if subsets]
    columns = [Column(f"{key}_{kind}", titles[kind], group=NUMBERS[key], best="max") for key, kind in shown]
    rows: list[list[Cell]] = [
        [name, *(mean_over(metrics[name], own, key, kinds[kind]) for key, kind in shown)] for name, own in trained.items()
    ]
    lists = [f"{word} {found.trained_until}: {_listed(found, own)}" for word, own in kinds.items() if own]
    lists += (
        [f"left out, their day is not known or they are of both kinds: {', '.join(found.left_out)}"] if found.left_out else []
    )
    note = (
        f"Percent, with 95 % intervals; unweighted means over subsets. The newest generator of the training split was there from "
        f"{found.trained_until}: what came after could not have been trained on. {'; '.join(lists)}."
    )
    return Table("released", "Trained until a day, tested on what came after", note, [detector_column(), *columns], rows)


def _listed(found: Releases, subsets: Sequence[str]) -> str:
    return ", ".join(f"{subset} ({found.days[subset]})" for subset in subsets)
