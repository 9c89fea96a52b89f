"""The batch: what a loader hands to a detector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nullscope.tables.text import TextTable


@dataclass
class Batch:
    """Images of one step. B of them; every tensor on the device of the detector.

    In a training on several ranks ``inputs`` holds this rank's own rows only; everything else is of the whole batch on every
    rank.
    """

    inputs: dict[str, Tensor]  # what the detector's transform returns, stacked: (B, ...)
    is_fake_B: Tensor  # float32, 0 or 1
    image_ids: list[str]
    text_BD: Tensor | None = None  # frozen text features of the captions, where the detector asks for them

    def to(self, device: torch.device, text: TextTable | None = None) -> Batch:
        """Return this batch on ``device``, joined with the features of its captions. Raises `ContractError` if one is missing."""
        inputs = {name: _onto(device, tensor) for name, tensor in self.inputs.items()}
        text_BD = None if text is None else _onto(device, text.rows(self.image_ids))
        return Batch(inputs, _onto(device, self.is_fake_B), self.image_ids, text_BD)


def _onto(device: torch.device, tensor: Tensor) -> Tensor:
    """Return a tensor on ``device``; for CUDA from pinned memory, or the host would wait for the steps that are queued."""
    pinned = tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor
    return pinned.to(device, non_blocking=True)
