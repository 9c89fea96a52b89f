"""shard: index, images -> data/shards/{patches,images}/{train,val,test}/*.tar and the list of them."""

from pathlib import Path

from tqdm import tqdm

from nullscope.core import ranks
from nullscope.core.config import load_params, read_params, section_of
from nullscope.core.files import replace_directory
from nullscope.core.workspace import typed
from nullscope.ops.patches import PatchParams
from nullscope.shards.plan import plan, write_manifests, write_tars
from nullscope.shards.writing import ShardParams
from nullscope.tables.parts import scratch

INDEX, OUT = Path("data/index.parquet"), Path("data/shards")


def main() -> None:
    dataset, params = section_of(read_params(), "dataset"), load_params("shard", ShardParams)
    patches = load_params("patches", PatchParams)
    tars = plan(INDEX, typed(dataset["root"]), params.samples)
    partial = scratch("shard", INDEX, params, patches)
    mine = ranks.mine(tars)
    with tqdm(total=sum(len(tar.items) for tar in mine), desc="shard", unit="image", disable=ranks.rank() > 0) as bar:
        for tar in write_tars(mine, partial, patches, dataset["max_pixels"], ranks.workers(), params.prepare):
            bar.update(len(tar.items))
    ranks.barrier()
    if ranks.rank() == 0:
        for leftover in partial.rglob(".*.partial"):  # of a killed run, whose worker's number another process may have by now
            leftover.unlink()
        write_manifests(tars, partial)
        replace_directory(partial, OUT)
        size = sum(file.stat().st_size for file in OUT.rglob("*.tar"))
        images = sum(len(tar.items) for tar in tars if tar.kind == "patches")
        print(f"shard: {images} distinct images, as mosaics and as they are -> {OUT} ({len(tars)} tars, {size / 1e6:.1f} MB)")


if __name__ == "__main__":
    ranks.launch(main)
