"""The published numbers of NS-Net, Advanced NS-Net and DGS-Net, and where ours stand against them.

``published/*.csv`` hold the papers' tables as printed, ``published/tables.yaml`` says what each column, row and average means and
which of the numbers contradict each other. Printed values are in percent, ours are fractions in [0, 1], differences are points.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple

from pydantic import Field
from ruamel.yaml import YAML

from nullscope.core.config import Params, suggest, validate

FlagKind = Literal["average", "impossible", "contradiction", "polluted"]  # explained in tables.yaml
# The keys of nullscope.evaluation.metrics for each way of averaging; ``subsets`` keeps the name of the metric that it averages.
AVERAGES = {"real_fakes": "mean_real_fakes", "fakes": "mean_fakes", "balanced": "mean_balanced"}
_EPSILON = 1e-9  # of comparisons between decimal fractions

# Metric and subset. A mean over subsets has, in place of one, None (all of them), the name of a part, or that of a degradation.
Cell = tuple[str, str | None]


class Interval(NamedTuple):
    """One of our numbers with its confidence interval, as fractions."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Flag:
    """A reason to doubt a printed value. ``column``: as printed, None for the average."""

    method: str
    column: str | None
    kind: FlagKind
    note: str


@dataclass(frozen=True)
class Published:
    """One metric of one table. Names of methods and columns are as printed, in the printed order."""

    id: str
    paper: str
    number: str
    title: str
    metric: str  # of ``columns``: f_acc, ap or balanced_acc
    benchmark: str
    part: str | None  # name of the subsets covered, where they are not the whole benchmark
    averaging: str
    columns: Mapping[str, str]  # printed name to the subset here, or to the degradation
    degradations: bool  # whether the columns are degradations, each averaged over all subsets, and not subsets
    real: str | None  # the column with the share of reals called real (r_acc), averaged over subsets
    average: str | None  # the column with the printed average
    detectors: Mapping[str, str | None]  # printed name of a method to ours; None: no detector of its own
    rows: Mapping[str, Mapping[str, float]]  # percent by method and column; a cell that is not printed is absent
    rounding: float  # half a unit of the last printed digit, as a fraction
    flags: tuple[Flag, ...]
    note: str

    @property
    def average_metric(self) -> str:
        """The name of what the printed average is, such as ``mean_real_fakes``."""
        return AVERAGES.get(self.averaging, self.metric)

    def flags_of(self, method: str, column: str | None) -> tuple[Flag, ...]:
        """Return the doubts about one cell; the average is known as None, and by its name."""
        column = None if column == self.average else column
        return tuple(flag for flag in self.flags if (flag.method, flag.column) == (method, column))

    def cells(self) -> Iterator[tuple[str, Cell]]:
        """Yield every column with what it holds: the reals, the metric by subset or by degradation, the average."""
        if self.real:
            yield self.real, ("r_acc", self.part)
        metric = self.average_metric if self.degradations else self.metric
        yield from ((column, (metric, name)) for column, name in self.columns.items())
        if self.average:
            yield self.average, (self.average_metric, self.part)


@dataclass(frozen=True)
class Score:
    """One of our numbers beside the published one; all but ``difference`` are fractions."""

    detector: str
    table: str
    metric: str
    subset: str | None
    ours: float
    low: float
    high: float
    published: float
    difference: float  # points, ours minus published
    inside: bool  # the published value, which is rounded, can lie within low..high
    flagged: bool  # the published value is doubtful: see the table's flags


@cache
def load_all() -> Mapping[str, Published]:
    """Return every table by its id, in the papers' order. Raises `ValueError` where the package's files do not fit together."""
    text = files(__package__).joinpath("published", "tables.yaml").read_text(encoding="utf-8")
    described = validate("published/tables.yaml", YAML(typ="safe", pure=True).load(text), _File)
    return {id: _table(id, table, described) for id, table in described.tables.items()}


def tables_on(benchmark: str) -> list[Published]:
    """Return the tables of a benchmark. Raises `ValueError` on one that no table has."""
    found = [table for table in load_all().values() if table.benchmark == benchmark]
    if not found:
        raise ValueError(
            f"no published table on {benchmark!r}{suggest(benchmark, sorted({t.benchmark for t in load_all().values()}))}"
        )
    return found


def scorecard(benchmark: str, ours: Mapping[str, Mapping[Cell, Interval]]) -> list[Score]:
    """Return our numbers beside every published one of the same detector, metric and subset, table by table.

    ``ours``: by detector and by (metric, subset), the metric being ``r_acc``, ``f_acc``, ``ap`` or ``balanced_acc``. A subset of
    None is the whole benchmark: there the averages stand under their own names too, ``mean_real_fakes``, ``mean_fakes`` and
    ``mean_balanced``. Means over a part of the benchmark have the part's name (`Published.part`) for a subset, and means over a
    degraded benchmark, ``mean_balanced`` again, the degradation's.
    Raises `ValueError` on an unknown benchmark, or an interval that is not one of fractions.
    """
    tables = tables_on(benchmark)
    for detector, values in ours.items():
        for cell, interval in values.items():
            _check_interval(f"{detector} {cell}", Interval(*interval))
    return [
        _score(detector, table, method, column, cell, Interval(*ours[detector][cell]))
        for table in tables
        for method, detector in table.detectors.items()
        if detector in ours
        for column, cell in table.cells()
        if cell in ours[detector] and column in table.rows[method]
    ]


def _score(detector: str, table: Published, method: str, column: str, cell: Cell, ours: Interval) -> Score:
    published = table.rows[method][column] / 100
    slack = table.rounding + _EPSILON
    return Score(
        detector,
        table.id,
        *cell,
        *ours,
        published=published,
        difference=100 * (ours.mean - published),
        inside=ours.low - slack <= published <= ours.high + slack,
        flagged=bool(table.flags_of(method, column)),
    )


def _check_interval(where: str, interval: Interval) -> None:
    mean, low, high = interval
    if not 0 <= low <= mean <= high <= 1:
        raise ValueError(f"{where}: expected fractions 0 <= low <= mean <= high <= 1, found {interval}; divide percents by 100")


# Reading the files


class _Flags(Params):
    """One doubt about some columns of a method; null is the average."""

    method: str
    columns: list[str | None]
    kind: FlagKind
    note: str


class _Table(Params):
    """A table as tables.yaml describes it. ``columns``: all subsets of the benchmark that the file has, if not given."""

    file: str
    paper: str
    number: str
    title: str
    benchmark: str
    part: str | None = None
    metric: Literal["f_acc", "ap", "balanced_acc"]
    unit: Literal["percent", "fraction"] = "percent"
    real: str | None = None
    average: str | None = None
    averaging: Literal["real_fakes", "fakes", "balanced", "subsets", "none"]
    degradations: bool = False
    columns: dict[str, str] | None = None
    methods: dict[str, str | None] = Field(default_factory=dict)
    note: str = ""
    flags: list[_Flags] = Field(default_factory=list)


class _File(Params):
    """tables.yaml: names that all tables share, then the tables by id."""

    papers: dict[str, str]
    subsets: dict[str, dict[str, str]]  # by benchmark, printed name to name here
    methods: dict[str, str | None]
    tables: dict[str, _Table]


def _table(id: str, table: _Table, described: _File) -> Published:
    header, lines = _read(table.file)
    _known(id, "paper", [table.paper], described.papers)
    _known(id, "benchmark", [table.benchmark], described.subsets)
    subsets = described.subsets[table.benchmark]
    columns = {name: subsets[name] for name in header if name in subsets} if table.columns is None else table.columns
    _known(id, "column", [*columns, *(name for name in (table.real, table.average) if name)], header)
    names = described.methods | table.methods
    _known(id, "method", lines, names)
    _known(id, "method", table.methods, lines)
    flags = tuple(Flag(flag.method, column, flag.kind, flag.note) for flag in table.flags for column in flag.columns)
    _known(id, "flagged method", [flag.method for flag in flags], lines)
    marked = {*columns, *([table.real] if table.real else []), *([None] if table.average else [])}
    _known(id, "flagged column", [flag.column for flag in flags], marked)
    scale, rounding = (1, 0.0005) if table.unit == "percent" else (100, 0.005)  # one decimal of a percent, two of a fraction
    return Published(
        **table.model_dump(include={"paper", "number", "title", "metric", "benchmark", "part", "averaging", "note"}),
        **table.model_dump(include={"degradations", "real", "average"}),
        id=id,
        columns=columns,
        detectors={method: names[method] for method in lines},
        rows={
            method: {name: float(scale * Decimal(text)) for name, text in row.items() if text} for method, row in lines.items()
        },
        rounding=rounding,
        flags=flags,
    )


def _read(name: str) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Return the header without ``method``, and the texts of the cells by method and column."""
    with files(__package__).joinpath("published", name).open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    bad = [line for line in lines if len(line) != len(header)]
    if header[0] != "method" or bad or len({line[0] for line in lines}) != len(lines):
        raise ValueError(
            f"published/{name}: expected `method` and rows of {len(header)} cells, each method once; found {bad or lines}"
        )
    return header[1:], {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in lines}


def _known(id: str, what: str, names: Iterable[str | None], known: Iterable[str | None]) -> None:
    known = list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"published table {id}: unknown {what} {unknown}; known: {known}; correct published/tables.yaml")
