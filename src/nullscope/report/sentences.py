"""Numbers and lists as parts of a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from nullscope.evaluation.seeds import Spread
from nullscope.report.layout import NO_NUMBER, Column, spread_text, text


def listed(words: Sequence[str]) -> str:
    """Return words as an enumeration: ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def mean_text(value: Spread | None) -> str:
    """Return the mean of a rate alone: ``81.2 %``."""
    return f"{100 * value.mean:.1f} %" if value else NO_NUMBER


def percent(value: Spread | None) -> str:
    """Return a rate with its span: ``81.2 % (76.0 to 88.0)``."""
    return _with_span(value, Column("", ""), "%") if value else NO_NUMBER


def points(value: Spread) -> str:
    """Return a difference of rates with its span: ``+3.1 ± 2.0 points``."""
    return _with_span(value, Column("", "", "points"), "points")


def _with_span(value: Spread, column: Column, unit: str) -> str:
    shown, spanned = text(value, column), spread_text(value, column)
    if " to " in spanned:
        return f"{shown} {unit} ({spanned})"
    return f"{shown}{spanned and ' '}{spanned} {unit}"
