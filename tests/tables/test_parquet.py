"""Parquet tables: equal rows are equal bytes, in constant memory, and a broken file is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nullscope.core.contracts import CAPTIONS, SCORES, ContractError, text_schema
from nullscope.tables import parquet
from nullscope.tables.index import INDEX
from nullscope.tables.parquet import read_batches, read_schema, read_table, write_batches, write_table

WIDTH = 24
TEXT = text_schema(WIDTH)
ROWS = 1000  # of a row group in these tests, instead of 65,536


@pytest.fixture(autouse=True)
def small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups that tests fill in no time."""
    monkeypatch.setattr(parquet, "ROW_GROUP", ROWS)


def text_table(rows: int, seed: int = 0) -> pa.Table:
    """Unit vectors of WIDTH numbers, as a text tower makes them."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, WIDTH))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).ravel()), WIDTH)
    return pa.Table.from_arrays([pa.array(ids(rows)), lists], schema=TEXT)


def ids(rows: int) -> list[str]:
    """Image ids, 64 hexadecimal digits."""
    return [f"{position * 0x9E3779B97F4A7C15 % 2**64:064x}" for position in range(rows)]


def captions_table(rows: int) -> pa.Table:
    """Few distinct captions, many rows."""
    words = [f"a {'cat' if i % 3 else 'dog'}" for i in range(rows)]
    return pa.Table.from_arrays([pa.array(ids(rows), pa.string()), pa.array(words, pa.string())], schema=CAPTIONS)


def index_table() -> pa.Table:
    """Two rows of the index, one of them not a JPEG."""
    common = {"split": "train", "subset": "s", "generator": "real", "label": 0, "source": "a/ü.jpg", "width": 3, "height": 2}
    jpeg = {"image_id": "a" * 64, **common, "format": "JPEG", "bytes": 2**40, "jpeg_quality": 95}
    return pa.Table.from_pylist([jpeg, {**jpeg, "image_id": "b" * 64, "format": "PNG", "jpeg_quality": None}], schema=INDEX)


def scores_table() -> pa.Table:
    """Logits of every awkward kind."""
    logits = [0.0, -0.0, 1e-42, -3.4e38, float("inf"), float("nan")]
    row = {"split": "test", "subset": "s", "label": 1, "degradation": "none"}
    return pa.Table.from_pylist([{"image_id": str(i), **row, "logit": logit} for i, logit in enumerate(logits)], schema=SCORES)


TABLES = {
    "index": (index_table, INDEX),
    "captions": (lambda: captions_table(2500), CAPTIONS),
    "scores": (scores_table, SCORES),
    "text": (lambda: text_table(2500), TEXT),
    "empty": (CAPTIONS.empty_table, CAPTIONS),
}


# Round trip


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_read_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    """WholeImage, in batches, and column by column; to the bit."""
    make, schema = TABLES[name]
    table, path = make(), tmp_path / "t.parquet"
    write_table(path, table, schema)
    whole = read_table(path, schema)
    assert whole.schema.equals(schema)
    assert bits(whole) == bits(table)
    batches = list(read_batches(path, schema, rows=700))
    assert all(0 < batch.num_rows <= 700 for batch in batches)
    assert bits(pa.Table.from_batches(batches, schema)) == bits(table)
    for column in schema.names:
        assert bits(read_table(path, schema, columns=[column])) == bits(table.select([column]))


def bits(table: pa.Table) -> list[dict[str, object]]:
    """Rows with floats written in full, so that NaN equals NaN and 0.0 differs from -0.0."""
    return [{key: repr(value) for key, value in row.items()} for row in table.to_pylist()]


def test_metadata_of_the_table_is_kept(tmp_path: Path) -> None:
    """The model and its revision stand in the metadata of text.parquet; they are no part of the contract."""
    table = text_table(3).replace_schema_metadata({"model": "tiny", "revision": "abc"})
    write_table(tmp_path / "t", table, TEXT)
    assert read_schema(tmp_path / "t").metadata == {b"model": b"tiny", b"revision": b"abc"}
    read_table(tmp_path / "t", TEXT)
    write_batches(tmp_path / "u", table.to_batches(), TEXT.with_metadata({"model": "tiny", "revision": "abc"}))
    assert (tmp_path / "u").read_bytes() == (tmp_path / "t").read_bytes()


def test_the_number_of_rows_is_returned(tmp_path: Path) -> None:
    """Also of none."""
    assert write_batches(tmp_path / "t", text_table(2345).to_batches(max_chunksize=100), TEXT) == 2345
    assert write_batches(tmp_path / "t", iter([]), TEXT) == 0
    assert read_table(tmp_path / "t", TEXT).num_rows == 0


# Same rows, same bytes


@pytest.mark.parametrize("name", TABLES)
def test_writing_twice_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    """No time, no path, no counter in the file."""
    make, schema = TABLES[name]
    for path in ("a.parquet", "b.parquet"):
        write_table(tmp_path / path, make(), schema)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@settings(derandomize=True, deadline=None, max_examples=12)
@given(rows=st.integers(0, 3500), data=st.data())
def test_the_split_into_batches_does_not_show_in_the_bytes(
    tmp_path_factory: pytest.TempPathFactory, rows: int, data: st.DataObject
) -> None:
    """A stage may caption 8 images at a time or 32, on one rank or eight: same rows, same file."""
    folder = tmp_path_factory.mktemp("split")
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=6)))
    table = captions_table(rows)
    parts = [table.slice(start, end - start) for start, end in zip([0, *cuts], [*cuts, rows], strict=True)]
    write_table(folder / "whole", table, CAPTIONS)
    write_batches(folder / "batches", (batch for part in parts for batch in part.to_batches()), CAPTIONS)
    write_table(folder / "chunks", pa.concat_tables(parts), CAPTIONS)
    assert (folder / "batches").read_bytes() == (folder / "whole").read_bytes()
    assert (folder / "chunks").read_bytes() == (folder / "whole").read_bytes()


@pytest.mark.parametrize("size", [1, 7, 32, 999, 1000, 1001])
def test_row_groups_are_full_whatever_the_batches(tmp_path: Path, size: int) -> None:
    """Groups of ROW_GROUP rows and one of the rest: batches of 32 must not make a file of a hundred groups."""
    write_batches(tmp_path / "t", text_table(2500).to_batches(max_chunksize=size), TEXT)
    metadata = pq.read_metadata(tmp_path / "t")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [1000, 1000, 500]


@pytest.mark.parametrize(("make", "schema"), [(captions_table, CAPTIONS), (text_table, TEXT)])
def test_the_split_does_not_show_in_the_pages_of_a_large_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[int], pa.Table], schema: pa.Schema
) -> None:
    """A megabyte fills a page: where the next one starts must not depend on the batches either."""
    monkeypatch.setattr(parquet, "ROW_GROUP", 65_536)
    table = make(70_000)
    write_table(tmp_path / "whole", table, schema)
    write_batches(tmp_path / "batches", table.to_batches(max_chunksize=777), schema)
    assert (tmp_path / "batches").read_bytes() == (tmp_path / "whole").read_bytes()


def test_views_into_larger_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    """A slice with an offset is the same rows as a copy of them."""
    table = text_table(300)
    write_table(tmp_path / "slice", table.slice(100, 100), TEXT)
    write_table(tmp_path / "copy", pa.Table.from_pylist(table.slice(100, 100).to_pylist(), schema=TEXT), TEXT)
    assert (tmp_path / "slice").read_bytes() == (tmp_path / "copy").read_bytes()


# How it is stored


def columns(path: Path) -> dict[str, pq.ColumnChunkMetaData]:
    """The first row group's columns."""
    group = pq.read_metadata(path).row_group(0)
    return {group.column(i).path_in_schema.split(".")[0]: group.column(i) for i in range(group.num_columns)}


def test_embeddings_are_stored_without_a_dictionary_and_smaller_than_raw(tmp_path: Path) -> None:
    """A dictionary of numbers that never repeat costs more than it saves; split by byte, the exponents compress."""
    write_table(tmp_path / "t", text_table(ROWS), TEXT)
    text = columns(tmp_path / "t")["text"]
    assert not text.has_dictionary_page
    assert "BYTE_STREAM_SPLIT" in text.encodings
    assert text.total_compressed_size < 0.95 * ROWS * WIDTH * 4


def test_words_are_stored_with_a_dictionary(tmp_path: Path) -> None:
    """Two captions a thousand times take next to nothing."""
    write_table(tmp_path / "t", captions_table(ROWS), CAPTIONS)
    caption = columns(tmp_path / "t")["caption"]
    assert caption.has_dictionary_page
    assert caption.total_compressed_size < ROWS


# Constant memory


def peak_of(act: Callable[[], object]) -> int:
    """The most bytes Arrow held at once while ``act`` ran."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        act()
        return pool.max_memory()
    finally:
        pa.set_memory_pool(before)


def stream(groups: int) -> Iterator[pa.RecordBatch]:
    """Batches of 100 rows, ten of them a row group, made one at a time."""
    for seed in range(groups * 10):
        yield text_table(100, seed).to_batches()[0]


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    """Writing and reading 40 row groups takes what 4 take."""

    def fill(groups: int) -> int:
        return write_batches(tmp_path / str(groups), stream(groups), TEXT)

    def drain(groups: int) -> int:
        return sum(batch.num_rows for batch in read_batches(tmp_path / str(groups), TEXT, rows=100))

    written = {groups: peak_of(lambda groups=groups: fill(groups)) for groups in (4, 40)}
    assert written[40] < 1.5 * written[4]

    assert drain(40) == 40_000
    read = {groups: peak_of(lambda groups=groups: drain(groups)) for groups in (4, 40)}
    assert read[40] < 1.5 * read[4]


def test_reading_starts_before_the_end_and_may_stop(tmp_path: Path) -> None:
    """The first batch comes without the last ones; a reader who stops leaves no file open behind."""
    write_batches(tmp_path / "t", stream(3), TEXT)
    batches = read_batches(tmp_path / "t", TEXT, rows=50)
    assert next(batches).num_rows == 50
    batches.close()


# Errors


def test_a_table_of_other_columns_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    """Missing, surplus, reordered, of another type: the message shows both schemas; an old file stays."""
    good, path = captions_table(3), tmp_path / "t.parquet"
    write_table(path, good, CAPTIONS)
    before = path.read_bytes()
    ids_only, swapped = good.select(["image_id"]), good.select(["caption", "image_id"])
    surplus = good.append_column("extra", pa.array([1, 2, 3]))
    typed = good.set_column(1, "caption", pa.array([1, 2, 3]))
    for wrong in (ids_only, swapped, surplus, typed):
        with pytest.raises(ContractError, match=r"t.parquet: expected columns image_id:string, caption:string, found "):
            write_table(path, wrong, CAPTIONS)
        assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.parquet"]


def test_a_wrong_batch_in_the_middle_of_a_stream_leaves_the_old_file(tmp_path: Path) -> None:
    """An error of the source does too."""
    path, good = tmp_path / "t.parquet", captions_table(10)
    write_table(path, good, CAPTIONS)
    before = path.read_bytes()

    def broken(last: pa.RecordBatch | None) -> Iterator[pa.RecordBatch]:
        yield from good.to_batches()
        if last is None:
            raise RuntimeError("the source failed")
        yield last

    with pytest.raises(ContractError):
        write_batches(path, broken(good.select(["image_id"]).to_batches()[0]), CAPTIONS)
    with pytest.raises(RuntimeError, match="the source failed"):
        write_batches(path, broken(None), CAPTIONS)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.parquet"]


def test_an_embedding_of_another_width_is_refused(tmp_path: Path) -> None:
    """Written for one encoder, read for another."""
    write_table(tmp_path / "t", text_table(3), TEXT)
    with pytest.raises(ContractError, match=r"text:fixed_size_list<.*>\[25\].*text:fixed_size_list<.*>\[24\].*rerun"):
        read_table(tmp_path / "t", text_schema(WIDTH + 1))
    with pytest.raises(ContractError):
        list(read_batches(tmp_path / "t", CAPTIONS))


def test_a_message_about_two_schemas_shows_their_difference(tmp_path: Path) -> None:
    """Columns that may hold nulls where the contract forbids them differ from it: so must the two lists in the message."""
    nullable = pa.table({"image_id": ["a"], "caption": ["x"]})
    with pytest.raises(ContractError) as error:
        write_table(tmp_path / "t", nullable, CAPTIONS)
    expected, found = str(error.value).split("expected columns ")[1].split("; ")[0].split(", found ")
    assert expected != found


def test_nulls_where_the_contract_has_none_are_refused(tmp_path: Path) -> None:
    """With the file and the column; nothing is written."""
    table = pa.Table.from_arrays([pa.array(["a", None]), pa.array(["x", "y"])], schema=CAPTIONS)
    with pytest.raises(ContractError, match=r"t\.parquet.*image_id"):
        write_table(tmp_path / "t.parquet", table, CAPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_column_is_an_error(tmp_path: Path) -> None:
    """Arrow leaves out what it does not find, in silence."""
    write_table(tmp_path / "t", captions_table(3), CAPTIONS)
    with pytest.raises((ContractError, KeyError), match="captoin"):
        read_table(tmp_path / "t", CAPTIONS, columns=["image_id", "captoin"])


READERS = [lambda path: read_table(path, TEXT), lambda path: list(read_batches(path, TEXT)), read_schema]


@pytest.mark.parametrize("read", READERS, ids=["table", "batches", "schema"])
def test_a_missing_file_says_how_to_make_it(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """With its path."""
    with pytest.raises(ContractError, match=r"nowhere.parquet does not exist; run `dvc repro`"):
        read(tmp_path / "nowhere.parquet")


def damaged(folder: Path, damage: str) -> Path:
    """A table that a disk, a network or a person has damaged."""
    path = folder / f"{damage}.parquet"
    if damage == "folder":
        path.mkdir()
        return path
    write_table(path, text_table(2000), TEXT)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "empty":
        content.clear()
    elif damage == "footer":
        content[-80:-20] = b"\xff" * 60
    elif damage == "text":
        content[:] = b"image_id,text\n" * 100
    else:
        content[len(content) // 3 : len(content) // 3 + 200] = bytes(200)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("read", READERS, ids=["table", "batches", "schema"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "footer", "text", "folder"])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, damage: str, read: Callable[[Path], object]) -> None:
    """A `ContractError` with the path and what to do, not an error of Arrow's without either."""
    with pytest.raises(ContractError, match=f"{damage}.parquet"):
        read(damaged(tmp_path, damage))


@pytest.mark.parametrize("read", READERS[:2], ids=["table", "batches"])
def test_damaged_rows_are_an_error_that_names_the_file(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """The footer is sound, the data are not."""
    with pytest.raises(ContractError, match=r"data\.parquet"):
        read(damaged(tmp_path, "data"))
