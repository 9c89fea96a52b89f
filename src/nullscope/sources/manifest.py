"""A manifest: a CSV or Parquet table of images in place of what folders say.

| column | |
|---|---|
| `source` | path relative to the root of the data set, or ``<archive>::<member>`` |
| `label` | ``real`` or ``fake``, or 0 or 1 |
| `subset` | a name without a slash |
| `split` | ``train``, ``val`` or ``test``; where it is missing or empty, the image's id draws the split |
| `generator` | of the fakes; without this column, or where it is empty, the subset's |
| `source_of_real` | where a real is from (a camera, a web site, a data set); otherwise `dataset.sources_of_real`, or the subset |
| `group` | images that belong together (made with one prompt, or from one photograph); otherwise the image alone |
| `released` | the day from which a fake's generator was there, such as 2022-08-22; otherwise `dataset.released`, or not known |

A row counts as a file in the folder ``<split>/<subset>`` (``all/<subset>`` without a split), which the patterns of
conf/dataset/manifest.yaml match. Rows that say ``val`` need the pattern ``val/*`` in `dataset.val`. Memory does not grow with
the number of rows. Other columns are not looked at.

A CSV is in UTF-8 and as RFC 4180 says: commas, quotes around what holds commas, quotes or line breaks. All its cells are text: a
subset may be called ``NA``.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nullscope.archives.members import open_file, refusal
from nullscope.core.contracts import SPLITS
from nullscope.sources.dataset import LABELS, DatasetError
from nullscope.sources.folders import Found, Refused

NEEDED, OPTIONAL = ("source", "label", "subset"), ("split", "generator", "source_of_real", "group", "released")
# As people and programs spell labels; a column of whole numbers with a gap in it is one of floats in pandas.
WORDS = {**LABELS, **{f"{label}{end}": label for label in LABELS.values() for end in ("", ".0")}}
BATCH = 8192  # rows
Row = dict[str, str]


def read_manifest(path: Path) -> Iterator[Found | Refused]:
    """Yield the rows of a manifest in their order; a row without a source, label or subset that can be read is refused.

    Raises `DatasetError` if the file or a needed column is missing, or is no such table.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise DatasetError(f"dataset.manifest = {path}: expected a table named *.csv or *.parquet")
    rows = _csv_rows(path) if suffix == ".csv" else _parquet_rows(path)
    try:
        for line, row in rows:
            yield row if isinstance(row, Refused) else _item(row, f"{path.name}, row {line}")
    except FileNotFoundError:
        raise DatasetError(f"dataset.manifest = {path}: nothing there; it is a path relative to dataset.root") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"dataset.manifest = {path} is not text in UTF-8 (byte {error.start}): save it as UTF-8") from None
    except (pa.ArrowException, csv.Error, OSError, MemoryError) as error:
        why = refusal(error) if isinstance(error, (OSError, MemoryError)) else error
        raise DatasetError(f"dataset.manifest = {path} cannot be read as a table: {why}") from None


def _csv_rows(path: Path) -> Iterator[tuple[int, Row | Refused]]:
    """Yield the number of every record, the header being 1, and its cells."""
    with open(open_file(path), newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)  # or all that follows a quote that is not closed would be one cell
        try:
            names = [name.strip() for name in next(reader, [])]
            _columns(names, path)
            for number, cells in enumerate(reader, start=2):
                if len(cells) == len(names):
                    yield number, dict(zip(names, cells, strict=True))
                elif cells:  # an empty line is none
                    reason = f"{len(cells)} cells where the header names {len(names)} columns"
                    yield number, Refused(f"{path.name}, row {number}", reason)
        except csv.Error as error:
            raise csv.Error(f"line {reader.line_num}: {error} (is a quote not closed?)") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with os.fdopen(open_file(path), "rb") as opened, pq.ParquetFile(opened) as file:
        columns = _columns(file.schema_arrow.names, path)
        for name in columns:
            _check_type(name, file.schema_arrow.field(name).type, path)
        number = 1
        for batch in file.iter_batches(batch_size=BATCH, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, {name: "" if value is None else str(value) for name, value in row.items()}


def _check_type(name: str, kind: pa.DataType, path: Path) -> None:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    fitting = [types.is_string, types.is_large_string, types.is_integer, types.is_floating]
    fitting += [types.is_date, types.is_timestamp] if name == "released" else []
    if not any(check(inner) for check in fitting):
        raise DatasetError(f"{path}: expected text in the column {name}, found {kind}")


def _columns(found: Sequence[str], path: Path) -> list[str]:
    """Return the columns that are read. Raises `DatasetError` if one is missing or there twice."""
    wanted = [*NEEDED, *(name for name in OPTIONAL if name in found)]
    missing = [name for name in NEEDED if name not in found]
    if missing:
        other = next((mark for mark in ";\t|" if len(found) == 1 and mark in found[0]), None)
        remedy = f"; it is separated by {other!r}: save it with commas" if other else ""
        raise DatasetError(f"{path}: expected the columns {', '.join(NEEDED)}, found {', '.join(found) or 'none'}{remedy}")
    twice = [name for name in wanted if list(found).count(name) > 1]
    if twice:
        raise DatasetError(f"{path}: the column {twice[0]} is there {list(found).count(twice[0])} times; expected it once")
    return wanted


def _item(row: Row, where: str) -> Found | Refused:
    """Return what a row means. ``where`` names it where it has no source."""
    row = {name: row[name].strip() for name in (*NEEDED, *OPTIONAL) if name in row}
    source, label, split = row["source"], row["label"].lower(), row.get("split", "")
    if not source or "\0" in source:
        return Refused(where, "a source with a NUL" if source else "a row without a source")
    if "://" in source or os.path.isabs(source):
        return Refused(source, "expected a path relative to dataset.root, or <archive>::<member>")
    if label not in WORDS:
        return Refused(source, f"label {row['label']!r}; expected real or fake, or 0 or 1")
    if not row["subset"] or "/" in row["subset"] or "\0" in row["subset"]:
        return Refused(source, f"subset {row['subset']!r}; expected a name without a slash")
    if split not in ("", *SPLITS):
        return Refused(source, f"split {split!r}; expected {', '.join(SPLITS)} or nothing")
    day = row.get("released") or None
    try:
        released = day and datetime.fromisoformat(day).date()  # pandas and Parquet may write a time behind the day
    except ValueError:
        return Refused(source, f"released {day!r}; expected a day such as 2022-08-22, or nothing")
    generator, source_of_real, group = (row.get(name) or None for name in ("generator", "source_of_real", "group"))
    folder = f"{split or 'all'}/{row['subset']}"
    return Found(source, folder, WORDS[label], generator, source_of_real, group, released)
