"""This run's numbers beside those that the repository's last commit has: the last line of ``nullscope summary``.

Whoever rebuilds results wants to know whether the same came out. On a processor with other instructions it does not, to the
last digit (docs/numerics.md), and nothing is wrong. After an edit of the code it does not either, and something may be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nullscope.repository import git

SUMMARY, PARAMS = "metrics/summary.json", "params.yaml"
# Points in a rate of the table. One image of the hundred or more that a rate is made of is called otherwise where its logit lies
# within some roundings of the threshold.
ROUNDING = 1.0
WHY = (
    "Where neither code nor parameters were changed: a processor with other instructions, and other versions of the libraries, "
    "round otherwise, and training makes as much of it as of another seed (docs/numerics.md). `git restore dvc.lock metrics` "
    "brings back what was committed."
)


def against_commit(root: Path = Path()) -> str | None:
    """Return one line on how ``metrics/summary.json`` below ``root`` compares with the last commit's.

    None where there is nothing to compare: no git, no such file in the commit, other parameters than the commit's, or other runs.
    Raises `OSError` or `ValueError` if the file cannot be read.
    """
    committed, params = (git(root, "show", f"HEAD:./{name}") for name in (SUMMARY, PARAMS))
    if committed is None or params is None or (root / PARAMS).read_bytes() != params:
        return None
    written = (root / SUMMARY).read_bytes()
    if written == committed:
        return f"As committed: every number of {SUMMARY} is the same."
    now, then = _rates(json.loads(written)), _rates(json.loads(committed))
    if now.keys() != then.keys() or not now:
        return None
    gaps = {place: 100 * abs(now[place] - then[place]) for place in now}
    (run, column), most = max(gaps.items(), key=lambda item: item[1])
    if most <= ROUNDING:
        return f"As committed up to rounding: no rate of this table is more than {most:.1f} points off {SUMMARY} of the commit."
    count = sum(gap > ROUNDING for gap in gaps.values())
    return (
        f"Not as committed: {count} of {len(gaps)} rates are more than {ROUNDING:.0f} point off, most of all {run}, {column}: "
        f"{100 * now[run, column]:.1f}, committed {100 * then[run, column]:.1f}. {WHY}"
    )


def _rates(summary: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Return what the table of `nullscope summary` shows, by run and column: rates from 0 to 1."""
    found = {}
    for run, metrics in summary.items():
        own = {"Real": metrics.get("r_acc"), **{name: subset.get("f_acc") for name, subset in metrics["subsets"].items()}}
        found |= {(run, column): rate for column, rate in own.items() if rate is not None}
    return found
