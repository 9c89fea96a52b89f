"""From shards to batches, in an order that no number of workers or ranks changes.

Training shuffles in blocks: the shards are put in an order drawn from (seed, epoch), and the samples of every block of
`SHARDS_PER_BLOCK` shards are shuffled among each other. So reading is sequential inside a tar, memory is that of a block, and
the batches are known before the first byte is read: a worker decodes only the samples that are wanted, and a resumed training
starts where it stopped. So does a rank that decodes its own part of every batch: it reads the tars as all ranks do, for the
labels of the whole batch, and decoding is most of the work (a mosaic of 224 px: 1.1 ms to decode, under 0.1 ms to read).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nullscope.core.contracts import ContractError
from nullscope.images.decoder import decode
from nullscope.images.transforms import Transform, image_rng
from nullscope.shards.batch import Batch
from nullscope.shards.reading import Shard, decode_mosaic, read_shard

ANY_SIZE = 2**40  # pixels: the index has refused what is too large
SHARDS_PER_BLOCK = 16  # part of what a training is: another value is another order
ALL = slice(None)


def epoch_order(samples: Sequence[int], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of one epoch over shards of so many samples: (n, 2), the shard and the row in it."""
    rng = np.random.default_rng([seed, epoch])
    shards = rng.permutation(len(samples))
    blocks = []
    for start in range(0, len(shards), SHARDS_PER_BLOCK):
        block = shards[start : start + SHARDS_PER_BLOCK]
        rows = [np.stack([np.full(samples[shard], shard), np.arange(samples[shard])], 1) for shard in block]
        blocks.append(rng.permutation(np.concatenate(rows)))
    return np.concatenate(blocks)


def training_batches(
    shards: list[Shard],
    transform: Transform,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    skip: int,
    workers: int,
    own: slice = ALL,
) -> Iterator[Batch]:
    """Yield the batches of one epoch after the first ``skip``; what does not fill a batch at the end waits for the next epoch.

    ``own`` are the rows of every batch whose inputs are wanted; no other image is decoded.
    """
    order = epoch_order([shard.samples for shard in shards], seed=seed, epoch=epoch)
    count = len(order) // batch_size
    batches = order[: count * batch_size].reshape(count, batch_size, 2)[skip:]
    yield from _assemble(shards, batches, _Reader(shards, transform, draw=(seed, epoch)), workers, own)


def read_whole(shards: list[Shard], transform: Transform, *, workers: int) -> Iterator[Rows]:
    """Yield every sample once, as in testing: one item per shard, in the order of ``shards``."""
    everything = {index: Wanted(range(shard.samples), range(shard.samples)) for index, shard in enumerate(shards)}
    yield from _read_all(_Reader(shards, transform, draw=None), everything, workers)


class Wanted(NamedTuple):
    """What is read of one shard."""

    rows: Sequence[int]
    decoded: Sequence[int]  # those of them whose images are decoded


class Stack(NamedTuple):
    """The inputs of images whose arrays have the same shapes."""

    places: NDArray[np.int64]  # of the images among those that were decoded, ascending
    inputs: dict[str, Tensor]  # (n, ...) each


@dataclass
class Rows:
    """Some samples of one shard; the inputs of those that were decoded, which as a rule are all of them."""

    shard: int
    rows: NDArray[np.int64]  # ascending
    image_ids: list[str]
    labels: Tensor
    stacks: list[Stack]  # one, where all inputs have the same shapes
    decoded: NDArray[np.int64] | None = None  # the rows that were decoded, ascending; None: all

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The inputs of all decoded images, stacked. Raises `ValueError` if their shapes differ."""
        if len(self.stacks) != 1:
            shapes = [tuple(tensor.shape[1:]) for stack in self.stacks[:2] for tensor in stack.inputs.values()]
            raise ValueError(f"expected inputs of equal shapes, found {len(self.stacks)} different ones, such as {shapes}")
        return self.stacks[0].inputs

    def facts(self, row: int) -> tuple[str, float]:
        """Return the id and the label of a row."""
        position = np.searchsorted(self.rows, row)
        return self.image_ids[position], self.labels[position].item()

    def inputs_of(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the inputs of decoded rows, in the order given."""
        chosen = torch.from_numpy(np.searchsorted(self.rows if self.decoded is None else self.decoded, rows))
        return {name: tensor[chosen] for name, tensor in self.inputs.items()}

    def take(self, positions: NDArray[np.int64]) -> Batch:
        """Return samples by their positions, (B,); all of them decoded."""
        chosen = torch.from_numpy(positions)
        inputs = {name: tensor[chosen] for name, tensor in self.inputs.items()}
        return Batch(inputs, self.labels[chosen], [self.image_ids[position] for position in positions])

    def batches(self, size: int) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """Yield all samples, decoded ones, in batches of at most ``size`` and of equal shapes, with their places; without a copy.

        Where all inputs have the same shapes the batches are in order.
        """
        for places, stacked in self.stacks:
            for start in range(0, len(places), size):
                part, here = slice(start, start + size), places[start : start + size]
                inputs = {name: tensor[part] for name, tensor in stacked.items()}
                yield here, Batch(inputs, self.labels[torch.from_numpy(here)], [self.image_ids[place] for place in here])


class _Reader(Dataset):
    """Reads wanted rows of a shard: the item ``(shard, wanted)``. Every worker reads whole tars, one after the other."""

    def __init__(self, shards: list[Shard], transform: Transform, draw: tuple[int, int] | None) -> None:
        self.shards, self.transform, self.draw = shards, transform, draw

    def __getitem__(self, item: tuple[int, Wanted]) -> Rows:
        index, wanted = item
        chosen, decoded, ids, labels = set(wanted.rows), set(wanted.decoded), [], []
        stacked = Stacks(len(wanted.decoded))
        count = 0
        for row, (image_id, label, data) in enumerate(read_shard(self.shards[index].path)):
            count += 1
            if row in chosen:
                ids.append(image_id)
                labels.append(label)
            if row in decoded:
                image = decode_mosaic(data) if self.transform.kind == "patches" else decode(data, max_pixels=ANY_SIZE)
                self._check(image, image_id)
                rng = image_rng(image_id) if self.draw is None else image_rng(image_id, *self.draw)
                stacked.add(self.transform(image, rng, training=self.draw is not None))
        if count != self.shards[index].samples:
            raise ContractError(f"{self.shards[index].path}: expected {self.shards[index].samples} samples, found {count}")
        known = torch.tensor(labels, dtype=torch.float32)
        return Rows(index, np.array(sorted(chosen)), ids, known, stacked.stacks(), np.array(sorted(decoded), dtype=np.int64))

    def _check(self, image_HWC: NDArray[np.uint8], image_id: str) -> None:
        height, width = image_HWC.shape[:2]
        least = self.transform.min_side_px
        if min(height, width) < least and self.transform.kind == "images":  # a mosaic's patches were cut before
            raise ContractError(
                f"image {image_id} has {width}x{height} px, and this detector takes sides of {least} px or more; "
                "take it out of the data set, or the detector out of the run"
            )


class Stacks:
    """The arrays of many images, put together by their shapes."""

    def __init__(self, count: int) -> None:
        self.count, self.filled = count, 0
        # Nearly always all images have the shapes of the first. Each is put in its place as it comes, so that less memory is
        # touched than by `np.stack`.
        self.places: list[int] = []
        self.arrays: dict[str, NDArray] = {}
        self.others: dict[tuple, tuple[list[int], list[dict[str, NDArray]]]] = {}  # by their shapes

    def add(self, inputs: dict[str, NDArray]) -> None:
        """Take the arrays of the next image."""
        if not self.arrays:
            self.arrays = {name: np.empty((self.count, *array.shape), array.dtype) for name, array in inputs.items()}
        if all(self.arrays[name].shape[1:] == array.shape for name, array in inputs.items()):
            for name, array in inputs.items():
                self.arrays[name][len(self.places)] = array
            self.places.append(self.filled)
        else:
            shapes = tuple(array.shape for array in inputs.values())
            places, images = self.others.setdefault(shapes, ([], []))
            places.append(self.filled)
            images.append(inputs)
        self.filled += 1

    def stacks(self) -> list[Stack]:
        """Return what was taken."""
        first = {name: torch.from_numpy(array[: len(self.places)]) for name, array in self.arrays.items()}
        found = [Stack(np.array(self.places, dtype=np.int64), first)]
        for places, images in self.others.values():
            inputs = {name: torch.from_numpy(np.stack([image[name] for image in images])) for name in images[0]}
            found.append(Stack(np.array(places, dtype=np.int64), inputs))
        return found


def _assemble(shards: list[Shard], batches: NDArray[np.int64], reader: _Reader, workers: int, own: slice) -> Iterator[Batch]:
    """Yield ``batches`` (n, B, 2) as soon as their samples have been read; let go of a shard after its last sample."""
    wanted: dict[int, Wanted] = {}
    for shard, row in batches.reshape(-1, 2).tolist():
        wanted.setdefault(shard, Wanted([], [])).rows.append(row)
    for shard, row in batches[:, own].reshape(-1, 2).tolist():
        wanted[shard].decoded.append(row)
    left = {shard: len(each.rows) for shard, each in wanted.items()}
    held: dict[int, Rows] = {}
    arriving = _read_all(reader, wanted, workers)
    for batch in batches:
        counts = dict(zip(*(part.tolist() for part in np.unique(batch[:, 0], return_counts=True)), strict=True))
        while not counts.keys() <= held.keys():
            read = next(arriving)
            held[read.shard] = read
        yield _gather(held, batch, own)
        for shard, count in counts.items():
            left[shard] -= count
            if not left[shard]:
                del held[shard]


def _gather(held: dict[int, Rows], batch: NDArray[np.int64], own: slice) -> Batch:
    """Take the samples (B, 2) of a batch out of the shards that are held, in the batch's order; the inputs of ``own`` only."""
    image_ids, labels = zip(*(held[shard].facts(row) for shard, row in batch.tolist()), strict=True)
    mine, parts, places = batch[own], [], []
    for shard in np.unique(mine[:, 0]):
        place = np.flatnonzero(mine[:, 0] == shard)
        parts.append(held[int(shard)].inputs_of(mine[place, 1]))
        places.append(place)
    back = torch.from_numpy(np.argsort(np.concatenate(places)))
    inputs = {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}
    return Batch(inputs, torch.tensor(labels), list(image_ids))


def _read_all(reader: _Reader, wanted: dict[int, Wanted], workers: int) -> Iterator[Rows]:
    """Yield the wanted rows of every shard in the order of ``wanted``; the workers read ahead, the order stays."""
    yield from DataLoader(reader, batch_size=None, sampler=list(wanted.items()), num_workers=workers, collate_fn=_as_is)


def _as_is(rows: Rows) -> Rows:
    return rows
