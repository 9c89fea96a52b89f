"""Scores of any detector, from a file of its own: read, checked, and joined with those of other detectors.

| column | |
|---|---|
| `source` or `image_id` | what the image is called, once per file |
| `label` | ``real`` or ``fake``, or 0 or 1 |
| `score` | the probability of fake, or its logit: `Kind` |
| `generator` | of the fakes; what it says of reals is not looked at |
| `subset` | optional: which images are compared; by default the generator's fakes with all reals |
| `source_of_real` | optional: where the reals come from |
| `group` | optional: images that belong together (a prompt, a source image); they are resampled as one |
| `split` | optional: ``test``, or ``val`` for the images on which thresholds are set |

CSV, TSV, JSON lines or Parquet, by the name of the file. Other columns are not looked at. N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray
from scipy.special import logit

from nullscope.core.contracts import CLEAN, FAKE, REAL
from nullscope.evaluation.metrics import THRESHOLD

Kind = Literal["probability", "logit"]
READERS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
NAMES, NEEDED, OPTIONAL = ("source", "image_id"), ("label", "score"), ("generator", "subset", "source_of_real", "group", "split")
WORDS = {"real": REAL, "fake": FAKE, "0": REAL, "1": FAKE, "0.0": REAL, "1.0": FAKE, "false": REAL, "true": FAKE}
REALS, FAKES = "real", "fake"  # what a subset is called that has no name
CERTAIN = 800.0  # logit of a probability of 0 or 1: beyond that of any other float64
SHOWN = 3  # rows that an error names


class ScoreFileError(ValueError):
    """A file of scores cannot be taken for what it should be."""


@dataclass(frozen=True)
class ScoreFile:
    """The scores of one detector: `image_id`, `label` int8, `subset`, `degradation`, `logit` float64, `split`, `source_of_real`.

    The column `group` is there where the file has it.
    """

    name: str
    rows: pa.Table

    def of_split(self, split: str) -> pa.Table:
        """Return the rows of the test split, or of the validation split."""
        return self.rows.filter(pc.equal(self.rows["split"], split))


@dataclass(frozen=True)
class Joined:
    """Several detectors on the images that all of them have scored."""

    files: list[ScoreFile]
    left_out: dict[str, int]  # detector -> its images that another one has not scored


def read_score_file(path: Path, kind: Kind) -> ScoreFile:
    """Return the scores of a file, under its name without the ending. Raises `ScoreFileError` on what is wrong with it."""
    return checked(_read(path), kind, path.name, path.stem)


def checked(table: pa.Table, kind: Kind, where: str, name: str) -> ScoreFile:
    """Return a table of scores in the columns of `ScoreFile`. Raises `ScoreFileError`, naming ``where``."""
    table = _chosen(table, where)
    named = next(column for column in NAMES if column in table.column_names)
    if not len(table):
        raise ScoreFileError(f"{where}: expected a row per image, found none")
    image, label_N, logit_N = _text(table, named), _labels(table, where), _logits(table, kind, where)
    _check_once(image, where, named)
    subset = _subsets(table, label_N)
    columns = {"image_id": image, "label": pa.array(label_N), "subset": subset, "logit": pa.array(logit_N)}
    columns |= {"degradation": pa.array([CLEAN] * len(table)), "split": _splits(table, where)}
    columns |= {"source_of_real": _or_else(table, "source_of_real", subset)}
    columns |= {"group": _or_else(table, "group", image)} if "group" in table.column_names else {}
    return ScoreFile(name, pa.table(columns))


def join(files: Sequence[ScoreFile]) -> Joined:
    """Return the files with the images that all of them have, in the order of the first.

    Raises `ScoreFileError` if two have one name, they have no image in common, or say different things of one: its label, subset,
    split or group.
    """
    names = [own.name for own in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ScoreFileError(f"{', '.join(twice)}: expected a name per detector, found it twice; name the files apart")
    first, *others = files
    common = set(first.rows["image_id"].to_pylist()).intersection(*(own.rows["image_id"].to_pylist() for own in others))
    if not common:
        raise ScoreFileError(
            f"{', '.join(names)}: expected scores of the same images, found none that all have; do their sources agree?"
        )
    order = pa.array([image for image in first.rows["image_id"].to_pylist() if image in common], pa.string())
    kept = [ScoreFile(own.name, own.rows.take(pc.index_in(order, own.rows["image_id"]))) for own in files]
    for own in kept[1:]:
        _check_alike(kept[0], own)
    return Joined(kept, {own.name: len(own.rows) - len(order) for own in files})


def logit_of(threshold: float | None, kind: Kind) -> float:
    """Return a threshold as a logit. Raises `ScoreFileError` on a probability outside of 0 and 1, or what is not finite."""
    if threshold is None:
        return THRESHOLD
    if kind == "probability" and not 0 < threshold < 1:
        raise ScoreFileError(f"threshold: expected a probability between 0 and 1, found {threshold:g}")
    if not np.isfinite(threshold):
        raise ScoreFileError(f"threshold: expected a finite logit, found {threshold:g}")
    return float(logit(threshold)) if kind == "probability" else float(threshold)


def _read(path: Path) -> pa.Table:
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise ScoreFileError(f"{path}: expected a file named *{', *'.join(READERS)}, found {path.name!r}")
    try:
        if suffix == ".parquet":
            return pyarrow.parquet.read_table(path)
        if suffix in (".csv", ".tsv"):
            parse = pyarrow.csv.ParseOptions(delimiter="," if suffix == ".csv" else "\t", newlines_in_values=True)
            with pyarrow.csv.open_csv(path, parse_options=parse) as file:
                names = file.schema.names
            # All text, as a source may be called 007 and a subset NA; what must be a number is made one below.
            types = dict.fromkeys(names, pa.string())
            convert = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
            return pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert)
        return pyarrow.json.read_json(path)
    except FileNotFoundError:
        raise ScoreFileError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = {".parquet": "Parquet", ".csv": "CSV", ".tsv": "TSV"}.get(suffix, "JSON lines (an object per line)")
        raise ScoreFileError(f"{path}: cannot be read as {kind}: {str(error).splitlines()[0]}") from None


def _chosen(table: pa.Table, where: str) -> pa.Table:
    """Return the columns that are looked at. Raises `ScoreFileError` if a needed one is missing, or one is there twice."""
    table = table.rename_columns([str(name).strip() for name in table.column_names])
    found = table.column_names
    missing = [name for name in NEEDED if name not in found]
    missing += ["source (or image_id)"] if not set(NAMES) & set(found) else []
    missing += ["generator (or subset)"] if not {"generator", "subset"} & set(found) else []
    if missing:
        known = ", ".join(found)
        raise ScoreFileError(
            f"{where}: expected the columns source, label, generator and score, found {known}: {', '.join(missing)} missing"
        )
    wanted = [name for name in (*NAMES, *NEEDED, *OPTIONAL) if name in found]
    twice = [name for name in wanted if found.count(name) > 1]
    if twice:
        raise ScoreFileError(f"{where}: expected the column {twice[0]} once, found it {found.count(twice[0])} times")
    return table.select(wanted)


def _text(table: pa.Table, name: str) -> pa.Array:
    """Return a column as text, without spaces around; a missing value is empty."""
    column = table[name].combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return pc.utf8_trim_whitespace(pc.fill_null(pc.cast(column, pa.string()), ""))


def _or_else(table: pa.Table, name: str, other: pa.Array) -> pa.Array:
    """Return a column of text; where it is missing or empty, that of ``other``."""
    if name not in table.column_names:
        return other
    text = _text(table, name)
    return pc.if_else(pc.equal(text, ""), other, text)


def _labels(table: pa.Table, where: str) -> NDArray[np.int8]:
    words = pc.utf8_lower(_text(table, "label"))
    coded = words.dictionary_encode()
    unknown = [word for word in coded.dictionary.to_pylist() if word not in WORDS]
    if unknown:
        bad = np.flatnonzero(np.isin(words.to_numpy(zero_copy_only=False), unknown))
        raise _wrong(where, bad, "a label real or fake, or 0 or 1", repr(words[int(bad[0])].as_py()))
    return np.array([WORDS[word] for word in coded.dictionary.to_pylist()], np.int8)[coded.indices.to_numpy()]


def _logits(table: pa.Table, kind: Kind, where: str) -> NDArray[np.float64]:
    """Return the scores as logits in which every probability keeps its rank, 0 and 1 too."""
    column = table["score"].combine_chunks()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        bad = np.array([not _is_number(cell) for cell in column.to_pylist()])
        if bad.any():
            raise _wrong(where, np.flatnonzero(bad), "a number in the column score", repr(column[int(bad.argmax())].as_py()))
    try:
        score_N = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        raise ScoreFileError(f"{where}: expected numbers in the column score, found {column.type}") from None
    bad = np.flatnonzero(~np.isfinite(score_N))
    if len(bad):
        raise _wrong(where, bad, "a finite score of every image", str(score_N[bad[0]]))
    outside = np.flatnonzero((score_N < 0) | (score_N > 1))
    if kind == "probability":
        if len(outside):
            found = f"{score_N[outside[0]]:g}; are these logits (--score logit)?"
            raise _wrong(where, outside, "probabilities from 0 to 1", found)
        with np.errstate(divide="ignore"):
            return np.clip(logit(score_N), -CERTAIN, CERTAIN)
    if not len(outside):
        raise ScoreFileError(
            f"{where}: expected logits, found {len(score_N)} scores from {score_N.min():g} to {score_N.max():g}: these can only "
            "be probabilities (--score probability)"
        )
    return score_N


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True


def _subsets(table: pa.Table, label_N: NDArray[np.int8]) -> pa.Array:
    """Return the subset of every image; where none is named, the generator of a fake, and one subset for all reals."""
    fake = pa.array(label_N == FAKE)
    nameless = pc.if_else(fake, FAKES, REALS)
    generator = _or_else(table, "generator", nameless)
    return _or_else(table, "subset", pc.if_else(fake, generator, REALS))


def _splits(table: pa.Table, where: str) -> pa.Array:
    split = _or_else(table, "split", pa.array(["test"] * len(table)))
    unknown = np.flatnonzero(~np.isin(split.to_numpy(zero_copy_only=False), ["test", "val"]))
    if len(unknown):
        raise _wrong(where, unknown, "a split test or val", repr(split[int(unknown[0])].as_py()))
    return split


def _check_once(image: pa.Array, where: str, named: str) -> None:
    if pc.any(pc.equal(image, "")).as_py():
        raise _wrong(
            where, np.flatnonzero(pc.equal(image, "").to_numpy(zero_copy_only=False)), f"a {named} of every image", "none"
        )
    counts = pc.value_counts(image)
    twice = [pair["values"] for pair in counts.filter(pc.greater(counts.field("counts"), 1)).slice(0, SHOWN).to_pylist()]
    if twice:
        raise ScoreFileError(f"{where}: expected every {named} once, found some again: {', '.join(map(repr, twice))}")


def _check_alike(first: ScoreFile, other: ScoreFile) -> None:
    """Raise `ScoreFileError` unless two files say the same of every image."""
    for column in ("label", "subset", "split", "group"):
        one, two = (own.rows[column] if column in own.rows.column_names else None for own in (first, other))
        if one is None or two is None:
            if one is not two:
                raise ScoreFileError(f"{first.name}, {other.name}: expected the column {column} in both, found it in one")
            continue
        differ = np.flatnonzero(pc.not_equal(one, two).to_numpy(zero_copy_only=False))
        if len(differ):
            at = int(differ[0])
            image = first.rows["image_id"][at].as_py()
            raise ScoreFileError(
                f"{first.name}, {other.name}: expected the same {column} of every image, found {len(differ)} that differ: "
                f"{image!r} is {one[at].as_py()!r} and {two[at].as_py()!r}"
            )


def _wrong(where: str, rows: NDArray[Any], expected: str, found: str) -> ScoreFileError:
    """Return the error of some rows; the first row below the header is 1."""
    named = ", ".join(str(row + 1) for row in rows[:SHOWN]) + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
    return ScoreFileError(f"{where}, row {named}: expected {expected}, found {found}")
