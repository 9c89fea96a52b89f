"""The shards of a data set: which tars there are, and writing them with all processes of this rank."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nullscope.core import ranks
from nullscope.core.contracts import SHARD_KINDS, SPLITS
from nullscope.ops.patches import PatchParams
from nullscope.shards.writing import write_manifest, write_shard
from nullscope.tables.listing import Item, distinct_images


@dataclass(frozen=True)
class Tar:
    """One tar to be written."""

    kind: str
    split: str
    number: int
    items: Sequence[Item]

    @property
    def name(self) -> str:
        """File name in the folder ``<kind>/<split>``."""
        return f"{self.split}-{self.number:06d}.tar"


def plan(index: Path, root: Path, samples: int) -> list[Tar]:
    """Return the tars of both kinds and all splits, ``samples`` images each but for the last of a split."""
    tars = []
    for split in SPLITS:
        items = distinct_images(index, root, split)
        cut = [items[start : start + samples] for start in range(0, len(items), samples)]
        tars += [Tar(kind, split, number, chunk) for kind in SHARD_KINDS for number, chunk in enumerate(cut)]
    return tars


def write_tars(
    tars: Sequence[Tar], out: Path, patches: PatchParams, max_pixels: int, workers: int, prepare: Sequence[str] = ()
) -> Iterator[Tar]:
    """Write the tars that ``out`` does not hold yet; yield each as it is done. Raises what `write_shard` raises."""
    pending = [tar for tar in tars if not (out / tar.kind / tar.split / tar.name).exists()]
    for tar in pending:
        (out / tar.kind / tar.split).mkdir(parents=True, exist_ok=True)
    # A server that has imported torch once forks the workers: they start at once, and inherit no lock of a thread of ours.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(workers, context, _worker) as pool:
        for tar, _ in zip(pending, pool.map(_Write(out, patches, max_pixels, tuple(prepare)), pending), strict=True):
            yield tar


def write_manifests(tars: Sequence[Tar], out: Path) -> None:
    """Write ``shards.json`` of every folder, once all tars are there."""
    for kind in SHARD_KINDS:
        for split in SPLITS:
            counts = {tar.name: len(tar.items) for tar in tars if (tar.kind, tar.split) == (kind, split)}
            write_manifest(out / kind / split, counts)


@dataclass(frozen=True)
class _Write:
    out: Path
    patches: PatchParams
    max_pixels: int
    prepare: tuple[str, ...]

    def __call__(self, tar: Tar) -> None:
        path = self.out / tar.kind / tar.split / tar.name
        write_shard(tar.items, path, tar.kind, self.patches, self.max_pixels, self.prepare)


def _worker() -> None:
    """Each process of the pool is one worker; torch would start a thread per CPU in each."""
    import torch

    ranks.end_with_parent()
    torch.set_num_threads(1)
