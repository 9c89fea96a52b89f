"""Scores to numbers: the protocol, its intervals and tests. `evaluate` is for scores of any detector, without a project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nullscope.evaluation.score_files import Kind

__all__ = ["evaluate"]


def evaluate(table: Any, score: Kind = "probability", threshold: float | None = None) -> dict[str, Any]:
    """Return every number of one detector's scores by docs/protocol.md, as ``metrics/<run>.json`` has them.

    ``table``: a pandas DataFrame, an Arrow table or a mapping of columns, with the columns of `score_files`; ``score``: what its
    column ``score`` holds; ``threshold``: the score above which an image is called fake, one half or a logit of 0 by default. On
    rows of the split ``val`` thresholds are set, and nothing else. Raises `score_files.ScoreFileError` on what is wrong with the
    table.
    """
    import pyarrow as pa  # here, so that a module of this package imports what it needs and no more

    from nullscope.evaluation import protocol, score_files

    rows = table if isinstance(table, pa.Table) else pa.table(table) if isinstance(table, dict) else pa.Table.from_pandas(table)
    own = score_files.checked(rows, score, "scores", "scores")
    test, val = own.of_split("test"), own.of_split("val")
    return protocol.evaluate(test, threshold=score_files.logit_of(threshold, score), val=val)
