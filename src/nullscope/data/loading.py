"""From shards to batches, in an order that no number of workers or ranks changes.

Training shuffles in blocks: the shards are put in an order drawn from (seed, epoch), and the samples of every block of
`SHARDS_PER_BLOCK` shards are shuffled among each other. So reading is sequential inside a tar, memory is that of a block, and
the batches are known before the first byte is read: a worker decodes only the samples that are wanted, and a resumed training
starts where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nullscope.contracts import ContractError
from nullscope.data.images import decode
from nullscope.data.shards import Shard, decode_mosaic, read_shard
from nullscope.data.text import TextTable
from nullscope.data.views import View, image_rng

ANY_SIZE = 2**40  # pixels: the index has refused what is too large
SHARDS_PER_BLOCK = 16  # part of what a training is: another value is another order


@dataclass
class Batch:
    """Images of one step. B of them; every tensor on the device of the detector."""

    inputs: dict[str, Tensor]  # what the detector's view returns, stacked: (B, ...)
    is_fake_B: Tensor  # float32, 0 or 1
    image_ids: list[str]
    text_BD: Tensor | None = None  # frozen text features of the captions, where the detector asks for them

    def to(self, device: torch.device, text: TextTable | None = None) -> Batch:
        """Return this batch on ``device``, joined with the features of its captions. Raises `ContractError` if one is missing."""
        inputs = {name: _sent(tensor, device) for name, tensor in self.inputs.items()}
        text_BD = None if text is None else _sent(text.rows(self.image_ids), device)
        return Batch(inputs, _sent(self.is_fake_B, device), self.image_ids, text_BD)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on ``device``; a GPU fetches it from pinned memory, without this process waiting for what it does now."""
    pinned = tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor
    return pinned.to(device, non_blocking=True)


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
    shards: list[Shard], view: View, *, batch_size: int, seed: int, epoch: int, skip: int, workers: int
) -> Iterator[Batch]:
    """Yield the batches of one epoch after the first ``skip``; what does not fill a batch at the end waits for the next epoch."""
    order = epoch_order([shard.samples for shard in shards], seed=seed, epoch=epoch)
    count = len(order) // batch_size
    batches = order[: count * batch_size].reshape(count, batch_size, 2)[skip:]
    yield from _assemble(shards, batches, _Reader(shards, view, draw=(seed, epoch)), workers)


def read_whole(shards: list[Shard], view: View, *, workers: int) -> Iterator[Rows]:
    """Yield every sample once, as in testing: one item per shard, in the order of ``shards``."""
    everything = {index: range(shard.samples) for index, shard in enumerate(shards)}
    yield from _read_all(_Reader(shards, view, draw=None), everything, workers)


@dataclass
class Rows:
    """Some samples of one shard, stacked."""

    shard: int
    rows: NDArray[np.int64]  # ascending
    image_ids: list[str]
    labels: Tensor
    inputs: dict[str, Tensor]

    def take(self, positions: NDArray[np.int64]) -> Batch:
        chosen = torch.from_numpy(positions)
        inputs = {name: tensor[chosen] for name, tensor in self.inputs.items()}
        return Batch(inputs, self.labels[chosen], [self.image_ids[position] for position in positions])

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all samples in batches of at most ``size``, in order, without a copy."""
        for part in (slice(start, start + size) for start in range(0, len(self.image_ids), size)):
            inputs = {name: tensor[part] for name, tensor in self.inputs.items()}
            yield Batch(inputs, self.labels[part], self.image_ids[part])


class _Reader(Dataset):
    """Reads wanted rows of a shard: the item ``(shard, rows)``. Every worker reads whole tars, one after the other."""

    def __init__(self, shards: list[Shard], view: View, draw: tuple[int, int] | None) -> None:
        self.shards, self.view, self.draw = shards, view, draw

    def __getitem__(self, wanted: tuple[int, Sequence[int]]) -> Rows:
        index, rows = wanted
        chosen, ids, labels, stacked = set(rows), [], [], _Stack(len(rows))
        count = 0
        for row, (image_id, label, data) in enumerate(read_shard(self.shards[index].path)):
            count += 1
            if row in chosen:
                image = decode_mosaic(data) if self.view.kind == "patches" else decode(data, max_pixels=ANY_SIZE)
                rng = image_rng(image_id) if self.draw is None else image_rng(image_id, *self.draw)
                stacked.add(self.view(image, rng, training=self.draw is not None))
                ids.append(image_id)
                labels.append(label)
        if count != self.shards[index].samples:
            raise ContractError(f"{self.shards[index].path}: expected {self.shards[index].samples} samples, found {count}")
        return Rows(index, np.array(sorted(chosen)), ids, torch.tensor(labels, dtype=torch.float32), stacked.tensors())


class _Stack:
    """The arrays of many images, each put in its place as it comes, so that less memory is touched than by `np.stack`."""

    def __init__(self, count: int) -> None:
        self.count, self.filled = count, 0
        self.arrays: dict[str, NDArray] = {}

    def add(self, inputs: dict[str, NDArray]) -> None:
        """Take the arrays of the next image, of the shapes of the first one's."""
        if not self.arrays:
            self.arrays = {name: np.empty((self.count, *array.shape), array.dtype) for name, array in inputs.items()}
        for name, array in inputs.items():
            self.arrays[name][self.filled] = array
        self.filled += 1

    def tensors(self) -> dict[str, Tensor]:
        """Return what was taken, of the first ``filled`` images."""
        return {name: torch.from_numpy(array[: self.filled]) for name, array in self.arrays.items()}


def _assemble(shards: list[Shard], batches: NDArray[np.int64], reader: _Reader, workers: int) -> Iterator[Batch]:
    """Yield ``batches`` (n, B, 2) as soon as their samples have been read; let go of a shard after its last sample."""
    wanted: dict[int, list[int]] = {}
    for shard, row in batches.reshape(-1, 2).tolist():
        wanted.setdefault(shard, []).append(row)
    left = {shard: len(rows) for shard, rows in wanted.items()}
    held: dict[int, Rows] = {}
    arriving = _read_all(reader, wanted, workers)
    for batch in batches:
        counts = dict(zip(*(part.tolist() for part in np.unique(batch[:, 0], return_counts=True)), strict=True))
        while not counts.keys() <= held.keys():
            read = next(arriving)
            held[read.shard] = read
        yield _gather(held, batch)
        for shard, count in counts.items():
            left[shard] -= count
            if not left[shard]:
                del held[shard]


def _gather(held: dict[int, Rows], batch: NDArray[np.int64]) -> Batch:
    """Take the samples (B, 2) of a batch out of the shards that are held, and put them in the batch's order."""
    parts, places = [], []
    for shard in np.unique(batch[:, 0]):
        place = np.flatnonzero(batch[:, 0] == shard)
        parts.append(held[int(shard)].take(np.searchsorted(held[int(shard)].rows, batch[place, 1])))
        places.append(place)
    back = torch.from_numpy(np.argsort(np.concatenate(places)))
    ids = [image_id for part in parts for image_id in part.image_ids]
    return Batch(
        {name: torch.cat([part.inputs[name] for part in parts])[back] for name in parts[0].inputs},
        torch.cat([part.is_fake_B for part in parts])[back],
        [ids[position] for position in back.tolist()],
    )


def _read_all(reader: _Reader, wanted: dict[int, Sequence[int]], workers: int) -> Iterator[Rows]:
    """Yield the wanted rows of every shard in the order of ``wanted``; the workers read ahead, the order stays."""
    yield from DataLoader(reader, batch_size=None, sampler=list(wanted.items()), num_workers=workers, collate_fn=_as_is)


def _as_is(rows: Rows) -> Rows:
    return rows
