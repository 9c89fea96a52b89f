"""Batches come in an order that no number of workers changes, and an image's arrays depend on that image alone."""

import numpy as np
import pytest
import torch
from conftest import PATCHES

from nullscope.core.contracts import ContractError
from nullscope.images.transforms import PatchMosaic
from nullscope.shards.loading import SHARDS_PER_BLOCK, epoch_order, read_whole, training_batches
from nullscope.shards.reading import list_shards

VIEW = PatchMosaic(PATCHES.cells, 0.5)


def batches(small, *, size=6, epoch=0, skip=0, workers=0, seed=0):
    shards = small.shards("patches")
    return list(training_batches(shards, VIEW, batch_size=size, seed=seed, epoch=epoch, skip=skip, workers=workers))


def assert_same(left, right):
    assert [batch.image_ids for batch in left] == [batch.image_ids for batch in right]
    for one, other in zip(left, right, strict=True):
        assert torch.equal(one.is_fake_B, other.is_fake_B)
        for name in one.inputs:
            assert torch.equal(one.inputs[name], other.inputs[name]), name


@pytest.mark.parametrize("samples", [[1], [3, 5, 2], [4] * (3 * SHARDS_PER_BLOCK + 1)])
def test_an_epoch_takes_every_sample_once(samples):
    order = epoch_order(samples, seed=1, epoch=2)
    assert sorted(map(tuple, order)) == [(shard, row) for shard, count in enumerate(samples) for row in range(count)]


def test_epochs_and_seeds_differ_and_repeat():
    samples = [50] * 20
    first = epoch_order(samples, seed=0, epoch=0)
    assert np.array_equal(first, epoch_order(samples, seed=0, epoch=0))
    assert not np.array_equal(first, epoch_order(samples, seed=0, epoch=1))
    assert not np.array_equal(first, epoch_order(samples, seed=1, epoch=0))


def test_a_block_is_held_and_no_more():
    """Reading stays local: the samples of a block of shards come together, before any of the next block."""
    order = epoch_order([10] * (2 * SHARDS_PER_BLOCK), seed=0, epoch=0)
    first, second = order[: 10 * SHARDS_PER_BLOCK, 0], order[10 * SHARDS_PER_BLOCK :, 0]
    assert len(set(first)) == SHARDS_PER_BLOCK and not set(first) & set(second)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(small, workers):
    assert_same(batches(small, workers=workers), batches(small))


def test_skipped_batches_are_those_that_are_missing(small):
    assert_same(batches(small, skip=3), batches(small)[3:])


def test_every_batch_is_full_and_labels_are_the_images_own(small):
    all_batches = batches(small)
    assert [len(batch.image_ids) for batch in all_batches] == [6] * 6  # 40 images: 4 wait for the next epoch
    label = {}
    for rows in read_whole(small.shards("patches"), VIEW, workers=0):
        label |= dict(zip(rows.image_ids, rows.labels.tolist(), strict=True))
    for batch in all_batches:
        assert batch.is_fake_B.tolist() == [label[image_id] for image_id in batch.image_ids]


def test_augmentation_depends_on_the_image_alone(small):
    """Another batch size gives an image other neighbours, and the same order of patches and flip."""

    def augmentation(size):
        return {
            image_id: (batch.inputs["order"][row].tolist(), bool(batch.inputs["flip"][row]))
            for batch in batches(small, size=size)
            for row, image_id in enumerate(batch.image_ids)
        }

    small_batches, large_batches = augmentation(2), augmentation(20)
    assert small_batches == large_batches
    assert len({str(order) for order, _ in small_batches.values()}) > 1
    assert {flip for _, flip in small_batches.values()} == {True, False}


def test_augmentation_differs_between_epochs_and_is_still_in_testing(small):
    first, second = batches(small, size=40)[0], batches(small, size=40, epoch=1)[0]
    row = second.image_ids.index(first.image_ids[0])
    assert not torch.equal(first.inputs["order"][0], second.inputs["order"][row])
    once, again = (list(read_whole(small.shards("patches"), VIEW, workers=0)) for _ in range(2))
    for rows, same in zip(once, again, strict=True):
        assert torch.equal(rows.inputs["order"], same.inputs["order"]) and not rows.inputs["flip"].any()


def test_testing_reads_every_sample_once(small):
    read = [image_id for rows in read_whole(small.shards("patches"), VIEW, workers=2) for image_id in rows.image_ids]
    assert read == small.ids


def test_a_missing_tar_is_named(small, tmp_path):
    for file in (small.folder / "patches").glob("*"):
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "train-000002.tar").unlink()
    with pytest.raises(ContractError, match=r"train-000002\.tar"):
        list_shards(tmp_path)
