"""Many detectors in the order of what they find, with what they cost; and parts of a method added to other detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from nullscope.core.contracts import ContractError
from nullscope.evaluation.paired import Tables, compare
from nullscope.evaluation.seeds import ENOUGH
from nullscope.evaluation.summary import Metrics, by_detector, forecast, spread, subsets_of
from nullscope.records.published import load_all
from nullscope.report.layout import Cell, Column, Table, detector_column
from nullscope.report.project import Project
from nullscope.report.tables.comparison import differences_to, said_of
from nullscope.report.tables.pairs import cell_of, pairs_note, tested_note

MANY = 8  # detectors from which on they are ranked
RANKED_BY = "auroc_unseen"
# Part of a method: its name, what a variant with it is called behind its detector's name, a variant without it, and the published
# table.
PARTS = {
    "null_space": ("Null space", "_null_space", "_no_null_space", "ns_net_t7"),
    "patches": ("Patch selection", "_patches", "_no_patches", "ns_net_t8"),
}


@dataclass(frozen=True)
class Size:
    """How many numbers a model has."""

    added: int  # those in its own weights file
    frozen: int  # those of the frozen image networks under it


def read_sizes(project: Project) -> dict[str, Size]:
    """Return the sizes of the first seed of every detector. Raises `ContractError` on weights that cannot be read."""
    folders = {name: project.root / "models" / runs[0] for name, runs in project.runs.items()}
    return {
        name: Size(
            _numbers(folder / "weights.safetensors"),
            sum(_numbers(file, "visual.") for file in sorted(folder.glob("*/open_clip_model.safetensors"))),
        )
        for name, folder in folders.items()
    }


def leaderboard_table(
    summary: Mapping[str, Metrics], sizes: Mapping[str, Size], tables: Tables, fixed: frozenset[str]
) -> Table | None:
    """Return one row per detector, the best first; None of fewer than `MANY` detectors, or without unseen generators.

    ``tables``, ``fixed``: as in `paired.compare`.
    """
    runs = by_detector(summary)
    ranked = {name: spread(own, RANKED_BY) for name, own in runs.items()}
    if len(runs) < MANY or None in ranked.values():
        return None
    order = sorted(runs, key=lambda name: -ranked[name].mean)
    numbers = [
        Column(RANKED_BY, "unseen", group="AUROC", best="max"),
        Column("auroc_seen", "seen", group="AUROC", best="max"),
        Column("r_acc", "Reals right", best="max"),
        Column("f_acc_unseen", "unseen", group="Fakes found", best="max"),
        Column("f_acc_seen", "seen", group="Fakes found", best="max"),
        Column("mean_balanced", "Balanced accuracy", best="max"),
    ]
    columns = [
        detector_column(),
        numbers[0],
        Column("forecast", "other generators", group="AUROC"),
        *numbers[1:],
        Column("less", "AUROC unseen", "points", f"Difference to {order[0]}", tested=True),
        Column("added", "added", "count", "Parameters"),
        Column("frozen", "frozen", "count", "Parameters"),
    ]
    rows: list[list[Cell]] = []
    less = differences_to(order[0], tables, RANKED_BY, fixed)
    for name in order:
        own: list[Cell] = [spread(runs[name], column.key) for column in numbers]
        own.insert(1, forecast(runs[name], RANKED_BY))
        rows.append([name, *own, less.get(name, ""), sizes[name].added, sizes[name].frozen])
    seeds = max(map(len, runs.values()))
    note = (
        f"Percent, {said_of(seeds)}; other generators: the same number with the interval that takes the unseen generators for a "
        f"sample. {tested_note('the column', [seeds >= ENOUGH])} The table of pairs has every two. Parameters: what a detector "
        "keeps beside its frozen networks, and the image halves of those; its cost is measured by `bench/cost.py`."
    )
    return Table("leaderboard", "Leaderboard", note, columns, rows)


def plug_and_play_tables(summary: Mapping[str, Metrics], tables: Tables) -> list[Table]:
    """Return a table of every part that detectors of the run are there with and without: NS-Net's tables 7 and 8."""
    runs = by_detector(summary)
    return [table for part in PARTS if (table := _part_table(part, runs, subsets_of(summary), tables))]


def _part_table(part: str, runs: Mapping[str, Sequence[Metrics]], subsets: Mapping[str, bool], tables: Tables) -> Table | None:
    title, with_it, without_it, table = PARTS[part]
    pairs = [(name, name + with_it) for name in runs if name + with_it in runs]
    pairs += [(name + without_it, name) for name in runs if name + without_it in runs]
    unseen = [Column(name, name, group="Fakes called fake") for name, seen in subsets.items() if not seen]
    if not pairs or not unseen:
        return None
    means = [Column("f_acc_unseen", "mean", group="Fakes called fake"), Column("r_acc", "Real")]
    gains = [
        Column("gain", "fakes, mean", "points", "With less without", tested=True),
        Column("gain_auroc", "AUROC unseen", "points", "With less without", tested=True),
        Column("gain_printed", "fakes, mean, NS-Net's print", "points", "With less without"),
    ]
    rows: list[list[Cell]] = []
    keys = ("f_acc_unseen", RANKED_BY)
    gains_of = [compare(tables, [(full, plain, key) for plain, full in pairs], fixed=frozenset()) for key in keys]
    for (plain, full), *own_gains in zip(pairs, *gains_of, strict=True):
        for name in (plain, full):
            parts = [[run["subsets"].get(column.key, {}) for run in runs[name]] for column in unseen]
            own = [*(spread(each, "f_acc") for each in parts), *(spread(runs[name], column.key) for column in means)]
            gained: list[Cell] = ["", "", ""]
            if name == full:
                gained = [*map(cell_of, own_gains), _printed_gain(table, plain, full)]
            rows.append([name, *own, *gained])
    published = load_all()[table]
    note = (
        "Percent of each unseen generator's fakes called fake, of detectors without and with it, as NS-Net's table "
        f"{published.number}, whose own gains, on 8 diffusion subsets of {published.benchmark}, stand beside ours. "
        + pairs_note([gain for own in gains_of for gain in own])
    )
    columns = [detector_column(), *unseen, *means, *gains]
    return Table(f"plug_and_play_{part}", f"{title}, added to detectors", note, columns, rows)


def _printed_gain(table: str, plain: str, full: str) -> Cell:
    """Return the published gain of one detector with a part, a fraction; nothing where it is not printed."""
    published = load_all()[table]
    means = {detector: published.rows[method][published.average] for method, detector in published.detectors.items()}
    return (means[full] - means[plain]) / 100 if {plain, full} <= means.keys() else ""


def _numbers(path: Path, beginning: str = "") -> int:
    """Return how many numbers the tensors of a file hold whose names begin so; only its header is read."""
    try:
        with safe_open(path, framework="numpy") as file:
            return sum(prod(file.get_slice(name).get_shape()) for name in file.keys() if name.startswith(beginning))  # noqa: SIM118
    except FileNotFoundError:
        raise ContractError(f"{path} does not exist; run `dvc repro` to make it (stage `train`)") from None
    except SafetensorError as error:
        raise ContractError(f"{path} cannot be read ({error}); delete it and run `dvc repro`") from None
