"""A manifest: a CSV or Parquet table of images in place of what folders say.

| column | |
|---|---|
| `source` | path relative to the root of the data set, or ``<archive>::<member>`` |
| `label` | ``real`` or ``fake``, or 0 or 1 |
| `subset` | a name without a slash |
| `split` | ``train``, ``val`` or ``test``; where it is missing or empty, the image's id draws the split |
| `generator` | of the fakes; without this column, or where it is empty, the subset's |

A row counts as a file in the folder ``<split>/<subset>`` (``all/<subset>`` without a split), which the patterns of
conf/dataset/manifest.yaml match. Rows that say ``val`` need the pattern ``val/*`` in `dataset.val`. Memory does not grow with
the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from nullscope.core.contracts import SPLITS
from nullscope.sources.dataset import LABELS, DatasetError
from nullscope.sources.folders import Found, Refused

NEEDED, OPTIONAL = ("source", "label", "subset"), ("split", "generator")
WORDS = {**LABELS, **{str(label): label for label in LABELS.values()}}
BATCH = 8192  # rows


def read_manifest(path: Path) -> Iterator[Found | Refused]:
    """Yield the rows of a manifest in their order; a row without a source, label or subset that can be read is refused.

    Raises `DatasetError` if the file or a needed column is missing.
    """
    line = 1
    for batch in _batches(path):
        for row in batch.to_pylist():
            line += 1
            yield _item({name: "" if value is None else str(value).strip() for name, value in row.items()}, line, path)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise DatasetError(f"dataset.manifest = {path}: expected a table named *.csv or *.parquet")
    try:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:
                columns = _columns(file.schema_arrow.names, path)
                yield from file.iter_batches(batch_size=BATCH, columns=columns)
            return
        as_text = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys((*NEEDED, *OPTIONAL), pa.string()), strings_can_be_null=True
        )
        with pyarrow.csv.open_csv(path, convert_options=as_text) as reader:
            columns = _columns(reader.schema.names, path)
            for batch in reader:
                yield batch.select(columns)
    except FileNotFoundError:
        raise DatasetError(f"dataset.manifest = {path}: nothing there; it is a path relative to dataset.root") from None
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"dataset.manifest = {path} cannot be read as a table: {error}") from None


def _columns(found: list[str], path: Path) -> list[str]:
    missing = [name for name in NEEDED if name not in found]
    if missing:
        raise DatasetError(f"{path}: expected the columns {', '.join(NEEDED)}, found {', '.join(found) or 'none'}")
    return [*NEEDED, *(name for name in OPTIONAL if name in found)]


def _item(row: dict[str, Any], line: int, path: Path) -> Found | Refused:
    where, split = f"{path.name}, row {line}", row.get("split", "")
    if not row["source"]:
        return Refused(where, "a row without a source")
    if row["label"].lower() not in WORDS:
        return Refused(row["source"], f"label {row['label']!r}; expected real or fake, or 0 or 1")
    if not row["subset"] or "/" in row["subset"]:
        return Refused(row["source"], f"subset {row['subset']!r}; expected a name without a slash")
    if split not in ("", *SPLITS):
        return Refused(row["source"], f"split {split!r}; expected {', '.join(SPLITS)} or nothing")
    label = WORDS[row["label"].lower()]
    return Found(row["source"], f"{split or 'all'}/{row['subset']}", label, row.get("generator") or None)
