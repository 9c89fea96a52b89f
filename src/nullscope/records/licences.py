"""Licences of code, weights and data, and a list of released weights: the package's tables, checked as they are read.

A licence that could not be found out is ``unknown``, and whether it allows commercial use is then ``unclear``. No legal advice.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

KINDS = ("detector", "dataset", "encoder")
PARTS = ("code", "weights", "data")
COMMERCIAL = ("yes", "no", "unclear")
UNLICENSED = ("unknown", "none found")  # nothing known; looked for in the repository and absent
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Licence:
    """The terms of one part of a detector, a data set or an encoder, at one source. Raises `ValueError` on unknown words."""

    kind: str  # one of `KINDS`
    name: str
    part: str  # one of `PARTS`
    licence: str  # SPDX-like name, or one of `UNLICENSED`
    commercial: str  # one of `COMMERCIAL`: whether the licence allows commercial use
    source: str  # repository, or page of a hub; ``nullscope``: this package
    note: str

    def __post_init__(self) -> None:
        where = f"licences.csv: {self.name or 'a row without a name'}"
        _one_of(where, "kind", self.kind, KINDS)
        _one_of(where, "part", self.part, PARTS)
        _one_of(where, "commercial", self.commercial, COMMERCIAL)
        _filled(where, name=self.name, licence=self.licence, source=self.source)
        if self.licence in UNLICENSED:
            _one_of(f"{where} ({self.licence})", "commercial", self.commercial, ("unclear",))


@dataclass(frozen=True)
class Weights:
    """One released file of weights. Raises `ValueError` on a hash that is none, or a file of the package without one."""

    name: str
    detector: str  # method; empty: an encoder, or several detectors
    file: str  # path at its source, in the package if it is there; empty: not known
    where_from: str  # repository, or page of a hub, with the revision where one is pinned
    url: str  # published address of the file; empty: none that a program can rely on
    bytes: int | None  # None: not known
    sha256: str  # empty: not known
    sha256_begins: str  # what is known of it, where that is not all; empty: nothing
    licence: str
    trained_on: str
    in_package: bool
    note: str

    def __post_init__(self) -> None:
        where = f"weights.csv: {self.name or 'a row without a name'}"
        _filled(where, name=self.name, where_from=self.where_from, licence=self.licence, trained_on=self.trained_on)
        if self.sha256 and not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"{where}: expected a sha256 of 64 hexadecimal digits, or none; found {self.sha256!r}")
        if self.sha256_begins and (self.sha256 or not re.fullmatch("[0-9a-f]{5,63}", self.sha256_begins)):
            raise ValueError(
                f"{where}: expected sha256, or its first 5 hexadecimal digits or more in sha256_begins; found neither alone"
            )
        if self.in_package and not (self.sha256 and self.bytes):
            raise ValueError(f"{where}: expected bytes and sha256 of a file of the package, found none; run sha256sum on it")

    @property
    def beginning(self) -> str:
        """What is known of the file's SHA-256, in hexadecimal: all of it, its beginning, or nothing."""
        return self.sha256 or self.sha256_begins

    @property
    def page(self) -> str:
        """The address of the page that has the file."""
        place = self.where_from.partition("@")[0]
        return f"https://huggingface.co/{place.removeprefix('HF ')}" if place.startswith("HF ") else f"https://github.com/{place}"


@cache
def licences() -> tuple[Licence, ...]:
    """Return the licence table. Raises `ValueError` where two rows are about the same part at the same source."""
    rows = tuple(Licence(**row) for row in _read("licences.csv"))
    _unique("licences.csv", [(row.kind, row.name, row.part, row.source) for row in rows])
    return rows


@cache
def weights() -> tuple[Weights, ...]:
    """Return the list of released weights. Raises `ValueError` where a name stands twice or a number is none."""
    rows = tuple(_weights(row) for row in _read("weights.csv"))
    _unique("weights.csv", [row.name for row in rows])
    return rows


def known(sha256: str) -> Weights | None:
    """Return the released weights that a file is by its hash; None for a file that is not in the list."""
    return next((row for row in weights() if row.beginning and sha256.startswith(row.beginning)), None)


def _weights(row: dict[str, str]) -> Weights:
    where = f"weights.csv: {row['name']}"
    _one_of(where, "in_package", row["in_package"], ("yes", "no"))
    if row["bytes"] and not re.fullmatch("[1-9][0-9]*", row["bytes"]):
        raise ValueError(f"{where}: expected a number of bytes, or none; found {row['bytes']!r}")
    numbers = {"bytes": int(row["bytes"]) if row["bytes"] else None, "in_package": row["in_package"] == "yes"}
    return Weights(**(row | numbers))


def _read(name: str) -> list[dict[str, str]]:
    with files(__package__).joinpath(name).open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    ragged = [line for line in lines if len(line) != len(header)]
    if ragged:
        raise ValueError(f"{name}: expected rows of {len(header)} cells, found {ragged}")
    return [dict(zip(header, line, strict=True)) for line in lines]


def _one_of(where: str, field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{where}: expected {field} to be one of {', '.join(known)}, found {value!r}")


def _filled(where: str, **values: str) -> None:
    empty = [field for field, value in values.items() if not value]
    if empty:
        raise ValueError(f"{where}: expected a value, found none in {', '.join(empty)}; write `unknown` for what is not known")


def _unique(name: str, keys: list) -> None:
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"{name}: expected one row each, found more for {', '.join(twice)}")
