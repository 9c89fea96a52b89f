"""The facts of prepared images, for the audit."""

from __future__ import annotations

import pyarrow as pa
import pytest
from images.bad_images import photo, save

from nullscope.core.contracts import ContractError, image_id
from nullscope.images.decoder import facts, header_facts
from nullscope.ops.patches import PatchParams
from nullscope.shards.prepared import as_prepared
from nullscope.shards.writing import write_manifest, write_shard
from nullscope.tables.index import INDEX
from nullscope.tables.listing import Item

PATCHES = PatchParams(patch_px=16, grid=3, fill="repeat")


def test_facts_are_those_of_the_files_in_the_shards(tmp_path):
    """A PNG of one size and a JPEG of another have one format, size and quality once they are prepared."""
    made = [(save(photo(1, (90, 120)), "PNG"), 0), (save(photo(2, (70, 80)), "JPEG"), 1)]
    items, rows = [], []
    for data, label in made:
        path = tmp_path / f"{label}.file"
        path.write_bytes(data)
        own = facts(data, max_pixels=10**6)
        items.append(Item(image_id(data), label, path, own.format))
        rows += [{"image_id": image_id(data), "split": "test", "subset": subset, "generator": "g", "label": label,
                  "source": path.name, **vars(own)} for subset in ("a", "b")]  # fmt: skip
    index = pa.Table.from_pylist(rows, INDEX)
    (tmp_path / "shards").mkdir()
    write_shard(items, tmp_path / "shards/x.tar", "images", PATCHES, 10**6, ["crop_64", "jpeg_90"])
    write_manifest(tmp_path / "shards", {"x.tar": 2})
    found = as_prepared(index, [tmp_path / "shards"])
    assert found.schema.equals(INDEX)
    assert found.select(["image_id", "subset", "label", "source"]).equals(index.select(["image_id", "subset", "label", "source"]))
    assert set(found["format"].to_pylist()) == {"JPEG"}
    assert set(found["width"].to_pylist()) == set(found["height"].to_pylist()) == {64}
    assert set(found["jpeg_quality"].to_pylist()) == {90}
    assert as_prepared(index.select(["image_id", "width"]), [tmp_path / "shards"]).column_names == ["image_id", "width"]
    strange = index.set_column(0, INDEX.field(0), pa.array(["00" * 32] * 4))
    with pytest.raises(ContractError, match="4 images of the index are in no shard"):
        as_prepared(strange, [tmp_path / "shards"])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_header_says_what_decoding_says(kind):
    data = save(photo(3, (40, 50)), kind)
    assert header_facts(data) == facts(data, max_pixels=10**6)
