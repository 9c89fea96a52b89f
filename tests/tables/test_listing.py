"""The lists of work of the stages: on the disk, and the same as in memory."""

from __future__ import annotations

import os
import pickle
import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from nullscope import embedding
from nullscope.core.contracts import CAPTIONS, FAKE, REAL, ContractError, text_schema
from nullscope.embedding import captions_of, embed
from nullscope.shards.plan import plan
from nullscope.tables import distinct, listing, parts, sorting, text
from nullscope.tables.index import INDEX
from nullscope.tables.listing import BATCH, Item, distinct_images
from nullscope.tables.parquet import vector_table, write_batches, write_table
from nullscope.tables.parts import in_parts
from nullscope.tables.spill import Spill, recut
from nullscope.tables.text import TextTable

ROWS = 3 * BATCH + 17


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch) -> Path:
    """A scratch folder of the test's own, and runs so short that they are merged."""
    folder = tmp_path / ".nullscope"
    for module in (distinct, listing, parts, text, embedding):
        monkeypatch.setattr(module, "SCRATCH", folder)
    monkeypatch.setattr(sorting, "RUN", 100)
    monkeypatch.setattr(sorting, "BLOCK", 8)
    return folder


@pytest.fixture
def index(tmp_path) -> Path:
    """Every image twice or thrice, in either split, in the order of the contract."""
    rng, rows = random.Random(0), []
    for number in range(ROWS):
        for copy in range(rng.randint(1, 3)):
            image_id, label = f"{number * 7919 % ROWS:064x}", number % 2
            row = {"image_id": image_id, "split": rng.choice(["train", "test"]), "subset": rng.choice("ab"), "generator": "g"}
            facts = {"width": 9, "height": 9, "format": "PNG", "bytes": 9, "jpeg_quality": None}
            rows.append({**row, "label": label, "source": f"{number}-{copy}.png", **facts})
    table = pa.Table.from_pylist(rows, INDEX)
    keys = [(name, "ascending") for name in ("split", "subset", "label", "image_id", "source")]
    write_table(tmp_path / "index.parquet", table.sort_by(keys), INDEX)
    return tmp_path / "index.parquet"


def in_memory(index: Path, root: Path, split: str | None) -> list[Item]:
    """As it was before it lay on the disk."""
    items: dict[str, Item] = {}
    for row in pq.read_table(index).to_pylist():
        if split in (None, row["split"]):
            items.setdefault(row["image_id"], Item(row["image_id"], row["label"], root / row["source"], row["format"]))
    return [items[image_id] for image_id in sorted(items)]


@pytest.mark.parametrize("split", [None, "train", "test"])
def test_a_listing_is_the_list_it_was(index, split, scratch):
    found, expected = distinct_images(index, Path("root"), split), in_memory(index, Path("root"), split)
    assert len(expected) > 2 * BATCH // (1 if split is None else 2)
    assert list(found) == expected and found == expected and len(found) == len(expected)
    for start, stop in ((0, 0), (3, 9), (BATCH - 1, BATCH + 1), (BATCH, 2 * BATCH), (len(expected) - 2, len(expected) + 9)):
        assert list(found[start:stop]) == expected[start:stop]
        assert list(found[start:stop][1:3]) == expected[start:stop][1:3]
    assert (found[5], found[-1]) == (expected[5], expected[-1])
    with pytest.raises(IndexError):
        found[len(expected)]
    assert not list(scratch.iterdir())


def test_a_listing_is_read_by_forked_workers_and_sent_as_a_list(index):
    found = distinct_images(index, Path("root"))
    pieces = [found[start : start + 50] for start in range(0, len(found), 50)]
    read = DataLoader(pieces, batch_size=None, num_workers=2, multiprocessing_context="fork", collate_fn=list)
    assert [item for piece in read for item in piece] == list(found)
    assert pickle.loads(pickle.dumps(found[7:9])) == list(found)[7:9]


def test_the_plan_of_the_shards_holds_every_image_of_a_split_once_per_view(index):
    tars = plan(index, Path("root"), 100)
    for view in ("patches", "images"):
        for split in ("train", "test"):
            items = [item for tar in tars if (tar.kind, tar.split) == (view, split) for item in tar.items]
            assert items == in_memory(index, Path("root"), split)


def captions(index: Path, out: Path, left_out: int = -1) -> pa.Table:
    """Of all images but one."""
    items = [item for number, item in enumerate(in_memory(index, Path(), None)) if number != left_out]
    table = pa.table([[i.image_id for i in items], [f"caption of {i.source}" for i in items]], schema=CAPTIONS)
    write_table(out, table, CAPTIONS)
    return table


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_captions_of_a_split_come_in_the_order_of_the_ids(index, split, tmp_path):
    table = captions(index, tmp_path / "captions.parquet")
    work = captions_of(split, tmp_path / "captions.parquet", index, 100)
    ids = pa.array([item.image_id for item in in_memory(index, Path(), split)])
    expected = table.filter(pc.is_in(table["image_id"], value_set=ids)).combine_chunks()
    assert [batch.to_pylist() for batch in work] == [batch.to_pylist() for batch in expected.to_batches(max_chunksize=100)]


def test_prompts_stand_before_the_captions_of_their_label(index, tmp_path):
    captions(index, tmp_path / "captions.parquet")
    plain, prompted = (
        [row for batch in captions_of("train", tmp_path / "captions.parquet", index, 7, prompts) for row in batch.to_pylist()]
        for prompts in (None, {REAL: "Camera", FAKE: "Deepfake"})
    )
    labels = {item.image_id: item.label for item in in_memory(index, Path(), "train")}
    assert set(labels.values()) == {REAL, FAKE}
    words = {REAL: "Camera", FAKE: "Deepfake"}
    assert prompted == [{**row, "caption": f"{words[labels[row['image_id']]]} {row['caption']}"} for row in plain]


def test_a_split_without_images_has_no_shards_and_a_text_table_without_rows(index, tmp_path, scratch):
    """As the stages `shard` and `embed` do it where `dataset.val` is empty."""
    captions(index, tmp_path / "captions.parquet")
    work = captions_of("val", tmp_path / "captions.parquet", index, 100)
    tables = in_parts(work, lambda pending: embed(pending, None), text_schema(3), tmp_path / "parts")
    out = tmp_path / "val.parquet"
    assert write_batches(out, (batch for table in tables for batch in table.to_batches()), text_schema(3)) == 0
    assert TextTable.read(out).text_ND.shape == (0, 3)
    assert {tar.split for tar in plan(index, Path("root"), 100)} == {"train", "test"}


def ids_of(index: Path, split: str) -> set[str]:
    return {item.image_id for item in in_memory(index, Path(), split)}


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_an_image_without_a_caption_is_an_error(index, place, tmp_path):
    everything = in_memory(index, Path(), None)
    left_out = {"first": 0, "middle": len(everything) // 2, "last": len(everything) - 1}[place]
    captions(index, tmp_path / "captions.parquet", left_out)
    hit = [split for split in ("train", "test") if everything[left_out].image_id in ids_of(index, split)]
    assert hit
    for split in hit:
        with pytest.raises(ContractError, match=f"1 images of the {split} split have no caption; rerun `caption`"):
            captions_of(split, tmp_path / "captions.parquet", index, 100)


@pytest.mark.parametrize("sizes", [[], [0], [5], [3, 0, 4, 1], [10, 10], [1] * 12])
def test_a_stream_is_recut_to_pieces_of_one_length(sizes, tmp_path):
    schema, start, batches = pa.schema([pa.field("row", pa.int64())]), 0, []
    for size in sizes:
        batches.append(pa.record_batch([pa.array(range(start, start + size), pa.int64())], schema=schema))
        start += size
    expected = [list(range(first, min(first + 4, start))) for first in range(0, start, 4)]
    assert [batch["row"].to_pylist() for batch in recut(batches, schema, 4)] == expected
    spill = Spill(batches, schema, 4, tmp_path / "spill")
    assert (len(spill), spill.total) == (len(expected), start)
    assert [batch["row"].to_pylist() for batch in spill] == expected and not os.listdir(tmp_path / "spill")


def test_work_is_taken_item_by_item(tmp_path):
    """A rank's share is never a list of all its items."""
    held = []

    class Work(list):
        def __getitem__(self, place):
            held.append(place)
            return super().__getitem__(place)

    schema = pa.schema([pa.field("row", pa.int64())])

    def compute(pending):
        assert len(pending) == 3 and held == []
        for number, item in enumerate(pending):
            assert len(held) == number + 1
            yield pa.table([[item]], schema=schema)

    assert [table["row"][0].as_py() for table in in_parts(Work([7, 8, 9]), compute, schema, tmp_path / "parts")] == [7, 8, 9]


def test_text_features_are_those_of_the_file_and_mapped(tmp_path, scratch):
    rng = np.random.default_rng(0)
    ids, text_ND = [f"{number * 7919 % ROWS:064x}" for number in range(ROWS)], rng.standard_normal((ROWS, 5)).astype(np.float32)
    write_table(tmp_path / "text.parquet", vector_table(ids, text_ND, text_schema(5)), text_schema(5))
    table = TextTable.read(tmp_path / "text.parquet")
    assert torch.equal(table.text_ND, torch.from_numpy(text_ND)) and not list(scratch.iterdir())
    assert torch.equal(torch.cat(list(table.chunks())), table.text_ND)
    chosen = [int(row) for row in rng.integers(0, ROWS, 50)]
    assert torch.equal(table.rows([ids[row] for row in chosen]), torch.from_numpy(text_ND[chosen]))
    for missing in ("0" * 63, "f" * 64, ""):
        with pytest.raises(ContractError, match=re.escape(f"no caption for image {missing!r}; rerun the stages")):
            table.rows([ids[0], missing])


def test_names_of_any_kind_find_their_features():
    names = ["b/é.png", "a", "a\0", "", "caf\udce9.png"]
    table = TextTable(names[:2] + names[3:], torch.arange(8.0).reshape(4, 2), "captions")
    assert table.rows(["a", "caf\udce9.png", "b/é.png"]).tolist() == [[2, 3], [6, 7], [0, 1]]
